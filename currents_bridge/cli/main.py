"""The commands: options in, exit code out. Everything heavy is imported by the command that needs it."""

import logging
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from currents_bridge.cli import alerts, set_aside, streams
from currents_bridge.cli import ledger as cli_ledger
from currents_bridge.cli.options import (
    Config,
    ConnectorName,
    Json,
    Verbose,
    configure_logs,
    failure,
    load_settings,
    opened,
    quiet_logs,
    say,
    tell,
)
from currents_bridge.errors import SEE_CAUSE, BridgeError, ConfigError, StoppedError, UsageError

if TYPE_CHECKING:
    from currents_bridge.delivery.workers import TransferReport
    from currents_bridge.wiring_ledger import Missing

cli = typer.Typer(
    name="currents-bridge",
    help="Moves Braze Currents events from S3 into Segment: every event once, none lost.",
    epilog="Exit codes: 0 well; 1 failed, will be tried again; 2 bad usage or configuration; "
    "3 a credential is failing (everything kept); 4 done, but events or objects were set aside.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help is never cut to the width of a terminal
    pretty_exceptions_enable=False,
)
cli.add_typer(set_aside.dead_letters, name="dead-letters")
cli.add_typer(set_aside.quarantine, name="quarantine")
cli.add_typer(alerts.alerts, name="alerts")
cli.add_typer(cli_ledger.ledger, name="ledger")


_UsageProblem: type[Exception] = typer.BadParameter.__bases__[0]  # typer has brought a Click of its own since 0.25


def main() -> None:
    """Run the program, on streams that fail no command, and exit."""
    out = streams.take_over()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # which would wait for as long as SQLite does
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # commands that begin something catch it, see `opened`
    code = execute()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if out.error:
        tell(BridgeError(f"the output could not be written: {out.error.strerror}", "make room where it is written to"))
    sys.exit(code or (1 if out.error else 0))


def execute() -> int:
    """Run the command of `sys.argv` and return its exit code.

    Whatever ends it early becomes two lines on stderr, and with --json also the one document on stdout.
    """
    try:
        return cli(standalone_mode=False) or 0
    except BridgeError as error:
        if {"-v", "--verbose"} & set(sys.argv):
            traceback.print_exc()
            if error.hint == SEE_CAUSE:
                error.hint = "the lines above show the cause; report it if it is a mistake of the program"
        tell(error)
        problems = [str(problem) for problem in error.problems] if isinstance(error, ConfigError) else [error.message]
        return _failed(error.exit_code, problems, error.hint)
    except _UsageProblem as error:
        error.show()  # type: ignore[attr-defined]
        return _failed(2, [error.format_message()], "see --help")  # type: ignore[attr-defined]
    except typer.Abort:
        say("Aborted.")
        return _failed(1, ["aborted"], "nothing was changed")
    except Exception as error:  # noqa: BLE001 - nothing above it could tell of it
        traceback.print_exc()
        return _failed(1, [f"{type(error).__name__}, a mistake of the program"], "report it with its traceback")


def _failed(code: int, problems: Sequence[str], hint: str) -> int:
    """Print the document of a command that ended before it had one, where one is wanted; returns the exit code."""
    if "--json" in sys.argv:
        from currents_bridge.cli import render

        render.print_json(failure(problems, hint))
    return code


@cli.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit")] = False) -> None:  # noqa: FBT002
    """Moves Braze Currents events from S3 into Segment: every event once, none lost."""
    if version:
        from currents_bridge import __version__

        print(__version__)
        raise typer.Exit


