"""How values are taken out of answers of others, which may hold anything: all by one check, or not at all."""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class Answer(BaseModel):
    """The part of a JSON answer that is read, each value of the type that it should have; the rest is left alone."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)


_Read = TypeVar("_Read", bound=Answer)


def read_answer(kind: type[_Read], content: bytes | str) -> _Read | None:
    """Return the answer, None where it is not as it should be: not JSON, another shape, another type of value."""
    try:
        return kind.model_validate_json(content)
    except ValidationError:  # it may quote secrets, so nothing of it is kept
        return None
