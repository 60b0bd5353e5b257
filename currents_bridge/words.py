"""Texts from outside as any database can hold them and any terminal can show them."""

import re

MAX_REASON_CHARS = 1_000
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def words(text: str, max_chars: int = MAX_REASON_CHARS) -> str:
    """Return the text cut to a length, and plain.

    Lone surrogates and control characters other than line breaks and tabs become U+FFFD.
    """
    clean = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text[: max_chars + 1])
    return clean if len(clean) <= max_chars else clean[: max_chars - 3] + "..."
