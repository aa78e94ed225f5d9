"""Formats of all tensors of a network that trains in fixed point, from what a short run measured [PTFP]_.

References
----------
.. [PTFP] C. Sakr, N. Shanbhag, "Per-Tensor Fixed-Point Quantization of the Back-Propagation Algorithm",
   ICLR 2019, arXiv 1812.11732.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import ldexp
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    import pandas as pd
from numerics.theory.fixed_point import (
    LEAST_BITS,
    FixedPoint,
    accumulator_format,
    activation_gradient_format,
    check_positive,
    check_target,
    feedforward_bits,
    full_adders,
    least_bits,
    mismatch_bound,
    power_of_two_above,
    weight_gradient_format,
)

TensorName: TypeAlias = Literal[
    "weight", "activation", "weight_gradient", "activation_gradient", "accumulator"
]


ProductName: TypeAlias = Literal["forward", "backward", "gradient"]
TENSORS: tuple[TensorName, ...] = get_args(TensorName)
_OPERANDS: dict[ProductName, tuple[TensorName, TensorName]] = {
    "forward": ("activation", "weight"),
    "backward": ("activation_gradient", "weight"),
    "gradient": ("activation_gradient", "activation"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStatistics:
    """What was measured of one layer over a baseline run.

    Attributes
    ----------
    weight_gain, activation_gain
        E_W and E_A, per squared unit of the tensor; 0 of a tensor that no logit depends on.
    weight_max, activation_max
        Largest magnitudes.
    activation_signed
        Whether there was a negative activation.
    weight_gradient_sigma, activation_gradient_sigma
        Smallest and largest standard deviation of a step. Steps without any do not count, for zeros need no
        step; ``(0, 0)``: there was no other step, the tensor is dead.
    lambda_max
        Largest singular value of the matrix of the squared entries of ``dGW/dGA``.
    products
        For each training product of a step: how many dot products, and their length. A layer whose input
        needs no gradient has no backward product.
    """

    weight_gain: float
    activation_gain: float
    weight_max: float
    activation_max: float
    activation_signed: bool
    weight_gradient_sigma: tuple[float, float]
    activation_gradient_sigma: tuple[float, float]
    lambda_max: float
    products: Mapping[ProductName, tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFixedPoint:
    """Formats of the tensors of one layer; ``None`` stays in floating point.

    Attributes
    ----------
    weight, activation
        W and A.
    weight_gradient, activation_gradient
        GW, and GA, the gradient of the layer's output.
    accumulator
        Of the part of the weights below their step; ``None`` if no update is below it.
    """

    weight: FixedPoint | None = None
    activation: FixedPoint | None = None
    weight_gradient: FixedPoint | None = None
    activation_gradient: FixedPoint | None = None
    accumulator: FixedPoint | None = None

    def formats(self) -> Iterator[tuple[TensorName, FixedPoint]]:
        """Name and format of every tensor that has one."""
        for name in TENSORS:
            if (fmt := getattr(self, name)) is not None:
                yield name, fmt


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPointAssignment:
    """Formats of all layers, with what they were computed from.

    Attributes
    ----------
    layers
        Formats by the name of the layer.
    statistics
        What was measured, by the same names.
    excluded
        Tensors that had nothing to measure and stay in floating point, as ``conv1.weight_gradient``: dead
        ones, and what depends on them.
    """

    layers: Mapping[str, LayerFixedPoint]
    statistics: Mapping[str, LayerStatistics]
    excluded: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """One row for each tensor: layer, tensor, format, bits, range, step."""
        import pandas as pd

        rows = [
            (layer, tensor, str(fmt), fmt.bits, fmt.range, fmt.step)
            for layer, formats in self.layers.items()
            for tensor, fmt in formats.formats()
        ]
        return pd.DataFrame(rows, columns=["layer", "tensor", "format", "bits", "range", "step"])

    def complexity(self) -> pd.DataFrame:
        """One row for each product of a training step: layer, product, dots, length, full_adders.

        There are ``dots`` dot products of ``length`` terms; the last column has the one-bit full adders of
        all of them, see `full_adders`. Products with an operand in floating point are left out.
        """
        import pandas as pd

        rows = []
        for layer, measured in self.statistics.items():
            for product, (dots, length) in measured.products.items():
                a, b = (getattr(self.layers[layer], name) for name in _OPERANDS[product])
                if a is not None and b is not None:
                    rows.append((layer, product, dots, length, dots * full_adders(length, a.bits, b.bits)))
        return pd.DataFrame(rows, columns=["layer", "product", "dots", "length", "full_adders"])

    def mismatch(self) -> float:
        """Bound on the probability that rounding W and A changes a prediction, see `mismatch_bound`."""
        pairs = [
            (fmt.step, gain)
            for layer, measured in self.statistics.items()
            for fmt, gain in (
                (self.layers[layer].weight, measured.weight_gain),
                (self.layers[layer].activation, measured.activation_gain),
            )
            if fmt is not None
        ]
        return mismatch_bound([step for step, _ in pairs], [gain for _, gain in pairs])

    def narrower(self, bits: int = 1, *, tensors: Iterable[TensorName] = TENSORS) -> FixedPointAssignment:
        """Every width so many bits less: ranges stay, steps double with each bit.

        The range of an accumulator is half the weights' step and grows with it; its own step then grows
        twice as fast. An accumulator that has no bit left is none.

        Parameters
        ----------
        tensors
            Those that lose bits, all by default.

        Raises
        ------
        ValueError
            Bits below 0, an unknown tensor, or a tensor that would be left with less than one bit, a signed
            one with less than two.
        """
        chosen = tuple(tensors)
        if bits < 0:
            raise ValueError(f"bits must be at least 0, got {bits}")
        for name in chosen:
            if name not in TENSORS:
                raise ValueError(f"tensors must be of {', '.join(TENSORS)}, got {name!r}")
        layers = {layer: _narrower(layer, formats, bits, chosen) for layer, formats in self.layers.items()}
        return replace(self, layers=layers)


def assign_formats(
    statistics: Mapping[str, LayerStatistics],
    *,
    smallest_learning_rate: float,
    mismatch: float = 0.01,
    min_bits: int | None = None,
) -> FixedPointAssignment:
    """All rules of [PTFP]_ applied to the statistics of each layer.

    Parameters
    ----------
    statistics
        By the name of the layer.
    smallest_learning_rate
        Of the training to come.
    mismatch
        Probability that rounding changes a prediction; B_min is the least with a bound not above it.
    min_bits
        B_min itself, in place of `mismatch`; at least 2.

    Returns
    -------
    The formats. W has the range of its largest magnitude, rounded up to a power of two; A as well, and is
    unsigned if it was never negative. Dead tensors, without gain or without a gradient, are excluded.

    Raises
    ------
    ValueError
        A number out of its range, or a format of more than 52 bits.

    Examples
    --------
    >>> layer = LayerStatistics(
    ...     weight_gain=4.0, activation_gain=1.0, weight_max=0.7, activation_max=1.5,
    ...     activation_signed=False, weight_gradient_sigma=(0.001, 0.1),
    ...     activation_gradient_sigma=(0.001, 0.002), lambda_max=16.0, products={},
    ... )
    >>> found = assign_formats({"fc": layer}, smallest_learning_rate=0.01)
    >>> for name, fmt in found.layers["fc"].formats():
    ...     print(name, fmt, fmt.bits)
    weight s0.5 6
    activation u1.4 5
    weight_gradient s-2.12 11
    activation_gradient s-6.14 9
    accumulator s-6.19 14
    """
    check_target(mismatch, min_bits)
    check_positive(smallest_learning_rate=smallest_learning_rate)
    formats = _forward_formats(statistics, mismatch, min_bits)
    excluded = []
    for name, layer in statistics.items():
        found = formats[name]
        try:
            found.update(_backward_formats(layer, found.get("weight"), smallest_learning_rate))
        except ValueError as error:
            raise ValueError(f"layer {name!r}: {error}") from error
        excluded += [f"{name}.{tensor}" for tensor in TENSORS if tensor not in found]
    return FixedPointAssignment(
        layers={name: LayerFixedPoint(**found) for name, found in formats.items()},
        statistics=dict(statistics),
        excluded=tuple(excluded),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Slack:
    """How many bits an assignment had to spare.

    Attributes
    ----------
    spare_bits
        The most that all widths may lose together; -1 if the assignment itself misses the target.
    target
        Accuracy that is wanted.
    accuracies
        Those found with 0, 1, 2, ... bits less; the last one is below the target, unless there were no
        narrower formats to try.
    """

    spare_bits: int
    target: float
    accuracies: tuple[float, ...]


def slack(
    assignment: FixedPointAssignment,
    accuracy: Callable[[FixedPointAssignment], float],
    target: float,
    *,
    tensors: Iterable[TensorName] = TENSORS,
) -> Slack:
    """Narrow an assignment bit by bit until the accuracy drops below `target`.

    Parameters
    ----------
    accuracy
        Trains under an assignment and gives the accuracy; NaN is below any target.
    target
        Lowest accuracy that will do, such as that of the full-precision twin less 0.01.
    tensors
        Those that lose bits, all by default.

    Returns
    -------
    The bits to spare, and all accuracies.
    """
    chosen = tuple(tensors)
    narrowed = assignment.narrower(0, tensors=chosen)  # an unknown tensor is an error before long work
    found: list[float] = []
    while True:
        found.append(float(accuracy(narrowed)))
        if not found[-1] >= target:
            return Slack(spare_bits=len(found) - 2, target=target, accuracies=tuple(found))
        before = narrowed
        try:
            narrowed = assignment.narrower(len(found), tensors=chosen)
        except ValueError:
            break
        if narrowed == before:  # the last accumulator is gone
            break
    return Slack(spare_bits=len(found) - 1, target=target, accuracies=tuple(found))


def _forward_formats(
    statistics: Mapping[str, LayerStatistics], mismatch: float, min_bits: int | None
) -> dict[str, dict[TensorName, FixedPoint | None]]:
    """Formats of the weights and activations that are alive, by layer."""
    live: list[tuple[str, TensorName, float, FixedPoint]] = []
    for name, layer in statistics.items():
        tensors: tuple[tuple[TensorName, float, float, bool], ...] = (
            ("weight", layer.weight_gain, layer.weight_max, True),
            ("activation", layer.activation_gain, layer.activation_max, layer.activation_signed),
        )
        for tensor, gain, largest, signed in tensors:
            if gain > 0.0 and largest > 0.0:
                # Of the range only, yet.
                ranged = FixedPoint.of_bits(power_of_two_above(largest), LEAST_BITS, signed=signed)
                live.append((name, tensor, gain, ranged))
    found: dict[str, dict[TensorName, FixedPoint | None]] = {name: {} for name in statistics}
    if live:
        gains, spans = [item[2] for item in live], [item[3].span for item in live]
        minimum = least_bits(gains, mismatch, spans=spans) if min_bits is None else min_bits
        widths = feedforward_bits(gains, minimum, spans=spans).tolist()
        for (name, tensor, _, ranged), bits in zip(live, widths, strict=True):
            found[name][tensor] = FixedPoint.of_bits(ranged.range, bits, signed=ranged.signed)
    return found


def _backward_formats(
    layer: LayerStatistics, weight: FixedPoint | None, smallest_learning_rate: float
) -> dict[TensorName, FixedPoint | None]:
    """Formats of the gradients and the accumulator, if they are alive."""
    found: dict[TensorName, FixedPoint | None] = {}
    if layer.weight_gradient_sigma[0] > 0.0 and layer.activation_gradient_sigma[0] > 0.0:
        gradient = weight_gradient_format(*layer.weight_gradient_sigma)
        found["weight_gradient"] = gradient
        found["activation_gradient"] = activation_gradient_format(
            layer.activation_gradient_sigma[1], gradient.step, layer.lambda_max
        )
        if weight is not None:
            found["accumulator"] = accumulator_format(weight, gradient.step, smallest_learning_rate)
    return found


def _narrower(
    layer: str, formats: LayerFixedPoint, bits: int, tensors: tuple[TensorName, ...]
) -> LayerFixedPoint:
    lost = {name: bits if name in tensors else 0 for name in TENSORS}
    changed: dict[TensorName, FixedPoint | None] = {}
    for name, fmt in formats.formats():
        left = fmt.bits - lost[name]
        if name == "accumulator":
            grown = ldexp(fmt.range, lost["weight"])
            changed[name] = FixedPoint.of_bits(grown, left) if left > 0 else None
        elif left < 1 + fmt.signed:
            raise ValueError(f"{layer}.{name} must keep {1 + fmt.signed} of its {fmt.bits} bits, got {left}")
        else:
            changed[name] = FixedPoint.of_bits(fmt.range, left, signed=fmt.signed)
    return LayerFixedPoint(**changed)
