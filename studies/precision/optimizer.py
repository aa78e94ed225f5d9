"""The optimizer of a study: its kind, its settings, and the learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from studies.config import Table

if TYPE_CHECKING:
    import torch

Share = Annotated[float, Field(ge=0, lt=1)]

_DEFAULTS: dict[str, dict[str, float]] = {
    "sgd": {"momentum": 0.9},
    "adam": {"beta1": 0.9, "beta2": 0.999},
    "adamw": {"beta1": 0.9, "beta2": 0.999},
}


class Optimizer(Table):
    """A torch optimizer and its schedule.

    Attributes
    ----------
    kind
        ``sgd``, ``adam`` (decay as a gradient) or ``adamw`` (decay of the weights).
    learning_rate
        The largest of the schedule.
    momentum
        Of ``sgd``, 0.9 by default.
    beta1, beta2
        Of ``adam`` and ``adamw``, 0.9 and 0.999 by default.
    schedule
        ``constant``; ``linear`` or ``cosine``: down to zero after the last step.
    warmup_steps
        First steps, in which the rate grows evenly up to the schedule's.
    """

    kind: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    momentum: Share | None = None
    beta1: Share | None = None
    beta2: Share | None = None
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_kind(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {**_DEFAULTS.get(str(data.get("kind", "sgd")), {}), **data}

    @model_validator(mode="after")
    def _settings_of_the_kind(self) -> Self:
        for name in ("momentum", "beta1", "beta2"):
            if getattr(self, name) is not None and name not in _DEFAULTS[self.kind]:
                allowed = ", ".join(_DEFAULTS[self.kind])
                raise ValueError(f"{name} is no setting of {self.kind}, which has {allowed}")
        return self

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer in float32."""
        import torch

        rate, decay = self.learning_rate, self.weight_decay
        if self.kind == "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=self.momentum or 0.0, weight_decay=decay)
        assert self.beta1 is not None
        assert self.beta2 is not None
        build = torch.optim.Adam if self.kind == "adam" else torch.optim.AdamW
        return build(parameters, lr=rate, betas=(self.beta1, self.beta2), weight_decay=decay)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of the step number `step`, from 0, of `steps`.

        Examples
        --------
        >>> warm = Optimizer(learning_rate=0.5, schedule="linear", warmup_steps=2)
        >>> [warm.rate(step, 4) for step in range(4)]
        [0.25, 0.375, 0.25, 0.125]
        """
        done = step / steps
        falling = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return self.learning_rate * warm * falling[self.schedule]
