"""`check`: what is set up, what is there, and what to do about what is wrong."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from currents_bridge.catalogue import catalogue
from currents_bridge.connector import Connector
from currents_bridge.discovery import Unrecognised, find_event_type_folders
from currents_bridge.errors import BridgeError
from currents_bridge.keys import DATE_FOLDER

WRITE_KEY_CHARS = 32  # letters and digits; Segment gives out no other


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the check."""

    subject: str
    ok: bool
    detail: str
    remedy: str = ""
    exit_code: int = 0  # what the program ends with because of it

    def as_json(self) -> dict[str, object]:
        """Return the line of the JSON document."""
        return {"subject": self.subject, "ok": self.ok, "detail": self.detail, "remedy": self.remedy}


def check_connector(connector: Connector, write_key: str, now: datetime) -> Iterator[Verdict]:
    """Yield a verdict on each part of a connector, asking S3 but not Segment."""
    yield _write_key(connector.name, write_key)
    try:
        folders, unrecognised = find_event_type_folders(connector.source.store, connector.source.prefix)
        yield Verdict(f"{connector.name}: bucket", ok=True, detail=f"can be listed, {len(folders)} event types")
        yield from _contents(connector, folders, unrecognised)
    except BridgeError as error:
        yield Verdict(f"{connector.name}: bucket", False, error.message, error.hint, error.exit_code)
    else:
        yield from _readable(connector, folders)
    yield _backlog(connector, now)


def _write_key(name: str, key: str) -> Verdict:
    subject = f"{name}: write key"
    if len(key) == WRITE_KEY_CHARS and key.isascii() and key.isalnum():
        return Verdict(subject, ok=True, detail="has the shape of a Segment write key")
    detail = f"has {len(key)} characters, a Segment write key has {WRITE_KEY_CHARS} letters and digits"
    remedy = "copy it anew from the source's settings; Segment answers 200 to a wrong key and drops the events"
    return Verdict(subject, False, detail, remedy)


def _contents(connector: Connector, folders: dict[str, list[str]], unrecognised: Unrecognised) -> Iterator[Verdict]:
    included = connector.source.event_types(folders)
    seen = frozenset(folders)
    left_out, missing, unknown = seen & set(catalogue()) - included, included - seen, seen - set(catalogue())
    yield Verdict(
        f"{connector.name}: event types",
        ok=bool(seen & included),
        detail=f"{len(seen & included)} delivered, {len(left_out)} not included, {len(missing)} included but not there",
        remedy="" if seen & included else "check source.prefix and events.include",
    )
    if unknown:
        detail = f"not in the catalogue: {', '.join(sorted(unknown))}"
        remedy = "" if unknown <= included else "name them in events.include to deliver them by the general rules"
        yield Verdict(f"{connector.name}: unknown event types", unknown <= included, detail, remedy)
    if unrecognised.count:
        detail = f"{unrecognised.count} fit no layout of Currents files, like {unrecognised.keys[0]}"
        yield Verdict(f"{connector.name}: keys", False, detail, "keep other files out of source.prefix")


def _readable(connector: Connector, folders: dict[str, list[str]]) -> Iterator[Verdict]:
    """Tell the hours that the bucket holds, and read the first object of some type."""
    try:
        store = connector.source.store
        hours: list[str] = []
        for folder in (folder for of_type in folders.values() for folder in of_type):
            below, _ = store.folders(folder)
            dates = [name for name in below if name.startswith(folder + DATE_FOLDER)]
            hours += [date[len(folder + DATE_FOLDER) : -1] for date in (dates[:1] + dates[-1:])]
        if not hours:
            return
        yield Verdict(f"{connector.name}: hours", ok=True, detail=f"{min(hours)} to {max(hours)}")
        first = next(iter(store.list(folders[min(folders)][0])), None)
        if first:
            with store.open(first.key, first.etag) as stream:
                stream.read(1)
            yield Verdict(f"{connector.name}: objects", ok=True, detail="can be read")
    except BridgeError as error:
        yield Verdict(f"{connector.name}: objects", False, error.message, error.hint, error.exit_code)


def _backlog(connector: Connector, now: datetime) -> Verdict:
    totals = connector.ledger.totals(connector.name)
    subject = f"{connector.name}: ledger"
    if totals.credential.state == "failing":
        since = totals.credential.since
        waited = f" since {since.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if since else ""
        return Verdict(subject, False, f"a credential is failing{waited}: {totals.credential.evidence}", "renew it", 3)
    if totals.oldest_pending_at:
        minutes = (now - totals.oldest_pending_at).total_seconds() / 60
        return Verdict(subject, ok=True, detail=f"can be written; the oldest waiting object is {minutes:.0f} min old")
    return Verdict(subject, ok=True, detail="can be written; nothing waits")


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """Return 0 if all is well, 3 if a credential fails, else 1."""
    if all(verdict.ok for verdict in verdicts):
        return 0
    return 3 if any(verdict.exit_code == 3 for verdict in verdicts) else 1  # noqa: PLR2004
