"""Mistakes of ours: exceptions that nobody foresaw, and what is said of them."""

from pathlib import Path
from traceback import walk_tb

import polars as pl

from currents_bridge.errors import BridgeError

MISTAKES = (Exception, pl.exceptions.PanicException)  # the latter is none of the former

_PACKAGE = Path(__file__).parent


def described(error: BaseException) -> str:
    """Return what went wrong; of a mistake only its kind and place, since its text may hold secrets or events.

    The log has the traceback.
    """
    if isinstance(error, BridgeError):
        return error.message
    places = [
        f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"
        for frame, _ in walk_tb(error.__traceback__)
        if _PACKAGE in Path(frame.f_code.co_filename).parents
    ]
    return f"a bug in currents-bridge: {type(error).__name__}" + (f" in {places[-1]}" if places else "")
