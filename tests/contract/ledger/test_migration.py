"""A ledger of the first version, opened by this one: nothing is forgotten, also where the process is killed in it."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from currents_bridge.errors import Side
from currents_bridge.ledger import database
from currents_bridge.ledger.sql_ledger import SqlLedger
from currents_bridge.model import (
    Books,
    Checkpoint,
    Credential,
    CredentialState,
    CurrentsObject,
    DeadLetter,
    EvidenceKind,
    GroupLimits,
    LetterFilter,
    Notice,
    NoticeKind,
    ObjectState,
    Progress,
    Recorded,
    Rewound,
    Selection,
    Waiting,
)
from tests.ledger_workbench import drifted_totals

NOW = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
HOUR = datetime(2026, 3, 4, 5, tzinfo=UTC)
CLICKS = Selection(frozenset({"Click"}))
FOLDED, DELIVERED, FAILED, QUARANTINED, CLAIMED = (
    f"d.S3.integration.i/event_type=Click/date=2026-03-04-05/1/z/d+{number}.avro" for number in range(5)
)
EVENT = '{"id":"m-1","time":null}'
MESSAGE = '{"type":"track","integrations":{},"messageId":"m-2","event":"100% of it"}'
FILL = """
INSERT INTO objects
    (connector, key, etag, size_bytes, last_modified, event_type, hour, admitted_at, settled_at,
     state, attempts, retry_at, owner, reason, read, sent, dead_lettered)
VALUES
    ('acme', :delivered, 'e', 9, :now, 'Click', '2026-03-04-05', :now, :now, 'delivered', 0, NULL, NULL, NULL, 5, 4, 1),
    ('acme', :failed, 'e', 9, :now, 'Click', '2026-03-04-05', :now, :now, 'failed', 2, :now, NULL, '429', 0, 0, 0),
    ('acme', :quarantined, 'e', 9, :now, 'Click', '2026-03-04-05', :now, :now,
     'quarantined', 0, NULL, NULL, 'no', 0, 0, 0),
    ('acme', :claimed, 'e', 9, :now, 'Click', '2026-03-04-05', :now, NULL, 'claimed', 0, NULL, 'gone', NULL, 0, 0, 0);
INSERT INTO hours (connector, hour, event_type, objects, read, sent, dead_lettered, digests)
VALUES ('acme', '2026-03-04-05', 'Click', 2, 10, 8, 2, :digests);
INSERT INTO dead_letters (connector, object_key, row, event_type, message_id, reason, event, created_at)
VALUES ('acme', :folded, 1, 'Click', 'm-1', 'no time', :event, :now),
       ('acme', :delivered, 2, 'Click', 'm-2', 'too large', :message, :now);
INSERT INTO connectors (name, polled_at, credential_state, credential_since, credential_evidence)
VALUES ('acme', :now, 'failing', :now, 'segment answered 401'),
       ('beta', :now, 'unverified', :now, 'Segment answers 2xx');
INSERT INTO notices (connector, kind, subject, detail, count, noted_at)
VALUES ('acme', 'unrecognised_key', '_SUCCESS', 'fits no layout', 1, :now),
       ('acme', 'unknown_event_type', 'Swipe', 'not in the catalogue', 1, :now);
"""
OPEN_AND_DIE = """
import os, signal, sys
from datetime import UTC, datetime
from sqlalchemy import Engine, event
from currents_bridge.ledger.sql_ledger import SqlLedger

@event.listens_for(Engine, "before_cursor_execute")
def die(connection, cursor, statement, *_):
    if sys.argv[2] in " ".join(statement.split()):
        os.kill(os.getpid(), signal.SIGKILL)

