"""The codecs of Avro containers, with a bound on what a block may unpack to.

Codecs: https://avro.apache.org/docs/1.12.0/specification/#required-codecs
"""

import bz2
import lzma
import sys
from collections.abc import Callable
from typing import Protocol

from cramjam import DecompressionError, snappy
from isal import isal_zlib

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_RAW_DEFLATE = -15
_XZ_MEMORY_BYTES = 128 * 1024 * 1024  # xz -9 needs 65 MiB to unpack; a hostile header could ask for 4 GiB
_CRC_BYTES = 4
_FIRST_BYTES = 64 * 1024  # of a block, unpacked at once; writers of Avro make blocks of that size

Decompress = Callable[[bytes, int], bytes | memoryview]


def decompressor(codec: str) -> Decompress:
    """Return the function (content, max_bytes) -> bytes of a codec; raises ValueError for an unknown one.

    The function raises UnpackError for a block that is damaged or would unpack to more than `max_bytes`; it never
    unpacks much more than that.
    """
    try:
        return _BY_CODEC[codec]
    except KeyError:
        raise ValueError(f"unknown codec {codec[:40]!r}") from None


class UnpackError(ValueError):
    """A block that cannot be unpacked; `unpacked_bytes` is what was made of it in vain, at most."""

    def __init__(self, reason: str, unpacked_bytes: int) -> None:
        super().__init__(reason)
        self.unpacked_bytes = unpacked_bytes


class _Stream(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _streamed(make: Callable[[], _Stream]) -> Decompress:
    def decompress(content: bytes, max_bytes: int) -> bytes:
        stream, pieces = make(), list[bytes]()
        unpacked_bytes, asked_bytes = 0, _FIRST_BYTES
        reason = ""
        try:
            while not (stream.eof or reason):
                piece = stream.decompress(content, min(asked_bytes, max_bytes + 1) - unpacked_bytes)
                content = getattr(stream, "unconsumed_tail", b"")  # of zlib; the others keep it themselves
                pieces.append(piece)
                unpacked_bytes += len(piece)
                asked_bytes *= 2  # not all at once, so that the cost of a failure is known
                if unpacked_bytes > max_bytes:
                    reason = _too_large(max_bytes)
                elif not (piece or stream.eof):
                    reason = "the compressed bytes of a block end early"
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - each codec has its own
            reason = str(error) or type(error).__name__
        if reason:
            raise UnpackError(reason, min(asked_bytes, max_bytes))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    return decompress


def _null(content: bytes, max_bytes: int) -> bytes:
    if len(content) > max_bytes:
        raise UnpackError(_too_large(max_bytes), 0)
    return content


def _snappy(content: bytes, max_bytes: int) -> memoryview:
    packed, crc = content[:-_CRC_BYTES], content[-_CRC_BYTES:]
    size_bytes = 0
    try:
        size_bytes = snappy.decompress_raw_len(packed)
        if size_bytes > max_bytes:
            raise UnpackError(_too_large(max_bytes), 0)
        unpacked = memoryview(snappy.decompress_raw(packed))
    except DecompressionError as error:
        raise UnpackError(str(error), size_bytes) from error
    if isal_zlib.crc32(unpacked) != int.from_bytes(crc, "big"):
        raise UnpackError("the checksum of a block is wrong", size_bytes)
    return unpacked


def _too_large(max_bytes: int) -> str:
    return f"a block unpacks to more than {max_bytes} bytes"


_BY_CODEC: dict[str, Decompress] = {
    "null": _null,
    "deflate": _streamed(lambda: isal_zlib.decompressobj(_RAW_DEFLATE)),
    "snappy": _snappy,
    "zstandard": _streamed(zstd.ZstdDecompressor),
    "bzip2": _streamed(bz2.BZ2Decompressor),
    "xz": _streamed(lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)),
}
