"""A customer's own properties among those of Braze: every digit, every name, nothing invalid."""

import json
import re
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.events.custom_properties import MAX_LEVELS, merged

SURROGATE = re.compile("[\ud800-\udfff]")


def merge(text: str | None, ours: str = '{"name":"n"}') -> str:
    """Return the merged object of one event."""
    (found,) = merged(pl.Series([ours]), pl.Series([text], dtype=pl.String), frozenset({"name", "app_id"}))
    return str(found)


def exact(text: str) -> Any:
    """Decode JSON with all digits; refuses what JSON does not have."""

    def refuse(literal: str) -> None:
        raise AssertionError(literal)

    return json.loads(text, parse_float=Decimal, parse_constant=refuse)


@pytest.mark.parametrize("text", [None, ""])
def test_no_text_changes_nothing(text: str | None) -> None:
    """Most events have properties of their own, some have none."""
    assert merge(text) == '{"name":"n"}'


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r'{"title":"cut off \ud83d","plan":"gold"}', {"title": "cut off �", "plan": "gold"}),
        (r'{"a":"\udc00\ud83d\ude00\ud83d","b":1}', {"a": "�😀�", "b": 1}),
        (r'{"not one":"\\ud83d","\ud83d":NaN}', {"not one": "\\ud83d", "�": "NaN"}),
        ('{"a":1e400,"b":[-1e400,1],"c":1}', {"a": "1e400", "b": ["-1e400", 1], "c": 1}),
        ('{"a":NaN,"b":{"c":-Infinity},"d":Infinity}', {"a": "NaN", "b": {"c": "-Infinity"}, "d": "Infinity"}),
        ('{"a":%s}' % ("9" * 5000), {"a": "9" * 5000}),
        ('\ufeff{"a":1}', {"a": 1}),
        ('{"a":"tab\tand\nline"}', {"a": "tab\tand\nline"}),
        ('{"a":1,"a":2}', {"a": 2}),
        ('{"a":null,"a":2,"b":1,"b":null}', {"a": 2}),
        ('{"a":{"b":null},"c":[null],"d":null}', {"a": {"b": None}, "c": [None]}),
        (r'{"\u0061pp_id":3,"\u006eame":"x"}', {"app_id": 3}),
        ('{"":0,"q\\"":0,"\\"\\":0":"\\":null"}', {"": 0, 'q"': 0, '"":0': '":null'}),
        (' \r\n{ "a" :\t1 , "b":[ 1 , "x  y" ] } ', {"a": 1, "b": [1, "x  y"]}),
        ("{}", {}),
        ("{ }", {}),
    ],
)
def test_names_stay_properties_whatever_the_values(text: str, wanted: dict[str, Any]) -> None:
    """What Segment cannot take is replaced where it stands, and nothing else changes."""
    assert exact(merge(text)) == wanted | {"name": "n"}


@pytest.mark.parametrize(
    "number",
    ["18446744073709551617", "-9223372036854775809", "0.1234567890123456789012345", "1e-400", "2.50e+10", "1E5"],
)
def test_digits_stay_as_they_are(number: str) -> None:
    """Also such as a double has no room for."""
    assert merge(f'{{"a":{number},"b":[{number}],"c":null}}') == f'{{"a":{number},"b":[{number}],"name":"n"}}'


@pytest.mark.parametrize("levels", [200, 260, MAX_LEVELS - 1])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_values_arrive_as_they_are(levels: int, opening: str, closing: str) -> None:
    """An encoder would end at 254 levels."""
    deep = opening * levels + "1" + closing * levels
    assert merge(f'{{"deep":{deep},"plan":"gold"}}') == f'{{"deep":{deep},"plan":"gold","name":"n"}}'


@pytest.mark.parametrize("levels", [MAX_LEVELS + 1, 1_000, 10_000, 200_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_a_value_that_is_nested_too_deeply_arrives_as_text(levels: int, opening: str, closing: str) -> None:
    """The other properties stay, and no decoder recurses without end."""
    deep = opening * levels + "1" + closing * levels
    text = f'{{"deep":{deep},"b":{{"]":[1]}},"plan":"gold","deeper":[{deep}]}}'
    assert exact(merge(text)) == {"deep": deep, "b": {"]": [1]}, "plan": "gold", "deeper": f"[{deep}]", "name": "n"}


@pytest.mark.parametrize("text", ['{"a":' + "[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":[}' * 1_000])
def test_deep_text_that_is_no_object_is_kept_as_text(text: str) -> None:
    """As any other."""
    assert exact(merge(text)) == {"properties": text, "name": "n"}


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[1]", "null", '"x"', "NaN", '{"a":1,}', "{,}", '{"a" 1}', '{"a":1 "b":2}', '{"a":007}', '{"a":+1}'),
        *("{'a':1}", '{"a":1}{}', '{"a":tru}', r'{"a":"\x"}', '{"a":.5}', '{"a":1.}', '{"a"}', "{1:2}", '{"a":"'),
        *("\ufeff", " "),
    ],
)
def test_text_that_is_no_json_object_is_kept_as_text(text: str) -> None:
    """Nothing is lost, and nothing invalid is sent."""
    assert exact(merge(text)) == {"properties": text, "name": "n"}


def test_without_properties_of_brazes_there_is_no_comma_too_many() -> None:
    """Either side may be empty."""
    assert [merge(text, "{}") for text in ("{}", '{"a":null}', '{"a":1}', '{"a":1e5}')] == [
        "{}", "{}", '{"a":1}', '{"a":1e5}'
    ]  # fmt: skip


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=12,
)


def takeable(value: Any) -> Any:
    """Return a value as Segment can take it: the slow and obvious way."""
    match value:
        case float() if value != value or abs(value) == float("inf"):  # noqa: PLR0124 - NaN
            return json.dumps(value)
        case float():
            return Decimal(repr(value))
        case str():
            return SURROGATE.sub("�", value)
        case list():
            return [takeable(item) for item in value]
        case dict():
            return {takeable(name): takeable(item) for name, item in value.items()}
        case _:
            return value


@given(
    st.dictionaries(st.text(st.characters()) | st.sampled_from(["name", "app_id"]), values),
    st.sampled_from([None, 2]),
    st.booleans(),
)
def test_any_object_is_merged_as_it_is(custom: dict[str, Any], indent: int | None, ascii_only: bool) -> None:  # noqa: FBT001
    """Whatever its names and values, however it is written."""
    text = json.dumps(custom, indent=indent, ensure_ascii=ascii_only)
    if not ascii_only and SURROGATE.search(text):
        text = json.dumps(custom, indent=indent)  # no column can hold a lone surrogate itself
    wanted = {name: value for name, value in takeable(custom).items() if value is not None}
    found = merge(text)
    assert exact(found) == wanted | {"name": "n"}
    assert "\n" not in found
