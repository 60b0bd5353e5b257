"""Bad input: a clear answer, the right exit code, and nothing lost."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest

from currents_bridge.testing.collector import Answer
from currents_bridge.testing.currents_files import make_events, object_key, schema_of, write_container
from tests.installation import Site, this_hour

CLICK = "users.messages.email.Click"


def key(offset: int = 0) -> str:
    """Return a key of this hour's clicks."""
    return object_key(CLICK, this_hour(), offset=offset)


def events(count: int) -> list[dict[str, object]]:
    """Return clicks of known users."""
    return make_events(CLICK, count, seed=9, hour=this_hour(), anonymous_share=0)


def test_without_configuration_the_program_says_how_to_make_one(site: Site) -> None:
    """Exit 2."""
    done = site.run("once", "--config", "missing.yaml")
    assert done.returncode == 2
    assert "missing.yaml" in done.stderr
    assert "currents-bridge init" in done.stderr


def test_every_problem_of_the_configuration_is_reported_at_once(site: Site) -> None:
    """One line each: field, why, value, source."""
    site.config["delivery"]["workers"] = 900
    site.connector["sorce"] = {}
    site.connector["destination"]["region"] = "mars"
    done = site.run("once", environ={"CURRENTS_BRIDGE_SCHEDULE__POLL": "soon"})
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 4
    assert any("delivery.workers" in line and "900" in line for line in lines)
    assert any("schedule.poll" in line and "CURRENTS_BRIDGE_SCHEDULE__POLL" in line for line in lines)


@pytest.mark.parametrize("environ", [{"TEST_WRITE_KEY": ""}, {"TEST_WRITE_KEY": " "}])
def test_an_empty_write_key_is_refused(site: Site, environ: Mapping[str, str]) -> None:
    """Segment might answer 200 to it and drop the events."""
    site.put_sample()
    done = site.run("once", environ=environ)
    assert done.returncode == 2
    assert "connectors[production].destination.write_key" in done.stderr
    assert site.collector.request_count == 0


def test_a_missing_bucket_is_named_and_changes_nothing(site: Site) -> None:
    """Exit 3: nothing passes by itself here, and everything is kept."""
    site.connector["source"]["bucket"] = "no-such-bucket"
    done = site.run("once")
    assert done.returncode == 3
    assert "no-such-bucket" in done.stderr
    assert "Try:" in done.stderr
    assert site.json("status")["connectors"]["production"]["objects"]["pending"] == 0


def test_an_unreachable_s3_is_named(site: Site) -> None:
    """Exit 1."""
    site.connector["source"]["endpoint_url"] = "http://127.0.0.1:9"
    done = site.run("once")
    assert (done.returncode, site.bucket in done.stderr) == (1, True), done.stderr


