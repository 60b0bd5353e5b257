"""From claimed objects to runs of events: fetched ahead, suspects tried first, small objects decoded together."""

import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from currents_bridge.avro.container import Container, Together, decode_together
from currents_bridge.delivery.acks import Acknowledgements
from currents_bridge.delivery.fetching import FetchAhead
from currents_bridge.delivery.progress import Run, Share, Work
from currents_bridge.delivery.trials import COURT
from currents_bridge.errors import (
    BridgeError,
    LedgerError,
    ObjectGoneError,
    QuarantineObjectError,
    RetryLaterError,
    StoppedError,
)
from currents_bridge.events.catalogue import EventType, canonical_name
from currents_bridge.events.mapping import Mapper
from currents_bridge.logs import get_logger
from currents_bridge.mistakes import MISTAKES, described
from currents_bridge.ports import Ledger, ObjectStore

SMALL_BYTES = 256 * 1024  # of an object that is read together with others
TOGETHER_BYTES = 1024 * 1024  # of small objects; beyond that their fixed costs are a few per cent
SPOOL_BYTES = 1024 * 1024  # of a suspect in memory, which may be short; what is more goes to a temporary file

log = get_logger()


@dataclass(frozen=True, slots=True)
class _Opened:
    """A small object, fetched whole."""

    work: Work
    body: BinaryIO
    container: Container

    def reopened(self) -> "_Opened":
        self.body.seek(0)
        return _Opened(self.work, self.body, Container(self.body))


