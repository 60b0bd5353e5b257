"""What SIGHUP is answered with: what is read again, and what of an edited configuration needs a restart."""

from collections.abc import Callable, Iterator, Mapping

from currents_bridge.config import Settings
from currents_bridge.errors import ConfigError
from currents_bridge.logs import get_logger

log = get_logger()


def answer(running: Settings, load: Callable[[], Settings]) -> None:
    """Log whether the configuration is still the one that runs; only secrets are read again without a restart."""
    log.info("secrets_read_again", at="the next poll of each connector")
    try:
        settings = load()
    except ConfigError as error:
        problems = [str(problem) for problem in error.problems]
        todo = "the program goes on with what it read at its start; mend the file before the next one"
        log.warning("configuration_cannot_be_used", problems=problems, todo=todo)
        return
    if changed := list(_differences("", running.model_dump(), settings.model_dump())):
        log.warning(
            "configuration_changed", settings=changed, todo="restart the program: until then it goes on as before"
        )
    else:
        log.info("configuration_unchanged")


def _differences(name: str, before: object, after: object) -> Iterator[str]:
    """Yield the names of settings that differ, like `connectors.0.source.prefix`; never a value."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        pairs = [(key, before.get(key), after.get(key)) for key in {**before, **after}]
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple) and len(before) == len(after):
        pairs = [(place, *both) for place, both in enumerate(zip(before, after, strict=True))]
    else:
        if before != after:
            yield name
        return
    for key, one, other in pairs:
        yield from _differences(f"{name}.{key}" if name else str(key), one, other)
