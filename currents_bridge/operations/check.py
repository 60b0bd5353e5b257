"""`check`: what is set up, what is there, and what to do about what is wrong."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations, islice
from pathlib import Path

from currents_bridge.alerts.credential_words import Incident, unproven
from currents_bridge.config.settings import ConnectorSettings
from currents_bridge.connector import Connector
from currents_bridge.credentials.monitor import WRITE_KEY_CHARS, has_key_shape
from currents_bridge.credentials.state import state_at
from currents_bridge.errors import BridgeError, CredentialError, ProbeError, RetryLaterError, Side
from currents_bridge.events.catalogue import catalogue
from currents_bridge.model import CredentialState, ListedObject, NoticeKind
from currents_bridge.operations.status import CredentialStatus
from currents_bridge.phrases import when
from currents_bridge.sources.coverage import hour_of
from currents_bridge.sources.discovery import resolve_start
from currents_bridge.sources.expiry import deadline
from currents_bridge.sources.keys import DATE_FOLDER, parse_key
from currents_bridge.sources.listing import Tree, find_event_type_folders
from currents_bridge.sources.unread import Reason, Unread

SHORT_LIFE = timedelta(days=14)  # a bucket that deletes sooner leaves little time to mend anything
SAMPLE_TYPES = 3  # of which a new object is read
SAMPLE_HOURS = 3  # of each type, the newest, of which the first with an object is taken
SAMPLE_KEYS = 100  # of the first and the newest hour of each folder

_BAD = frozenset({CredentialState.SUSPECT, CredentialState.FAILING, CredentialState.EXPIRED})

PUBLIC_API = "Public API"  # the name of the probe that can tell for sure
_ONLY_SETTINGS = (
    "not set up (destination.public_api): a dead key is noticed by the settings endpoint alone, within 11 minutes "
    "where that is current, within 24 h and 11 minutes where it is a day behind; nothing is lost, what was sent since "
    "the last proof is sent again"
)
_NO_PROBE = (
    "not set up (destination.public_api), and nothing else can be asked about the key: one that is dead behind 200s is "
    "not noticed, and what is sent with it is lost"
)


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


def check_connector(connector: Connector, reach_destination: Callable[[], None], now: datetime) -> Iterator[Verdict]:
    """Yield a verdict on each part of a connector, asking S3, and Segment about the write key, live.

    What Segment says of the key is kept, as after any probe; the settings endpoint also tells whether the region fits.
    `reach_destination` raises RetryLaterError where the destination does not answer. Raises LedgerError.
    """
    yield _endpoint(connector, reach_destination)
    yield _key_shape(connector)
    yield from _probes(connector, now)
    yield _credential(connector, now)
    try:
        tree = find_event_type_folders(connector.source.store, connector.source.prefix)
        yield Verdict(f"{connector.name}: bucket", ok=True, detail=f"can be listed, {len(tree.types)} event types")
        yield from _contents(connector, tree)
        yield _life(connector, now)
        yield from _folders(connector, tree)
    except BridgeError as error:
        yield Verdict(f"{connector.name}: bucket", False, error.message, error.hint, error.exit_code)
    yield _backlog(connector, now)


def check_ledger(path: Path, *, missing: bool, can_make: bool) -> Verdict:
    """Return the verdict on the ledger's file; one that is there was opened and written to."""
    if not missing:
        return Verdict("ledger", ok=True, detail=f"{path} can be read and written")
    if not can_make:
        detail = f"there is none at {path}, and none can be made there"
        return Verdict("ledger", False, detail, "make the folder, let this user write to it, or set ledger.url", 1)
    detail = f"there is none yet at {path}; `once`, `run` or `backfill` makes it"
    remedy = "if there is one elsewhere, set ledger.url to it: with a new one, everything is sent again"
    return Verdict("ledger", True, detail, remedy)


def check_pairs(settings: Sequence[ConnectorSettings], keys: Mapping[str, str]) -> Iterator[Verdict]:
    """Yield a warning for each two connectors that may be in each other's way.

    `keys`: fingerprint of the write key of each connector that has one.
    """
    for one, other in combinations(settings, 2):
        subject = f"{one.name}, {other.name}: "
        same_key = keys.get(one.name, one.name) == keys.get(other.name)
        same_files = one.source.place == other.source.place and _overlap(one.source.prefix, other.source.prefix)
        same_ids = one.destination.message_id_prefix == other.destination.message_id_prefix
        if same_key:
            detail = "both send with one write key" + (" what they read from the same files" if same_files else "")
            remedy = "right if both are meant for one Segment source; else give each the key of its own"
            yield Verdict(f"{subject}write key", ok=True, detail=detail, remedy=remedy)
        elif same_files and same_ids:
            detail = "both read the same files, for two Segment sources, and give their events the same message ids"
            remedy = "set another destination.message_id_prefix for one, so that Segment takes none for a repeat"
            yield Verdict(f"{subject}source", ok=True, detail=detail, remedy=remedy)


