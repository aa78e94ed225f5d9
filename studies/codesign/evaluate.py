"""One evaluation: train the network under a candidate's numerics, and price its training step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from accel import Cost
from dse import InfrastructureError
from numerics import FloatFormat, Rounding
from studies.codesign.config import CampaignConfig
from studies.codesign.pricing import Parameters, Pricing, accumulator_of, numerics_names
from studies.codesign.quality import Quality
from studies.replicas import ReplicaPool, WorkerLostError
from studies.training import Numerics, Recipe


@dataclass
class Evaluator:
    """Measures candidates of a campaign.

    Numerics that were trained already as far or further, on other hardware, are not trained again: training
    is deterministic, and the metric ``trained_in`` names the trial that did. A run knows all fidelities that
    it has passed.

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
    measured: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = field(default_factory=dict)

    def recall(self, trial: int, parameters: Parameters, steps: int, metrics: Mapping[str, Any]) -> None:
        """Take over what a finished trial of an earlier process measured after `steps`, and on the way."""
        trained_in = metrics.get("trained_in", trial)
        looks = {steps: metrics, **{int(level): look for level, look in metrics.get(LOOKS, {}).items()}}
        self._keep(
            self._key(parameters),
            {
                level: {name: look[name] for name in self.quality.columns if name in look}
                for level, look in looks.items()
            },
            trained_in,
        )

    def __call__(self, parameters: Parameters) -> tuple[dict[str, float], dict[str, Any]]:
        """Evaluate a candidate at its fidelity: learnt objectives by name, and all other metrics."""
        steps = int(parameters.get(FIDELITY, self.config.training.steps))
        design = {name: value for name, value in parameters.items() if name != FIDELITY}
        key = self._key(design)
        looks: dict[int, dict[str, Any]] = {}
        if steps not in self.measured.get(key, {}):
            looks = self._train(numerics_of(self.config, design), steps)
            self._keep(key, looks, self.trial)
        metrics = {**self.measured[key][steps], **cost_metrics(self.pricing.cost(design))}
        if earlier := {str(level): look for level, look in looks.items() if level < steps}:
            metrics[LOOKS] = earlier
        objectives: list[str] = list(self.config.search.objectives)
        values = {name: metrics[name] for name in objectives if name in LEARNT}
        return values, {name: metric for name, metric in metrics.items() if name not in objectives}

    def full_precision(self) -> dict[str, Any]:
        """Evaluate the float32 twin, with the same seeds, on the hardware that suits it best."""
        design, cost = self.pricing.full_precision()
        steps = self.config.training.steps
        return {
            **self._train(None, steps)[steps],
            **cost_metrics(cost),
            "rows": design.rows,
            "columns": design.columns,
            "dataflow": design.dataflow,
            "scratchpad_bytes": design.scratchpad_bytes,
            "offchip_bytes_per_cycle": design.offchip_bytes_per_cycle,
        }

    def _key(self, parameters: Parameters) -> tuple[Any, ...]:
        return tuple(parameters[name] for name in numerics_names(self.config.space))

    def _keep(self, key: tuple[Any, ...], looks: Mapping[int, Mapping[str, Any]], trained_in: int) -> None:
        known = self.measured.setdefault(key, {})
        for steps, look in looks.items():
            known.setdefault(steps, {**look, "trained_in": trained_in})

    def _train(self, numerics: Numerics | None, steps: int) -> dict[int, dict[str, Any]]:
        """Train as far as `steps`; summaries of the replicates at each level passed, but where one broke."""
        seeds = range(self.config.seed, self.config.seed + self.config.training.replicates)
        levels = [level for level in self.config.training.levels if level <= steps]
        try:
            runs = self.pool.run(recipe_of(self.config), numerics, seeds, steps=levels)
        except WorkerLostError as error:
            raise InfrastructureError(str(error)) from error
        return {
            level: self.quality.summary(outcomes)
            for level, outcomes in zip(levels, zip(*runs, strict=True), strict=True)
            if all(isfinite(outcome.training_loss) for outcome in outcomes)
        }


#: Name of the fidelity, as which an evaluation gets the steps to train.
FIDELITY = "steps"

#: Metric of a trial that trained: what it measured at lower fidelities on its way.
LOOKS = "looks"

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
