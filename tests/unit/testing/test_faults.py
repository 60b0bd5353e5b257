import json
from collections import Counter
from collections.abc import Sequence

import httpx
import pytest

from currents_bridge.testing.collector import Answer, Collector, RequestInfo
from currents_bridge.testing.faults import PASSING, Fault, FaultSchedule


def body_of(message_id: str) -> bytes:
    """Return a request body with one good message."""
    message = {
        "type": "track",
        "messageId": message_id,
        "userId": "u1",
        "event": "Email Clicked",
        "timestamp": "2026-01-02T03:04:05.678Z",
        "properties": {},
    }
    return json.dumps({"batch": [message], "sentAt": "2026-01-02T03:04:06.000Z"}).encode()


def answers(schedule: FaultSchedule, count: int = 2000) -> Sequence[Answer | None]:
    """Return the schedule's answers to so many requests."""
    return [schedule(RequestInfo(number, {}, 0, body_of("m"))) for number in range(1, count + 1)]


def post(collector: Collector, message_id: str = "m1") -> httpx.Response:
    """Post one message over a connection of its own."""
    return httpx.post(f"{collector.url}/v1/batch", content=body_of(message_id), auth=("key", ""), timeout=10)


def test_a_seed_gives_the_same_faults_again_whatever_the_order() -> None:
    """What becomes of a request depends on seed and number only."""
    assert answers(FaultSchedule(7)) == answers(FaultSchedule(7))
    assert answers(FaultSchedule(7)) != answers(FaultSchedule(8))
    schedule = FaultSchedule(7)
    backwards = [schedule(RequestInfo(number, {}, 0, body_of("m"))) for number in range(2000, 0, -1)]
    assert backwards[::-1] == answers(FaultSchedule(7))


def test_the_share_of_requests_meets_a_fault_of_any_kind_that_passes() -> None:
    """All kinds occur, and none that a sender could not see."""
    schedule = FaultSchedule(7, share=0.3)

    met = answers(schedule)

    assert 0.25 < schedule.counts.total() / len(met) < 0.35
    assert set(schedule.counts) == set(PASSING)
    assert {answer.status for answer in met if answer} == {200, 408, 429, 500, 502, 503, 504}
    assert {name for answer in met if answer for name in answer.headers} == {"Retry-After", "X-RateLimit-Reset"}
    assert {answer.reset for answer in met if answer} == {None, "before", "after"}
    assert not any(answer.drop for answer in met if answer)


def test_calm_ends_the_faults_and_bad_messages_stay_bad() -> None:
    """After it, only a request with a bad message is answered otherwise than usual."""
    schedule = FaultSchedule(7, share=1, refuse=lambda message: message["messageId"] == "bad")
    assert None not in answers(schedule, 50)

    schedule.calm()

    assert answers(schedule, 50) == [None] * 50
    answer = schedule(RequestInfo(51, {}, 0, body_of("bad")))
    assert answer is not None
    assert answer.status == 400


@pytest.mark.parametrize("kind", [Fault.SLOW, Fault.RESET_AFTER, Fault.DROPPED])
def test_a_fault_does_not_let_a_bad_message_in(kind: Fault) -> None:
    """What is taken in spite of a fault is taken under the same rules."""
    schedule = FaultSchedule(7, share=1, kinds=[kind], refuse=lambda _: True)

    answer = schedule(RequestInfo(1, {}, 0, body_of("m")))

    assert answer is not None
    assert answer.status == 400


@pytest.mark.parametrize(
    ("reset", "taken"),
    [("before", 0), ("after", 1)],
)
def test_a_reset_cuts_the_connection_without_an_answer(reset: str, taken: int) -> None:
    """Before: nothing was taken; after: all was, and the client cannot know."""
    kind = Fault.RESET_BEFORE if reset == "before" else Fault.RESET_AFTER
    with Collector() as collector:
        collector.answer_with(FaultSchedule(7, share=1, kinds=[kind]))

        with pytest.raises(httpx.ReadError, match="reset by peer"):
            post(collector)

        assert len(collector.messages) == taken
        assert collector.requests[0].reset == reset


def test_dropped_events_get_200_and_are_told_apart() -> None:
    """Only the collector knows that they are lost."""
    with Collector() as collector:
        collector.answer_with(FaultSchedule(7, share=1, kinds=[Fault.DROPPED]))

        assert post(collector).status_code == 200

        assert collector.messages == []
        assert [message["messageId"] for message in collector.dropped_by_fault] == ["m1"]
        assert collector.dropped == []


def test_a_client_that_tries_again_gets_through_every_fault() -> None:
    """Each message arrives; repeats are only those whose acknowledgement was lost."""
    schedule = FaultSchedule(7, share=0.5, longest_delay_s=0.01)
    with Collector() as collector:
        collector.answer_with(schedule)
        for n in range(40):
            for _ in range(30):
                try:
                    if post(collector, f"m{n}").is_success:
                        break
                except httpx.TransportError:
                    pass

        assert set(collector.by_id) == {f"m{n}" for n in range(40)}
        assert collector.duplicates == schedule.counts[Fault.RESET_AFTER] > 0
        assert Counter(r.reset for r in collector.requests)["before"] == schedule.counts[Fault.RESET_BEFORE]