SqlLedger(sys.argv[1], now=datetime(2026, 3, 4, 12, 30, tzinfo=UTC))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a filled ledger of the first version."""
    path = tmp_path / "ledger.sqlite3"
    config = Config()
    config.set_main_option("script_location", str(database._MIGRATIONS))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    values = {
        "folded": FOLDED,
        "delivered": DELIVERED,
        "failed": FAILED,
        "quarantined": QUARANTINED,
        "claimed": CLAIMED,
        "digests": blake2b(FOLDED.encode(), digest_size=8).digest() + blake2b(b"e", digest_size=4).digest(),
        "event": EVENT,
        "message": MESSAGE,
        "now": "2026-03-04 12:30:00.000000",
    }
    with closing(sqlite3.connect(path)) as sqlite, sqlite:
        sqlite.execute("PRAGMA journal_mode = WAL")
        for statement in FILL.split(";")[:-1]:
            sqlite.execute(statement, values)
    return path


@pytest.fixture
def ledger(path: Path) -> Iterator[SqlLedger]:
    """Return the ledger after its migration."""
    ledger = SqlLedger(f"sqlite:///{path}", now=NOW)
    yield ledger
    ledger.close()


def check_whole(ledger: SqlLedger) -> None:
    """Check that everything is there, once."""
    totals = ledger.totals("acme")
    assert totals.books == Books(read=10, sent=8, dead_lettered=2)
    assert totals.objects == {
        ObjectState.PENDING: 0,
        ObjectState.CLAIMED: 1,
        ObjectState.DELIVERED: 2,
        ObjectState.FAILED: 1,
        ObjectState.QUARANTINED: 1,
        ObjectState.EXCLUDED: 0,
    }
    assert totals.notices == [Notice(NoticeKind.UNKNOWN_EVENT_TYPE, "Swipe", "not in the catalogue", 1, NOW)]
    assert [stored.letter for stored in ledger.dead_letters(LetterFilter())] == [
        DeadLetter(1, "m-1", "no time", event=EVENT),
        DeadLetter(2, "m-2", "too large", message=MESSAGE),
    ]


class TestFilledLedger:
    """What the first version wrote."""

    def test_everything_is_there(self, ledger: SqlLedger) -> None:
        """Messages that Segment refused stood among the events, and are told apart now."""
        check_whole(ledger)

    def test_its_totals_are_filled(self, ledger: SqlLedger, path: Path) -> None:
        """From what is there; from then on they are kept as it changes."""
        assert drifted_totals(path) == []
        assert ledger.totals("acme").failed_reasons == {"429": 1, "no": 1}

    def test_it_goes_on(self, ledger: SqlLedger) -> None:
        """Claims of ended processes come free, and what waits has no checkpoint."""
        assert ledger.reclaim("acme", NOW).objects == 1
        failed, suspect = (ledger.claim("acme", CLICKS, GroupLimits(max_objects=1), NOW)[0] for _ in range(2))
        assert (failed.object.key, failed.attempts, failed.checkpoint) == (FAILED, 2, Checkpoint())
        assert (suspect.object.key, suspect.suspect) == (CLAIMED, True)

    def test_its_letters_can_be_replayed(self, ledger: SqlLedger) -> None:
        """Of folded objects, too."""
        for stored in ledger.dead_letters(LetterFilter()):
            assert ledger.replayed({stored.id: None}, NOW)
        assert ledger.totals("acme").books == Books(read=10, sent=10)

    def test_what_is_known_stays_known(self, ledger: SqlLedger) -> None:
        """Rows and folds alike."""
        listed = [CurrentsObject(key, "e", 9, NOW, "Click", HOUR) for key in (FOLDED, DELIVERED, QUARANTINED, FAILED)]
        answers = [Recorded.DELIVERED, Recorded.DELIVERED, Recorded.QUARANTINED, Recorded.FAILED]
        assert ledger.recorded("acme", listed) == answers

    def test_a_failing_credential_is_still_failing(self, ledger: SqlLedger) -> None:
        """As the destination's, since there was one report for both; what had only been taken is no proof."""
        failing = Credential(CredentialState.FAILING, NOW, "segment answered 401", cause=EvidenceKind.DENIED)
        assert ledger.totals("acme").credentials == {Side.SOURCE: Credential(), Side.DESTINATION: failing}
        assert ledger.credential("beta", Side.DESTINATION) == Credential()
        assert ledger.progress("beta") == Progress(polled_at=NOW)

    def test_it_can_be_rewound(self, ledger: SqlLedger) -> None:
        """What it knows the time of; what was folded stays."""
        ledger.reclaim("acme", NOW)
        assert ledger.rewind("acme", NOW, NOW) == Rewound(objects=1, events=4)
        assert ledger.totals("acme").books == Books(read=5, sent=4, dead_lettered=1)
        assert ledger.totals("acme").waiting == Waiting(3, 27, 4, NOW)


@pytest.mark.parametrize(
    "statement",
    [
        "ADD COLUMN checkpoint_rows",
        "RENAME TO",
        "INSERT INTO dead_letters",
        "DROP TABLE",
        "INSERT INTO credentials",
        "DROP COLUMN credential_evidence",
        "CREATE TABLE alert_messages",
        "INSERT INTO folds",
        "UPDATE alembic_version",
    ],
)
def test_a_process_killed_in_the_migration_leaves_the_old_ledger(path: Path, statement: str) -> None:
    """Killed before any of its steps, it has done none; the next process does them all."""
    url = f"sqlite:///{path}"
    died = subprocess.run([sys.executable, "-c", OPEN_AND_DIE, url, statement], check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
        assert connection.execute("SELECT count(*) FROM dead_letters").fetchone() == (2,)
    ledger = SqlLedger(url, now=NOW)
    check_whole(ledger)
    ledger.close()
