"""Bits of the weights of each layer of a trained network, under a mean number of bits or a target accuracy.

References
----------
.. [HAWQ2] Z. Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks", NeurIPS
   2020, arXiv 1911.03852.
.. [HAWQ3] Z. Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", ICML 2021, arXiv 2011.10680: bits by
   integer linear programming.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from dse.allocate import Allocation, Choice, cheapest_meeting, exact, exhaustive, greedy
from dse.water_filling import water_filling, whole_bits
from studies.allocation.network import trained
from studies.allocation.sensitivity import (
    Trace,
    curvature_losses,
    hessian_traces,
    measured_losses,
    with_bits,
    zero_bit_losses,
)
from studies.tasks import Data, cross_entropy, digits, digits_cnn

if TYPE_CHECKING:
    import pandas as pd

BITS = (2, 3, 4, 5, 6, 7, 8)
_UNMEASURED = 1e-3  # weight of the curvature's loss against the measured one
_BRUTE = 1000  # combinations up to which all are tried on the network itself

Sensitivity = Literal["curvature", "measured"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerBits:
    """Weights of a trained network, whose bits are chosen layer by layer.

    Attributes
    ----------
    network
        Trained; its matrices and kernels are rounded, biases are not.
    data
        Sensitivities are of the loss on the training set, accuracy is of the test set.
    bits
        Choices for each layer, rising.
    probes, seed
        Of the estimates of the Hessian's traces.
    """

    network: nn.Module
    data: Data
    bits: tuple[int, ...] = BITS
    probes: int = 64
    seed: int = 0

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Parameters that are rounded: those of two axes or more."""
        return tuple(name for name, value in self.network.named_parameters() if value.ndim > 1)

    @cached_property
    def sizes(self) -> Float[np.ndarray, " g"]:
        """Weights in each, (g,)."""
        return np.array([float(self.network.get_parameter(name).numel()) for name in self.names])

    def loss(self, outputs: torch.Tensor) -> torch.Tensor:
        """Mean cross entropy on the training set."""
        return cross_entropy(outputs, self.data.train_labels)

    @cached_property
    def traces(self) -> dict[str, Trace]:
        """Traces of the blocks of the Hessian."""
        return hessian_traces(
            self.network, self.data.train_inputs, self.loss, self.names, probes=self.probes, seed=self.seed
        )

    def problem(self, sensitivity: Sensitivity) -> Allocation:
        """Least loss under a total of bits, with one of two measures of what a layer's bits do."""
        losses = curvature_losses(self.network, self.traces, self.bits)
        if sensitivity == "measured":
            measured = measured_losses(self.network, self.data.train_inputs, self.loss, self.names, self.bits)
            # More bits are not worse but by luck; where nothing is measured, the curvature decides.
            losses = np.maximum.accumulate(measured[:, ::-1], axis=1)[:, ::-1] + _UNMEASURED * losses
        return Allocation(
            groups=self.names,
            options=tuple(map(str, self.bits)),
            cost=np.outer(self.sizes, self.bits),
            loss=losses,
        )

    def accuracy(self, bits: Sequence[int]) -> float:
        """Accuracy on the test set in percent."""
        outputs = with_bits(self.network, dict(zip(self.names, bits, strict=True)), self.data.test_inputs)
        return 100.0 * float((outputs.argmax(1) == self.data.test_labels).double().mean())

    def training_loss(self, bits: Sequence[int]) -> float:
        """Loss on the training set with these bits."""
        chosen = dict(zip(self.names, bits, strict=True))
        return float(self.loss(with_bits(self.network, chosen, self.data.train_inputs)))

    def bits_of(self, choice: Choice) -> tuple[int, ...]:
        """Bits of each layer."""
        return tuple(self.bits[o] for o in choice)

    def mean_bits(self, bits: Sequence[int]) -> float:
        """Bits per weight."""
        return float(self.sizes @ np.array(bits) / self.sizes.sum())

    def filled(self, mean_bits: float) -> tuple[int, ...]:
        """Bits by water-filling with the Hessian's traces, rounded optimally."""
        total = mean_bits * self.sizes.sum()
        sensitivity = zero_bit_losses(self.network, self.traces)
        real = water_filling(sensitivity, self.sizes, total, low=self.bits[0], high=self.bits[-1])
        return tuple(whole_bits(real, sensitivity, self.sizes, total).tolist())

    def under(self, mean_bits: float) -> pd.DataFrame:
        """Bits by every method under a mean number of bits, and what they do.

        Raises
        ------
        AllocationError, ValueError
            Fewer than the narrowest bits.
        """
        import pandas as pd

        total = mean_bits * self.sizes.sum()
        found: list[tuple[str, str, tuple[int, ...]]] = []
        uniform = max((b for b in self.bits if b <= mean_bits), default=self.bits[0])
        found.append(("uniform", "", (uniform,) * len(self.names)))
        found.append(("water-filling", "curvature", self.filled(mean_bits)))
        sensitivities: tuple[Sensitivity, ...] = ("curvature", "measured")
        for sensitivity in sensitivities:
            problem = self.problem(sensitivity)
            for name, method in (("greedy", greedy), ("ILP", exact)):
                found.append((name, sensitivity, self.bits_of(method(problem, max_cost=total))))
            if problem.size <= _BRUTE:
                choice = exhaustive(problem, max_cost=total)
                found.append(("exhaustive", sensitivity, self.bits_of(choice)))
        if len(self.bits) ** len(self.names) <= _BRUTE:
            found.append(("exhaustive", "true loss", self._best_true(total)))
        return pd.DataFrame([self._row(*row) for row in found])

    def reaching(self, accuracy: float) -> pd.DataFrame:
        """Fewest bits that reach an accuracy, by bisection of a multiplier, and by trying all.

        Raises
        ------
        AllocationError
            The widest bits do not reach it.
        """
        import pandas as pd

        rows = []
        sensitivities: tuple[Sensitivity, ...] = ("curvature", "measured")
        for sensitivity in sensitivities:
            asked: list[Choice] = []

            def meets(choice: Choice, asked: list[Choice] = asked) -> bool:
                asked.append(choice)
                return self.accuracy(self.bits_of(choice)) >= accuracy

            choice = cheapest_meeting(self.problem(sensitivity), meets)
            rows.append({**self._row("bisection", sensitivity, self.bits_of(choice)), "asked": len(asked)})
        if len(self.bits) ** len(self.names) <= _BRUTE:
            every = list(product(self.bits, repeat=len(self.names)))
            good = [bits for bits in every if self.accuracy(bits) >= accuracy]
            best = min(good, key=lambda bits: (self.mean_bits(bits), -self.accuracy(bits)))
            rows.append({**self._row("exhaustive", "true accuracy", best), "asked": len(every)})
        return pd.DataFrame(rows)

    def _best_true(self, total: float) -> tuple[int, ...]:
        every = product(self.bits, repeat=len(self.names))
        kept = [bits for bits in every if self.sizes @ np.array(bits) <= total]
        return min(kept, key=self.training_loss)

    def _row(self, method: str, sensitivity: str, bits: tuple[int, ...]) -> dict[str, object]:
        return {
            "method": method,
            "sensitivity": sensitivity,
            "bits": " ".join(map(str, bits)),
            "bits_per_weight": self.mean_bits(bits),
            "training_loss": self.training_loss(bits),
            "accuracy_percent": self.accuracy(bits),
        }


def digits_layers(seed: int = 0) -> LayerBits:
    """Layers of the digits CNN, trained in float32."""
    data = digits()
    return LayerBits(network=trained(digits_cnn, data, seed=seed), data=data, seed=seed)
