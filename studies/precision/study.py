"""A study as a value: a task, policies by name, seeds and how they are trained."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, InstanceOf, ValidationError, model_validator

from numerics.torch import LayerPolicy, Policy
from studies.config import ConfigError, load
from studies.precision.settings import Settings
from studies.precision.sweeps import expanded
from studies.precision.table import TWIN
from studies.tasks import Task, TaskConfig, build_task, with_data


class StudyConfig(Settings):
    """A study's TOML file."""

    task: TaskConfig
    policies: Annotated[list[dict[str, Any]], Field(min_length=1)]


def _as_policies(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    made = {}
    for name, policy in value.items():
        if isinstance(policy, LayerPolicy):
            made[name] = Policy(policy)
        else:
            made[name] = Policy.preset(policy) if isinstance(policy, str) else policy
    return made


class Study(Settings):
    """A task, trained under every policy with every seed, beside its full-precision twin.

    Attributes
    ----------
    task
        A model, data and a metric: a named one (`studies.tasks.named_task`) or your own.
    policies
        By name; a `LayerPolicy` holds for all layers, a text is the name of a preset.
    swept
        What varies between the policies of a sweep: by policy, values by path.
    source
        The study as its file has it, all defaults included; nothing for a study made in Python.

    Examples
    --------
    >>> from studies.tasks import named_task
    >>> study = Study(
    ...     task=named_task("digits-mlp"),
    ...     policies={"FP8": "wang2018"},
    ...     optimizer={"kind": "sgd", "learning_rate": 0.1},
    ...     steps=50,
    ... )
    >>> study.evaluate_every, study.optimizer.momentum
    (2, 0.9)
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    task: InstanceOf[Task]
    policies: Annotated[dict[str, InstanceOf[Policy]], BeforeValidator(_as_policies), Field(min_length=1)]
    swept: dict[str, dict[str, Any]] = Field(default_factory=dict)
    source: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _the_twin_keeps_its_name(self) -> Study:
        if TWIN in self.policies:
            raise ValueError(f"the name {TWIN!r} is that of the full-precision twin; give another")
        return self

    @classmethod
    def from_toml(cls, path: Path, *, data: Path | None = None) -> Study:
        """Read a study's file.

        Parameters
        ----------
        data
            Folder or file of the task's data, in place of that in the file.

        Raises
        ------
        ConfigError
            One line per error: key path, value and what is allowed.
        """
        config = load(path, StudyConfig)
        try:
            if data is not None:
                config = config.model_copy(update={"task": with_data(config.task, data)})
            task = build_task(config.task)
            predict = None
            if any("predict" in table for table in config.policies):
                from studies.precision.predicted import Predictor  # and with it the reader of networks

                predict = Predictor(task, config.batch).expand
            policies, swept = expanded(config.policies, predict)
            return cls(
                task=task,
                policies=policies,
                swept=swept,
                source=config.model_dump(mode="json", exclude_none=True),
                **{name: getattr(config, name) for name in Settings.model_fields},
            )
        except ValidationError as error:
            lines = [item["msg"].removeprefix("Value error, ") for item in error.errors()]
        except (ConfigError, ValueError, OSError) as error:
            lines = str(error).splitlines()
        raise ConfigError("\n".join(f"{path}: {line}" for line in lines))

    @property
    def settings(self) -> Settings:
        """The study without its task and its policies, for other processes."""
        return Settings.model_construct(**{name: getattr(self, name) for name in Settings.model_fields})

    def dump(self) -> dict[str, Any]:
        """All of the study as TOML values; of a task of your own, its title."""
        if self.source is not None:
            return self.source
        policies = [{**tomllib.loads(each.to_toml()), "name": name} for name, each in self.policies.items()]
        settings = self.settings.model_dump(mode="json", exclude_none=True)
        return {**settings, "task": {"title": self.task.title}, "policies": policies}
