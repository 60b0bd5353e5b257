"""Delivers everything that is due in a selection, with several workers; what `once`, `run` and `backfill` share."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

from currents_bridge.delivery.group import Delivery, GroupReport
from currents_bridge.errors import BridgeError, CredentialError, LedgerError
from currents_bridge.model import Books, ClaimedObject, CurrentsObject, Delivered, Failed, Quarantined
from currents_bridge.ports import Ledger


@dataclass(slots=True)
class TransferReport:
    """What one run did for one connector; the JSON of `once` and `backfill`."""

    discovered: int = 0
    delivered: int = 0
    quarantined: int = 0
    books: Books = field(default_factory=Books)
    batches: int = 0
    batch_bytes: int = 0  # serialised, before compression
    seconds: float = 0.0
    sent_first: int = 0  # events acknowledged in objects that were never rewound, or on trial
    sent_again: int = 0  # events acknowledged in objects that were rewound
    changed: list[CurrentsObject] = field(default_factory=list)  # were written again while they waited
    denied_folders: int = 0  # that may not be listed, while others may
    findings: Mapping[str, int] = field(default_factory=dict)  # of the audit, where there was one
    error: BridgeError | None = None  # what ended the run early, the first one
    _in_doubt: list[Failed] = field(default_factory=list)  # failures that may be those of a side
    _waiting: dict[int, str] = field(default_factory=dict)  # id of each failed object -> why
    _set_aside: Counter[str] = field(default_factory=Counter)  # why objects were quarantined

    @property
    def failed(self) -> int:
        """How many objects wait after a failed attempt; a long run may deliver them yet."""
        return len(self._waiting)

    @property
    def reasons(self) -> Counter[str]:
        """Why objects wait or were quarantined, and how many."""
        return self._set_aside + Counter(self._waiting.values())

    def add(self, report: GroupReport) -> None:
        """Add what became of a group."""
        for settlement in report.settlements:
            self._waiting.pop(settlement.id, None)
            match settlement:
                case Delivered(books=books):
                    self.delivered += 1
                    self.books += books
                case Failed(id=id_, reason=reason):
                    self._waiting[id_] = reason
                    if settlement.side:
                        self._in_doubt.append(settlement)
                case Quarantined(reason=reason, books=books):
                    self.quarantined += 1
                    self.books += books  # of what could be read
                    self._set_aside[reason] += 1
        self.changed += report.changed
        self.batches += report.batches
        self.batch_bytes += report.batch_bytes
        if report.credential_error and not isinstance(self.error, CredentialError):
            self.error = report.credential_error  # says more than a listing that failed now and then

    def take_in_doubt(self) -> list[Failed]:
        """Return the failures that may be those of a side, of objects that still wait, and forget them."""
        in_doubt, self._in_doubt = self._in_doubt, []
        return [failure for failure in in_doubt if failure.id in self._waiting]

    def as_json(self) -> dict[str, object]:
        """Return the connector's part of the JSON document."""
        return {
            "objects": {
                "discovered": self.discovered,
                "delivered": self.delivered,
                "failed": self.failed,
                "quarantined": self.quarantined,
            },
            "events": asdict(self.books),
            "batches": self.batches,
            "bytes": self.batch_bytes,
            "seconds": round(self.seconds, 3),
            "error": self.error and self.error.message,
            "reasons": dict(self.reasons),
        }


class Transfer:
    """Runs the workers of one connector. `claim` gives the next group, empty where there is none.

    `go_on` is asked before each group; once it says no, none is begun.

    Attributes:
        unreleased: ids of objects that are still claimed though no one works on them, since the ledger failed twice.
    """

    def __init__(  # noqa: PLR0913 - the composition root hands in each collaborator by name
        self,
        *,
        connector: str,
        ledger: Ledger,
        delivery: Delivery,
        claim: Callable[[], Sequence[ClaimedObject]],
        workers: int,
        stop: threading.Event,
        go_on: Callable[[], bool] = lambda: True,
    ) -> None:
        self._connector = connector
        self._ledger = ledger
        self._delivery = delivery
        self._workers = workers
        self._claim = claim
        self._stop = stop
        self._go_on = go_on
        self.unreleased: list[int] = []

    def run(self, report: TransferReport, on_group: Callable[[TransferReport], None] = lambda _: None) -> None:
        """Claim and deliver groups until there is none, adding to `report`.

        Ends early on a stop, when `go_on` says no, where nothing of a group came through, and on a CredentialError or
        LedgerError, which is kept as the report's error; a mistake of ours is raised once all workers have stopped.
        `on_group` is called after each group, by one thread at a time.
        """
        ended = threading.Event()
        lock = threading.Lock()
        began = time.monotonic() - report.seconds

        def work() -> None:
            try:
                while not (ended.is_set() or self._stop.is_set()) and self._go_on():
                    group = self._claim()
                    if not group:
                        return
                    outcome = self._deliver(group)
                    with lock:
                        report.add(outcome)
                        first, again = _sent(group, outcome)
                        report.sent_first += first + outcome.tried_events
                        report.sent_again += again
                        report.seconds = time.monotonic() - began
                        on_group(report)
                    if outcome.nothing_through or outcome.credential_error:
                        ended.set()
            except BridgeError as error:
                ended.set()
                with lock:
                    report.error = report.error or error
            except BaseException:
                ended.set()
                raise

        with ThreadPoolExecutor(self._workers, thread_name_prefix=f"worker-{self._connector}") as pool:
            workers = [pool.submit(work) for _ in range(self._workers)]
        report.seconds = time.monotonic() - began
        for worker in workers:
            worker.result()

    def _deliver(self, group: Sequence[ClaimedObject]) -> GroupReport:
        try:
            return self._delivery.deliver(group)
        except BaseException:
            # whatever happened, a claim must not outlive the work on it; settled objects are not touched
            ids = [claimed.id for claimed in group]
            try:
                self._ledger.release(ids)
            except LedgerError:  # what went wrong first is told
                self.unreleased += ids
            raise


def _sent(group: Sequence[ClaimedObject], outcome: GroupReport) -> tuple[int, int]:
    """Return how many events were acknowledged for the first time, and how many after a rewind."""
    rewound = {claimed.id for claimed in group if claimed.rewinds}
    sent = [(s.id in rewound, s.books.sent) for s in outcome.settlements if not isinstance(s, Failed)]
    again = sum(events for is_rewound, events in sent if is_rewound)
    return sum(events for _, events in sent) - again, again
