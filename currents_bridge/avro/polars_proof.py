"""Proof that what polars decoded is what the bytes say, by columns, without a look at single events.

polars takes any branch of a union but the null for the value, any byte of a boolean but 1 for false, cuts numbers off
that are too large, and reads numbers of any length. Each way of writing a value badly takes as many bytes as the best
one or more. So where the sizes of all values, written in the best way, add up to the bytes there are, each stands where
that sum says; then it is enough to look at the bytes whose bits polars ignores. Records that are written well but in
another way, as arrays in several parts, are not proven: the strict decoder has them.
"""

from collections.abc import Sequence
from typing import cast

import polars as pl

from currents_bridge.avro.schema import AvroType

_TAG_BITS = 2  # of a union of two: branch 0 is written as 0, branch 1 as 2
_LAST_BYTE = {"boolean": (1, 1), "int": (5, 15), "long": (10, 1)}  # of the longest values: bytes, bits of the last
_FIXED_BYTES = {"boolean": 1, "float": 4, "double": 8}
_INDEX = pl.UInt32()
_ZERO, _ONE = (pl.Series([number], dtype=_INDEX) for number in (0, 1))

_Bits = dict[int, list[pl.Series]]  # bits that may be set in bytes -> where those bytes stand


def is_as_written(events: pl.DataFrame, schema: AvroType, body: bytes, start: int, size_bytes: int) -> bool:
    """Whether so many bytes of `body` from `start` on are the records of these columns, each value written well."""
    columns = _Columns(events.get_columns(), schema.parts)
    offsets = [_ZERO.new_from_index(0, events.height)]
    for size in columns.sizes:
        offsets.append(offsets[-1] + size)
    row_sizes = offsets.pop()
    ends = row_sizes.cum_sum()
    if ends[-1] != size_bytes:
        return False
    bits: _Bits = {}
    columns.add_places(offsets, ends - row_sizes + start, bits)
    content = pl.Series([body], dtype=pl.Binary).cast(pl.List(pl.UInt8)).explode()
    return all(_within(content, pl.concat(places), allowed) for allowed, places in bits.items())


def _within(content: pl.Series, places: pl.Series, allowed: int) -> bool:
    """Whether the bytes at these places have no other bits than the allowed ones."""
    return not (content[places] & (255 - allowed)).max()


class _Columns:
    """Columns and how many bytes each of their values takes at least; what is done for many at once costs less."""

    def __init__(self, columns: Sequence[pl.Series], types: Sequence[AvroType]) -> None:
        self._groups: dict[tuple[str, bool], list[int]] = {}  # kind of the values, and whether they may be null
        self._arrays: dict[int, _Arrays] = {}
        self.sizes: list[pl.Series | int] = [0] * len(columns)
        for place, avro_type in enumerate(types):
            nullable, value = avro_type.kind == "union", avro_type.values[0]
            if value.kind == "array":
                arrays = self._arrays[place] = _Arrays(columns[place], value.parts[0], nullable=nullable)
                self.sizes[place] = arrays.sizes
            else:
                self._groups.setdefault((value.kind, nullable), []).append(place)
        height = len(columns[0])
        self._sizes: dict[tuple[str, bool], pl.Series | int] = {}
        for group, places in self._groups.items():
            sizes = self._sizes[group] = _sizes(*group, pl.concat([columns[n] for n in places]))
            for n, place in enumerate(places):
                self.sizes[place] = sizes if isinstance(sizes, int) else sizes.slice(n * height, height)

    @property
    def may_lie(self) -> bool:
        """Whether any of their bytes has bits that polars ignores."""
        return bool(self._arrays) or any(_may_lie(*group) for group in self._groups)

    def add_places(self, offsets: Sequence[pl.Series], starts: pl.Series, bits: _Bits) -> None:
        """Add where bytes stand of which only some bits may be set; a value lies at its offset in its row."""
        for (kind, nullable), places in self._groups.items():
            if _may_lie(kind, nullable):
                at = pl.concat([offsets[place] for place in places]) + pl.concat([starts] * len(places))
                _add_places(kind, nullable, self._sizes[kind, nullable], at, bits)
        for place, arrays in self._arrays.items():
            arrays.add_places(offsets[place] + starts, bits)