def test_missing_aws_credentials_are_a_failing_credential(site: Site) -> None:
    """Exit 3, and everything is kept."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    done = site.run("once", environ=dict.fromkeys(names, "") | {"AWS_EC2_METADATA_DISABLED": "true"})
    assert done.returncode == 3, done.stderr
    assert site.bucket in done.stderr
    assert site.json("status")["connectors"]["production"]["credential"]["state"] == "failing"


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_segment_refuses_is_a_failing_credential_until_it_works(site: Site, status: int) -> None:
    """Exit 3; all is delivered once the key works."""
    site.put_sample(count=10)
    site.collector.answer_with(lambda _: Answer(status))
    assert site.once(exit_code=3)["objects"] == {"discovered": 1, "delivered": 0, "failed": 0, "quarantined": 0}
    assert site.json("status")["connectors"]["production"]["credential"]["state"] == "failing"
    site.collector.answer_with(lambda _: None)
    assert site.once()["events"]["sent"] == 10
    assert site.json("status")["connectors"]["production"]["credential"]["state"] == "unverified"


def test_a_refused_request_is_kept_for_later(site: Site) -> None:
    """Exit 1: the object waits, with the reason."""
    site.put_sample(count=10)
    site.collector.answer_with(lambda _: Answer(400, body="no good"))
    assert site.once(exit_code=1)["objects"]["failed"] == 1
    assert "answered 400: no good" in str(site.json("status")["connectors"]["production"]["reasons"])


FOREIGN = {"type": "record", "name": "Row", "fields": [{"name": "a", "type": "int"}]}
GOOD = write_container(schema_of(CLICK), events(20))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"id,time\n1,2\n", "not readable as Avro"),
        (b"", "not readable as Avro"),
        (GOOD[: len(GOOD) // 2], "N of N blocks is unreadable (N events)"),
        (write_container(FOREIGN, [{"a": 1}]), "no Currents file"),
        (write_container(schema_of("users.messages.email.Open"), []), "the key says users.messages.email.Click"),
    ],
    ids=["text", "empty", "truncated", "foreign schema", "another type"],
)
def test_an_unreadable_object_costs_itself_only(site: Site, body: bytes, reason: str) -> None:
    """It is quarantined with its reason, its neighbours are delivered; exit 4."""
    site.put(key(1), body)
    site.put_sample(count=10, offset=2)
    report = site.once(exit_code=4)
    assert report["objects"] == {"discovered": 2, "delivered": 1, "failed": 0, "quarantined": 1}
    assert report["events"]["sent"] == 10
    status = site.json("status")["connectors"]["production"]
    assert status["objects"]["quarantined"] == 1
    assert reason in str(status["reasons"])
    assert site.once(exit_code=4)["objects"]["quarantined"] == 0


def test_an_unsendable_event_costs_itself_only(site: Site) -> None:
    """Absurd time, over 32 KB: kept as dead letters, the rest of the object is delivered; exit 4."""
    rows = events(10)
    rows[2]["time"] = 0
    rows[5]["url"] = "x" * 40_000
    site.put(key(), write_container(schema_of(CLICK), rows))
    report = site.once(exit_code=4)
    assert (report["events"]["sent"], report["events"]["dead_lettered"]) == (8, 2)
    with sqlite3.connect(site.folder / "ledger.sqlite3") as ledger:
        letters = ledger.execute("SELECT row, reason FROM dead_letters ORDER BY row").fetchall()
    ledger.close()
    assert [row for row, _ in letters] == [2, 5]
    assert "time 0" in letters[0][1]


def test_an_event_without_id_has_the_same_message_id_on_every_run(site: Site) -> None:
    """It is derived from the object's key and row."""
    rows = events(3)
    rows[1]["id"] = ""
    site.put(key(), write_container(schema_of(CLICK), rows))
    site.once()
    hour = this_hour().isoformat()
    site.run("backfill", "--from", hour, "--to", hour[:14] + "59", "--resend")
    assert (len(site.collector.by_id), site.collector.duplicates) == (3, 3)


def test_a_key_that_fits_no_layout_is_reported(site: Site) -> None:
    """It is not read, and nothing else suffers."""
    site.put("notes/readme.txt", b"hello")
    site.put_sample(count=3)
    assert site.once()["events"]["sent"] == 3
    (notice,) = site.json("status")["connectors"]["production"]["notices"]
    assert (notice["kind"], notice["subject"]) == ("unread_keys", "not_currents")
    assert "notes/readme.txt" in notice["detail"]
    assert "notes/readme.txt" in site.run("check").stdout


def test_keys_a_little_different_are_read_or_said_with_what_helps(site: Site) -> None:
    """A mirrored file with a folder more is delivered; one compressed as a whole, and a prefix too low, are told."""
    body = write_container(schema_of(CLICK), events(3))
    mirrored = object_key(CLICK, this_hour(), storage="GCS", prefix="gcs/")
    site.put(mirrored.replace("/414/", "/414/more/"), body)
    site.put(f"{mirrored}.gz", body)
    assert site.once(exit_code=4)["events"]["sent"] == 3
    checked = site.run("check")
    assert checked.returncode == 1
    assert ".gz" in checked.stdout
    assert "rename" in checked.stdout
    site.connector["source"]["prefix"] = mirrored.partition("date=")[0]
    checked = site.run("check")
    assert checked.returncode == 1
    assert "set source.prefix to gcs/" in checked.stdout


@pytest.mark.parametrize("kind", ["corrupt", "not writable"])
def test_a_ledger_that_cannot_be_used_stops_the_program_before_anything_is_sent(
    site: Site, kind: str, tmp_path: Path
) -> None:
    """Exit 1, with the file and what to do."""
    site.put_sample()
    path = tmp_path / "broken" if kind == "corrupt" else tmp_path / "file" / "ledger"
    (tmp_path / "file").write_text("a file, no folder")
    if kind == "corrupt":
        path.write_bytes(b"this is no database at all" * 100)
    site.config["ledger"]["url"] = f"sqlite:///{path}"
    done = site.run("once")
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert "Try:" in done.stderr
    assert site.collector.request_count == 0


def test_errors_are_two_lines_and_a_traceback_only_when_asked(site: Site) -> None:
    """`-v` shows the cause."""
    site.config["ledger"]["url"] = f"sqlite:///{site.folder}/none/ledger"
    quiet, verbose = site.run("once"), site.run("once", "-v")
    assert [line[:6] for line in quiet.stderr.splitlines()] == ["Error:", "Try:  "]
    assert "Traceback" in verbose.stderr
