import threading
from collections.abc import Sequence
from concurrent.futures import Future

import polars as pl
import pytest

from currents_bridge.delivery.acks import Acknowledgements
from currents_bridge.errors import BridgeError
from currents_bridge.model import Batch, Part, Refusal
from tests.workbench import DENIED, UNWELL

Answer = Future[Sequence[Refusal]]
MAX_AHEAD = 4


def batch(*object_ids: int, row: int = 0) -> Batch:
    """Return a batch of one message of each object."""
    frame = pl.DataFrame(
        {"row": [row], "message_id": ["x"], "message": ['{"a":1}']}, schema_overrides={"row": pl.UInt32}
    )
    return Batch(tuple(Part(id_, frame) for id_ in object_ids), len(object_ids), 100, 20)


def answered(refusals: Sequence[Refusal] = ()) -> Answer:
    """Return the future of a batch that was acknowledged."""
    future: Answer = Future()
    future.set_result(refusals)
    return future


def failed(error: BaseException) -> Answer:
    """Return the future of a batch that was given up."""
    future: Answer = Future()
    future.set_exception(error)
    return future


def test_through_is_the_last_batch_before_the_first_gap() -> None:
    """An acknowledgement that is ahead counts once the gap is filled."""
    sent = Acknowledgements(MAX_AHEAD)
    late: Answer = Future()

    sent.expect(batch(1), answered())
    sent.expect(batch(1), late)
    sent.expect(batch(1), answered())
    assert (sent.submitted, sent.through, sent.batches) == (3, 1, 2)

    late.set_result(())
    sent.wait()
    assert (sent.through, sent.batches, sent.batch_bytes) == (3, 3, 300)


def test_a_late_batch_holds_up_those_that_are_too_far_ahead() -> None:
    """What is ahead of it would be sent again after a crash."""
    sent = Acknowledgements(max_ahead=2)
    late: Answer = Future()
    sent.expect(batch(1), late)
    sent.expect(batch(1), answered())
    timer = threading.Timer(0.05, lambda: late.set_result(()))
    timer.start()

    sent.expect(batch(1), answered())

    assert late.done()
    assert sent.through == 3
    timer.join()


@pytest.mark.parametrize("error", [UNWELL, DENIED])
def test_a_failed_batch_is_a_gap_for_ever(error: BridgeError) -> None:
    """Later acknowledgements do not close it."""
    sent = Acknowledgements(MAX_AHEAD)
    for answer in (answered(), failed(error), answered()):
        sent.expect(batch(1), answer)

    assert (sent.through, sent.batches) == (1, 2)


def test_a_failed_batch_fails_the_objects_in_it_and_those_that_lean_on_others() -> None:
    """An object that stands alone is not hit by the batch of another."""
    sent = Acknowledgements(MAX_AHEAD)
    sent.expect(batch(1, 2), failed(UNWELL))
    sent.expect(batch(3), answered())

    assert [sent.failure_of(id_, alone=True) for id_ in (1, 2, 3)] == [UNWELL, UNWELL, None]
    assert sent.failure_of(3, alone=False) is UNWELL


def test_without_a_failure_nothing_fails() -> None:
    """Whether or not it leans on others."""
    sent = Acknowledgements(MAX_AHEAD)
    sent.expect(batch(1), answered())

    assert sent.failure_of(1, alone=True) is sent.failure_of(1, alone=False) is None


def test_a_credential_error_is_told() -> None:
    """Another error is not one."""
    sent = Acknowledgements(MAX_AHEAD)
    sent.expect(batch(1), failed(UNWELL))
    assert sent.credential_error is None

    sent.expect(batch(2), failed(DENIED))
    assert sent.credential_error is DENIED


def test_a_refused_message_is_kept_with_its_object() -> None:
    """Whole, with the reason; the batch is acknowledged."""
    sent = Acknowledgements(MAX_AHEAD)
    sent.expect(batch(1, 2, row=7), answered([Refusal(2, 7, "x", "odd")]))

    (letter,) = sent.refused(2)
    assert (letter.row, letter.message_id, letter.reason) == (7, "x", "odd")
    assert (letter.event, letter.message) == ("", '{"a":1}')
    assert (list(sent.refused(1)), sent.through) == ([], 1)


def test_a_mistake_of_ours_fails_its_batch() -> None:
    """Nothing shows that it was taken."""
    sent = Acknowledgements(MAX_AHEAD)

    sent.expect(batch(1), failed(ZeroDivisionError("a secret")))
    sent.expect(batch(2), answered())

    assert str(sent.failure_of(1, alone=True)).startswith("a bug in currents-bridge: ZeroDivisionError in ")
    assert (sent.failure_of(2, alone=True), sent.through) == (None, 0)