@cli.command()
def demo(
    *,
    faults: Annotated[bool, typer.Option("--faults", help="Let a third of Segment's answers be faults")] = False,
    scenario: Annotated[
        Literal["dead-key"] | None, typer.Option("--scenario", help="60 hours with a dead write key, in a minute")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Show the whole way without any account.

    Sample files of all supported types are delivered from an embedded S3 to an embedded collector.
    """
    from currents_bridge import wiring, wiring_ledger
    from currents_bridge.cli import render
    from currents_bridge.demo import demo as job

    signal.signal(signal.SIGINT, signal.default_int_handler)  # its folder is to be removed
    if scenario:
        from currents_bridge.demo.scenario import dead_key

        configure_logs(verbose=verbose, level=logging.CRITICAL)  # what happens is told anyway
        end = dead_key(wiring.open_bridge, os.environ, print)
        render.print_scenario(end)
        raise typer.Exit(0 if end.agrees else 1)
    quiet_logs(verbose=verbose)
    result = job.run(wiring.open_single, os.environ, wiring_ledger.utc_now(), faults=faults)
    render.print_demo(result)
    raise typer.Exit(0 if result.agrees else 1)


@cli.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write")] = Path("config/bridge.yaml"),
) -> None:
    """Write a commented configuration file."""
    from currents_bridge.config import example_config

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(example_config())
    except FileExistsError:
        raise UsageError(f"{path} is there already", "name another file, or move that one away") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", "name a file in a folder of yours") from error
    print(f"wrote {path}; edit the lines marked as examples, then run: currents-bridge check --config {path}")


@cli.command()
def check(*, config: Config = None, as_json: Json = False, verbose: Verbose = False) -> None:
    """Check all that is set up.

    Configuration, ledger, bucket, event types and write key; each finding with what to do.
    """
    from currents_bridge import wiring
    from currents_bridge.cli import render
    from currents_bridge.operations.check import exit_code

    with opened(config, "scratch", verbose=verbose, level=logging.WARNING) as bridge:
        verdicts = wiring.verdicts(bridge)
        code = exit_code(verdicts)
    if as_json:
        bad = [f"{verdict.subject}: {verdict.detail}" for verdict in verdicts if not verdict.ok]
        document = {"checks": [verdict.as_json() for verdict in verdicts]}
        render.print_outcome(document, code, f"{len(bad)} checks are not ok", dict.fromkeys(bad, 1))
    else:
        render.print_verdicts(verdicts)
    raise typer.Exit(code)


@cli.command()
def once(*, config: Config = None, as_json: Json = False, verbose: Verbose = False) -> None:
    """Discover and deliver once, then exit.

    For cron and the like; `run` is the same on a schedule. Ends with 1 also while anything that failed before waits,
    and with 4 as long as events or objects stand aside.
    """
    with opened(config, "make", verbose=verbose) as bridge:
        reports = bridge.once()
        code = bridge.exit_code(reports)
    _show(reports, code, as_json=as_json)
    raise typer.Exit(code)


@cli.command()
def run(*, config: Config = None, verbose: Verbose = False) -> None:
    """Run as a daemon, polling on a schedule.

    SIGTERM or Ctrl-C drains: what was begun is settled. A second one stops at once. SIGHUP has the
    secrets read again at the next poll, and says whether the configuration changed, which needs a restart.
    """
    from currents_bridge.operations import schedule
    from currents_bridge.process.signals import DAEMON_GRACE_S

    with opened(config, "make", verbose=verbose, grace_s=DAEMON_GRACE_S) as bridge:
        schedule.run(bridge.jobs(), bridge.stop)


@cli.command()
def backfill(  # noqa: PLR0913 - one parameter an option
    *,
    from_: Annotated[str, typer.Option("--from", help="First hour, ISO time, e.g. 2026-01-31T06:00Z")],
    to: Annotated[str, typer.Option("--to", help="Hour to stop before, ISO time")],
    connector: ConnectorName = None,
    event_type: Annotated[
        list[str] | None, typer.Option("--event-type", help="Only included types that match this glob; repeatable")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count objects, bytes and requests; send nothing")] = False,
    resend: Annotated[bool, typer.Option("--resend", help="Also send what was delivered before")] = False,
    requests_per_second: Annotated[
        float | None, typer.Option("--requests-per-second", help="Pace of this backfill, 0.001..1000000")
    ] = None,
    config: Config = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Deliver the hours in [from, to).

    Run it again to resume it: what was delivered is left out.
    """
    from currents_bridge.bridge import exit_code
    from currents_bridge.cli import render
    from currents_bridge.operations import backfill as job

    span = job.parse_span(from_, to)
    job.check_pace(requests_per_second)
    missing: Missing = "scratch" if dry_run else "make"
    with opened(config, missing, verbose=verbose) as bridge:
        chosen = {c: job.select(c, span, event_type or ()) for c in bridge.named(connector)}
        if dry_run:
            max_batch_bytes = bridge.settings.delivery.max_batch_bytes
            plans = {c.name: job.plan(c, s, max_batch_bytes=max_batch_bytes, resend=resend) for c, s in chosen.items()}
            if as_json:
                render.print_json({"connectors": {name: plan.as_json() for name, plan in plans.items()}})
            else:
                render.print_plans(plans)
            return
        reports = {}
        for c, selection in chosen.items():
            with render.progress(c.waiting_objects) as on_group:
                reports[c.name] = job.backfill(
                    c, selection, resend=resend, requests_per_second=requests_per_second, on_group=on_group
                )
    stopped = bridge.stop.is_set()
    code = 1 if stopped else exit_code(reports.values())
    _show(reports, code, as_json=as_json)
    if stopped and not any(isinstance(report.error, StoppedError) for report in reports.values()):
        say("stopped; run the same command without --resend to go on where it stopped")
    raise typer.Exit(code)


@cli.command()
def reconcile(  # noqa: PLR0913 - one parameter an option
    *,
    from_: Annotated[str | None, typer.Option("--from", help="First hour, ISO time")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Hour to stop before, ISO time")] = None,
    connector: ConnectorName = None,
    hours: Annotated[bool, typer.Option("--hours", help="Show every hour, not only those that are not well")] = False,
    config: Config = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Prove that nothing is missing.

    Every object in the bucket is delivered or accounted for, every object that is still owed is in the bucket, and
    for each type and hour read = sent + skipped + deduplicated + dead. What is not so is listed. Ends with 1 while
    objects wait, are not known yet or cannot be listed, and with 4 for all that needs a person.
    """
    from currents_bridge.bridge import worst
    from currents_bridge.cli import render
    from currents_bridge.operations import reconcile as job
    from currents_bridge.operations.backfill import parse_span, select

    if (from_ is None) != (to is None):
        raise UsageError("--from and --to go together", "give both, or none for everything in the bucket")
    span = parse_span(from_, to) if from_ and to else (None, None)
    with opened(config, "refuse", verbose=verbose, level=logging.WARNING) as bridge:
        results = {c.name: job.reconcile(c, select(c, span, ())) for c in bridge.named(connector)}
    code = worst(result.exit_code for result in results.values())
    if as_json:
        reasons = sum((result.reasons for result in results.values()), Counter[str]())
        document = {"connectors": {name: result.as_json() for name, result in results.items()}}
        render.print_outcome(document, code, "it is not proven that nothing is missing", reasons)
    else:
        render.print_reconciliations(results, all_hours=hours)
    raise typer.Exit(code)


@cli.command()
def status(*, config: Config = None, as_json: Json = False, verbose: Verbose = False) -> None:
    """Show what the ledger knows.

    Objects, events, lag, credentials, and what was noticed in the bucket.
    """
    from currents_bridge import wiring_ledger
    from currents_bridge.cli import render
    from currents_bridge.operations.status import read_status

    quiet_logs(verbose=verbose)
    settings = load_settings(config)
    with wiring_ledger.open_ledger(settings) as ledger:
        policies = {c.name: c.loss for c in settings.connectors}
        places = {c.name: c.destination.write_key_references for c in settings.connectors}
        report = read_status(ledger, policies, wiring_ledger.utc_now(), places)
    if as_json:
        render.print_json(report.as_json())
    else:
        render.print_status(report)


@cli.command()
def inspect(
    place: Annotated[str, typer.Argument(metavar="FILE_or_s3_URI", help="A Currents file, or s3://BUCKET/KEY")],
    *,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many lines")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The events as they stand in the file")] = False,
    config: Config = None,
    verbose: Verbose = False,
) -> None:
    """Print the messages of one file.

    As they would be sent, one JSON a line; sends nothing.
    """
    from itertools import islice

    from currents_bridge import wiring
    from currents_bridge.cli import render
    from currents_bridge.config import DEFAULT_PATH
    from currents_bridge.operations import inspect as inspection

    quiet_logs(verbose=verbose)
    settings = load_settings(config) if config or DEFAULT_PATH.exists() else None
    stream, key, connector = wiring.open_file(place, settings)
    with stream:
        if raw:
            render.print_lines(islice(inspection.raw_lines(stream), limit))
            return
        found, lines = inspection.inspect(stream, key, wiring.make_mapper(connector))
        render.print_lines(islice(lines, limit))
    if found.skipped_anonymous:
        say(f"{found.skipped_anonymous} events without external_user_id are not sent")
    for letter in found.dead_letters:
        say(f"row {letter.row} would be a dead letter: {letter.reason}")


@cli.command()
def events(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also types that are not included")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List the event types.

    Each with its Segment name, and whether the configuration includes it.
    """
    from currents_bridge.cli import render
    from currents_bridge.config import DEFAULT_PATH
    from currents_bridge.events import catalogue

    settings = load_settings(config) if config or DEFAULT_PATH.exists() else None
    rules = [c.events for c in settings.connectors] if settings else []
    included = frozenset().union(*(catalogue.select(r.include, r.exclude) for r in rules))
    included = included if settings else frozenset(catalogue.supported_types())
    rows = [
        (event_type, name in included)
        for name, event_type in catalogue.catalogue().items()
        if everything or name in included
    ]
    if as_json:
        document = [
            {"event_type": e.name, "family": e.family, "segment_event": e.segment_event, "included": included}
            for e, included in rows
        ]
        render.print_json({"events": document})
    else:
        render.print_events(rows)


def _show(reports: "Mapping[str, TransferReport]", code: int, *, as_json: bool) -> None:
    """Print what a run did for each connector, and tell what ended it early."""
    from currents_bridge.cli import render

    if as_json:
        errors = [f"{name}: {report.error.message}" for name, report in reports.items() if report.error]
        reasons = sum((report.reasons for report in reports.values()), Counter[str]())
        document = {"connectors": {name: report.as_json() for name, report in reports.items()}}
        error = "; ".join(errors) or "something waits or was set aside, see `status`"
        render.print_outcome(document, code, error, reasons)
    else:
        render.print_reports(reports)
    for report in reports.values():
        if report.error:
            tell(report.error)
