import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from currents_bridge import __version__, wiring, wiring_ledger
from currents_bridge.bridge import Bridge
from currents_bridge.cli import main, options
from currents_bridge.config import example_config, load
from currents_bridge.connector import Connector
from currents_bridge.demo import demo
from currents_bridge.errors import CredentialError, StoppedError, UsageError
from currents_bridge.model import Progress
from currents_bridge.operations import check, schedule
from currents_bridge.testing.currents_files import schema_of, write_container
from tests.workbench import CLICK, DENIED, HOUR, NAME, UNWELL, Bench, clicks

CONFIG = {
    "connectors": [{"name": NAME, "source": {"bucket": "acme"}, "destination": {"write_key": "env:KEY"}}],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; logs stay as pytest has them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CURRENTS_BRIDGE_CONFIG", raising=False)
    monkeypatch.setattr(options, "configure_logs", lambda **_: None)
    return tmp_path


@pytest.fixture
def config(folder: Path) -> Path:
    """The default configuration file, with one connector."""
    path = folder / "config" / "bridge.yaml"
    path.parent.mkdir()
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture
def bench(config: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The connector of the configuration, on fakes."""
    assert config.exists()
    bench = Bench()

    @contextmanager
    def open_bridge(settings: Any, *_: object, **__: object) -> Iterator[Bridge]:
        yield bench.bridge(settings)

    monkeypatch.setattr(wiring, "open_bridge", open_bridge)
    monkeypatch.setattr(wiring, "reach", lambda _: None)  # there is no destination to be reached
    return bench


def run(*args: str, code: int = 0) -> Result:
    """Run a command in this process, leaving its log lines out."""
    with capture_logs():
        result = CliRunner().invoke(main.cli, args)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def document(*args: str, code: int = 0) -> Any:
    """Run a command and return the JSON document on its stdout."""
    return json.loads(run(*args, "--json", code=code).stdout)


def test_version() -> None:
    """`--version` prints it alone."""
    assert run("--version").stdout == f"{__version__}\n"


def test_without_a_command_the_help_is_shown() -> None:
    """With every command and the exit codes."""
    text = CliRunner().invoke(main.cli, []).output

    assert all(command.name is None or command.name in text for command in main.cli.registered_commands)
    assert "Exit codes" in text


HEAVY = {"polars", "boto3", "moto", "httpx", "segment", "alembic"}


@pytest.mark.parametrize("argument", ["--help", "status"])
def test_help_and_status_load_nothing_heavy(config: Path, argument: str) -> None:
    """People wait for both; only a ledger that must be made or migrated needs Alembic."""
    with wiring_ledger.open_ledger(load(config, {}), missing="make"):
        code = f"""
import sys
from currents_bridge.cli.main import cli
cli(["{argument}"], standalone_mode=False)
print(*({HEAVY} & {{name.partition(".")[0] for name in sys.modules}}), file=sys.stderr)
"""
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert result.stdout
    assert result.stderr.split() == []


def test_init_writes_the_example_in_a_folder_of_its_own(folder: Path) -> None:
    """It says what to do next, and what it wrote can be loaded."""
    result = run("init")

    path = folder / "config" / "bridge.yaml"
    assert path.read_text() == example_config()
    assert "check --config config/bridge.yaml" in result.stdout
    assert load(path, {}).connectors


def test_init_does_not_overwrite(config: Path) -> None:
    """What is there stays as it is."""
    before = config.read_text()

    assert isinstance(run("init", code=1).exception, UsageError)
    assert config.read_text() == before


def test_init_in_a_place_that_cannot_be_written_is_bad_usage(folder: Path) -> None:
    """Here a file stands where a folder should."""
    (folder / "file").touch()

    error = run("init", "file/bridge.yaml", code=1).exception

    assert isinstance(error, UsageError)
    assert "file/bridge.yaml" in error.message


def test_errors_are_told_in_two_lines_and_set_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    """What happened, and what to do."""
    monkeypatch.setattr("sys.argv", ["currents-bridge", "init", str(config)])

    code = main.execute()

    assert code == 2
    assert capsys.readouterr().err.splitlines() == [
        f"Error: {config} is there already",
        "Try:   name another file, or move that one away",
    ]


def test_every_problem_of_a_configuration_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    """Not only the first."""
    config.write_text(json.dumps(CONFIG | {"delivery": {"workers": 0, "max_in_flight": 0}}))
    monkeypatch.setattr("sys.argv", ["currents-bridge", "status", "-v"])

    code = main.execute()

    err = capsys.readouterr().err
    assert code == 2
    assert [line[:24] for line in err.splitlines() if line.startswith("Error")] == [
        "Error: delivery.workers:",
        "Error: delivery.max_in_f",
    ]
    assert "Traceback" in err


def test_once_delivers_and_reports(bench: Bench) -> None:
    """As one JSON document on stdout."""
    bench.put(3)

    report = document("once")["connectors"][NAME]

    assert (report["objects"]["delivered"], report["events"]["sent"]) == (1, 3)
    assert (report["error"], report["reasons"]) == (None, {})
    assert NAME in run("once").stdout


@pytest.mark.parametrize(("outcomes", "cut_bytes", "code"), [([DENIED] * 3, 0, 3), ([UNWELL] * 24, 0, 1), ([], 50, 4)])
def test_once_ends_with_the_code_of_what_went_wrong(
    bench: Bench, outcomes: list[Any], cut_bytes: int, code: int
) -> None:
    """With the report all the same."""
    bench.put(3, cut_bytes=cut_bytes)
    bench.transport.outcomes.extend(outcomes)

    assert document("once", code=code)["connectors"][NAME]["objects"]["discovered"] == 1


def test_once_tells_a_failing_credential_with_its_remedy(bench: Bench) -> None:
    """On stderr, beside the report."""
    bench.put(3)
    bench.transport.outcomes.extend([DENIED] * 3)

    assert run("once", code=3).stderr.splitlines()[-2:] == [
        "Error: segment answered 401",
        "Try:   check the write key",
    ]


def test_once_puts_the_signal_handlers_back(bench: Bench) -> None:
    """It is stopped by signals only while it runs."""
    before = signal.getsignal(signal.SIGTERM)
    bench.put(1)

    run("once")

    assert signal.getsignal(signal.SIGTERM) is before


def test_run_hands_its_jobs_to_the_daemon(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the stop event that signals set, each at its interval."""
    given: list[Any] = []
    monkeypatch.setattr(schedule, "run", lambda *arguments: given.extend(arguments))

    run("run")

    jobs, stop = given
    assert stop is bench.stop
    assert {job.name: str(job.every) for job in jobs} == {
        "alerts": "0:00:30",
        f"{NAME}.poll": "0:01:00",
        f"{NAME}.audit": "0:00:10",
        f"{NAME}.probe": "0:05:00",
    }


def test_backfill_delivers_its_span(bench: Bench) -> None:
    """And a dry run only counts."""
    bench.put(2)
    span = ("--from", "2026-01-02T03", "--to", "2026-01-02T04")

    assert document("backfill", *span, "--dry-run")["connectors"][NAME]["objects"] == 1
    assert "1" in run("backfill", *span, "--dry-run").stdout
    assert bench.transport.attempts == 0
    assert document("backfill", *span)["connectors"][NAME]["events"]["sent"] == 2
    assert document("backfill", *span, "--resend", "--event-type", CLICK)["connectors"][NAME]["events"]["sent"] == 2


def test_backfill_that_is_denied_ends_with_3(bench: Bench) -> None:
    """And tells why."""
    bench.put(2)
    bench.transport.outcomes.extend([DENIED] * 3)

    result = run("backfill", "--from", "2026-01-02", "--to", "2026-01-03", code=3)

    assert "Try:   check the write key" in result.stderr


def test_backfill_that_is_stopped_says_how_to_go_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --resend, or it would begin anew."""
    bench.put(2)
    monkeypatch.setattr(Connector, "deliver", lambda *_, **__: bench.stop.set())

    result = run("backfill", "--from", "2026-01-02", "--to", "2026-01-03", code=1)

    assert "without --resend" in result.stderr


def test_a_backfill_that_is_stopped_before_it_sends_ends_with_1(bench: Bench) -> None:
    """Also a dry run: a count of half the bucket would be a wrong answer."""
    bench.put(2)
    bench.stop.set()

    result = run("backfill", "--from", "2026-01-02", "--to", "2026-01-03", "--dry-run", code=1)

    assert isinstance(result.exception, StoppedError)


@pytest.mark.parametrize(
    "args",
    [
        ("backfill", "--from", "x", "--to", "2026-01-03"),
        ("backfill", "--from", "2026-01-02", "--to", "2026-01-03", "--connector", "third"),
        ("backfill", "--from", "2026-01-02", "--to", "2026-01-03", "--event-type", "nothing.*"),
    ],
)
def test_a_backfill_of_nothing_is_bad_usage(bench: Bench, args: tuple[str, ...]) -> None:
    """Before anything is delivered."""
    bench.put(1)

    error = run(*args, code=1).exception

    assert isinstance(error, UsageError)
    assert (error.exit_code, bench.transport.attempts) == (2, 0)


def test_check_ends_with_the_code_of_its_verdicts(bench: Bench) -> None:
    """For people and for programs."""
    bench.put(1)
    assert all(line["ok"] for line in document("check")["checks"])
    assert "NOT OK" not in run("check").stdout

    bench.store.faults[""] = CredentialError(DENIED.side, "AccessDenied", "allow it")

    assert [line["remedy"] for line in document("check", code=3)["checks"] if not line["ok"]] == ["allow it"]


def test_status_shows_what_the_ledger_knows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens nothing but the ledger."""
    bench.put(3)
    bench.deliver()
    bench.ledger.save_progress(NAME, Progress(polled_at=HOUR))

    @contextmanager
    def open_ledger(_: object) -> Iterator[Any]:
        yield bench.ledger

    monkeypatch.setattr(wiring_ledger, "open_ledger", open_ledger)

    assert document("status")["connectors"][NAME]["events"]["sent"] == 3
    assert NAME in run("status").stdout


def test_inspect_prints_messages_and_tells_the_rest(folder: Path) -> None:
    """Lines on stdout, talk on stderr."""
    events = [*clicks(3), clicks(1, 1)[0] | {"external_user_id": None}, clicks(1, 2)[0] | {"time": 0}]
    (folder / "x.avro").write_bytes(write_container(schema_of(CLICK), events))

    result = run("inspect", "x.avro")

    assert [json.loads(line)["messageId"] for line in result.stdout.splitlines()] == [e["id"] for e in events[:3]]
    assert result.stderr.splitlines()[0] == "1 events without external_user_id are not sent"
    assert result.stderr.splitlines()[1].startswith("row 4 would be a dead letter: time 0")


def test_inspect_prints_raw_events_and_no_more_than_asked_for(folder: Path) -> None:
    """As they stand in the file."""
    events = clicks(3)
    (folder / "x.avro").write_bytes(write_container(schema_of(CLICK), events))

    raw = run("inspect", "x.avro", "--raw", "--limit", "2").stdout.splitlines()

    assert [json.loads(line) for line in raw] == events[:2]
    assert len(run("inspect", "x.avro", "--limit", "1").stdout.splitlines()) == 1


def test_events_are_the_supported_ones_without_a_configuration() -> None:
    """`--all` shows the others, too."""
    supported, everything = document("events")["events"], document("events", "--all")["events"]

    assert len(supported) == 55
    assert all(event["included"] for event in supported)
    assert len(everything) > 55
    assert {event["event_type"] for event in everything if event["included"]} == {e["event_type"] for e in supported}
    assert CLICK in run("events").stdout


def test_events_are_those_of_the_configuration(config: Path) -> None:
    """Of any of its connectors."""
    connector = CONFIG["connectors"][0]
    rules = [{"include": [CLICK]}, {"include": ["users.messages.email.*"], "exclude": ["*.email.[A-R]*"]}]
    connectors = [connector | {"name": f"c{number}", "events": rule} for number, rule in enumerate(rules)]
    config.write_text(json.dumps({"connectors": connectors}))

    included = {event["event_type"] for event in document("events")["events"]}

    assert CLICK in included
    assert {name.rpartition(".")[2][0] for name in included - {CLICK}} <= set("STUVWXYZ")


def test_the_demo_ends_with_1_where_the_sums_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it delivered is shown in any case."""
    monkeypatch.setattr(demo, "run", lambda *_, **__: demo.DemoResult({}, {}, 0, 0, 1, {}))

    assert "THE SUMS DIFFER" in run("demo", code=1).stdout


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "alerts list",
        "dead-letters list",
        "dead-letters show 1",
        "dead-letters replay",
        "dead-letters purge --yes",
        "quarantine list",
        "quarantine replay",
        "reconcile",
        "ledger backup copy.sqlite3",
    ],
)
def test_what_only_looks_makes_no_ledger(
    config: Path, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the wrong folder an empty one would say that all is well."""
    monkeypatch.setenv("KEY", "k" * 32)
    monkeypatch.setattr("sys.argv", ["currents-bridge", *command.split()])

    code = main.execute()

    assert code == 2
    assert f"Error: there is no ledger at {config.parents[1]}/currents-bridge.sqlite3" in capsys.readouterr().err
    assert not list(config.parents[1].glob("*.sqlite3*"))


@pytest.mark.parametrize(("place", "code"), [("new.sqlite3", 0), ("missing/new.sqlite3", 1)])
def test_a_check_before_the_first_start_makes_no_ledger(
    place: str, code: int, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says where one will be made, or that none can be."""
    monkeypatch.setenv("KEY", "k" * 32)
    config.write_text(json.dumps(CONFIG | {"ledger": {"url": f"sqlite:///{place}"}}))
    monkeypatch.setattr(check, "check_connector", lambda *_: ())

    (ledger, _) = document("check", code=code)["checks"]

    assert ledger["subject"] == "ledger"
    assert f"at {Path.cwd() / place}" in ledger["detail"]
    assert not list(config.parents[1].glob("*.sqlite3*"))


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ("status", "there is no ledger at"),
        ("once --nope", "No such option: --nope"),
        ("backfill --from 2026-01-02", "Missing option '--to'"),
        ("nope", "No such command 'nope'"),
        ("dead-letters list --limit 0", "'--limit'"),
        ("check --config missing.yaml", "missing.yaml"),
    ],
)
def test_json_is_one_document_also_where_a_command_cannot_begin(
    config: Path, args: str, reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what is wrong, and what to do."""
    assert config.exists()
    monkeypatch.setattr("sys.argv", ["currents-bridge", *args.split(), "--json"])

    code = main.execute()

    told = json.loads(capsys.readouterr().out)
    assert (code, set(told)) == (2, {"error", "reasons", "hint"})
    assert reason in told["error"]
    assert [reason in why for why in told["reasons"]] == [True]


def test_json_of_a_bad_configuration_has_every_problem(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the lines on stderr."""
    config.write_text(json.dumps(CONFIG | {"delivery": {"workers": 0, "max_in_flight": 0}}))
    monkeypatch.setattr("sys.argv", ["currents-bridge", "once", "--json"])

    assert main.execute() == 2
    assert [why[:17] for why in json.loads(capsys.readouterr().out)["reasons"]] == [
        "delivery.workers:",
        "delivery.max_in_f",
    ]


def test_a_mistake_of_the_program_is_told_as_json_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    """Its traceback goes to stderr, whatever it holds stays out of the document."""
    assert config.exists()

    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(main, "load_settings", fail)
    monkeypatch.setattr("sys.argv", ["currents-bridge", "status", "--json"])

    assert main.execute() == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["error"] == "ZeroDivisionError, a mistake of the program"
    assert "Traceback" in err


def test_json_of_a_run_says_what_failed(bench: Bench) -> None:
    """For each connector, and for all."""
    bench.put(3)
    bench.transport.outcomes.extend([DENIED] * 3)
    told = document("once", code=3)
    assert told["error"] == f"{NAME}: segment answered 401"
    assert told["connectors"][NAME]["error"] == "segment answered 401"


def test_json_of_a_run_says_why_objects_were_set_aside(bench: Bench) -> None:
    """As the lines on stderr."""
    bench.put(3, cut_bytes=50)

    told = document("once", code=4)

    assert "set aside" in told["error"]
    assert told["reasons"] == told["connectors"][NAME]["reasons"]
    assert "unreadable" in str(told["reasons"])


def test_json_of_a_check_says_what_is_not_ok(bench: Bench) -> None:
    """The checks that failed are the reasons."""
    bench.put(1)
    bench.store.faults[""] = CredentialError(DENIED.side, "AccessDenied", "allow it")

    told = document("check", code=3)

    assert told["error"].endswith("checks are not ok")
    assert f"{NAME}: bucket: AccessDenied" in told["reasons"]


def test_json_of_a_reconciliation_says_what_keeps_it_from_being_proven(bench: Bench) -> None:
    """By kind."""
    bench.put(1)

    assert document("reconcile", code=1)["reasons"] == {"objects unknown": 1}


@pytest.mark.parametrize("state", ["no configuration", "bad configuration", "bad secret", "bad ledger", "no ledger"])
@pytest.mark.parametrize(
    "command",
    [
        "check",
        "once",
        "run",
        "status",
        "reconcile",
        "backfill --from 2026-01-02 --to 2026-01-03",
        "alerts list",
        "alerts test",
        "dead-letters list",
        "dead-letters replay",
        "quarantine list",
        "quarantine replay",
        "ledger backup x",
    ],
)
def test_no_hint_of_a_command_names_itself(
    folder: Path, state: str, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor -v where that was given: whoever did that already learns nothing."""
    monkeypatch.setenv("KEY", "" if state == "bad secret" else "k" * 32)
    monkeypatch.setattr(schedule, "run", lambda *_: None)
    if state == "no ledger" and command.split(maxsplit=1)[0] in {"once", "run", "backfill", "check"}:
        return  # which work without one
    document = CONFIG | ({"delivery": {"workers": 0}} if state == "bad configuration" else {})
    if state != "no configuration":
        (folder / "config").mkdir()
        (folder / "config" / "bridge.yaml").write_text(json.dumps(document))
    if state == "bad ledger":
        (folder / "currents-bridge.sqlite3").write_text("no database" * 100)
    monkeypatch.setattr("sys.argv", ["currents-bridge", *command.split(), "-v"])

    main.execute()

    hints = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Try:")]
    itself = command.partition(" --")[0].removesuffix(" x")
    assert hints or state in {"bad secret", "no ledger"}
    assert not any(f"{itself}`" in hint or " -v " in hint for hint in hints)


def test_inspect_does_not_send_you_to_inspect(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that it cannot read."""
    (folder / "x.avro").write_bytes(b"no Avro")
    monkeypatch.setattr("sys.argv", ["currents-bridge", "inspect", "x.avro"])

    assert main.execute() == 4

    *_, error, hint = capsys.readouterr().err.splitlines()
    assert "not readable as Avro" in error
    assert "inspect" not in hint
