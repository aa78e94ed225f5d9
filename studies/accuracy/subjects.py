"""The tasks of the run table: small networks that train in seconds, each with its recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.precision.settings import Settings
    from studies.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A task and how it is trained: stochastic gradient descent with momentum, at a constant rate.

    Attributes
    ----------
    name
        In the run table.
    task, options
        Of `studies.tasks.named_task`.
    path_option, path
        Option that says where the data are, and the path inside the folder of all data; ``None`` for tasks
        that need no file.
    """

    name: str
    task: str
    options: dict[str, Any] = field(default_factory=dict)
    path_option: str | None = None
    path: str = ""
    learning_rate: float
    momentum: float = 0.9
    batch: int
    steps: int

    def build(self, data: Path) -> Task:
        """Its task, with the data of the folder `data`.

        Raises
        ------
        TaskError
            The data are absent.
        """
        from studies.tasks import named_task

        options = dict(self.options)
        if self.path_option is not None:
            options[self.path_option] = str(data / self.path)
        return named_task(self.task, **options)

    def settings(self) -> Settings:
        """Its recipe."""
        from studies.precision.settings import Settings

        optimizer = {"kind": "sgd", "learning_rate": self.learning_rate, "momentum": self.momentum}
        return Settings.model_validate({"optimizer": optimizer, "steps": self.steps, "batch": self.batch})


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject(name="digits-mlp", task="digits-mlp", learning_rate=0.1, batch=64, steps=400),
        Subject(name="digits-cnn", task="digits-cnn", learning_rate=0.1, batch=64, steps=300),
        Subject(
            name="mnist-mlp",
            task="idx-mlp",
            options={"hidden": [64, 32], "train": 4096, "test": 500},
            path_option="folder",
            path="mnist",
            learning_rate=0.1,
            batch=64,
            steps=400,
        ),
        Subject(
            name="mnist-cnn",
            task="idx-cnn",
            options={"channels": [8, 16], "train": 4096, "test": 500},
            path_option="folder",
            path="mnist",
            learning_rate=0.05,
            batch=32,
            steps=160,
        ),
        Subject(
            name="shakespeare-transformer",
            task="text-transformer",
            options={"context": 32, "width": 32, "layers": 1, "heads": 2, "train": 8000, "test": 64},
            path_option="path",
            path="tiny-shakespeare/input.txt",
            learning_rate=0.3,
            batch=16,
            steps=200,
        ),
    )
}
