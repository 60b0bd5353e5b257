import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from currents_bridge.cli.tables import fitting, name_column, number_column, table_of, text_column

KEY = "currents/event_type=users.messages.email.Click/date=2026-01-02-03/414/part-0000.avro"


def shown(width: int, *rows: tuple[str, str, str]) -> list[str]:
    """Return what a table of names, numbers and texts is on a terminal of that width, without its empty lines."""
    table = table_of(name_column("connector"), number_column("sent"), text_column("key"))
    for name, number, text in rows:
        table.add_row(name, number, Text(text))
    screen = io.StringIO()
    Console(file=screen, width=width, markup=False, highlight=False).print(fitting(table, width))
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return [line.rstrip() for line in lines if line.strip()]


def test_what_fits_stands_side_by_side() -> None:
    """A row a line."""
    assert shown(80, ("production", "1,234", "a"), ("b", "5", "c")) == [
        "connector    sent  key",
        "production  1,234  a",
        "b               5  c",
    ]


def test_what_does_not_fit_stands_one_below_the_other() -> None:
    """Numbers under each other, texts folded beside their name, empty ones left out."""
    assert shown(40, ("production", "1,234,567", KEY[:40]), ("b", "5", "")) == [
        "connector  production",
        "sent       1,234,567",
        "key        currents/event_type=users.mes",
        "           sages.email",
        "connector  b",
        "sent       5",
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
@given(st.integers(0, 10**18 - 1), st.integers(1, 40))
def test_numbers_and_names_are_whole_at_any_width(width: int, number: int, length: int) -> None:
    """And no text loses a character."""
    name = "n" * length
    lines = shown(width, (name, f"{number:,}", KEY))

    assert any(f"{number:,}" in line.split() for line in lines)
    assert any(name in line.split() for line in lines)
    assert KEY in "".join(line.split()[-1] for line in lines)
