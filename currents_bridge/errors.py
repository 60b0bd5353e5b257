"""The one tree of errors, split by what the caller does next.

    BridgeError
    ├── UsageError            bad command line            exit 2
    ├── ConfigError           bad configuration           exit 2
    ├── RetryLaterError       S3 or Segment is unwell     keep, try again later
    ├── RefusedError          Segment refuses a request   send its halves, down to the bad message
    ├── CredentialError       S3 or Segment says no       pause the connector, keep everything, exit 3
    ├── ProbeError            a probe cannot tell         no evidence, ask again later
    ├── QuarantineObjectError an unreadable object        set the object aside, go on
    ├── ObjectGoneError       a deleted object            settle it as gone, go on
    ├── ClaimLostError        a claim was taken away      let go of the object, go on
    ├── StoppedError          the program is to end       let go of all, nothing is wrong, exit 1
    ├── JobError              a mistake of ours in a job  log it, go on with the other connectors
    └── LedgerError           the ledger cannot be used   stop before anything is sent, exit 1
        ├── NoLedgerError     there is none               exit 2
        └── LedgerLostError   removed under the program   stop at once, exit 1

Mistakes of ours stay plain exceptions: nobody should catch them, but for whoever runs one job beside others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from currents_bridge.text import words

SEE_CAUSE = "run the same command with -v to see the cause"


class BridgeError(Exception):
    """Something went wrong that a user can act on.

    Args:
        message: what happened, to which object.
        hint: what to do next; printed on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = SEE_CAUSE) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(BridgeError):
    """The command line cannot be carried out as given."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One setting that cannot be used: `field: why (got VALUE, from SOURCE)`."""

    field: str
    why: str
    got: str | None = None
    source: str | None = None

    def __str__(self) -> str:
        details = [f"got {self.got}"] if self.got is not None else []
        details += [f"from {self.source}"] if self.source else []
        return words(f"{self.field}: {self.why}" + (f" ({', '.join(details)})" if details else ""))


class ConfigError(BridgeError):
    """The configuration cannot be used; holds every problem, not only the first."""

    exit_code = 2

    def __init__(self, problems: Sequence[ConfigProblem], hint: str = "mend the lines above") -> None:
        super().__init__("\n".join(map(str, problems)), hint)
        self.problems = tuple(problems)


class RetryLaterError(BridgeError):
    """A service did not take or give something now; the same request may pass later.

    `wait_s` is the wait that the service asked for, in seconds, where it named one.
    """

    def __init__(
        self, message: str, hint: str = "nothing is lost: it is tried again", wait_s: float | None = None
    ) -> None:
        super().__init__(message, hint)
        self.wait_s = wait_s


class OneObjectError(RetryLaterError):
    """One object cannot be read as it is now, which says nothing of any other: the store is well."""


class ObjectChangedError(OneObjectError):
    """An object was written again after it was listed: what is known of it is no longer true, so list it again."""


class RefusedError(BridgeError):
    """Segment refuses a whole request for something in it; sending the same again changes nothing."""


class Side(StrEnum):
    """Which of the two credentials fails."""

    SOURCE = "source"
    DESTINATION = "destination"


class CredentialError(BridgeError):
    """A credential does not work: pause the connector and keep everything."""

    exit_code = 3

    def __init__(self, side: Side, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.side = side


class ProbeError(BridgeError):
    """A probe could not tell anything, for reasons of its own: never evidence against a credential."""


class QuarantineObjectError(BridgeError):
    """An object cannot be read as a Currents file; `reason` is kept in the ledger."""

    exit_code = 4

    def __init__(self, reason: str) -> None:
        super().__init__(reason, "it is damaged, or Braze did not write it: get the file again from where it came from")
        self.reason = reason


class ObjectGoneError(BridgeError):
    """An object was deleted between listing and reading; it does not come back by itself."""

    exit_code = 4


class ClaimLostError(BridgeError):
    """Claims were taken away: the process gave no sign of life for longer than its lease, or a rewind came between.

    `ids` are the claimed objects of which nothing was recorded; whoever claims them next delivers them. `keys` are
    those of objects that still bear their id.
    """

    def __init__(self, ids: Sequence[int], keys: Sequence[str]) -> None:
        named = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")  # noqa: PLR2004
        super().__init__(
            f"{len(ids)} claimed objects were taken away, because this process gave no sign of life for too long or"
            " because all that was acknowledged lately goes back to be sent again" + (f": {named}" if named else ""),
            "nothing is lost: they are sent again, with the same message ids",
        )
        self.ids = frozenset(ids)


class StoppedError(BridgeError):
    """The program is to end, so this was not done: nothing is wrong, and the next run does it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"stopped before {what}", "nothing is lost: run the same command again to go on")


class JobError(BridgeError):
    """A job of one connector failed by a mistake of ours, which the log has whole."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "everything is kept; see the log, and report it with its traceback")


class LedgerError(BridgeError):
    """The ledger cannot be read or written; nothing may be sent without it."""


class NoLedgerError(LedgerError):
    """There is no ledger where the configuration names one, and the command is none of those that make one."""

    exit_code = 2

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"there is no ledger at {path}",
            "set ledger.url to the ledger's whole path, or go to the folder that it is relative to;"
            " only `once`, `run` and `backfill` make a new one",
        )


class LedgerLostError(LedgerError):
    """The file of the ledger was removed or replaced while it was in use: what is recorded now would be lost."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"the ledger {path} was {what} while the program used it",
            "put the ledger back before you start the program again: with a new one, everything is sent again",
        )
