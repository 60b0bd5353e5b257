"""Objects that were written again after they were delivered: what there is to say of them, by event type. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from currents_bridge.model import CurrentsObject, Notice, NoticeKind
from currents_bridge.sources.coverage import HOUR


@dataclass(slots=True)
class _OfType:
    """Those of one event type: a whole bucket may be written again, so only one is named."""

    first: CurrentsObject
    first_hour: datetime
    last_hour: datetime
    count: int = 0


@dataclass(slots=True)
class Rewritten:
    """What was written again after it was delivered, and is not delivered again by itself."""

    types: dict[str, _OfType] = field(default_factory=dict)

    def add(self, objects: Iterable[CurrentsObject]) -> None:
        """Count objects."""
        for item in objects:
            of_type = self.types.setdefault(item.event_type, _OfType(item, item.hour, item.hour))
            of_type.count += 1
            of_type.first_hour = min(of_type.first_hour, item.hour)
            of_type.last_hour = max(of_type.last_hour, item.hour)

    def merge(self, other: "Rewritten") -> None:
        """Add those of another look, which are other objects."""
        for event_type, of_type in other.types.items():
            mine = self.types.setdefault(event_type, of_type)
            if mine is not of_type:
                mine.count += of_type.count
                mine.first_hour = min(mine.first_hour, of_type.first_hour)
                mine.last_hour = max(mine.last_hour, of_type.last_hour)

    def notices(self, connector: str) -> Iterator[Notice]:
        """Yield one for each event type, with the command that sends them again."""
        for event_type, of_type in self.types.items():
            command = (
                f"currents-bridge backfill --resend --connector {connector} --event-type '{event_type}' "
                f"--from {_text(of_type.first_hour)} --to {_after(of_type.last_hour)}"
            )
            detail = f"written again after delivery, like {of_type.first.key}; to send that: {command}"
            yield Notice(NoticeKind.OBJECT_CHANGED, event_type, detail, of_type.count)


def _text(hour: datetime) -> str:
    return hour.isoformat(timespec="minutes").removesuffix("+00:00")


def _after(hour: datetime) -> str:
    """Return the end of an hour; that of the last one there is lies in it."""
    try:
        return _text(hour + HOUR)
    except OverflowError:
        return _text(hour.replace(minute=59))
