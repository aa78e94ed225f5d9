"""Configuration of a co-design campaign: what is trained, what varies, what is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias, get_args

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, model_validator

from accel import offchip_memory
from dse.methods import METHODS
from numerics import FloatFormat, Rounding
from studies.config import Choices, ConfigError, Table, distinct, parsed
from studies.precision.optimizer import Optimizer
from studies.tasks import TaskError, TaskTable, table_of, task_names, with_data

PositiveInt: TypeAlias = Annotated[int, Field(ge=1)]
PositiveFloat: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FloatText: TypeAlias = Annotated[str, AfterValidator(parsed(FloatFormat.parse))]
RoundingText: TypeAlias = Annotated[str, AfterValidator(parsed(Rounding.parse))]
Dataflow: TypeAlias = Literal["os", "ws", "is"]

#: Methods of search; active learning for prediction is none.
SEARCH_METHODS = tuple(name for name in METHODS if name != "predict")

#: Objectives, all of them minimised.
ObjectiveName: TypeAlias = Literal[
    "training_loss", "test_error", "test_metric", "energy_pj", "cycles", "area_um2"
]
OBJECTIVES: tuple[str, ...] = get_args(ObjectiveName)


def _minimised(text: str) -> str:
    """Name of an objective: alone, or with its direction as tables of designs have it."""
    name, colon, direction = text.partition(":")
    if colon and direction not in ("min", "max"):
        raise ValueError(f"the direction of {name} must be min, got {direction!r}")
    if name not in OBJECTIVES:
        raise ValueError(f"must be one of {', '.join(OBJECTIVES)}, got {name!r}")
    if direction == "max":
        raise ValueError(f"{name} is minimised, and cannot be maximised, got {text!r}")
    return name


def _search_method(name: str) -> str:
    if name not in SEARCH_METHODS:
        raise ValueError(f"must be one of {', '.join(SEARCH_METHODS)}, got {name!r}")
    return name


def _task(value: Any) -> Any:
    """Task by its name alone, kept as text, or by its table."""
    if not isinstance(value, str):
        return value if isinstance(value, TaskTable) else table_of(value)
    if value not in (names := task_names()):
        raise ValueError(f"must be one of {', '.join(names)}, got {value!r}")
    table_of(value)  # options without a default are missed here
    return value


class Training(Table):
    """How each candidate's numerics are judged: a training run, repeated with `replicates` seeds.

    Attributes
    ----------
    task
        Name of a built-in task, or a table of its name and options as in a precision study.
    learning_rate, momentum
        Of stochastic gradient descent; in place of `optimizer`.
    optimizer
        Table as in a precision study.
    update_format, state_format
        Of weights and their gradients, and of the optimizer's state, which is the same if not given: the
        squares that Adam keeps need more range.
    evaluation_samples
        Training samples whose loss is measured, the same in every run; all if not given.
    fidelities
        Steps after which a candidate may be judged, rising up to `steps`: the search trains most candidates
        briefly. All are trained to the end if not given.
    """

    task: Annotated[str | SerializeAsAny[TaskTable], BeforeValidator(_task)]
    batch: PositiveInt
    steps: PositiveInt
    learning_rate: PositiveFloat | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    optimizer: Optimizer | None = None
    loss_scale: PositiveFloat = 256.0
    update_format: FloatText = "e6m9"
    state_format: FloatText | None = None
    replicates: Annotated[int, Field(ge=1, le=64)] = 2
    evaluation_samples: PositiveInt | None = None
    fidelities: list[PositiveInt] | None = None

    @model_validator(mode="after")
    def _rising_to_the_end(self) -> Self:
        levels = self.fidelities
        if levels is None:
            return self
        if len(levels) < 2 or levels != sorted(set(levels)) or levels[-1] != self.steps:
            raise ValueError(
                f"fidelities must be at least two numbers of steps that rise up to steps = {self.steps}, "
                f"got {levels}"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _default_momentum(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("optimizer") is not None:
            return data
        return {"momentum": 0.9, **data}

    @model_validator(mode="after")
    def _one_optimizer(self) -> Self:
        if self.optimizer is None and self.learning_rate is None:
            raise ValueError("wants learning_rate, or a table optimizer; got neither")
        if self.optimizer is not None and (self.learning_rate, self.momentum) != (None, None):
            raise ValueError("learning_rate and momentum belong into the table optimizer, got them beside it")
        return self

    @property
    def levels(self) -> list[int]:
        """Steps after which candidates are judged; the last is the end."""
        return [self.steps] if self.fidelities is None else self.fidelities

    @property
    def table(self) -> TaskTable:
        """Table of the task."""
        return table_of(self.task) if isinstance(self.task, str) else self.task

    @property
    def rule(self) -> Optimizer:
        """The optimizer, however it was given."""
        if self.optimizer is not None:
            return self.optimizer
        assert self.learning_rate is not None
        return Optimizer(kind="sgd", learning_rate=self.learning_rate, momentum=self.momentum)


class SpaceTable(Table):
    """What varies. Each key takes a list of choices, or one value that stays fixed.

    Attributes
    ----------
    format
        Of the operands of all products; of weights and activations if there is a `backward_format`.
    backward_format
        Of the errors of the backward pass.
    """

    format: Annotated[Choices[FloatText], AfterValidator(distinct)]
    backward_format: Annotated[Choices[FloatText], AfterValidator(distinct)] | None = None
    accumulator_exp_bits: Annotated[Choices[Annotated[int, Field(ge=2, le=8)]], AfterValidator(distinct)]
    accumulator_frac_bits: Annotated[Choices[Annotated[int, Field(ge=1, le=23)]], AfterValidator(distinct)]
    chunk: Annotated[Choices[Annotated[int, Field(ge=0)]], AfterValidator(distinct)]
    update_rounding: Annotated[Choices[RoundingText], AfterValidator(distinct)]
    rows: Annotated[Choices[PositiveInt], AfterValidator(distinct)]
    columns: Annotated[Choices[PositiveInt], AfterValidator(distinct)]
    dataflow: Annotated[Choices[Dataflow], AfterValidator(distinct)]
    scratchpad_bytes: Annotated[Choices[PositiveInt], AfterValidator(distinct)]
    offchip_bytes_per_cycle: Annotated[Choices[PositiveInt], AfterValidator(distinct)]


class Fixed(Table):
    """What all candidate designs share.

    Attributes
    ----------
    schedule_seconds
        After which a schedule that is not proved optimal by then is taken as it is, 60 if not given.
    """

    accumulator_bytes: PositiveInt
    offchip: str = "LPDDR4"
    clock_mhz: PositiveFloat
    node_nm: PositiveInt = 45
    schedule_seconds: PositiveFloat | None = None

    @model_validator(mode="after")
    def _known_memory(self) -> Self:
        offchip_memory(self.offchip)
        return self


class Limits(Table):
    """Designs beyond a limit are not candidates."""

    area_mm2: PositiveFloat | None = None
    step_ms: PositiveFloat | None = None


class SearchTable(Table):
    """How the space is searched.

    A threshold is the worst value of an objective that is of interest; for the training loss it is
    by default that of a network that guesses.

    Attributes
    ----------
    initial
        Candidates of the Sobol start; the default of `dse` if not given.
    features
        Whether the learnt objectives also read what theory and the accuracy model say of a candidate
        (`studies.codesign.features`). The twin is then trained once more, and looked at.
    """

    method: Annotated[str, AfterValidator(_search_method)] = "auto"
    initial: PositiveInt | None = None
    objectives: Annotated[list[Annotated[str, AfterValidator(_minimised)]], AfterValidator(distinct)] = Field(
        default=["training_loss", "energy_pj"]
    )
    features: bool = False
    thresholds: dict[ObjectiveName, PositiveFloat] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _thresholds_of_objectives(self) -> Self:
        if strangers := [name for name in self.thresholds if name not in self.objectives]:
            raise ValueError(
                f"thresholds must be of the objectives {', '.join(self.objectives)}; got {strangers[0]!r}"
            )
        return self


class CampaignConfig(Table):
    """A whole campaign file."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    evaluations: PositiveInt
    training: Training
    space: SpaceTable
    design: Fixed
    limits: Limits = Limits()
    search: SearchTable = SearchTable()


def changed(config: CampaignConfig, changes: Mapping[str, Any]) -> CampaignConfig:
    """Return the configuration with another `method`, `seed`, `budget` or `data` of the command line.

    Raises
    ------
    ConfigError
        An unknown method, a budget below one, or data for a task that reads none.
    """
    update: dict[str, Any] = {}
    if "method" in changes:
        try:
            method = _search_method(changes["method"])
        except ValueError as error:
            raise ConfigError(f"--method: {error}") from None
        update["search"] = config.search.model_copy(update={"method": method})
    if "seed" in changes:
        update["seed"] = changes["seed"]
    if "budget" in changes:
        if changes["budget"] < 1:
            raise ConfigError(f"--budget: must be at least 1, got {changes['budget']}")
        update["evaluations"] = changes["budget"]
    if "data" in changes:
        try:
            task = with_data(config.training.table, changes["data"])
        except TaskError as error:
            raise ConfigError(f"training.{error}") from None
        update["training"] = config.training.model_copy(update={"task": task})
    return config.model_copy(update=update)
