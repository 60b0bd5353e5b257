"""Deliver one file between two healthy ones, from the container to the messages."""

from collections.abc import Sequence

from currents_bridge.model import Batch, ObjectState, Refusal
from currents_bridge.testing.currents_files import object_key
from currents_bridge.testing.fake_transport import FakeTransport
from tests.workbench import CLICK, HOUR, Bench, clicks

THING = "users.custom.Thing"  # no type of the catalogue: any field is a property


class Forgetful(FakeTransport):
    """Keeps no message: what a file makes of its bytes would count as memory that it costs."""

    def __init__(self, wanted: set[str]) -> None:
        super().__init__()
        self.missing = wanted

    def send(self, batch: Batch) -> Sequence[Refusal]:
        """Acknowledge all."""
        for part in batch.parts:
            if part.messages.height < 100:  # a healthy file has fewer, and none is cut in two
                self.missing = self.missing.difference(part.messages["message_id"])
        return ()


def deliver(body: bytes, event_type: str = CLICK) -> ObjectState:
    """Deliver the file between healthy ones and return its state; raises AssertionError where those do not arrive."""
    healthy_ids = {event["id"] for offset in (0, 2) for event in clicks(3, offset)}
    transport = Forgetful(healthy_ids)
    bench = Bench(transport=transport, include=("all",))
    healthy = [bench.put(3, offset=0), bench.put(3, offset=2)]
    key = object_key(event_type, HOUR, offset=1)
    bench.store.put(key, body, last_modified=HOUR)
    bench.connector().poll()
    states = bench.states_by_key()
    assert all(states[name] is ObjectState.DELIVERED for name in healthy), states
    assert not transport.missing, "events of a healthy file are missing"
    assert states[key] in {ObjectState.DELIVERED, ObjectState.QUARANTINED}, states
    return states[key]
