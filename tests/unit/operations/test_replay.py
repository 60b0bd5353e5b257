from unittest.mock import Mock

import orjson
import pytest

from currents_bridge.errors import CredentialError, RefusedError, RetryLaterError
from currents_bridge.events.mapping import AnonymousUsers, Mapper, MappingRules
from currents_bridge.model import Books, Canary, LetterFilter, Refusal, StoredDeadLetter
from currents_bridge.operations import replay as job
from currents_bridge.operations.replay import ReplayReport, replay, replay_all
from tests.workbench import DENIED, NAME, UNWELL, Bench, clicks

REFUSED = RefusedError("segment answered 400")


@pytest.fixture
def bench() -> Bench:
    """A connector's core on fakes."""
    return Bench()


def letters(bench: Bench) -> list[StoredDeadLetter]:
    """Return all dead letters."""
    return bench.ledger.dead_letters(LetterFilter(connector=NAME))


def refused_by_segment(bench: Bench, events: int = 3) -> list[StoredDeadLetter]:
    """Deliver an object all of whose messages Segment refuses, and return its dead letters."""
    bench.put(clicks(events))
    group = bench.claim()
    bench.transport.outcomes.append([Refusal(group[0].id, row, f"message-{row}", "odd") for row in range(events)])
    bench.deliver(group)
    return letters(bench)


def refused_by_a_rule(bench: Bench) -> StoredDeadLetter:
    """Deliver an object with an event that has an absurd time, and return its dead letter."""
    bench.put([clicks(1)[0] | {"time": 0}])
    bench.deliver()
    (letter,) = letters(bench)
    return letter


def mended(bench: Bench, stored: StoredDeadLetter) -> StoredDeadLetter:
    """Return the letter as if another rule, which is gone, had set the event aside."""
    event = orjson.loads(stored.letter.event) | {"time": int(bench.now.timestamp())}
    object.__setattr__(stored.letter, "event", orjson.dumps(event).decode())
    return stored


def test_an_event_that_a_rule_refused_is_mapped_anew_by_the_rules_of_today(bench: Bench) -> None:
    """It arrives with the id and the row it always had, and counts as sent."""
    letter = mended(bench, refused_by_a_rule(bench))

    assert replay(bench.connector(), [letter]) == ReplayReport(sent=1)

    assert bench.sent_ids() == [letter.letter.message_id]
    assert bench.transport.messages[0]["type"] == "track"
    assert letters(bench) == []
    assert bench.ledger.totals(NAME).books == Books(read=1, sent=1)


def test_an_event_with_nested_values_is_mapped_as_it_was_read(bench: Bench) -> None:
    """Records and lists of several types, and numbers digit by digit."""
    letter = mended(bench, refused_by_a_rule(bench))
    odd = {"url": {"a": [1, "b", None, {"c": 18446744073709551615}]}, "link_id": [[1], "x"]}
    event = orjson.loads(letter.letter.event) | odd
    object.__setattr__(letter.letter, "event", orjson.dumps(event).decode())

    assert replay(bench.connector(), [letter]) == ReplayReport(sent=1)

    properties = bench.transport.messages[0]["properties"]
    assert (properties["link_url"], properties["link_id"]) == (odd["url"], odd["link_id"])


def test_an_event_of_which_only_the_beginning_was_kept_is_not_sent(bench: Bench) -> None:
    """The letter stays and says what to do."""
    bench.put([clicks(1)[0] | {"url": "u" * 100_000}])
    bench.deliver()
    (letter,) = letters(bench)

    assert replay(bench.connector(), [letter]) == ReplayReport(refused=1)

    (kept,) = letters(bench)
    assert "backfill --resend" in kept.letter.reason
    assert bench.transport.attempts == 0


def test_an_event_that_the_rules_refuse_again_stays(bench: Bench) -> None:
    """With one attempt more; nothing is sent."""
    letter = refused_by_a_rule(bench)

    assert replay(bench.connector(), [letter]) == ReplayReport(refused=1)

    assert [stored.attempts for stored in letters(bench)] == [1]
    assert bench.transport.attempts == 0
    assert bench.ledger.totals(NAME).books == Books(read=1, dead_lettered=1)


def test_an_event_whose_user_is_anonymous_by_the_rules_of_today_stays(bench: Bench) -> None:
    """There is nothing to send, which is no acknowledgement."""
    sending = Mapper(MappingRules(library_version="1", anonymous_users=AnonymousUsers.SEND))
    skipping, bench.mapper = bench.mapper, sending  # type: ignore[assignment]
    bench.put([clicks(1)[0] | {"time": 0, "external_user_id": None}])
    bench.deliver()
    bench.mapper = skipping
    (letter,) = letters(bench)

    assert replay(bench.connector(), [mended(bench, letter)]) == ReplayReport(refused=1)

    assert [stored.letter.reason for stored in letters(bench)] == ["the user has no external_user_id"]


def test_a_message_that_segment_refused_is_sent_as_it_was(bench: Bench) -> None:
    """Byte for byte; letters share batches."""
    found = refused_by_segment(bench)

    assert replay(bench.connector(), found) == ReplayReport(sent=3)

    sent = [text for part in bench.transport.batches[-1].parts for text in part.messages["message"]]
    assert sent == [stored.letter.message for stored in found]
    assert bench.transport.attempts == 2
    assert bench.ledger.totals(NAME).books == Books(read=3, sent=3)


