"""Strict TOML configuration: every error is one line with the key's path, the value, what is allowed."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

ModelT = TypeVar("ModelT", bound=BaseModel)
ItemT = TypeVar("ItemT")


class ConfigError(Exception):
    """A configuration that cannot be used; the message has one line per error."""


class Table(BaseModel):
    """A TOML table: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


#: A list of choices, or one value for a parameter that does not vary.
Choices: TypeAlias = Annotated[list[ItemT], BeforeValidator(_listed)]


def distinct(value: list[ItemT]) -> list[ItemT]:
    """Validate that a list of choices is neither empty nor repeats itself."""
    if not value:
        raise ValueError("must have at least one choice, got none")
    for index, item in enumerate(value):
        if item in value[:index]:
            raise ValueError(f"choices must be distinct, got {item!r} twice")
    return value


def parsed(parse: Callable[[str], object]) -> Callable[[str], str]:
    """Validator of a text that must parse; the text is kept in its printed form."""

    def check(text: str) -> str:
        return str(parse(text))

    return check


def load(path: Path, model: type[ModelT]) -> ModelT:
    """Read a TOML file into `model`.

    Raises
    ------
    ConfigError
        The file is missing, is not TOML, or does not fit the model.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder, a TOML file is wanted") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    try:
        return model.model_validate(data)
    except ValidationError as error:
        empty = "" if data else "the file is empty; "
        lines = [f"{path}: {empty}{_line(item, data, model)}" for item in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _line(error: ErrorDetails, data: Mapping[str, Any], model: type[BaseModel]) -> str:
    path = _path(error["loc"], data)
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        return f"{path}: missing, and it is required"
    if kind == "extra_forbidden":
        return f"{path}: unknown key{_suggestion(error['loc'], model)}"
    match kind:
        case "greater_than_equal":
            wish = f"must be at least {context['ge']:g}"
        case "greater_than":
            wish = f"must be above {context['gt']:g}"
        case "less_than_equal":
            wish = f"must be at most {context['le']:g}"
        case "less_than":
            wish = f"must be below {context['lt']:g}"
        case "int_type":
            wish = "must be a whole number"
        case "float_type" | "finite_number":
            wish = "must be a finite number"
        case "string_type":
            wish = "must be a text"
        case "model_type":
            wish = "must be a table"
        case "literal_error":
            wish = f"must be one of {context['expected']}"
        case "value_error":
            return f"{path}: {context['error']}"
        case _:
            wish = error["msg"]
    return f"{path}: {wish}, got {value!r}"


def _path(location: tuple[int | str, ...], data: Any) -> str:
    """Dotted path of a key as the file has it: a scalar read as a list of one keeps its own name."""
    path = ""
    for step in location:
        if isinstance(step, int):
            if not isinstance(data, list):
                break
            path += f"[{step}]"
            data = data[step] if step < len(data) else None
        else:
            path += f".{step}" if path else step
            data = data.get(step) if isinstance(data, Mapping) else None
    return path


def _suggestion(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Keys that the table of an unknown key allows, the closest first."""
    fields = model.model_fields
    for step in location[:-1]:
        inner = fields[str(step)].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return ""
        fields = inner.model_fields
    close = difflib.get_close_matches(str(location[-1]), fields, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (allowed: {', '.join(fields)})"
