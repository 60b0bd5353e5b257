from collections import Counter
from collections.abc import Sequence
from math import ceil, log2

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.errors import CredentialError, RefusedError, RetryLaterError, Side
from currents_bridge.model import Batch, Canary, Part, Refusal
from currents_bridge.sending.bisect import PATIENCE, ObjectsDeniedError, Proof, deliver

Id = tuple[int, int]  # object, row
CANARY = Canary("c", "{}")  # an acknowledged message, and as what it is sent once more
CANARY_ID = (-1, 0)


class Destination:
    """Takes or refuses requests, and remembers them.

    Attributes:
        bad: messages for which a request is refused.
        denied: objects for which it is denied.
        working: False: every request is refused, as for a key of an odd shape.
        dies_after: so many requests, then it no longer works.
        taken: how often each message was taken.
        requests: how many there were.
    """

    def __init__(
        self,
        bad: set[Id] | None = None,
        *,
        denied: set[int] | None = None,
        working: bool = True,
        dies_after: int | None = None,
    ) -> None:
        self.bad = bad or set()
        self.denied = denied or set()
        self.working = working
        self.dies_after = dies_after
        self.taken: Counter[Id] = Counter()
        self.requests = 0

    def send(self, batch: Batch) -> Sequence[Refusal]:
        """Make one request."""
        self.requests += 1
        ids = messages_of(batch)
        if self.denied & {object_id for object_id, _ in ids}:
            raise CredentialError(Side.DESTINATION, "gateway answered 403", "see why")
        dead = self.dies_after is not None and self.requests > self.dies_after
        if dead or not self.working or self.bad & set(ids):
            raise RefusedError("segment answered 400")
        self.taken.update(ids)
        return ()


def make_batch(events: int, object_id: int = 1) -> Batch:
    """Make a batch of one object's messages, in parts of up to seven."""
    ids = [f"{object_id}-{row}" for row in range(events)]
    frame = pl.DataFrame({"row": range(events), "message_id": ids, "message": ids}, schema_overrides={"row": pl.UInt32})
    parts = tuple(Part(object_id, frame.slice(start, 7)) for start in range(0, events, 7))
    return Batch(parts, events, 20 + sum(map(len, ids)) + events - 1, 20)


def many_objects(ids: Sequence[int]) -> Batch:
    """Make a batch of two messages of each object."""
    batches = [make_batch(2, object_id) for object_id in ids]
    size_bytes = sum(batch.size_bytes - 20 for batch in batches) + 20 + len(batches) - 1
    return Batch(tuple(part for batch in batches for part in batch.parts), 2 * len(batches), size_bytes, 20)


def messages_of(batch: Batch) -> list[Id]:
    """Return which messages a batch holds."""
    return [(part.object_id, row) for part in batch.parts for row in part.messages["row"]]


def refused(refusals: Sequence[Refusal]) -> list[Id]:
    """Return which messages were refused."""
    return [(refusal.object_id, refusal.row) for refusal in refusals]


def proven() -> Proof:
    """Return the proof of a destination that took a message before."""
    proof = Proof()
    deliver(make_batch(1, 99), Destination().send, proof)
    return proof


BATCHES = st.lists(st.integers(1, 60), min_size=1, max_size=5)


