"""Log lines: `log.info("objects_discovered", connector="production", objects=12)`.

The first argument is the action, in snake_case and never a sentence; ids and counts follow by name. Lines of libraries
take the same way from WARNING on, as action `message` with their sentence in `message`.
"""

import logging
import re
import traceback
from typing import TextIO

import structlog
from structlog.stdlib import BoundLogger
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

_OURS = "currents_bridge"


def get_logger() -> BoundLogger:
    """Return the program's logger; it may be taken before `configure_logs`."""
    logger: BoundLogger = structlog.stdlib.get_logger(_OURS)
    return logger


def configure_logs(*, json: bool, level: int, stream: TextIO) -> None:
    """Write every log line of the process to `stream`, one JSON object a line or coloured for a terminal.

    `level` (as `logging.INFO`) holds for our lines. `exception` has a traceback at `logging.DEBUG` only, otherwise one
    line with type and message. May be called again.
    """
    renderer: Processor = (
        structlog.processors.JSONRenderer(default=str)
        if json
        else structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), event_key="action", exception_formatter=structlog.dev.plain_traceback
        )
    )
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info
        if level <= logging.DEBUG
        else structlog.processors.ExceptionRenderer(_exception_line),
        _name_action,
    ]
    handler = logging.StreamHandler(stream)
    handler.addFilter(_is_wanted)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(_OURS).setLevel(level)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def _is_wanted(record: logging.LogRecord) -> bool:
    """Keep libraries quiet that set a level of their own."""
    return record.name == _OURS or record.levelno >= logging.WARNING


def _name_action(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
    event = str(event_dict.pop("event", ""))
    head = {"timestamp": event_dict.pop("timestamp"), "level": event_dict.pop("level")}
    named = {"action": event} if re.fullmatch("[a-z0-9_]+", event) else {"action": "message", "message": event}
    return {**head, **named, **event_dict}


def _exception_line(exc_info: ExcInfo) -> str:
    return "".join(traceback.format_exception_only(exc_info[1])).strip()
