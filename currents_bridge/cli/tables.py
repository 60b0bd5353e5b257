"""Tables that are read at any width: what does not fit beside each other stands below each other, each number whole."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

MIN_TEXT_COLUMNS = 32  # of a terminal, for a text that may be broken into lines


def name_column(header: str) -> Column:
    """Return a column of names, times and the like, which are never broken."""
    return Column(header, no_wrap=True, overflow="fold")


def number_column(header: str) -> Column:
    """Return a column of numbers."""
    return Column(header, no_wrap=True, overflow="fold", justify="right")


def text_column(header: str) -> Column:
    """Return a column of sentences and keys, which may be broken anywhere."""
    return Column(header, overflow="fold")


def table_of(*columns: Column) -> Table:
    """Return an empty table."""
    return Table(*columns, box=None, pad_edge=False)


def fitting(table: Table, width: int) -> RenderableType:
    """Return the table as it is where it fits into so many columns of a terminal, else its rows one below the other."""
    needed = sum(_needed(column) for column in table.columns) + 2 * (len(table.columns) - 1)
    if needed <= width:
        return table
    rows = zip(*(map(_plain, column.cells) for column in table.columns), strict=True)
    return Group(*(_upright(table.columns, row) for row in rows))


def _needed(column: Column) -> int:
    widest = max(cell_len(_plain(cell)) for cell in (column.header, *column.cells))
    return widest if column.no_wrap else min(widest, max(MIN_TEXT_COLUMNS, cell_len(_plain(column.header))))


def _upright(columns: Sequence[Column], row: Sequence[str]) -> Table:
    """Return one row as lines of name and value, an empty line after them; what is empty is left out."""
    is_number = [column.justify == "right" for column in columns]
    digits = max((len(value) for value, number in zip(row, is_number, strict=True) if number), default=0)
    upright = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2, 0, 0))
    for column, value, number in zip(columns, row, is_number, strict=True):
        if value:
            shown = value.rjust(digits) if number else value
            upright.add_row(_plain(column.header), Text(shown, overflow="fold"))
    upright.add_row()
    return upright


def _plain(cell: RenderableType) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)