def _overlap(one: str, other: str) -> bool:
    folders = [f"{prefix.rstrip('/')}/".lstrip("/") for prefix in (one, other)]
    return folders[0].startswith(folders[1]) or folders[1].startswith(folders[0])


def check_channels(names: Sequence[str]) -> Verdict:
    """Return the verdict on the channels of alerts, which were read and understood."""
    if not names:
        remedy = "set alerts.urls or alerts.sns_topic_arn"
        return Verdict("alerts", ok=True, detail="no channel: trouble is only logged and shown", remedy=remedy)
    return Verdict("alerts", ok=True, detail=", ".join(names), remedy="`alerts test` sends each a message")


def check_heartbeat(ping: Callable[[], None] | None) -> Iterator[Verdict]:
    """Yield the verdict on the address of the heartbeat, if there is one, by asking it once."""
    if ping is None:
        return
    try:
        ping()
    except RetryLaterError as error:
        yield Verdict("heartbeat", False, error.message, error.hint, error.exit_code)
    else:
        yield Verdict("heartbeat", ok=True, detail="alerts.heartbeat_url answers, and has had a ping by this check")


def _endpoint(connector: Connector, reach_destination: Callable[[], None]) -> Verdict:
    subject, url = f"{connector.name}: endpoint", connector.watch.endpoint_url
    try:
        reach_destination()
    except RetryLaterError as error:
        return Verdict(subject, False, error.message, error.hint, error.exit_code)
    return Verdict(subject, ok=True, detail=f"{url} answers")


def _key_shape(connector: Connector) -> Verdict:
    subject, key = f"{connector.name}: write key", connector.watch.key
    if has_key_shape(key):
        return Verdict(subject, ok=True, detail="has the shape of a Segment write key")
    length = len(key.get_secret_value())
    detail = f"has {length} characters, a Segment write key has {WRITE_KEY_CHARS} letters and digits"
    remedy = "copy it anew from the source's settings; Segment answers 200 to a wrong key and drops the events"
    return Verdict(subject, False, detail, remedy)


def _probes(connector: Connector, now: datetime) -> Iterator[Verdict]:
    """Ask every probe about the key, and tell what each said."""
    names = [probe.name for probe in connector.watch.probes]
    if PUBLIC_API not in names:
        detail = _ONLY_SETTINGS if names else _NO_PROBE
        yield Verdict(f"{connector.name}: {PUBLIC_API}", ok=True, detail=detail)
    for probe in connector.watch.probes:
        subject = f"{connector.name}: {probe.name}"
        try:
            evidence = probe.ask(connector.watch.key, now, ())
        except ProbeError as error:
            yield Verdict(subject, False, error.message, error.hint)
            continue
        if evidence is None:
            yield Verdict(subject, ok=True, detail="cannot tell whether the key works")
        else:
            yield Verdict(subject, not evidence.hint, evidence.detail, evidence.hint, 3 if evidence.hint else 0)


def _credential(connector: Connector, now: datetime) -> Verdict:
    connector.probe()
    watch = connector.watch
    known = watch.credential(Side.DESTINATION)
    state = state_at(known, now, connector.loss.window)
    since = f" since {when(known.since)}" if known.since else ""
    detail = f"{state}{since}: {known.evidence or 'nothing was sent yet'}"
    if proof := CredentialStatus(known, state, None, now).proof():
        events = unproven(connector.ledger.totals(connector.name).unproven_events)
        detail += f"; {proof}" + (f"; {events}" if events else "")
    bad = state in _BAD
    remedy = Incident(
        Side.DESTINATION, known, state, None, now, drops=False, unproven_events=0, key_references=watch.key_references
    ).remedy
    return Verdict(f"{connector.name}: credential", not bad, detail, remedy if bad else "", 3 if bad else 0)


def _life(connector: Connector, now: datetime) -> Verdict:
    """Tell when the bucket deletes files, which is the real end of their data."""
    subject = f"{connector.name}: lifecycle"
    rules = connector.source.store.expiry_rules()
    if rules is None:
        remedy = "grant s3:GetLifecycleConfiguration to be told when waiting files would be deleted"
        return Verdict(subject, ok=True, detail="may not be read", remedy=remedy)
    connector.keep_expiry_rules(rules)
    new_file_until = deadline(now, connector.source.prefix, rules)
    if new_file_until is None:
        return Verdict(subject, ok=True, detail="the bucket deletes nothing by itself")
    detail = f"a file of now is deleted on {when(new_file_until)}"
    if new_file_until - now < SHORT_LIFE:
        return Verdict(subject, False, detail, f"keep files for {SHORT_LIFE.days} days at least: S3 is the only copy")
    return Verdict(subject, ok=True, detail=detail)


def _contents(connector: Connector, tree: Tree) -> Iterator[Verdict]:
    seen = tree.types
    included = connector.source.event_types(seen)
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


