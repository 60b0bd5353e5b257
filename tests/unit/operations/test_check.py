from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest

from currents_bridge.config.settings import ConnectorSettings
from currents_bridge.errors import CredentialError, ProbeError, RetryLaterError, Side
from currents_bridge.model import Evidence, EvidenceKind, ExpiryRule, Notice, NoticeKind
from currents_bridge.operations.check import (
    Verdict,
    check_channels,
    check_connector,
    check_heartbeat,
    check_pairs,
    exit_code,
)
from tests.workbench import CLICK, HOUR, NAME, OPEN, Bench

DENIED = CredentialError(Side.SOURCE, "s3 answered AccessDenied", "allow it in the policy")


@pytest.fixture
def bench() -> Bench:
    """A connector's core on fakes."""
    return Bench()


def verdicts(bench: Bench) -> dict[str, Verdict]:
    """Return the check's verdicts by subject."""
    found = list(check_connector(bench.connector(), bench.reach, bench.now))
    assert len({verdict.subject for verdict in found}) == len(found)
    return {verdict.subject.removeprefix(f"{NAME}: "): verdict for verdict in found}


def test_all_is_well_with_a_readable_bucket_and_a_likely_key(bench: Bench) -> None:
    """No event is sent."""
    bench.put(2)
    bench.put(2, hour=HOUR + timedelta(hours=5))

    found = verdicts(bench)

    assert [subject for subject, verdict in found.items() if verdict.ok] == [
        "endpoint",
        "write key",
        "Public API",
        "credential",
        "bucket",
        "event types",
        "lifecycle",
        "hours",
        "objects",
        "backlog",
    ]
    assert "and what is sent with it is lost" in found["Public API"].detail
    assert found["hours"].detail == "2026-01-02-03 to 2026-01-02-08"
    assert exit_code(list(found.values())) == 0
    assert bench.transport.attempts == 0


@pytest.mark.parametrize("key", ["", "a" * 31, "a" * 33, "a" * 31 + "-", "ä" * 32, "a" * 31 + "\n"])
def test_a_key_of_another_shape_is_doubted_without_being_shown(bench: Bench, key: str) -> None:
    """Segment itself answers 200 to a wrong key."""
    bench.write_key = key
    verdict = verdicts(bench)["write key"]

    assert not verdict.ok
    assert f"has {len(key)} characters" in verdict.detail
    assert "copy it anew" in verdict.remedy
    assert not key or key not in str(verdict)


@pytest.mark.parametrize(
    ("error", "code"), [(DENIED, 3), (RetryLaterError("the bucket does not exist", "check source.bucket"), 1)]
)
def test_a_bucket_that_cannot_be_listed_is_told_with_its_remedy(bench: Bench, error: Exception, code: int) -> None:
    """A credential ends in 3, all else in 1."""
    bench.store.faults[""] = error

    found = verdicts(bench)

    assert (found["bucket"].ok, found["bucket"].detail) == (False, str(error))
    assert found["bucket"].remedy
    assert found["backlog"].ok
    assert exit_code(list(found.values())) == code


def test_one_denied_object_is_no_failing_credential_where_another_can_be_read(bench: Bench) -> None:
    """Both are told."""
    denied = bench.put(1, event_type=CLICK)
    bench.put(1, event_type=OPEN, offset=1)
    bench.store.faults[denied] = CredentialError(Side.SOURCE, "the KMS key cannot be used", "grant kms:Decrypt")

    found = verdicts(bench)

    assert (found["objects"].ok, found[f"objects of {CLICK}"].ok) == (True, False)
    assert found[f"objects of {CLICK}"].detail == "the KMS key cannot be used"
    assert exit_code(list(found.values())) == 1


