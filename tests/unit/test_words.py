"""Texts from outside: what reasons have in common."""

import pytest

from currents_bridge.text import MAX_CAUSE_CHARS, cause_of

KEY = "d.S3.integration.i/event_type=users.Click/date=2026-01-01-03/1/z/d+0+12.avro"


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        (f"not readable as Avro at byte 8,123,456 of {KEY}: cut", "not readable as Avro at byte N of …: cut"),
        ("segment answered 503", "segment answered 503"),
        ("row 12345.", "row N."),
        ("request 4442587FB7D0A2F9 of 01234567-89ab-cdef-0123-456789abcdef", "request … of …"),
        (f"s3://acme/{KEY}, twice", "s3://acme/…, twice"),
        ("no Avro", "no Avro"),
    ],
)
def test_a_cause_is_the_reason_without_what_is_of_one_object(reason: str, cause: str) -> None:
    """Keys, ids and numbers, but for a status of HTTP."""
    assert cause_of(reason) == cause


def test_a_cause_is_short() -> None:
    """A reason may quote a thousand characters."""
    assert len(cause_of("no " * 1_000)) == MAX_CAUSE_CHARS