class Reader:
    """Reads the objects of groups; what stops an object is kept as its failure and costs it alone. Thread-safe."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        ledger: Ledger,
        mapper: Mapper,
        event_type: Callable[[str], EventType],
        stop: threading.Event,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._mapper = mapper
        self._event_type = event_type
        self._stop = stop

    def runs(self, works: Sequence[Work], sent: Acknowledgements) -> Generator[Run]:
        """Yield the events of all objects, those of each in order.

        Nothing is begun behind a stop or a denial, and an object whose batch failed is not gone on with: all of it
        would only be sent for the first of several times. To be closed by whoever leaves it early.
        """
        small: list[_Opened] = []
        with FetchAhead(self._store, [work.claimed.object for work in works]) as fetch:
            for work in works:
                if not self._may_begin(work, sent):
                    continue
                if work.claimed.suspect:
                    yield from self._suspect(work, fetch, sent)
                elif not _is_small(work):
                    yield from self._large(work, fetch, sent)
                elif opened := self._opened(work, fetch):
                    if small and not _fits(opened, small):
                        yield from self._small(small, sent)
                        small = []
                    small.append(opened)
            yield from self._small(small, sent)

    def _may_begin(self, work: Work, sent: Acknowledgements) -> bool:
        if self._stop.is_set() or sent.credential_error:
            work.failure = StoppedError(f"{work.claimed.object.key} was begun")
        return work.failure is None

    def _opened(self, work: Work, fetch: FetchAhead) -> _Opened | None:
        with _failure_kept(work):
            body = fetch.open(work.claimed.object)
            return _Opened(work, body, self._container(work, body))
        return None

    def _small(self, small: Sequence[_Opened], sent: Acknowledgements) -> Iterator[Run]:
        with COURT.reading():
            yield from self._together(small, sent)

    def _together(self, small: Sequence[_Opened], sent: Acknowledgements) -> Iterator[Run]:
        """Yield small objects in one run; in more where they unpack to a lot, or one cannot be read with the others."""
        small = [opened for opened in small if self._may_begin(opened.work, sent)]
        if len(small) < 2:  # noqa: PLR2004 - nothing to put together
            for opened in small:
                yield from self._slices(opened.work, opened.container, sent)
        elif together := _decoded_together(small):
            shares = [Share(opened.work, 0, height) for opened, height in zip(small, together.heights, strict=True)]
            for share in shares:
                share.work.ended = True
            yield Run(self._type_of(small[0].work), together.events, shares)
        else:
            half = len(small) // 2
            for part in (small[:half], small[half:]):
                yield from self._together([opened.reopened() for opened in part], sent)

    def _large(self, work: Work, fetch: FetchAhead, sent: Acknowledgements) -> Iterator[Run]:
        with COURT.reading(), _failure_kept(work), fetch.open(work.claimed.object) as stream:
            yield from self._slices(work, self._container(work, stream), sent)

    def _suspect(self, work: Work, fetch: FetchAhead, sent: Acknowledgements) -> Iterator[Run]:
        """Read a suspect once it was decoded and mapped without harm to the process; until then nothing is sent.

        The bytes are fetched before, so that the trial is short and nothing but the object can end it.
        """
        with _failure_kept(work), tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            fetched = cast("BinaryIO", spool)
            with fetch.open(work.claimed.object) as stream:
                shutil.copyfileobj(stream, fetched)
            with COURT.turn():
                if not self._may_begin(work, sent):  # it may have been a long wait
                    return
                with COURT.trial() as part_begins:
                    self._try(work, fetched, part_begins)
                fetched.seek(0)
                with COURT.reading():
                    yield from self._slices(work, self._container(work, fetched), sent)

    def _slices(self, work: Work, container: Container, sent: Acknowledgements) -> Iterator[Run]:
        with _failure_kept(work):
            for piece in container.slices(skip_rows=work.claimed.checkpoint.rows):
                if self._stop.is_set() and work.rows > work.claimed.checkpoint.rows:
                    work.failure = StoppedError(f"row {piece.first_row} of {work.claimed.object.key}")
                    return
                share = Share(work, piece.first_row, piece.events.height, damaged=bool(container.damage))
                yield Run(self._type_of(work), piece.events, [share], piece.json_fields, piece.unreadable)
                if work.failure or sent.failure_of(work.claimed.id, alone=True):
                    return
            work.ended = True

    def _try(self, work: Work, fetched: BinaryIO, part_begins: Callable[[], None]) -> None:
        """Decode and map a suspect, slice by slice, saying where it stands; sends nothing."""
        row = work.claimed.checkpoint.rows
        try:
            fetched.seek(0)
            part_begins()
            self._ledger.begin_trial(work.claimed, row)
            for piece in self._container(work, fetched).slices(skip_rows=row):
                self._mapper.map(piece, self._type_of(work), work.claimed.object.key)
                part_begins()
                self._ledger.begin_trial(work.claimed, piece.first_row + piece.events.height)
        except LedgerError:
            raise
        except MISTAKES:
            pass  # it comes again when the object is read
        self._ledger.clear_suspicion(work.claimed.id)

    def _container(self, work: Work, stream: BinaryIO) -> Container:
        container = Container(stream)
        check_witness(container.record_name, work.claimed.object.event_type)
        return container

    def _type_of(self, work: Work) -> EventType:
        return self._event_type(work.claimed.object.event_type)


def _is_small(work: Work) -> bool:
    claimed = work.claimed
    return claimed.object.size_bytes <= SMALL_BYTES and not claimed.checkpoint.rows


def _fits(opened: _Opened, small: Sequence[_Opened]) -> bool:
    """Whether the object can be read with the others: it is of their type and schema, and there is room."""
    size_bytes = sum(one.work.claimed.object.size_bytes for one in (*small, opened))
    first = small[0]
    return (
        size_bytes <= TOGETHER_BYTES
        and opened.work.claimed.object.event_type == first.work.claimed.object.event_type
        and opened.container.schema_key == first.container.schema_key
    )


def _decoded_together(small: Sequence[_Opened]) -> Together | None:
    """Return the events of all, None where one cannot be read, whatever the reason: alone it costs itself."""
    try:
        return decode_together([opened.container for opened in small])
    except MISTAKES:  # told once it comes again, alone
        return None


@contextmanager
def _failure_kept(work: Work) -> Iterator[None]:
    """Keep what stops an object as its failure, whatever it is, unless it is the ledger's."""
    try:
        yield
    except LedgerError:
        raise
    except ObjectGoneError as error:
        log.warning("object_gone", reason=error.message)
        work.failure = QuarantineObjectError("the object is gone from the bucket")
    except MISTAKES as error:
        work.failure = failure_of(error, work.claimed.object.key)


def failure_of(error: BaseException, key: str) -> BridgeError:
    """Return what an exception that came up with an object means for it; one that nobody foresaw sets it aside.

    What does not fit into memory now may do so later; so it is with a full disk, or too many open files.
    """
    if isinstance(error, BridgeError):
        return error
    if isinstance(error, OSError):
        return RetryLaterError(f"cannot read {key} on this machine now: {error}", "see to its disk, TMPDIR and limits")
    if isinstance(error, MemoryError):
        return RetryLaterError(f"no memory for {key}", "give the process more memory, or fewer delivery.workers")
    log.error("object_bug", key=key, exc_info=error)
    return QuarantineObjectError(described(error))


def check_witness(record_name: str, event_type: str) -> None:
    """Compare the key's event type with the record's name; raises QuarantineObjectError where they disagree.

    Braze names the record by the type: `dataexport.S3.inner.users.messages.email.Click`. A record whose name is of
    another kind is no witness.
    """
    _, marker, named = record_name.partition(".inner.")
    if marker and canonical_name(named) != event_type:
        raise QuarantineObjectError(f"the key says {event_type}, the records in the file are {named}")