def test_an_empty_object_does_not_show_that_objects_can_be_read(bench: Bench) -> None:
    """It is read without asking S3: the next one of its type shows it."""
    bench.store.put(bench.put(1), b"")
    assert "objects" not in verdicts(bench)

    bench.store.faults[bench.put(1, offset=1)] = DENIED
    assert not verdicts(bench)["objects of users.messages.email.Click"].ok


def test_a_folder_that_may_not_be_listed_costs_itself(bench: Bench) -> None:
    """It is named; all others are looked at. Where none may be, it is the credential."""
    key, other = bench.put(2), bench.put(2, event_type=OPEN)
    folder, other_folder = (name.partition("date=")[0] for name in (key, other))
    bench.store.faults[folder] = DENIED

    found = verdicts(bench)
    assert (found[f"folder {folder}"].ok, found[f"folder {folder}"].remedy) == (False, DENIED.hint)
    assert found["objects"].ok
    assert exit_code(list(found.values())) == 1

    bench.store.faults[other_folder] = DENIED
    assert exit_code(list(verdicts(bench).values())) == 3


def test_objects_that_may_be_listed_but_not_read_are_told_apart(bench: Bench) -> None:
    """The bucket is well, its objects are not."""
    bench.store.faults[bench.put(2)] = DENIED

    found = verdicts(bench)

    assert (found["bucket"].ok, found[f"objects of {CLICK}"].ok) == (True, False)
    assert exit_code(list(found.values())) == 3


def test_a_destination_that_does_not_answer_is_told(bench: Bench) -> None:
    """Whatever the key is."""
    bench.put(1)
    bench.unreachable = RetryLaterError("no answer from api.segment.io: ConnectError", "see the network")

    found = verdicts(bench)

    assert (found["endpoint"].ok, found["endpoint"].remedy) == (False, "see the network")
    assert exit_code(list(found.values())) == 1


def test_a_bucket_without_an_included_type_is_not_well(bench: Bench) -> None:
    """Nothing would ever be delivered."""
    bench.put(2, event_type=OPEN)
    bench.include = (CLICK,)

    verdict = verdicts(bench)["event types"]

    assert (verdict.ok, verdict.detail) == (False, "0 delivered, 1 not included, 1 included but not there")
    assert verdict.remedy == "check source.prefix and events.include"


@pytest.mark.parametrize(("include", "ok"), [(("supported",), False), (("all",), True)])
def test_a_type_that_the_catalogue_lacks_is_named(bench: Bench, include: tuple[str, ...], ok: bool) -> None:  # noqa: FBT001
    """It is well only if it is delivered."""
    bench.put(2)
    bench.put(2, event_type="users.messages.carrierpigeon.Send")
    bench.include = include

    verdict = verdicts(bench)["unknown event types"]

    assert (verdict.ok, verdict.detail) == (ok, "not in the catalogue: users.messages.carrierpigeon.Send")
    assert bool(verdict.remedy) is not ok


def test_other_files_under_the_prefix_are_shown(bench: Bench) -> None:
    """With one of them; they are nothing to do anything about."""
    bench.put(2)
    bench.store.put("readme.txt")

    shown = verdicts(bench)["not_currents"]

    assert (shown.ok, shown.detail) == (True, "1 or more are no Currents files, like readme.txt")


@pytest.mark.parametrize("hour", [HOUR, HOUR + timedelta(days=30)])
def test_keys_that_are_not_read_are_shown_before_anything_polled(bench: Bench, hour: datetime) -> None:
    """In the first hours of a folder, and in the newest one, where a new layout would stand."""
    bench.put(2)
    bench.store.put(f"{bench.put(2, hour=hour)}.gz")

    shown = verdicts(bench)["ending"]

    assert not shown.ok
    assert "rename" in shown.remedy


def test_keys_that_a_look_passed_over_are_shown(bench: Bench) -> None:
    """Though they stand in hours at which a check does not look."""
    bench.put(2)
    odd = Notice(NoticeKind.UNREAD_KEYS, "no_hour", "do not stand in a folder date=", 1_234)
    bench.ledger.note(NAME, [odd], bench.now)

    shown = verdicts(bench)["no_hour"]

    assert (shown.ok, shown.detail) == (False, "1,234 do not stand in a folder date=")


