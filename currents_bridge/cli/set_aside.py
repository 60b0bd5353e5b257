"""The commands for what was set aside: `dead-letters` and `quarantine`."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from currents_bridge.cli.options import Config, ConnectorName, Json, Verbose, load_settings, opened, quiet_logs
from currents_bridge.errors import UsageError

if TYPE_CHECKING:
    from currents_bridge.config import Settings
    from currents_bridge.model import LetterFilter
    from currents_bridge.ports import Ledger

dead_letters = typer.Typer(help="Events that were set aside.", rich_markup_mode=None)
quarantine = typer.Typer(help="Objects that were set aside.", rich_markup_mode=None)

EventType = Annotated[str | None, typer.Option("--event-type", help="Only types that match this glob")]
Reason = Annotated[str | None, typer.Option("--reason", help="Only those whose reason holds this text")]
Since = Annotated[datetime | None, typer.Option("--since", help="Only those set aside at this time (UTC) or later")]
Until = Annotated[datetime | None, typer.Option("--until", help="Only those set aside before this time (UTC)")]
SHOWN_IDS = 10  # that are not there
Ids = Annotated[list[int] | None, typer.Argument(help="Ids, as `list` shows them; without any: all that match")]


@dead_letters.command("list")
def list_letters(  # noqa: PLR0913 - one parameter an option
    *,
    connector: ConnectorName = None,
    event_type: EventType = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many")] = 100,
    config: Config = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """List dead letters, oldest first."""
    from currents_bridge import wiring_ledger
    from currents_bridge.cli import render

    quiet_logs(verbose=verbose)
    which = _filter(connector=connector, event_type=event_type, reason=reason, since=since, until=until)
    settings = load_settings(config)
    with wiring_ledger.open_ledger(settings) as ledger:
        letters = ledger.dead_letters(which, limit)
    _check_connector(settings, connector, found=bool(letters))
    if as_json:
        render.print_json({"dead_letters": [render.letter_as_json(letter) for letter in letters]})
    else:
        render.print_letters(letters)


@dead_letters.command("show")
def show_letter(
    letter_id: Annotated[int, typer.Argument(metavar="ID")], *, config: Config = None, verbose: Verbose = False
) -> None:
    """Print one dead letter whole, as JSON."""
    from currents_bridge import wiring_ledger
    from currents_bridge.cli import render

    quiet_logs(verbose=verbose)
    with wiring_ledger.open_ledger(load_settings(config)) as ledger:
        letters = ledger.dead_letters(_filter(ids=[letter_id]))
    if not letters:
        raise UsageError(f"there is no dead letter {letter_id}", "`dead-letters list` shows the ids")
    render.print_json(render.letter_as_json(letters[0]))


@dead_letters.command("replay")
def replay_letters(  # noqa: PLR0913 - one parameter an option
    ids: Ids = None,
    *,
    connector: ConnectorName = None,
    event_type: EventType = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    config: Config = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Send dead letters again.

    What is acknowledged counts as sent from then on; what is refused again stays.
    """
    from currents_bridge.cli import render
    from currents_bridge.operations import replay as job

    which = _filter(connector=connector, event_type=event_type, reason=reason, since=since, until=until, ids=ids)
    total = job.ReplayReport()
    with opened(config, "refuse", verbose=verbose, level=logging.WARNING) as bridge:
        _check_letters(bridge.ledger, which, ids)
        for one in bridge.named(connector):
            total += job.replay_all(one, which)
    code = 4 if total.refused else 0
    if as_json:
        render.print_outcome(total.as_json(), code, f"{total.refused} were refused again", total.reasons)
    else:
        print(f"{total.sent} sent, {total.refused} refused again, {total.gone} gone meanwhile")
        render.say_reasons(total.reasons, "refused again")
    raise typer.Exit(code)


