"""Outages of hours, on simulated time with the whole program: they cost delay, and nothing else."""

from datetime import timedelta

import pytest

from currents_bridge.demo.simulation import STEP, Rehearsal
from currents_bridge.sending.sender import Sender
from currents_bridge.testing.collector import Answer
from currents_bridge.testing.faulty_s3 import S3Fault
from tests.scenarios.conftest import Rehearse

ONE_POLL = STEP / timedelta(hours=1)


@pytest.fixture(autouse=True)
def no_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait between the attempts of a batch."""
    monkeypatch.setattr(Sender, "_backoff_s", lambda *_: 0.0)


def test_segment_answers_503_for_hours(rehearse: Rehearse) -> None:
    """It is told; one poll after its end everything has arrived once, the oldest first."""
    r = rehearse()
    r.pass_time(3)
    before = len(r.segment.messages)
    r.segment.answer_with(lambda _: Answer(status=503))
    r.pass_time(8)
    assert len(r.segment.messages) == before
    assert _told_of_poll(r) == ["opened"]
    r.segment.answer_with(lambda _: None)
    r.pass_time(8 + ONE_POLL)

    assert not r.missing
    assert r.segment.duplicates == 0
    _canary, *hours = dict.fromkeys(message["timestamp"][:13] for message in r.segment.messages[before:])
    assert hours == sorted(hours)
    assert _told_of_poll(r) == ["opened", "resolved"]


def test_s3_is_away_for_hours(rehearse: Rehearse) -> None:
    """The same of the other side."""
    r = rehearse()
    r.pass_time(2)
    r.s3_fault = S3Fault.CLOSED
    r.pass_time(4)
    assert r.missing
    r.s3_fault = None
    r.pass_time(4 + ONE_POLL)

    assert not r.missing
    assert r.segment.duplicates == 0


def _told_of_poll(r: Rehearsal) -> list[str]:
    return [message.phase for message in r.told if (message.kind, message.subject) == ("job_failing", "poll")]
