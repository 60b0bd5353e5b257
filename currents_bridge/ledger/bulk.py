"""Many rows or values at once, without SQLAlchemy's work on every single one, and without a statement for each number.

SQLite and SQLAlchemy keep the statements that they have seen: one that names each of its values would be another one
for each number of them, and the memory of a daemon would grow for days.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

import orjson
from sqlalchemy import BindParameter, ColumnElement, Connection, Insert, Update, func, select, tuple_
from sqlalchemy.dialects.sqlite import dialect


def among(column: ColumnElement[Any], values: Iterable[str | int] | BindParameter[Any]) -> ColumnElement[bool]:
    """Return that a column holds one of the values, any number of which are one parameter; bound later `as_json`."""
    one = values if isinstance(values, BindParameter) else as_json(values)
    return column.in_(select(func.json_each(one).table_valued("value").c.value))


def pair_among(
    first: ColumnElement[str], second: ColumnElement[str], values: Iterable[tuple[str, str]]
) -> ColumnElement[bool]:
    """Return that two columns hold one of the pairs."""
    each = func.json_each(as_json(values)).table_valued("value")
    return tuple_(first, second).in_(select(*(func.json_extract(each.c.value, f"$[{n}]") for n in (0, 1))))


def as_json(values: Iterable[object]) -> str:
    """Return the values as the one parameter that they are."""
    return orjson.dumps(list(values)).decode()


def execute_many(connection: Connection, statement: Insert | Update, rows: Sequence[Mapping[str, Any]]) -> None:
    """Execute the statement for each row, as `connection.execute` would; all rows hold the same names.

    There, SQLAlchemy takes 5 us to prepare a row, and SQLite 1 us to find it. Here, values go to the driver as they
    are, so a time is given as `time_text`. The statement is a constant of its module, since it is kept; what is the
    same for all rows may stand in it as `null()` or `text`.
    """
    if rows:
        sql, names = _compiled(statement, tuple(rows[0]))
        connection.exec_driver_sql(sql, list(map(itemgetter(*names), rows)))


@lru_cache(maxsize=32)
def _compiled(statement: Insert | Update, names: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the statement in SQL, and the names of its parameters in order."""
    compiled = statement.compile(dialect=dialect(paramstyle="qmark"), column_keys=list(names))
    return str(compiled), compiled.positiontup or ()