class _Arrays:
    """A column of arrays, null or not."""

    def __init__(self, column: pl.Series, item: AvroType, *, nullable: bool) -> None:
        self._nullable = nullable
        self._lengths, nulls = column.list.len(), column.is_null()
        if column.null_count():
            self._lengths = _ZERO.zip_with(nulls, self._lengths)
        self._items = _Columns([column.explode(empty_as_null=False, keep_nulls=False)], [item])
        (sizes,) = self._items.sizes
        ends = self._lengths.cum_sum()
        each = sizes if isinstance(sizes, pl.Series) else _ZERO.new_from_index(0, ends[-1]) + sizes
        self._through = pl.concat([_ZERO, each.cum_sum()])  # bytes of so many items, in whatever array
        self._firsts = self._through[ends - self._lengths]
        self._head_bytes = (self._lengths > 0).cast(_INDEX) * _number_bytes(self._lengths) + nullable
        self.sizes = self._through[ends] - self._firsts + self._head_bytes + (~nulls).cast(_INDEX)

    def add_places(self, at: pl.Series, bits: _Bits) -> None:
        """Add where bytes stand of which only some bits may be set."""
        if self._nullable:
            bits.setdefault(_TAG_BITS, []).append(at)
        if self._items.may_lie:
            full = self._lengths > 0
            begins = (at + self._head_bytes).cast(pl.Int64) - self._firsts  # as if this array held all items before
            each = pl.select(pl.lit(begins.filter(full)).repeat_by(self._lengths.filter(full)).explode()).to_series()
            self._items.add_places([self._through.head(len(each))], each.cast(_INDEX), bits)


def _sizes(kind: str, nullable: bool, values: pl.Series) -> pl.Series | int:  # noqa: FBT001 - a key of the groups
    """Return how many bytes values of a kind take at least."""
    match kind:
        case "string":
            lengths = values.str.len_bytes()
            sizes: pl.Series | int = lengths + _number_bytes(lengths, nullable)
        case "int" | "long":
            sizes = _number_bytes(_magnitudes(values), nullable)
        case _:
            sizes = _FIXED_BYTES[kind] + nullable
    if not values.null_count():
        return sizes
    each = sizes if isinstance(sizes, pl.Series) else _ONE * sizes
    return _ONE.zip_with(values.is_null(), each)  # `fill_null` takes four times as long


def _may_lie(kind: str, nullable: bool) -> bool:  # noqa: FBT001 - as above
    return nullable or kind in _LAST_BYTE


def _add_places(kind: str, nullable: bool, sizes: pl.Series | int, at: pl.Series, bits: _Bits) -> None:  # noqa: FBT001 - as above
    if nullable:
        bits.setdefault(_TAG_BITS, []).append(at)
    if kind in _LAST_BYTE:
        longest, allowed = _LAST_BYTE[kind]
        longest += nullable
        if isinstance(sizes, pl.Series):
            at = at.filter(sizes == longest)
        if isinstance(sizes, pl.Series) or sizes == longest:
            bits.setdefault(allowed, []).append(at + (longest - 1))


def _magnitudes(values: pl.Series) -> pl.Series:
    """Return numbers of the same length when written, none of them negative."""
    values = values.cast(pl.Int64)
    negative = cast("int", values.min() or 0) < 0
    return pl.select(pl.max_horizontal(values, -1 - values)).to_series() if negative else values


def _number_bytes(values: pl.Series, more: int = 0) -> pl.Series | int:
    """Return how many bytes numbers that are not negative take, and so many more.

    There are seven bits in each byte, one of them all is the sign.
    """
    least, most = cast("int", values.min() or 0), cast("int", values.max() or 0)
    size: pl.Series | int = 1 + more
    for bits in range(6, 63, 7):
        limit = 1 << bits
        if most < limit:
            break
        size = size + (1 if least >= limit else (values >= limit).cast(_INDEX))
    return size
