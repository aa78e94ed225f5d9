"""Strict reading of structured files: an error is one line with the file, the key's path and the value."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from accel._given import LIMIT
from numerics.block import parse_any_format

TableT = TypeVar("TableT", bound=BaseModel)

Positive: TypeAlias = Annotated[int, Field(ge=1, lt=LIMIT)]
NotNegative: TypeAlias = Annotated[int, Field(ge=0, lt=LIMIT)]


class Table(BaseModel):
    """A table: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def read_text(path: str | Path) -> str:
    """Text of a file.

    Raises
    ------
    ValueError
        It cannot be read, or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: cannot be read: it is not UTF-8 text") from None


def validated(model: type[TableT], data: object, path: str | Path) -> TableT:
    """`data`, read from `path`, as a `model`.

    Raises
    ------
    ValueError
        It does not fit; the line tells the first misfit and how many more there are.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first, *more = dict.fromkeys(_line(item, model, data) for item in error.errors())
        rest = f" (and {len(more)} more)" if more else ""
        raise ValueError(f"{path}: {first}{rest}") from None


def format_text(text: str) -> str:
    """Validate the text of an element format."""
    parse_any_format(text)
    return text


def _line(error: ErrorDetails, model: type[BaseModel], data: object) -> str:
    location, value, context = _as_given(error["loc"], data), error["input"], error.get("ctx", {})
    path = key_path(location) or "the file"
    match error["type"]:
        case "missing":
            return f"{path} is missing"
        case "extra_forbidden":
            return f"{path} is not a key{_allowed(location, model)}"
        case "value_error":
            return f"{path}: {context['error']}"
        case "greater_than_equal":
            wish = f"must be at least {context['ge']}"
        case "less_than":
            wish = "must be below 2**62"
        case "int_type" | "int_from_float":
            wish = "must be a whole number"
        case "string_type":
            wish = "must be text"
        case "bool_type":
            wish = "must be true or false"
        case "list_type":
            wish = "must be a list"
        case "dict_type" | "model_type":
            wish = "must be a table of keys and values"
        case "too_long" | "too_short":
            wish = f"must have {context.get('max_length', context.get('min_length'))} entries"
        case "string_too_short":
            wish = "must not be empty"
        case _:
            wish = error["msg"].lower()
    shown = repr(value)
    return f"{path} {wish}, got {shown if len(shown) <= 60 else f'{shown[:57]}...'}"


def _as_given(location: tuple[int | str, ...], data: Any) -> tuple[int | str, ...]:
    """Location in the file, where one number may stand for a list of them."""
    for depth, step in enumerate(location):
        if isinstance(step, int):
            if not isinstance(data, list):
                return location[:depth]
            data = data[step]
        else:
            data = data.get(step) if isinstance(data, Mapping) else None
    return location


def key_path(location: tuple[int | str, ...]) -> str:
    """``operators[3].gemm.m``; a name that is no plain word is quoted: ``tensors['conv1.weight']``."""
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif not step.isidentifier() or path == "tensors":
            path += f"[{step!r}]"
        else:
            path += f".{step}" if path else step
    return path


def _allowed(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Keys of the table that an unknown key is in, the closest first."""
    fields = _fields(location[:-1], model)
    close = difflib.get_close_matches(str(location[-1]), fields, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{hint} (allowed: {', '.join(fields)})"


def _fields(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    for step in location:
        if isinstance(step, str) and step in model.model_fields:
            inner = _model_within(model.model_fields[step].annotation)
            model = inner or model
    return list(model.model_fields)


def _model_within(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as ``list[Model]`` or ``Model | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(
        (found for part in getattr(annotation, "__args__", ()) if (found := _model_within(part))), None
    )


def without_twins(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    """Object of a JSON file; the same key twice is an error, not the last one's value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return found