def test_a_prefix_that_misses_the_files_is_shown(bench: Bench) -> None:
    """With the one to set."""
    bench.prefix = "eu/"
    bench.put(2)
    bench.prefix = "ue/"

    shown = verdicts(bench)["prefix_elsewhere"]

    assert (shown.ok, shown.remedy) == (False, "set source.prefix to eu/")


def test_a_folder_that_is_no_hour_is_not_taken_for_one(bench: Bench) -> None:
    """Whatever else lies beside the hours."""
    folder = bench.put(2).partition("date=")[0]
    bench.store.put(f"{folder}a/b")
    bench.store.put(f"{folder}z/b")

    assert verdicts(bench)["hours"].detail == "2026-01-02-03 to 2026-01-02-03"


def test_what_waits_is_told_with_its_age(bench: Bench) -> None:
    """Ten minutes after the hour of the bench."""
    bench.put(2)
    bench.admit()

    assert "the oldest waiting object is 10 min old" in verdicts(bench)["backlog"].detail


def test_a_write_key_that_fails_is_told_with_its_beginning_and_evidence(bench: Bench) -> None:
    """Even if all else looks well, the program ends with 3."""
    bench.connector().watch.take_in(
        Side.DESTINATION, Evidence(EvidenceKind.REVOKED, HOUR, "not among the source's keys", "take it anew")
    )

    found = verdicts(bench)

    verdict = found["credential"]
    assert (
        verdict.detail == "failing since 2026-01-02 03:00 UTC: not among the source's keys; no proof yet that it works"
    )
    assert verdict.remedy == "take it anew"
    assert exit_code(list(found.values())) == 3


def test_an_s3_credential_that_fails_is_told_with_its_beginning(bench: Bench) -> None:
    """It may be well again by now; the next poll will see."""
    bench.connector().watch.denied(DENIED)

    found = verdicts(bench)

    assert found["backlog"].detail == "S3 is failing since 2026-01-02 03:10 UTC: s3 answered AccessDenied"
    assert exit_code(list(found.values())) == 3


@dataclass
class Probe:
    """Says the same always."""

    answer: Evidence | ProbeError | None
    name: str = "Public API"

    def ask(self, *_: object) -> Evidence | None:
        """Say it."""
        if isinstance(self.answer, ProbeError):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "ok", "code"),
    [
        (Evidence(EvidenceKind.CONFIRMED, HOUR, "has the key"), True, 0),
        (Evidence(EvidenceKind.REVOKED, HOUR, "has other keys", "take it anew"), False, 3),
        (ProbeError("its token was refused", "make a new one"), False, 1),
        (None, True, 0),
    ],
)
def test_each_probe_is_asked_live(bench: Bench, answer: Evidence | ProbeError | None, ok: bool, code: int) -> None:  # noqa: FBT001
    """What it says is a line of its own, also where it cannot tell."""
    bench.put(1)
    bench.probes = [Probe(answer)]

    found = verdicts(bench)

    assert found["Public API"].ok is ok
    assert bool(found["Public API"].remedy) is not ok
    assert exit_code(list(found.values())) == code


@pytest.mark.parametrize(
    ("rules", "ok", "detail"),
    [
        ((), True, "the bucket deletes nothing by itself"),
        (None, True, "may not be read"),
        ([ExpiryRule("", days=30)], True, "a file of now is deleted on 2026-02-02 00:00 UTC"),
        ([ExpiryRule("", days=3)], False, "a file of now is deleted on 2026-01-06 00:00 UTC"),
        ([ExpiryRule("dataexport", days=3)], False, "a file of now is deleted on 2026-01-06 00:00 UTC"),
    ],
)
def test_the_end_of_a_files_life_is_told(
    bench: Bench,
    rules: Sequence[ExpiryRule] | None,
    ok: bool,  # noqa: FBT001
    detail: str,
) -> None:
    """S3 is the only copy, so a short life is not well."""
    bench.put(1)
    bench.store.rules = rules

    verdict = verdicts(bench)["lifecycle"]

    assert (verdict.ok, verdict.detail) == (ok, detail)


