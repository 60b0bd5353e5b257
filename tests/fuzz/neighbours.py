"""Deliver one file between two healthy ones, from the container to the messages."""

from collections.abc import Sequence

from currents_bridge.model import Batch, ObjectState, Refusal
from currents_bridge.testing.currents_files import object_key
from currents_bridge.testing.fake_transport import FakeTransport
from tests.workbench import CLICK, HOUR, Bench, clicks

THING = "users.custom.Thing"  # no type of the catalogue: any field is a property


class Forgetful(FakeTransport):
    """Counts some messages and keeps none: what a file makes of its bytes would count as memory that it costs."""

    def __init__(self, wanted: set[str]) -> None:
        super().__init__()
        self.arrived = dict.fromkeys(wanted, 0)

    def send(self, batch: Batch) -> Sequence[Refusal]:
        """Acknowledge all."""
        for part in batch.parts:
            for message_id in self.arrived.keys() & set(part.messages["message_id"]):
                self.arrived[message_id] += 1
        return ()


def deliver(body: bytes, event_type: str = CLICK) -> ObjectState:
    """Deliver a file between healthy ones, return its state; raises AssertionError where those do not arrive once."""
    healthy_ids = {event["id"] for offset in (0, 2) for event in clicks(3, offset)}
    transport = Forgetful(healthy_ids)
    bench = Bench(transport=transport, include=("all",))
    healthy = [bench.put(3, offset=0), bench.put(3, offset=2)]
    key = object_key(event_type, HOUR, offset=1)
    bench.store.put(key, body, last_modified=HOUR)
    bench.connector().poll()
    states = bench.states_by_key()
    assert all(states[name] is ObjectState.DELIVERED for name in healthy), states
    assert set(transport.arrived.values()) == {1}, "events of a healthy file are missing, or came again"
    assert states[key] in {ObjectState.DELIVERED, ObjectState.QUARANTINED}, states
    return states[key]
