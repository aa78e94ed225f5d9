"""How good a trained network is: the columns that a campaign keeps, their direction and their words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any

import numpy as np

from studies.tasks import ACCURACY, Metric
from studies.training import Outcome

_LEAST_LOSS = 1e-12  # of a mean of logarithms


@dataclass(frozen=True, slots=True)
class Quality:
    """The metric of a task as a campaign sees it.

    Accuracy is kept as a share, ``test_accuracy``, with its error ``test_error``; any other metric as it
    is, ``test_metric``.
    """

    metric: Metric

    @property
    def is_accuracy(self) -> bool:
        """Whether samples are classified rightly or wrongly."""
        return self.metric.name == ACCURACY.name and self.metric.unit == ACCURACY.unit

    @property
    def column(self) -> str:
        """Column of the metric."""
        return "test_accuracy" if self.is_accuracy else "test_metric"

    @property
    def objective(self) -> str:
        """Objective that is minimised for it, if there is one."""
        return "test_error" if self.is_accuracy else "test_metric"

    @property
    def columns(self) -> tuple[str, ...]:
        """Metrics that training measures; the others follow from the parameters."""
        error = ("test_error",) if self.is_accuracy else ()
        name = self.column
        return (
            "training_loss",
            *error,
            name,
            f"{name}_min",
            f"{name}_max",
            "training_losses",
            "skipped_steps",
            "training_seconds",
        )

    @property
    def title(self) -> str:
        """For axes and headings, with the unit."""
        return f"test {self.metric.name}, {self.metric.unit}".rstrip(", ")

    @property
    def short(self) -> str:
        """For narrow columns."""
        return "acc. %" if self.is_accuracy else self.metric.unit or self.metric.name

    def why_not(self, objective: str) -> str | None:
        """Why an objective cannot be had of this task, ``None`` if it can."""
        if objective == "test_error" and not self.is_accuracy:
            return f"test_error is of classifications, and this task has {self.metric.name}: test_metric"
        if objective == "test_metric" and self.is_accuracy:
            return "test_metric is of other metrics than accuracy; of this task it is test_error"
        if objective == "test_metric" and self.metric.higher_is_better:
            return f"test_metric is minimised, but more {self.metric.name} is better"
        return None

    def summary(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Summary of the replicates: geometric mean of the losses, mean of the metrics."""
        losses = [outcome.training_loss for outcome in outcomes]
        scale = 0.01 if self.is_accuracy else 1.0
        metrics = [scale * outcome.metric for outcome in outcomes]
        mean, name = float(np.mean(metrics)), self.column
        return {
            "training_loss": exp(sum(log(max(loss, _LEAST_LOSS)) for loss in losses) / len(losses)),
            **({"test_error": 1.0 - mean} if self.is_accuracy else {}),
            name: mean,
            f"{name}_min": min(metrics),
            f"{name}_max": max(metrics),
            "training_losses": losses,
            "skipped_steps": sum(outcome.skipped_steps for outcome in outcomes),
            "training_seconds": sum(outcome.seconds for outcome in outcomes),
        }

    def worst_within(self, reference: float, share: float) -> float:
        """Worst value within a share of full precision's: points of accuracy, or a part of another metric."""
        if self.is_accuracy:
            return reference - share
        slack = share * abs(reference)
        return reference - slack if self.metric.higher_is_better else reference + slack

    def is_as_good(self, value: float, wanted: float) -> bool:
        """Whether a value reaches another one."""
        return value >= wanted if self.metric.higher_is_better else value <= wanted

    def best(self, values: Sequence[float]) -> int:
        """Place of the best value."""
        return int(np.argmax(values) if self.metric.higher_is_better else np.argmin(values))

    def text(self, value: float) -> str:
        """A value as people read it: ``96.4 %``, ``2.31 bits``."""
        if self.is_accuracy:
            return f"{100 * value:.1f} %"
        return f"{value:.3f} {self.metric.unit}".rstrip()

    def of(self, row: Mapping[str, Any]) -> str:
        """The metric of a table row, as `text`."""
        return self.text(float(row[self.column]))