def test_a_replay_does_not_count_twice(bench: Bench) -> None:
    """Letters that somebody else replayed meanwhile are gone."""
    found = refused_by_segment(bench)
    replay(bench.connector(), found)

    assert replay(bench.connector(), found) == ReplayReport(gone=3)

    assert bench.ledger.totals(NAME).books == Books(read=3, sent=3)


def test_a_message_that_is_refused_again_stays_with_the_new_reason(bench: Bench) -> None:
    """The others of its batch are acknowledged."""
    found = refused_by_segment(bench)
    bench.transport.outcomes.append([Refusal(found[1].id, found[1].letter.row, "x", "still odd")])

    assert replay(bench.connector(), found) == ReplayReport(sent=2, refused=1)

    (kept,) = letters(bench)
    assert (kept.id, kept.letter.reason, kept.attempts) == (found[1].id, "still odd", 1)
    assert bench.ledger.totals(NAME).books == Books(read=3, sent=2, dead_lettered=1)


def test_a_refusal_without_a_word_is_a_refusal(bench: Bench) -> None:
    """The report and the ledger agree."""
    found = refused_by_segment(bench, 1)
    bench.transport.outcomes.append([Refusal(found[0].id, 0, "x", "")])

    assert replay(bench.connector(), found) == ReplayReport(refused=1)
    assert len(letters(bench)) == 1


@pytest.mark.parametrize(("outcomes", "error"), [([DENIED], CredentialError), ([UNWELL] * 6, RetryLaterError)])
def test_a_destination_that_takes_nothing_ends_the_replay(
    bench: Bench, outcomes: list[Exception], error: type[Exception]
) -> None:
    """What was acknowledged before is settled, the rest stays as it is."""
    found = refused_by_segment(bench)
    connector = bench.connector(max_batch_events=1)
    bench.transport.outcomes.extend(outcomes)  # type: ignore[arg-type]

    with pytest.raises(error):
        replay(connector, found)

    assert letters(bench) == found


@pytest.mark.parametrize("proven", [True, False])
def test_a_lone_letter_that_is_still_refused_is_told_as_such(bench: Bench, proven: bool) -> None:  # noqa: FBT001
    """Also where no other message was acknowledged lately: it stays what it was, whatever is at fault."""
    found = refused_by_segment(bench, 1)
    if proven:
        bench.ledger.keep_canary(NAME, Canary("m", "{}"), bench.now)
    bench.transport.outcomes.append(REFUSED)

    report = replay(bench.connector(), found)

    assert (report.sent, report.refused) == (0, 1)
    (letter,) = letters(bench)
    assert (letter.letter.reason, letter.attempts) == ("segment answered 400", 1)


def test_a_key_that_refuses_what_it_took_before_changes_no_letter(bench: Bench) -> None:
    """It says nothing of the letter."""
    found = refused_by_segment(bench, 1)
    bench.ledger.keep_canary(NAME, Canary("m", "{}"), bench.now)
    bench.transport.outcomes.extend([REFUSED, REFUSED])

    with pytest.raises(CredentialError, match="even a message that it took before"):
        replay(bench.connector(), found)

    assert letters(bench) == found


def test_a_letter_that_is_denied_stays_and_the_others_go(bench: Bench) -> None:
    """As where a gateway dislikes what it holds."""
    found = refused_by_segment(bench, 3)
    bench.ledger.keep_canary(NAME, Canary("m", "{}"), bench.now)
    bench.transport.outcomes.extend([DENIED, (), DENIED, ()])  # all three; canary; the first of them; canary

    report = replay(bench.connector(), found)

    assert (report.sent, report.refused) == (2, 1)
    assert [letter.id for letter in letters(bench)] == [found[0].id]
    assert letters(bench)[0].letter.reason == "segment answered 401; other messages are taken"


def test_letters_are_replayed_page_by_page(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is looked at once, also where it stays; so memory holds one page of any number."""
    monkeypatch.setattr(job, "LETTERS_AT_ONCE", 2)
    refused_by_segment(bench, 5)
    bench.transport.outcomes.append([Refusal(letters(bench)[0].id, 0, "x", "still odd")])

    assert replay_all(bench.connector(), LetterFilter()) == ReplayReport(sent=4, refused=1)

    assert [len(batch.parts) for batch in bench.transport.batches[1:]] == [2, 2, 1]


def test_letters_that_are_alike_are_mapped_together(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapping costs a millisecond, however few the events; each still arrives under its own id."""
    bench.put([event | {"time": 0} for event in clicks(5)])
    bench.deliver()
    found = [mended(bench, letter) for letter in letters(bench)]
    mapping = Mock(wraps=bench.mapper.map_together)
    monkeypatch.setattr(bench.mapper, "map_together", mapping)

    assert replay(bench.connector(), found) == ReplayReport(sent=5)

    assert mapping.call_count == 1
    assert bench.sent_ids() == [letter.letter.message_id for letter in found]


def test_a_batch_of_letters_is_recorded_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One commit for all of it, since each waits for the disk."""
    found = refused_by_segment(bench, 5)
    recording = Mock(wraps=bench.ledger.replayed)
    monkeypatch.setattr(bench.ledger, "replayed", recording)

    assert replay(bench.connector(), found) == ReplayReport(sent=5)

    assert recording.call_count == 1
