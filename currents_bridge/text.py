"""Texts from outside as any database can hold them and any terminal can show them."""

import re

MAX_REASON_CHARS = 1_000
MAX_CAUSE_CHARS = 200
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def words(text: str, max_chars: int = MAX_REASON_CHARS) -> str:
    """Return the text cut to a length, and plain.

    Lone surrogates and control characters other than line breaks and tabs become U+FFFD.
    """
    clean = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text[: max_chars + 1])
    return clean if len(clean) <= max_chars else clean[: max_chars - 3] + "..."


_PATH_OF_URL = re.compile(r"(\w+://[^/\s]+/)\S*[^\s.,:;)]")
_KEY = re.compile(r"(?<!\S)(?!\w+://)\S+/\S*[^\s.,:;)]")
_ID = re.compile(r"\b(?=[\w-]*\d)[\w-]{12,}")
_NUMBER = re.compile(r"(?<![\w.:/])(?![1-5]\d\d(?![\w.,:]*\d))\d[\d.,:]*(?<=\d)")  # but a status of HTTP


def cause_of(reason: str) -> str:
    """Return a reason without what is of one object only: keys, ids and numbers other than a status of HTTP.

    So the reasons of a million objects come to a few causes.
    """
    plain = _PATH_OF_URL.sub(r"\1…", words(reason))
    plain = _ID.sub("…", _KEY.sub("…", plain))
    return words(_NUMBER.sub("N", plain), MAX_CAUSE_CHARS)