def test_alerts_without_a_channel_are_told() -> None:
    """It is no fault, but worth knowing."""
    assert check_channels([]).remedy == "set alerts.urls or alerts.sns_topic_arn"
    assert check_channels(["alerts.urls.0 (Slack)"]).detail == "alerts.urls.0 (Slack)"


def test_the_heartbeat_is_tried() -> None:
    """Its address may be wrong for months before anybody needs it."""

    def moved() -> None:
        raise RetryLaterError("alerts.heartbeat_url answered 301, a redirect", "set the other address")

    pings: list[None] = []
    (well,) = check_heartbeat(lambda: pings.append(None))
    (bad,) = check_heartbeat(moved)

    assert (well.ok, len(pings)) == (True, 1)
    assert (bad.ok, bad.detail, bad.remedy, bad.exit_code) == (
        False,
        "alerts.heartbeat_url answered 301, a redirect",
        "set the other address",
        1,
    )
    assert list(check_heartbeat(None)) == []


def test_a_verdict_as_json_has_everything_that_a_person_sees() -> None:
    """The line of `check --json`."""
    assert Verdict("a", ok=False, detail="b", remedy="c", exit_code=3).as_json() == {
        "subject": "a",
        "ok": False,
        "detail": "b",
        "remedy": "c",
    }


@pytest.mark.parametrize(
    ("sources", "keys", "prefixes", "expected"),
    [
        (["", "eu/"], "ab", ["", ""], ["first, second: source"]),
        (["us/", "eu/"], "ab", ["", ""], []),
        (["us/", "eu/"], "aa", ["", ""], ["first, second: write key"]),
        (["", ""], "ab", ["us-", "eu-"], []),
        (["us/", "us-2/"], "ab", ["", ""], []),
    ],
    ids=["one within the other", "apart", "one key", "own ids", "alike by name only"],
)
def test_connectors_that_are_in_each_others_way_are_named(
    sources: list[str], keys: str, prefixes: list[str], expected: list[str]
) -> None:
    """Two that send one file's events to two sources under the same ids, and two that send to one source."""
    names = ("first", "second")
    settings = [
        ConnectorSettings.model_validate(
            {
                "name": name,
                "source": {"bucket": "acme", "prefix": source},
                "destination": {"write_key": "env:KEY", "message_id_prefix": prefix},
            }
        )
        for name, source, prefix in zip(names, sources, prefixes, strict=True)
    ]
    found = check_pairs(settings, dict(zip(names, keys, strict=True)))
    assert [verdict.subject for verdict in found] == expected


ARCHIVED = RetryLaterError("the object is archived", "restore it")


def test_the_newest_object_is_read_since_old_ones_may_be_archived(bench: Bench) -> None:
    """What is archived is delivered already, or before `start_from`."""
    bench.store.faults[bench.put(2)] = ARCHIVED
    bench.put(2, hour=HOUR + timedelta(hours=5))

    assert verdicts(bench)["objects"].ok


def test_what_is_before_the_start_is_not_read(bench: Bench) -> None:
    """Nobody wants it delivered."""
    bench.store.faults[bench.put(2)] = ARCHIVED
    connector = bench.connector()
    assert not {v.subject: v for v in check_connector(connector, bench.reach, bench.now)}[f"{NAME}: objects"].ok

    connector.source = replace(connector.source, start_from=HOUR + timedelta(hours=1))

    assert f"{NAME}: objects" not in {verdict.subject for verdict in check_connector(connector, bench.reach, bench.now)}