@given(BATCHES, st.sets(st.tuples(st.integers(0, 4), st.integers(0, 59))))
def test_with_a_working_key_exactly_the_bad_messages_are_refused(sizes: list[int], bad: set[Id]) -> None:
    """All others are taken exactly once; only the canary, a message that was taken before, is taken again."""
    proof = proven()
    destination = Destination(bad)
    owed = {(n, row) for n, size in enumerate(sizes) for row in range(size)}

    refusals = [deliver(make_batch(size, n), destination.send, proof) for n, size in enumerate(sizes)]

    assert sorted(refused([r for of_batch in refusals for r in of_batch])) == sorted(bad & owed)
    assert set(destination.taken) - {CANARY_ID} == owed - bad
    repeated = {message for message, times in destination.taken.items() if times > 1} - {CANARY_ID}
    assert len(repeated) <= sum(map(len, refusals))
    firsts = sum(1 for message in destination.taken if message != CANARY_ID)
    canaries = destination.taken.total() - firsts
    assert canaries <= sum(len(of_batch) // PATIENCE + 1 for of_batch in refusals if of_batch)


@given(BATCHES, st.sets(st.tuples(st.integers(0, 4), st.integers(0, 59))), st.booleans(), st.integers(0, 150))
def test_a_message_is_never_refused_for_a_dead_key(sizes: list[int], bad: set[Id], known: bool, lives: int) -> None:  # noqa: FBT001
    """Whenever the key dies, what is returned as refused is bad, and no batch is called done that is not."""
    proof = proven() if known else Proof()
    destination = Destination(bad, dies_after=lives)

    for n, size in enumerate(sizes):
        batch = make_batch(size, n)
        try:
            refusals = deliver(batch, destination.send, proof)
        except (CredentialError, RetryLaterError):
            continue
        assert set(refused(refusals)) <= bad
        assert set(messages_of(batch)) - set(refused(refusals)) <= set(destination.taken)


@given(BATCHES)
def test_a_destination_that_never_took_anything_sets_nothing_aside(sizes: list[int]) -> None:
    """Each batch fails after a few requests, and nothing is known of its messages."""
    proof = Proof()
    destination = Destination(working=False)

    for count, size in enumerate(sizes):
        before = destination.requests
        with pytest.raises(CredentialError, match="every message so far, be it for the data or for the key"):
            deliver(make_batch(size, count), destination.send, proof)
        assert destination.requests - before <= ceil(log2(size)) + 2 * PATIENCE


def test_after_an_acknowledgement_bad_batches_in_a_row_no_longer_condemn_the_key() -> None:
    """They speak against the key only while it was never seen to work."""
    destination = Destination({(n, 0) for n in range(1, 10)})
    proof = Proof()
    with pytest.raises(CredentialError):
        deliver(make_batch(1, 1), destination.send, proof)

    deliver(make_batch(1, 20), destination.send, proof)

    assert refused(deliver(make_batch(1, 9), destination.send, proof)) == [(9, 0)]


def test_a_lone_bad_message_is_proven_by_the_canary_of_an_earlier_pass() -> None:
    """It is all that another process has of it."""
    destination = Destination({(1, 0)})

    assert refused(deliver(make_batch(1), destination.send, Proof(CANARY))) == [(1, 0)]
    assert destination.taken == {CANARY_ID: 1}


def test_what_was_set_aside_before_needs_no_proof_where_there_is_none() -> None:
    """It stays what it is; with a canary that is refused, it is the key."""
    destination = Destination(working=False)

    assert refused(deliver(make_batch(20), destination.send, Proof(needed=False))) == [(1, n) for n in range(20)]
    with pytest.raises(CredentialError, match="took before"):
        deliver(make_batch(1), destination.send, Proof(CANARY, needed=False))


@given(st.sets(st.integers(0, 39), min_size=1, max_size=39), st.sets(st.tuples(st.integers(0, 39), st.just(1))))
def test_objects_that_are_denied_stand_alone_where_others_are_taken(denied: set[int], bad: set[Id]) -> None:
    """All others of the batch have arrived, but for what is refused of them; it costs a bounded number of requests."""
    destination = Destination(bad, denied=denied)
    batch = many_objects(range(40))

    with pytest.raises(ObjectsDeniedError, match="answered 403; other messages are taken") as caught:
        deliver(batch, destination.send, Proof(CANARY))

    assert caught.value.object_ids == denied
    assert set(refused(caught.value.refusals)) == {message for message in bad if message[0] not in denied}
    assert set(destination.taken) - {CANARY_ID} >= {
        message for message in messages_of(batch) if message[0] not in denied and message not in bad
    }
    assert len(bad) or destination.requests <= 1 + 2 * len(denied) * (ceil(log2(40)) + 1) * 2


@pytest.mark.parametrize("known", [True, False])
def test_a_destination_that_denies_everything_costs_few_requests(known: bool) -> None:  # noqa: FBT001
    """Its canary decides, where there is one."""
    destination = Destination(denied={*range(40), CANARY_ID[0]})

    with pytest.raises(CredentialError, match="answered 403"):
        deliver(many_objects(range(40)), destination.send, Proof(CANARY if known else None))
    assert destination.requests == 1 + known


def test_a_cluster_of_bad_messages_is_no_false_alarm_and_costs_few_requests() -> None:
    """30 bad messages in a row end as 30 refusals: two requests each, the way to them, and a canary for each eight."""
    bad = {(1, row) for row in range(1001, 1031)}
    destination = Destination(bad)

    refusals = deliver(make_batch(2500), destination.send, proven())

    assert refused(refusals) == sorted(bad)
    assert destination.requests <= 2 * 30 + 2 * 2 * 12 + 30 // PATIENCE + 1


@pytest.mark.parametrize("count", [1, 5, 40])
def test_scattered_bad_messages_cost_a_bounded_number_of_requests(count: int) -> None:
    """At most two requests for each bad message and level of halving, and the canaries."""
    bad = {(1, row * (2500 // count)) for row in range(count)}
    destination = Destination(bad)

    assert set(refused(deliver(make_batch(2500), destination.send, proven()))) == bad
    assert destination.requests <= 1 + 2 * count * ceil(log2(2500)) + count // PATIENCE + 1


def test_a_key_that_dies_is_noticed_after_a_few_messages() -> None:
    """Patience ends in the middle of a large batch, not after thousands of requests."""
    destination = Destination(working=False)

    with pytest.raises(CredentialError, match="even a message that it took before: segment answered 400") as caught:
        deliver(make_batch(2500), destination.send, proven())

    assert caught.value.side is Side.DESTINATION
    assert "nothing was set aside" in caught.value.hint
    assert destination.requests <= ceil(log2(2500)) + 2 * PATIENCE + 1


def test_a_lone_bad_batch_is_proven_by_the_canary() -> None:
    """The message that was acknowledged last is sent once more, alone, as it was."""
    proof = Proof()
    deliver(make_batch(3, 7), Destination().send, proof)
    destination = Destination({(1, 0)})

    refusals = deliver(make_batch(1), destination.send, proof)

    assert refusals == [Refusal(1, 0, "1-0", "segment answered 400")]
    assert destination.taken == {CANARY_ID: 1}
    assert proof.canary == Canary("7-0", "7-0")


def test_a_later_sibling_makes_the_canary_needless() -> None:
    """A half that is taken after the bad message proves the key as well."""
    destination = Destination({(1, 0)})

    deliver(make_batch(2), destination.send, proven())

    assert destination.requests == 3


def test_a_request_that_began_before_a_refusal_proves_nothing() -> None:
    """An acknowledgement that comes late was perhaps given before the key died."""
    proof = proven()
    began = proof.now()
    number = proof.refused()

    proof.acknowledged(make_batch(1, 5), (), began)
    assert not proof.proves(number)

    proof.acknowledged(make_batch(1, 5), (), proof.now())
    assert proof.proves(number)


def test_what_a_library_refuses_by_itself_proves_nothing() -> None:
    """A batch that made no request is no acknowledgement, and a message that was refused is no canary."""
    proof = Proof()
    batch = make_batch(2)

    proof.acknowledged(batch, [Refusal(1, row, f"1-{row}", "too large") for row in range(2)], proof.now())
    assert proof.canary is None

    proof.acknowledged(batch, [Refusal(1, 0, "1-0", "too large")], proof.now())
    assert proof.canary == Canary("1-1", "1-1")


def test_refusals_of_the_library_come_with_those_of_segment() -> None:
    """Both end as refusals of the batch."""
    destination = Destination({(1, 3)})
    too_large = Refusal(1, 0, "1-0", "too large")

    def send(batch: Batch) -> Sequence[Refusal]:
        destination.send(batch)
        return [too_large] if (1, 0) in messages_of(batch) else []

    assert refused(deliver(make_batch(4), send, proven())) == [(1, 0), (1, 3)]
    assert too_large in deliver(make_batch(4), send, proven())


def test_a_canary_that_gets_no_answer_leaves_it_open() -> None:
    """While Segment is unwell nothing is set aside, and the key is not blamed."""

    def send(batch: Batch) -> Sequence[Refusal]:
        if messages_of(batch) == [CANARY_ID]:
            raise RetryLaterError("503")
        raise RefusedError("segment answered 400")

    with pytest.raises(RetryLaterError, match="503"):
        deliver(make_batch(1), send, proven())
