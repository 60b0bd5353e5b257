"""A customer's own properties, which Braze hands on as JSON text, among those of a message: digit by digit.

Decoding and encoding costs digits of long numbers, and an encoder has limits that a decoder has not: an object with
such values is cut into members whose text stays. What Segment cannot take is replaced where it stands: a lone surrogate
by U+FFFD, a literal that no JSON number or no double can be (`NaN`, `1e400`) by a text of it, a value that is nested
too deeply by its text.
"""

import json
import re

import orjson
import polars as pl

MAX_LEVELS = 500  # of a value; Python's own decoder, which consumers use, ends below 1,000

_QUICK_LEVELS = 200  # orjson's encoder ends at 254
# a number of more digits than a double has for certain, or with an exponent; perhaps only a text that looks so
_DELICATE = r"[:,\[][ \t\n\r]*-?(?:[0-9.]{16}|[0-9.]+[eE])"
_SPACE = " \t\n\r"  # what JSON takes for white space
# takes control characters, lone surrogates and any digits; returns a value and where it ends
_decoded_at = json.JSONDecoder(strict=False, parse_int=float).raw_decode
_START = re.compile(r"\ufeff?[ \t\n\r]*\{[ \t\n\r]*")
_COLON = re.compile(r"[ \t\n\r]*:[ \t\n\r]*")
_NEXT = re.compile(r'[ \t\n\r]*(?:,[ \t\n\r]*(?=")|(\}[ \t\n\r]*\Z))')
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SIGNIFICANT = re.compile(rf'{_STRING}|[^ \t\n\r"]+', re.DOTALL)
_LITERAL = re.compile(rf"{_STRING}|NaN|-?Infinity|-?\d[\d.eE+-]*+", re.DOTALL)
_BRACKET = re.compile(rf"{_STRING}|([\[{{])|([\]}}])", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


def merged(properties: pl.Series, texts: pl.Series, names: frozenset[str]) -> pl.Series:
    """Return JSON objects, whose members have some of the names, with the members of the JSON objects in texts.

    Members that are null are left out, the last of a repeated name counts, and those of `properties` win. Text that is
    no JSON object becomes the member `properties`; null and empty text change nothing.
    """
    delicate = texts.str.contains(_DELICATE) | (texts.str.count_matches(r"[\[{]") > _QUICK_LEVELS)
    each = zip(properties.to_list(), texts.to_list(), delicate.to_list(), strict=True)
    return pl.Series([_merged(ours, text, names, delicate) for ours, text, delicate in each], dtype=pl.String)


def _merged(ours: str, text: str | None, names: frozenset[str], delicate: bool) -> str:  # noqa: FBT001 - a column
    if not text:
        return ours
    custom = (not delicate and _quickly(text, ours, names)) or _one_by_one(text, orjson.loads(ours))
    return f"{{{','.join(filter(None, (custom[1:-1], ours[1:-1])))}}}"


def _quickly(text: str, ours: str, names: frozenset[str]) -> str:
    """Return the object of wanted members by a decoder and an encoder; nothing where they do not take it."""
    try:
        decoded = orjson.loads(text)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(decoded, dict):
        return ""
    taken = () if names.isdisjoint(decoded) else orjson.loads(ours)
    return orjson.dumps({k: v for k, v in decoded.items() if v is not None and k not in taken}).decode()


def _one_by_one(text: str, ours: dict[str, object]) -> str:
    """Return the object of the members that are neither null nor ours, their values as they stand in the text."""
    try:
        members = _members(_flattened(text))
    except ValueError:
        members = {"properties": orjson.dumps(text).decode()}
    wanted = (
        f"{orjson.dumps(name).decode()}:{_mended(value)}"
        for name, value in members.items()
        if value != "null" and name not in ours
    )
    return f"{{{','.join(wanted)}}}"


def _members(text: str) -> dict[str, str]:
    """Return the text of each member's value; raises ValueError where it is no JSON object."""
    members: dict[str, str] = {}
    at = _end(_START.match(text))
    while text[at : at + 1] == '"':
        name, at = _decoded_at(text, at)
        start = _end(_COLON.match(text, at))
        _, at = _decoded_at(text, start)
        members[_SURROGATE.sub("\ufffd", name)] = text[start:at]
        following = _NEXT.match(text, at)
        at = _end(following)
        if following and following[1]:
            return members
    if text[at:].rstrip(_SPACE) != "}":
        raise ValueError("no member where one should be")
    return members


def _end(found: re.Match[str] | None) -> int:
    if found is None:
        raise ValueError("no JSON object")
    return found.end()


def _flattened(text: str) -> str:
    """Return a text whose members that are nested too deeply are texts; raises ValueError for one without an end.

    Decoders recurse, and some versions of Python's end the process by it.
    """
    if text.count("[") + text.count("{") <= MAX_LEVELS:
        return text
    parts, kept, level, start, levels = [], 0, 0, 0, 0
    for bracket in _BRACKET.finditer(text):
        if bracket[1]:
            start, levels = (bracket.start(), 1) if level == 1 else (start, max(levels, level))
            level += 1
        elif bracket[2]:
            level -= 1
            if level == 1 and levels > MAX_LEVELS:
                parts += [text[kept:start], orjson.dumps(text[start : bracket.end()]).decode()]
                kept = bracket.end()
    if level:
        raise ValueError("a value without an end")
    return "".join([*parts, text[kept:]])


def _mended(value: str) -> str:
    """Return a value, which Python's decoder takes, as Segment takes it, without white space between its parts."""
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        value = _LITERAL.sub(_replaced, value)
    return "".join(_SIGNIFICANT.findall(value))


def _replaced(literal: re.Match[str]) -> str:
    text = literal[0]
    if text.startswith('"'):
        plain = _SURROGATE.sub("\ufffd", json.loads(text, strict=False))
        return orjson.dumps(plain).decode()
    return text if abs(float(text)) < float("inf") else f'"{text}"'
