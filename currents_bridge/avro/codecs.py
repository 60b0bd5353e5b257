"""The codecs of Avro containers, with a bound on what a block may unpack to.

Codecs: https://avro.apache.org/docs/1.12.0/specification/#required-codecs
"""

import bz2
import lzma
import sys
from collections.abc import Callable
from typing import Protocol

from cramjam import snappy
from isal import isal_zlib

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_RAW_DEFLATE = -15
_XZ_MEMORY_BYTES = 128 * 1024 * 1024  # xz -9 needs 65 MiB to unpack; a hostile header could ask for 4 GiB
_CRC_BYTES = 4

Decompress = Callable[[bytes, int], bytes | memoryview]


def decompressor(codec: str) -> Decompress:
    """Return the function (content, max_bytes) -> bytes of a codec; raises ValueError for an unknown one.

    The function raises ValueError, or the library's own exception, for a block that is damaged or would unpack to
    more than `max_bytes`; it never unpacks much more than that.
    """
    try:
        return _BY_CODEC[codec]
    except KeyError:
        raise ValueError(f"unknown codec {codec[:40]!r}") from None


class _Stream(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _streamed(make: Callable[[], _Stream]) -> Decompress:
    def decompress(content: bytes, max_bytes: int) -> bytes:
        stream = make()
        unpacked = stream.decompress(content, max_bytes + 1)
        if len(unpacked) > max_bytes:
            raise ValueError(_too_large(max_bytes))
        if not stream.eof:
            raise ValueError("the compressed bytes of a block end early")
        return unpacked

    return decompress


def _null(content: bytes, max_bytes: int) -> bytes:
    if len(content) > max_bytes:
        raise ValueError(_too_large(max_bytes))
    return content


def _snappy(content: bytes, max_bytes: int) -> memoryview:
    packed, crc = content[:-_CRC_BYTES], content[-_CRC_BYTES:]
    if snappy.decompress_raw_len(packed) > max_bytes:
        raise ValueError(_too_large(max_bytes))
    unpacked = memoryview(snappy.decompress_raw(packed))
    if isal_zlib.crc32(unpacked) != int.from_bytes(crc, "big"):
        raise ValueError("the checksum of a block is wrong")
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
