"""One evaluation: train the network under a candidate's numerics, and price its training step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from accel import Cost
from dse import InfrastructureError
from numerics import FloatFormat, Rounding
from studies.codesign.config import CampaignConfig
from studies.codesign.pricing import Parameters, Pricing, accumulator_of, numerics_names
from studies.codesign.quality import Quality
from studies.replicas import ReplicaPool, WorkerLostError
from studies.training import Numerics, Outcome, Recipe


@dataclass
class Evaluator:
    """Measures candidates of a campaign.

    Numerics that were measured already, on other hardware, are not trained again: training is
    deterministic, and the metric ``trained_in`` names the trial that did.

    Attributes
    ----------
    trial
        Number of the trial that is evaluated next; the caller sets it.
    """

    config: CampaignConfig
    pricing: Pricing
    quality: Quality
    pool: ReplicaPool
    trial: int = 0
    measured: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)

    def recall(self, trial: int, parameters: Parameters, metrics: Mapping[str, Any]) -> None:
        """Take over what a finished trial of an earlier process measured."""
        quality = {name: metrics[name] for name in self.quality.columns if name in metrics}
        self.measured.setdefault(self._key(parameters), {**quality, "trained_in": trial})

    def __call__(self, parameters: Parameters) -> tuple[dict[str, float], dict[str, Any]]:
        """Evaluate a candidate: learnt objectives by name, and all other metrics."""
        key = self._key(parameters)
        if key not in self.measured:
            outcomes = self._train(numerics_of(self.config, parameters))
            self.measured[key] = {**self.quality.summary(outcomes), "trained_in": self.trial}
        metrics = {**self.measured[key], **cost_metrics(self.pricing.cost(parameters))}
        objectives: list[str] = list(self.config.search.objectives)
        values = {name: metrics[name] for name in objectives if name in LEARNT}
        return values, {name: metric for name, metric in metrics.items() if name not in objectives}

    def full_precision(self) -> dict[str, Any]:
        """Evaluate the float32 twin, with the same seeds, on the hardware that suits it best."""
        design, cost = self.pricing.full_precision()
        return {
            **self.quality.summary(self._train(None)),
            **cost_metrics(cost),
            "rows": design.rows,
            "columns": design.columns,
            "dataflow": design.dataflow,
            "scratchpad_bytes": design.scratchpad_bytes,
            "offchip_bytes_per_cycle": design.offchip_bytes_per_cycle,
        }

    def _key(self, parameters: Parameters) -> tuple[Any, ...]:
        return tuple(parameters[name] for name in numerics_names(self.config.space))

    def _train(self, numerics: Numerics | None) -> list[Outcome]:
        seeds = range(self.config.seed, self.config.seed + self.config.training.replicates)
        try:
            return self.pool.run(recipe_of(self.config), numerics, seeds)
        except WorkerLostError as error:
            raise InfrastructureError(str(error)) from error


#: Objectives that only an evaluation can tell.
LEARNT = ("training_loss", "test_error", "test_metric")


def recipe_of(config: CampaignConfig) -> Recipe:
    """Give the training recipe of a campaign."""
    training = config.training
    return Recipe(
        task=training.table,
        batch=training.batch,
        steps=training.steps,
        optimizer=training.rule,
        loss_scale=training.loss_scale,
        evaluation_samples=training.evaluation_samples,
    )


def numerics_of(config: CampaignConfig, parameters: Parameters) -> Numerics:
    """Arithmetic of a candidate: its operand formats, and one accumulator for all products."""
    from numerics.torch import LayerPolicy

    update = FloatFormat.parse(config.training.update_format)
    operand, accumulator = FloatFormat.parse(parameters["format"]), accumulator_of(parameters)
    backward, state = parameters.get("backward_format"), config.training.state_format
    return Numerics(
        policy=LayerPolicy(
            weight=operand,
            activation=operand,
            error=operand if backward is None else FloatFormat.parse(backward),
            weight_gradient=update,
            forward=accumulator,
            backward=accumulator,
            gradient=accumulator,
        ),
        update_format=update,
        update_rounding=Rounding.parse(parameters["update_rounding"]),
        state_format=None if state is None else FloatFormat.parse(state),
    )


def cost_metrics(cost: Cost) -> dict[str, Any]:
    """Cost of one training step as flat columns with units."""
    return {
        "energy_pj": cost.total_energy_pj,
        **{f"energy_{part}_pj": energy for part, energy in cost.energy_pj.items()},
        "cycles": cost.cycles,
        "step_ms": cost.seconds * 1e3,
        "utilization": cost.utilization,
        "offchip_bytes": cost.offchip_bytes,
        "area_um2": cost.total_area_um2,
        **{f"area_{part}_um2": area for part, area in cost.area_um2.items()},
    }


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    import platform
    from importlib.metadata import version

    packages = ("bitfront", "numpy", "torch", "numba", "botorch", "gpytorch", "ortools", "scikit-learn")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
