"""In which order a run sees the samples: a function of its seed alone."""

from __future__ import annotations

from typing import Any

import torch


class Batches:
    """Batches of each epoch's permutation; an incomplete last batch is left out.

    Parameters
    ----------
    count
        Samples of the training set.
    batch
        Samples per step.
    seed
        Of the permutations.
    """

    def __init__(self, count: int, batch: int, seed: int) -> None:
        if not 1 <= batch <= count:
            raise ValueError(f"batch must be in 1..{count}, the size of the training set, got {batch}")
        self._count = count
        self._batch = batch
        self._generator = torch.Generator().manual_seed(seed)
        self._left = torch.empty(0, dtype=torch.int64)

    def next(self) -> torch.Tensor:
        """Places (batch,) of the samples of the next step."""
        if len(self._left) < self._batch:
            self._left = torch.randperm(self._count, generator=self._generator)
        chosen, self._left = self._left[: self._batch], self._left[self._batch :]
        return chosen

    def state_dict(self) -> dict[str, Any]:
        """Where the order stands."""
        return {"generator": self._generator.get_state(), "left": self._left.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._generator.set_state(state["generator"])
        self._left = state["left"]
