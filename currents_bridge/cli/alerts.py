"""The commands of `alerts`."""

import os
from dataclasses import asdict

import typer

from currents_bridge.cli.options import Config, Json, Verbose, load_settings, quiet_logs

alerts = typer.Typer(help="What people are told.", rich_markup_mode=None)


@alerts.command("list")
def list_alerts(*, config: Config = None, as_json: Json = False, verbose: Verbose = False) -> None:
    """List the open alerts, oldest first."""
    from currents_bridge import wiring, wiring_ledger
    from currents_bridge.alerts import engine
    from currents_bridge.cli import render
    from currents_bridge.model import AlertMessage, AlertPhase

    quiet_logs(verbose=verbose)
    with wiring.open_alerts(load_settings(config), os.environ) as told:
        found = told.open()
    if as_json:
        render.print_json({"alerts": [asdict(alert) for alert in found]})
        return
    for message in (AlertMessage(AlertPhase.OPENED, alert, wiring_ledger.utc_now()) for alert in found):
        print(engine.title(message), *engine.text(message).splitlines(), sep="\n  ")
    if not found:
        print("no alert is open")


@alerts.command("test")
def send_test(*, config: Config = None, as_json: Json = False, verbose: Verbose = False) -> None:
    """Send a test message to each channel."""
    from currents_bridge import wiring, wiring_ledger
    from currents_bridge.cli import render
    from currents_bridge.errors import UsageError

    quiet_logs(verbose=verbose)
    with wiring.open_alerts(load_settings(config), os.environ, "scratch") as told:
        outcomes = told.test(wiring_ledger.utc_now())
    if not outcomes:
        raise UsageError("there is no channel to test", "set alerts.urls or alerts.sns_topic_arn")
    failed = {f"{outcome.channel}: {outcome.error}": 1 for outcome in outcomes if outcome.error}
    code = 1 if failed else 0
    if as_json:
        document = {"channels": [asdict(outcome) for outcome in outcomes]}
        render.print_outcome(document, code, f"{len(failed)} channels did not take it", failed)
    else:
        for outcome in outcomes:
            print(f"{outcome.channel}: {outcome.error or 'taken'}")
    raise typer.Exit(code)
