"""Folded objects: what the ledger still knows of an object once its row is gone.

A fold is a sorted run of entries of 10 bytes: 7 of the key's digest, 3 of the ETag's. A new object that comes into an
hour and type of 10,000 folded ones is taken for one of them with a chance of 1 in 7 * 10^12, and two of those 10,000
share a digest, so that one of them looks changed, with a chance of 1 in 10^9. A changed ETag goes unseen once in
17 million.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from hashlib import blake2b

_KEY_BYTES = 7
_ETAG_BYTES = 3
_ENTRY_BYTES = _KEY_BYTES + _ETAG_BYTES
_PART_BYTES = 48 * _ENTRY_BYTES  # eight parts fill a page of 4096 bytes


def _key_digest(key: str) -> bytes:
    return blake2b(key.encode(), digest_size=8).digest()[:_KEY_BYTES]


def _etag_digest(etag: str) -> bytes:
    return blake2b(etag.encode(), digest_size=4).digest()[:_ETAG_BYTES]


def merge(fold: bytes, objects: Iterable[tuple[str, str]]) -> bytes:
    """Return the fold with more objects, given as (key, ETag); an object that is already in it takes the new ETag."""
    entries = {fold[at : at + _KEY_BYTES]: fold[at + _KEY_BYTES : at + _ENTRY_BYTES] for at in _starts(fold)}
    entries.update((_key_digest(key), _etag_digest(etag)) for key, etag in objects)
    return b"".join(key + etag for key, etag in sorted(entries.items()))


def without(fold: bytes, keys: Iterable[str]) -> bytes:
    """Return the fold without some of its objects."""
    gone = {_key_digest(key) for key in keys}
    entries = (fold[at : at + _ENTRY_BYTES] for at in _starts(fold))
    return b"".join(entry for entry in entries if entry[:_KEY_BYTES] not in gone)


def parts(fold: bytes) -> Iterator[bytes]:
    """Cut a fold into the parts that a ledger keeps; they make it again when they are joined."""
    return (fold[start : start + _PART_BYTES] for start in range(0, len(fold), _PART_BYTES))


def knows(fold: bytes, key: str) -> bool:
    """Whether the object is in the fold."""
    return _etag_in(fold, key) is not None


def has_etag(fold: bytes, key: str, etag: str) -> bool | None:
    """Whether the object is in the fold with this very ETag; None where it is not in the fold."""
    known = _etag_in(fold, key)
    return None if known is None else known == _etag_digest(etag)


def _starts(fold: bytes) -> range:
    return range(0, len(fold), _ENTRY_BYTES)


def _etag_in(fold: bytes, key: str) -> bytes | None:
    digest = _key_digest(key)
    at = _ENTRY_BYTES * bisect_left(_starts(fold), digest, key=lambda start: fold[start : start + _KEY_BYTES])
    entry = fold[at : at + _ENTRY_BYTES]
    return entry[_KEY_BYTES:] if entry.startswith(digest) else None