def _folders(connector: Connector, tree: Tree) -> Iterator[Verdict]:
    """Look into the folders of each included type: which can be listed, the hours, the keys, and some objects."""
    store = connector.source.store
    listed: dict[str, list[str]] = {}  # folder -> folders of hours
    hours_of: dict[str, list[str]] = {}  # event type -> the folders of hours of the first folder that can be listed
    for event_type in sorted(connector.source.event_types(tree.types) & tree.types):
        for folder in tree.by_type[event_type]:
            try:
                below, _ = store.folders(folder)
                for key in {item.key for at in (folder, *below[-1:]) for item in islice(store.list(at), SAMPLE_KEYS)}:
                    if parse_key(key) is None:
                        tree.unread.add(key)
                listed[folder] = [name for name in below if name.startswith(folder + DATE_FOLDER)]
                hours_of.setdefault(event_type, listed[folder])
            except (CredentialError, RetryLaterError) as error:
                tree.failures[folder] = error
    for folder, failure in sorted(tree.failures.items()):
        code = 1 if listed else failure.exit_code  # one folder costs itself; else it is the credential
        yield Verdict(f"{connector.name}: folder {folder}", False, failure.message, failure.hint, code)
    yield from _keys(connector, tree.unread)
    hours = [dates[at][len(folder + DATE_FOLDER) : -1] for folder, dates in listed.items() if dates for at in (0, -1)]
    if hours:
        yield Verdict(f"{connector.name}: hours", ok=True, detail=f"{min(hours)} to {max(hours)}")
        yield from _objects(connector, hours_of)


def _keys(connector: Connector, unread: Unread) -> Iterator[Verdict]:
    """Tell what looks like Currents data and is not read, as seen here and by earlier looks."""
    lines = {line.reason: line for line in unread.lines()}
    for line in lines.values():
        detail = f"{line.count:,} or more {line.what}"
        yield Verdict(f"{connector.name}: {line.reason}", not line.odd, detail, line.todo)
    for notice in connector.ledger.totals(connector.name).notices:
        if notice.kind is NoticeKind.UNREAD_KEYS and notice.subject not in lines:
            ok = notice.subject == Reason.NOT_CURRENTS
            yield Verdict(f"{connector.name}: {notice.subject}", ok, f"{notice.count:,} {notice.detail}")


def _newest(connector: Connector, hours: Sequence[str]) -> ListedObject | None:
    """Return the newest object of the newest hour that holds any, None where that hour is before `start_from`."""
    source = connector.source
    start = resolve_start(source.start_from, connector.ledger.progress(connector.name))
    for folder in reversed(hours[-SAMPLE_HOURS:]):
        readable = [item for item in islice(source.store.list(folder), SAMPLE_KEYS) if item.size_bytes]
        if placed := [
            (item.last_modified, item.key, key[1], item) for item in readable if (key := parse_key(item.key))
        ]:
            _, _, hour, newest = max(placed)
            return newest if start is None or hour >= hour_of(start) else None
    return None


def _objects(connector: Connector, hours_of: Mapping[str, Sequence[str]]) -> Iterator[Verdict]:
    """Read a new object of some types, since old ones may be archived, or gone in a moment by a lifecycle rule.

    A denial is the object's own where another one can be read.
    """
    subject, store = f"{connector.name}: objects", connector.source.store
    read, denials = False, dict[str, CredentialError]()
    try:
        for event_type, hours in islice(hours_of.items(), SAMPLE_TYPES):
            if first := _newest(connector, hours):
                try:
                    with store.open(first.key, first.etag, first.size_bytes) as stream:
                        stream.read(1)
                except CredentialError as error:
                    denials[event_type] = error
                else:
                    read = True
    except BridgeError as error:
        yield Verdict(subject, False, error.message, error.hint, error.exit_code)
        return
    if read:
        yield Verdict(subject, ok=True, detail="can be read")
    for event_type, denial in denials.items():
        code = 1 if read else denial.exit_code
        yield Verdict(f"{subject} of {event_type}", False, denial.message, denial.hint, code)


def _backlog(connector: Connector, now: datetime) -> Verdict:
    totals = connector.ledger.totals(connector.name)
    subject = f"{connector.name}: backlog"
    source = totals.credentials[Side.SOURCE]
    if source.state is CredentialState.FAILING:
        detail = f"S3 is failing since {when(source.since or now)}: {source.evidence}"
        return Verdict(subject, False, detail, source.hint or "", 3)
    if totals.waiting.oldest_at:
        minutes = (now - totals.waiting.oldest_at).total_seconds() / 60
        return Verdict(subject, ok=True, detail=f"the oldest waiting object is {minutes:.0f} min old")
    return Verdict(subject, ok=True, detail="nothing waits")


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """Return 0 if all is well, 3 if a credential fails, else 1."""
    if all(verdict.ok for verdict in verdicts):
        return 0
    return 3 if any(verdict.exit_code == 3 for verdict in verdicts) else 1  # noqa: PLR2004