@dead_letters.command("purge")
def purge_letters(  # noqa: PLR0913 - one parameter an option
    ids: Ids = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    connector: ConnectorName = None,
    event_type: EventType = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    config: Config = None,
    verbose: Verbose = False,
) -> None:
    """Delete dead letters for good.

    The books keep their counts.
    """
    from currents_bridge import wiring_ledger

    quiet_logs(verbose=verbose)
    which = _filter(connector=connector, event_type=event_type, reason=reason, since=since, until=until, ids=ids)
    settings = load_settings(config)
    with wiring_ledger.open_ledger(settings) as ledger:
        _check_letters(ledger, which, ids)
        count = ledger.count_dead_letters(which)
        _check_connector(settings, connector, found=bool(count))
        if count and not yes:
            typer.confirm(f"Delete {count} dead letters for good?", abort=True)
        print(f"{ledger.purge(which)} deleted")


@quarantine.command("list")
def list_quarantined(
    *, connector: ConnectorName = None, config: Config = None, as_json: Json = False, verbose: Verbose = False
) -> None:
    """List quarantined objects, oldest first."""
    from currents_bridge import wiring_ledger
    from currents_bridge.cli import render

    quiet_logs(verbose=verbose)
    settings = load_settings(config)
    with wiring_ledger.open_ledger(settings) as ledger:
        objects = ledger.quarantined(connector)
    _check_connector(settings, connector, found=bool(objects))
    if as_json:
        render.print_json({"quarantine": [render.quarantined_as_json(item) for item in objects]})
    else:
        render.print_quarantined(objects)


@quarantine.command("replay")
def replay_quarantined(
    ids: Ids = None,
    *,
    connector: ConnectorName = None,
    config: Config = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make quarantined objects pending again.

    The next `once`, or the daemon's next poll, delivers them, also what was delivered of them before, unless `dedup`
    remembers it: that counts as sent.
    """
    from currents_bridge import wiring_ledger
    from currents_bridge.cli import render

    quiet_logs(verbose=verbose)
    settings = load_settings(config)
    with wiring_ledger.open_ledger(settings) as ledger:
        known = [item.id for item in ledger.quarantined(connector) if not ids or item.id in ids]
        _check_ids("quarantined object", ids, known)
        _check_connector(settings, connector, found=bool(known))
        pending = ledger.replay_quarantined(known, wiring_ledger.utc_now())
    if as_json:
        render.print_json({"pending": pending})
    else:
        print(f"{pending} pending again")


def _check_connector(settings: "Settings", name: str | None, *, found: bool) -> None:
    """Raise UsageError for a connector that neither the configuration nor what was `found` of it knows."""
    known = [connector.name for connector in settings.connectors]
    if name is not None and name not in known and not found:
        raise UsageError(f"there is no connector {name}", f"the configuration has: {', '.join(known)}")


def _check_letters(ledger: "Ledger", which: "LetterFilter", ids: list[int] | None) -> None:
    """Raise UsageError where an id names no letter; without ids nothing is loaded."""
    if ids:
        _check_ids("dead letter", ids, [letter.id for letter in ledger.dead_letters(which)])


def _check_ids(what: str, ids: list[int] | None, found: Sequence[int]) -> None:
    """Raise UsageError for ids that nothing was found for, before anything is done with the others."""
    if missing := sorted(set(ids or ()).difference(found)):
        names = ", ".join(map(str, missing[:SHOWN_IDS])) + (", ..." if len(missing) > SHOWN_IDS else "")
        raise UsageError(f"there is no {what} {names}", "`list` with the same options shows those that are meant")


def _filter(  # noqa: PLR0913 - one parameter an option
    *,
    connector: str | None = None,
    event_type: str | None = None,
    reason: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    ids: list[int] | None = None,
) -> "LetterFilter":
    """Return the dead letters that the options mean."""
    from currents_bridge.model import LetterFilter

    return LetterFilter(
        connector=connector,
        event_type=event_type,
        reason=reason,
        since=since and since.replace(tzinfo=UTC),
        until=until and until.replace(tzinfo=UTC),
        ids=frozenset(ids) if ids else None,
    )
