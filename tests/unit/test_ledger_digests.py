"""Folds: small, and they forget nothing."""

import hypothesis.strategies as st
from hypothesis import given

from currents_bridge.adapters.ledger_digests import has_etag, knows, merge

listings = st.dictionaries(st.text(max_size=20), st.text(max_size=5), max_size=50)


@given(listings, listings)
def test_a_fold_knows_what_was_merged_and_nothing_else(first: dict[str, str], second: dict[str, str]) -> None:
    """In two steps or in one; the later ETag counts."""
    fold = merge(merge(b"", first.items()), second.items())
    assert fold == merge(b"", (first | second).items())
    for key, etag in (first | second).items():
        assert knows(fold, key)
        assert has_etag(fold, key, etag)
        assert not has_etag(fold, key, etag + "'")
    assert not knows(fold, "a key longer than any other")


@given(listings)
def test_an_object_costs_twelve_bytes(listed: dict[str, str]) -> None:
    """10 million folded objects fit into 200 MB with the rows around them."""
    assert len(merge(b"", listed.items())) == 12 * len(listed)
