"""The built-in tasks by name, with validated options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, SerializeAsAny, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from studies.tasks.digits import DigitsCnn, DigitsMlp
from studies.tasks.idx import IdxCnn, IdxMlp
from studies.tasks.npz import NpzCnn, NpzResnet8
from studies.tasks.tables import TaskTable
from studies.tasks.tabular import CancerLogistic, CancerSvm
from studies.tasks.task import Classification, Task, TaskError
from studies.tasks.text import TextTransformer

_TABLES: Mapping[str, type[TaskTable]] = {
    "digits-mlp": DigitsMlp,
    "digits-cnn": DigitsCnn,
    "idx-mlp": IdxMlp,
    "idx-cnn": IdxCnn,
    "npz-cnn": NpzCnn,
    "npz-resnet8": NpzResnet8,
    "text-transformer": TextTransformer,
    "cancer-logistic": CancerLogistic,
    "cancer-svm": CancerSvm,
}


def task_names() -> tuple[str, ...]:
    """Names of the built-in tasks."""
    return tuple(_TABLES)


def _table(value: Any) -> TaskTable:
    """Table of the task that a mapping names; its errors carry the path of their key."""
    if isinstance(value, TaskTable):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a table with the name of a task, got {value!r}")
    if "name" not in value:
        raise _error("name", f"missing, and it is required: one of {', '.join(_TABLES)}", value)
    name = value["name"]
    if not isinstance(name, str) or name not in _TABLES:
        close = get_close_matches(str(name), _TABLES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise _error("name", f"must be one of {', '.join(_TABLES)}, got {name!r}{hint}", name)
    try:
        return _TABLES[name].model_validate(value)
    except ValidationError as error:
        lines = [_explained(item, name) for item in error.errors(include_url=False)]
        raise ValidationError.from_exception_data(name, lines) from None


def _error(key: str, text: str, value: Any) -> ValidationError:
    return ValidationError.from_exception_data("task", [_line((key,), text, value)])


def _line(location: tuple[int | str, ...], text: str, value: Any) -> InitErrorDetails:
    # `ctx["error"]` is where pydantic, and so the reader of configurations, keeps the text of a ValueError.
    return InitErrorDetails(
        type=PydanticCustomError("value_error", "{error}", {"error": text}), loc=location, input=value
    )


def _explained(error: ErrorDetails, name: str) -> InitErrorDetails:
    location, kind = error["loc"], error["type"]
    if kind == "extra_forbidden":
        allowed = [field for field in _TABLES[name].model_fields if field != "name"]
        close = get_close_matches(str(location[-1]), allowed, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        options = ", ".join(allowed) or "no options"
        text = f"unknown option of {name}{hint} (allowed: {options})"
        return _line(location, text, error["input"])
    if kind == "value_error":
        return _line(location, str(error["ctx"]["error"]), error["input"])
    return InitErrorDetails(type=kind, loc=location, ctx=error.get("ctx", {}), input=error["input"])


#: A task's table in a configuration: ``name``, and the options of the task of that name.
TaskConfig: TypeAlias = Annotated[SerializeAsAny[TaskTable], BeforeValidator(_table)]


def table_of(value: str | Mapping[str, Any]) -> TaskTable:
    """Validated table of a task: of its name alone, or of name and options.

    Raises
    ------
    pydantic.ValidationError
        An unknown name or option, or a wrong value, at its key.
    """
    return _table({"name": value} if isinstance(value, str) else value)


def with_data(table: TaskTable, data: Path) -> TaskTable:
    """The same task on other files.

    Raises
    ------
    TaskError
        It reads none.
    """
    fields = [name for name in ("folder", "path") if name in type(table).model_fields]
    if not fields:
        raise TaskError(f"task.name: {table.name} reads no files, got the data {str(data)!r}")
    field = next((name for name in fields if getattr(table, name) is not None), fields[0])
    return table.model_copy(update={field: str(data)})


def build_task(config: TaskTable) -> Task:
    """Task of a validated table.

    Raises
    ------
    TaskError
        Its data are absent, or do not fit.
    """
    return config.build()


def named_task(name: str, **options: Any) -> Task:
    """Built-in task with options, as in a study's table ``[task]``.

    Raises
    ------
    TaskError
        There is no such task or option, or its data are absent.

    Examples
    --------
    >>> named_task("digits-mlp", hidden=[16]).title
    'handwritten digits (8 x 8 scans), perceptron 64-16-10'
    """
    plain = {key: _plain(value) for key, value in options.items()}
    try:
        table = _table({"name": name, **plain})
    except ValidationError as error:
        lines = []
        for item in error.errors(include_url=False):
            path = ".".join(map(str, ("task", *item["loc"])))
            got = "" if item["type"] in ("value_error", "missing") else f", got {item['input']!r}"
            lines.append(f"{path}: {item['msg']}{got}")
        raise TaskError("\n".join(lines)) from None
    return table.build()


def _plain(value: Any) -> Any:
    """Value as TOML has it."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return list(value) if isinstance(value, tuple) else value


#: What a co-design campaign trains and a prediction may start from, by name: no options, no files.
TASKS: Mapping[str, Classification] = {
    "digits-cnn": DigitsCnn(name="digits-cnn").build(),
}
