import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from currents_bridge import wiring, wiring_ledger
from currents_bridge.bridge import Bridge
from currents_bridge.cli import main, options, set_aside
from currents_bridge.config import Settings
from currents_bridge.errors import UsageError
from currents_bridge.model import Books, LetterFilter, ObjectState
from tests.workbench import CLICK, NAME, OPEN, Bench, clicks

SETTINGS = Settings.model_validate(
    {"connectors": [{"name": NAME, "source": {"bucket": "acme"}, "destination": {"write_key": "env:KEY"}}]}
)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A connector on fakes that every command opens: two dead letters and one quarantined object are in its ledger."""
    bench = Bench()
    for offset, event_type in ((1, CLICK), (2, OPEN)):
        bad = clicks(1, offset, event_type=event_type)[0] | {"time": 0}
        bench.put([bad], offset=offset, event_type=event_type)
    bench.put(3, offset=3, cut_bytes=50)
    bench.deliver()

    @contextmanager
    def open_bridge(settings: Any, *_: object, **__: object) -> Iterator[Bridge]:
        yield bench.bridge(settings)

    @contextmanager
    def open_ledger(_: object) -> Iterator[Any]:
        yield bench.ledger

    monkeypatch.setattr(wiring, "open_bridge", open_bridge)
    monkeypatch.setattr(wiring_ledger, "open_ledger", open_ledger)
    monkeypatch.setattr(options, "configure_logs", lambda **_: None)
    for module in (set_aside, options):
        monkeypatch.setattr(module, "load_settings", lambda _: SETTINGS)
    return bench


def run(*args: str, code: int = 0, answer: str | None = None) -> Result:
    """Run a command in this process, leaving its log lines out."""
    with capture_logs():
        result = CliRunner().invoke(main.cli, args, input=answer)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def document(*args: str, code: int = 0) -> Any:
    """Run a command and return the JSON document on its stdout."""
    return json.loads(run(*args, "--json", code=code).stdout)


def ids(*args: str) -> list[int]:
    """Return the ids of the dead letters that `list` shows."""
    return [letter["id"] for letter in document("dead-letters", "list", *args)["dead_letters"]]


@pytest.mark.usefixtures("bench")
def test_a_dead_letter_is_listed_with_where_it_comes_from_and_why() -> None:
    """Oldest first."""
    letter = document("dead-letters", "list")["dead_letters"][0]

    assert (letter["connector"], letter["event_type"], letter["row"], letter["attempts"]) == (NAME, CLICK, 0, 0)
    assert json.loads(letter["event"])["id"] == letter["message_id"]
    assert letter["reason"].startswith("time 0")
    assert letter["message"] is None
    assert letter["reason"] in run("dead-letters", "list").stdout


@pytest.mark.usefixtures("bench")
@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), [1, 2]),
        (("--event-type", "*.Open"), [2]),
        (("--reason", "TIME 0"), [1, 2]),
        (("--reason", "too large"), []),
        (("--connector", NAME), [1, 2]),
        (("--since", "2026-01-02T03:10:00"), [1, 2]),
        (("--since", "2026-01-02T03:10:01"), []),
        (("--until", "2026-01-02T03:10:00"), []),
        (("--until", "2026-01-02T03:10:01"), [1, 2]),
        (("--limit", "1"), [1]),
    ],
)
def test_dead_letters_are_chosen_by_what_they_are(args: tuple[str, ...], expected: list[int]) -> None:
    """Times are UTC."""
    assert ids(*args) == expected


@pytest.mark.usefixtures("bench")
def test_a_dead_letter_is_shown_whole() -> None:
    """As one JSON document; an unknown id is bad usage."""
    assert json.loads(run("dead-letters", "show", "2").stdout)["event_type"] == OPEN

    error = run("dead-letters", "show", "99", code=1).exception
    assert isinstance(error, UsageError)
    assert "99" in error.message


def test_a_replay_that_is_refused_again_ends_with_4(bench: Bench) -> None:
    """The rules are as they were."""
    told = document("dead-letters", "replay", "1", code=4)
    assert (told["sent"], told["refused"], told["gone"], told["error"]) == (0, 1, 0, "1 were refused again")
    assert [reason[:6] for reason in told["reasons"]] == ["time N"]
    assert [stored.attempts for stored in bench.ledger.dead_letters(LetterFilter())] == [1, 0]


def test_a_replay_that_is_taken_ends_with_0(bench: Bench) -> None:
    """Only the letters that are meant are sent."""
    for stored in bench.ledger.dead_letters(LetterFilter()):
        mended = json.dumps(json.loads(stored.letter.event) | {"time": int(bench.now.timestamp())})
        bench.ledger.change("UPDATE dead_letters SET event = ? WHERE id = ?", mended, stored.id)

    assert run("dead-letters", "replay", "--event-type", OPEN).stdout == "1 sent, 0 refused again, 0 gone meanwhile\n"

    assert ids() == [1]


@pytest.mark.usefixtures("bench")
def test_a_replay_of_an_unknown_connector_is_bad_usage() -> None:
    """It would do nothing, quietly."""
    assert isinstance(run("dead-letters", "replay", "--connector", "other", code=1).exception, UsageError)


def test_a_purge_asks_first(bench: Bench) -> None:
    """No is no; the books keep their counts after a yes."""
    run("dead-letters", "purge", answer="n\n", code=1)
    assert ids() == [1, 2]

    assert run("dead-letters", "purge", "2", answer="y\n").stdout.endswith("1 deleted\n")
    assert ids() == [1]
    assert run("dead-letters", "purge", "--yes").stdout == "1 deleted\n"
    assert bench.ledger.totals(NAME).books.dead_lettered == 2


def test_quarantined_objects_are_listed_with_reason_and_books(bench: Bench) -> None:
    """For people and for programs."""
    (item,) = document("quarantine", "list")["quarantine"]

    (held,) = bench.ledger.quarantined(NAME)
    assert (item["id"], item["connector"]) == (held.id, NAME)
    assert (item["key"], item["etag"]) == (held.object.key, held.object.etag)
    assert "is unreadable" in item["reason"]
    assert item["events"]["sent"] == 2
    _, line = run("quarantine", "list").stdout.splitlines()
    assert line.split()[-1] == item["key"]
    assert document("quarantine", "list", "--connector", NAME)["quarantine"]


def test_a_quarantined_object_is_replayed_by_the_next_pass(bench: Bench) -> None:
    """And that it is pending is said."""
    assert run("quarantine", "replay").stdout == "1 pending again\n"
    assert document("quarantine", "replay") == {"pending": 0}

    assert bench.states() == {ObjectState.DELIVERED: 2, ObjectState.PENDING: 1}
    assert bench.ledger.totals(NAME).books == Books(read=2, dead_lettered=2)


@pytest.mark.parametrize(
    "args",
    [
        "dead-letters list --connector nope",
        "dead-letters replay --connector nope",
        "dead-letters replay 1 999",
        "dead-letters replay 1 --event-type *.Open",
        "dead-letters purge --yes --connector nope",
        "dead-letters purge --yes 1 999",
        "dead-letters show 999",
        "quarantine list --connector nope",
        "quarantine replay --connector nope",
        "quarantine replay 3 999",
    ],
)
def test_what_is_not_there_is_bad_usage(bench: Bench, args: str) -> None:
    """Nothing is done with the others that are named."""
    before = bench.states(), ids(), bench.transport.attempts

    error = run(*args.split(), code=1).exception

    assert isinstance(error, UsageError)
    assert any(name in error.message for name in ("nope", "999", "dead letter 1"))
    assert (bench.states(), ids(), bench.transport.attempts) == before


def test_what_a_connector_left_is_listed_although_it_is_no_longer_configured(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its dead letters and quarantined objects are still somebody's."""
    assert bench.states()
    renamed = SETTINGS.model_copy(update={"connectors": (SETTINGS.connectors[0].model_copy(update={"name": "new"}),)})
    monkeypatch.setattr(set_aside, "load_settings", lambda _: renamed)

    assert ids("--connector", NAME) == [1, 2]
    assert document("quarantine", "list", "--connector", NAME)["quarantine"]


def test_a_replay_that_is_refused_again_says_why(bench: Bench) -> None:
    """On stderr, with how many."""
    assert bench.states()
    result = run("dead-letters", "replay", code=4)

    assert result.stdout == "0 sent, 2 refused again, 0 gone meanwhile\n"
    assert result.stderr.startswith("2 refused again: time N")
