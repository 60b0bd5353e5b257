from datetime import timedelta

import pytest

from currents_bridge.check import Verdict, check_connector, exit_code
from currents_bridge.errors import CredentialError, RetryLaterError, Side
from currents_bridge.model import CredentialReport
from tests.workbench import CLICK, HOUR, NAME, OPEN, Bench

KEY = "a" * 32
DENIED = CredentialError(Side.SOURCE, "s3 answered AccessDenied", "allow it in the policy")


@pytest.fixture
def bench() -> Bench:
    """A connector's core on fakes."""
    return Bench()


def verdicts(bench: Bench, key: str = KEY) -> dict[str, Verdict]:
    """Return the check's verdicts by subject."""
    found = list(check_connector(bench.connector(), key, bench.now))
    assert len({verdict.subject for verdict in found}) == len(found)
    return {verdict.subject.removeprefix(f"{NAME}: "): verdict for verdict in found}


def test_all_is_well_with_a_readable_bucket_and_a_likely_key(bench: Bench) -> None:
    """Nothing is asked of Segment."""
    bench.put(2)
    bench.put(2, hour=HOUR + timedelta(hours=5))

    found = verdicts(bench)

    assert [subject for subject, verdict in found.items() if verdict.ok] == [
        "write key",
        "bucket",
        "event types",
        "hours",
        "objects",
        "ledger",
    ]
    assert found["hours"].detail == "2026-01-02-03 to 2026-01-02-08"
    assert exit_code(list(found.values())) == 0
    assert bench.transport.attempts == 0


@pytest.mark.parametrize("key", ["", "a" * 31, "a" * 33, "a" * 31 + "-", "ä" * 32, "a" * 31 + "\n"])
def test_a_key_of_another_shape_is_doubted_without_being_shown(bench: Bench, key: str) -> None:
    """Segment itself answers 200 to a wrong key."""
    verdict = verdicts(bench, key)["write key"]

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
    assert found["ledger"].ok
    assert exit_code(list(found.values())) == code


def test_objects_that_may_be_listed_but_not_read_are_told_apart(bench: Bench) -> None:
    """The bucket is well, its objects are not."""
    bench.store.faults[bench.put(2)] = DENIED

    found = verdicts(bench)

    assert (found["bucket"].ok, found["objects"].ok) == (True, False)
    assert exit_code(list(found.values())) == 3


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


def test_keys_of_another_layout_are_shown(bench: Bench) -> None:
    """With one of them."""
    bench.put(2)
    bench.store.put("readme.txt")

    assert verdicts(bench)["keys"].detail == "1 fit no layout of Currents files, like readme.txt"


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

    assert "the oldest waiting object is 10 min old" in verdicts(bench)["ledger"].detail


def test_a_credential_that_fails_is_told_with_its_beginning(bench: Bench) -> None:
    """Even if all else looks well, the program ends with 3."""
    bench.ledger.save_credential(NAME, CredentialReport("failing", HOUR, "segment answered 401"))

    found = verdicts(bench)

    assert found["ledger"].detail == "a credential is failing since 2026-01-02 03:00 UTC: segment answered 401"
    assert exit_code(list(found.values())) == 3


def test_a_verdict_as_json_has_everything_that_a_person_sees() -> None:
    """The line of `check --json`."""
    assert Verdict("a", ok=False, detail="b", remedy="c", exit_code=3).as_json() == {
        "subject": "a",
        "ok": False,
        "detail": "b",
        "remedy": "c",
    }
