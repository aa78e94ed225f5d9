"""How the runs of a study train and what they measure; the same for a file and for Python."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from studies.config import Table, distinct
from studies.precision.optimizer import Optimizer

PositiveInt: TypeAlias = Annotated[int, Field(ge=1)]
Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**31)]

_STEPS = 200
_EVALUATIONS = 20


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | range) else value


class Settings(Table):
    """Everything of a study but its task and its policies.

    Attributes
    ----------
    seeds
        Each fixes initial weights, order of the data and random numbers of one run of every policy.
    steps, batch
        Optimizer steps, and samples in each of them.
    evaluate_every
        Steps between two evaluations; a twentieth of `steps` by default.
    statistics_every
        Steps between two looks at what rounding does in each layer (`numerics.torch.Statistics`), by
        default as often; 0 for none.
    evaluation_samples
        Training samples, the same ones in every run, whose loss is evaluated.
    save_every
        Steps between two checkpoints.
    stop_when_diverged
        Stop a run that has diverged (`studies.precision.divergence`) rather than train on to the end.
    """

    seeds: Annotated[list[Seed], BeforeValidator(_as_list), AfterValidator(distinct)] = Field(
        default=[0, 1, 2]
    )
    steps: PositiveInt = _STEPS
    batch: PositiveInt = 100
    evaluate_every: PositiveInt
    statistics_every: Annotated[int, Field(ge=0)]
    evaluation_samples: PositiveInt = 500
    save_every: PositiveInt = 100
    stop_when_diverged: bool = True
    optimizer: Optimizer

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_steps(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        steps = data.get("steps", _STEPS)
        every = max(1, steps // _EVALUATIONS) if isinstance(steps, int) else 1
        return {"evaluate_every": every, "statistics_every": every, **data}
