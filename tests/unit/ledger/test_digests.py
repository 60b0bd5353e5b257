"""Folds: small, and they forget nothing."""

import hypothesis.strategies as st
from hypothesis import given

from currents_bridge.ledger.inventory.digests import has_etag, knows, merge, parts

listings = st.dictionaries(st.text(max_size=20), st.text(max_size=5), max_size=50)


@given(listings, listings)
def test_a_fold_knows_what_was_merged_and_nothing_else(first: dict[str, str], second: dict[str, str]) -> None:
    """In two steps or in one; the later ETag counts."""
    fold = merge(merge(b"", first.items()), second.items())
    assert fold == merge(b"", (first | second).items())
    for key, etag in (first | second).items():
        assert knows(fold, key)
        assert has_etag(fold, key, etag)
        assert has_etag(fold, key, etag + "'") is False
    assert not knows(fold, "a key longer than any other")
    assert has_etag(fold, "a key longer than any other", "") is None


@given(listings)
def test_an_object_costs_ten_bytes(listed: dict[str, str]) -> None:
    """10 million folded objects fit into 200 MB with the rows around them."""
    assert len(merge(b"", listed.items())) == 10 * len(listed)


def test_parts_make_the_fold_again() -> None:
    """None is so long that SQLite would move it out of its page: less than 1,002 bytes with its row's ids."""
    fold = merge(b"", ((f"key-{number}", "etag") for number in range(1_000)))
    assert b"".join(parts(fold)) == fold
    assert max(map(len, parts(fold))) < 900
    assert list(parts(b"")) == []
