"""The options of a built-in task: one strict table for each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field

from studies.config import Table
from studies.tasks.task import Task


def _not_empty(sizes: list[int]) -> list[int]:
    if not sizes:
        raise ValueError("must have at least one size, got none")
    return sizes


Count: TypeAlias = Annotated[int, Field(ge=1)]
Sizes: TypeAlias = Annotated[list[Count], AfterValidator(_not_empty)]
PathText: TypeAlias = Annotated[str, Field(min_length=1)]


class TaskTable(Table, ABC):
    """Name and options of a task. Paths are relative to the working directory."""

    name: str

    @abstractmethod
    def build(self) -> Task:
        """Task of these options; reads no more of the data than their shapes.

        Raises
        ------
        TaskError
            The data are absent, or do not fit.
        """
