"""Base class of everything that is read from a parameter file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from heterobench.errors import ConfigurationError, short

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # no form of a report can show them
Model = TypeVar("Model", bound=BaseModel)


def nearest(word: str, allowed: Iterable[str]) -> str:
    """``; did you mean 'fedprox'? allowed: ...``, for the end of an error message."""
    allowed = sorted(allowed)
    close = difflib.get_close_matches(str(word), allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} allowed: {', '.join(allowed) or 'nothing'}"


class Strict(BaseModel):
    """A frozen object in which an unknown key is an error that suggests the nearest known one.

    Nothing is converted: "1" and true are no numbers, 1.0 is no whole number.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, strict=True, arbitrary_types_allowed=True
    )

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for key in values:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key {key!r}{nearest(key, cls.model_fields)}")
                text = values[key]
                if isinstance(text, str) and (found := UNPRINTABLE.search(text)):
                    raise ValueError(f"{key}: a text has letters, spaces and line ends alone (found {found[0]!r})")
        return values


def build(model: type[Model], values: Any, where: str) -> Model:
    """Validate `values` as `model`; `where` (a file, or file and key) opens every line of the error."""
    try:
        return model.model_validate({} if values is None else values)
    except ValidationError as error:
        raise ConfigurationError(explain(error, where)) from None


def explain(error: ValidationError, where: str) -> str:
    """One line for each mistake: where, key, what is allowed, what was found."""
    lines, items = [], error.errors(include_url=False)
    inner = [item["loc"] for item in items]
    for item in items:
        loc = item["loc"]
        if item["type"] == "too_short" and any(each[: len(loc)] == loc != each for each in inner):
            continue  # the list is only short of the entries with mistakes, which have lines of their own
        key = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        found = "" if item["type"] in ("missing", "value_error") else f" (found {short(item['input'])})"
        lines.append(": ".join(part for part in (where, key, message + found) if part))
    return "\n".join(lines)
