"""Configuration of a co-design campaign: what is trained, what varies, what is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from accel import offchip_memory
from dse.methods import METHODS
from numerics import FloatFormat, Rounding
from studies.config import Choices, ConfigError, Table, distinct, parsed
from studies.tasks import TASKS

PositiveInt: TypeAlias = Annotated[int, Field(ge=1)]
PositiveFloat: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FloatText: TypeAlias = Annotated[str, AfterValidator(parsed(FloatFormat.parse))]
RoundingText: TypeAlias = Annotated[str, AfterValidator(parsed(Rounding.parse))]
Dataflow: TypeAlias = Literal["os", "ws", "is"]

#: Methods of search; active learning for prediction is none.
SEARCH_METHODS = tuple(name for name in METHODS if name != "predict")

ObjectiveName: TypeAlias = Literal["training_loss", "test_error", "energy_pj", "cycles", "area_um2"]


def _search_method(name: str) -> str:
    if name not in SEARCH_METHODS:
        raise ValueError(f"must be one of {', '.join(SEARCH_METHODS)}, got {name!r}")
    return name


def _known_task(name: str) -> str:
    if name not in TASKS:
        raise ValueError(f"must be one of {', '.join(TASKS)}, got {name!r}")
    return name


class Training(Table):
    """How each candidate's numerics are judged: a training run, repeated with `replicates` seeds."""

    task: Annotated[str, AfterValidator(_known_task)]
    batch: PositiveInt
    steps: PositiveInt
    learning_rate: PositiveFloat
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    loss_scale: PositiveFloat = 256.0
    update_format: FloatText = "e6m9"
    replicates: Annotated[int, Field(ge=1, le=64)] = 2


class SpaceTable(Table):
    """What varies. Each key takes a list of choices, or one value that stays fixed."""

    format: Annotated[Choices[FloatText], AfterValidator(distinct)]
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
    """What all candidate designs share."""

    accumulator_bytes: PositiveInt
    offchip: str = "LPDDR4"
    clock_mhz: PositiveFloat
    node_nm: PositiveInt = 45

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
    """

    method: Annotated[str, AfterValidator(_search_method)] = "auto"
    initial: PositiveInt = 10
    objectives: Annotated[list[ObjectiveName], AfterValidator(distinct)] = Field(
        default=["training_loss", "energy_pj"]
    )
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
    """Return the configuration with another `method`, `seed` or `budget` of the command line.

    Raises
    ------
    ConfigError
        An unknown method.
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
        update["evaluations"] = changes["budget"]
    return config.model_copy(update=update)
