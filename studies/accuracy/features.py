"""What numerics do to a task, in numbers that mean the same for every task.

Every number follows from formats, shapes and measured exponents (`studies.accuracy.statistics`), in
milliseconds, before anything is trained:

* noise of rounded operands: for a binade, the relative square error of its numbers under the format,
  found by rounding some of them; for a tensor, the mean over its binades by their energy. Numbers that are
  too small or too large for the format are in it.
* noise of sums: the relative square error of the calibrated table (`numerics.theory.calibration`) for the
  accumulator, length, chunk and density of a product, and of terms below the least number of the register;
* margins: bits by which sums stay below the largest number of the register, and below what swamps terms;
* the update: which part of a change a number does not make, for it rounds back, and the noise of rounding.

Noise is a decimal logarithm of a noise-to-signal ratio, at most 1 (nothing left) for a product, summed over
the products of a direction, their mean, or of the worst. Noise adds up along the layers as independent
errors do [FX]_.

References
----------
.. [FX] C. Sakr, N. Shanbhag, "Per-Tensor Fixed-Point Quantization of the Back-Propagation Algorithm",
   ICLR 2019, arXiv 1812.11732.
.. [ABS] C. Sakr, N. Wang, C.-Y. Chen, J. Choi, A. Agrawal, N. Shanbhag, K. Gopalakrishnan, "Accumulation
   Bit-Width Scaling For Ultra-Low Precision Training Of Deep Networks", ICLR 2019, arXiv 1901.06588.
.. [Wang18] N. Wang et al., "Training Deep Neural Networks with 8-bit Floating Point Numbers",
   NeurIPS 2018, arXiv 1812.08011: swamping, and stochastic rounding of the update.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import log2, log10
from typing import Any

import numpy as np
from jaxtyping import Float

from numerics import FloatFormat
from numerics.elementwise import cast
from numerics.theory.calibration import ACC_BITS, loss
from studies.accuracy.policies import NumericsChoice
from studies.accuracy.statistics import (
    HIGH,
    LOW,
    UNIFORM,
    Binades,
    Changes,
    Product,
    TaskStatistics,
    known,
)

DIRECTIONS = ("forward", "backward", "gradient")
_OPERANDS = {
    "forward": ("activation", "weight"),
    "backward": ("error", "weight"),
    "gradient": ("error", "activation"),
}
_LEAST = 1e-8  # noise below does not matter, and has no logarithm
_MARGIN = (-8.0, 16.0)  # bits; beyond, a margin says no more
_POINTS = (
    61  # numbers of a binade that are rounded; a prime, so that they are spread over the steps of formats
)


def features_of(
    task: str | TaskStatistics, parameters: Mapping[str, Any] | NumericsChoice
) -> dict[str, float]:
    """Features of a task under a choice of numerics, by stable names.

    Parameters
    ----------
    task
        Statistics, or the name of a task whose statistics come with the package.
    parameters
        As of `studies.accuracy.policies.NumericsChoice`; others are ignored.

    Raises
    ------
    KeyError
        There are no statistics of this task.
    TypeError, ValueError
        A parameter out of its range.

    Examples
    --------
    >>> wide = features_of("digits-cnn", {})
    >>> narrow = features_of("digits-cnn", {"forward_exp_bits": 4, "forward_frac_bits": 2})
    >>> bool(narrow["forward_operand_sum"] > wide["forward_operand_sum"] + 3.0)
    True
    """
    choice = parameters if isinstance(parameters, NumericsChoice) else NumericsChoice.of(parameters)
    return dict(_features(_statistics(task), choice))


@lru_cache(maxsize=1 << 16)
def _features(statistics: TaskStatistics, choice: NumericsChoice) -> dict[str, float]:
    scale = log2(choice.loss_scale)
    found: dict[str, float] = {}
    whole = 0.0
    for direction in DIRECTIONS:
        products = [product for product in statistics.products if product.role == direction]
        operands = [_operand_noise(statistics, product, choice) for product in products]
        sums = [_sum_noise(statistics, product, choice) for product in products]
        shift = 0.0 if direction == "forward" else scale
        both = [min(1.0, x + y) for x, y in zip(operands, sums, strict=True)]
        found[f"{direction}_operand_sum"] = _log(sum(operands))
        found[f"{direction}_operand_mean"] = _log(sum(operands) / len(operands))
        found[f"{direction}_operand_worst"] = _log(max(operands))
        found[f"{direction}_accumulator_sum"] = _log(sum(sums))
        found[f"{direction}_accumulator_mean"] = _log(sum(sums) / len(sums))
        found[f"{direction}_accumulator_worst"] = _log(max(sums))
        found[f"{direction}_total"] = _log(sum(both))
        found[f"{direction}_overflow_margin"] = min(
            _bounded(log2(choice.register.max) - product.log2_max - shift) for product in products
        )
        found[f"{direction}_swamping_margin"] = min(_swamping_margin(product, choice) for product in products)
        whole += sum(both)
    tensors = statistics.tensors
    found["all_products_total"] = _log(whole)
    for role, fmt, shift in (
        ("weight", choice.forward, 0),
        ("activation", choice.forward, 0),
        ("error", choice.backward, round(scale)),
    ):
        held = [_held(tensor, fmt, shift) for (_, name), tensor in tensors.items() if name == role]
        found[f"{role}_flushed_worst"] = max(flushed for flushed, _ in held)
        found[f"{role}_clipped_worst"] = max(clipped for _, clipped in held)
    found |= _update_features(statistics, choice)
    return found


def feature_names() -> tuple[str, ...]:
    """Names of the features, in order."""
    return tuple(features_of(next(iter(known().values())), NumericsChoice()))


def _statistics(task: str | TaskStatistics) -> TaskStatistics:
    if isinstance(task, TaskStatistics):
        return task
    try:
        return known()[task]
    except KeyError:
        raise KeyError(f"task must be one of {', '.join(known())}, got {task!r}") from None


def _operand_noise(statistics: TaskStatistics, product: Product, choice: NumericsChoice) -> float:
    """Relative square error of a product whose operands are rounded: the sum of those of both."""
    total = 0.0
    for role in _OPERANDS[product.role]:
        tensor = statistics.tensors.get((product.layer, role))
        if tensor is None:  # of an embedding, or the second operand of a product of two activations
            tensor = statistics.tensors.get((product.layer, "activation"))
        if tensor is not None:
            total += _tensor_noise(tensor, role, choice)
    return min(1.0, total)


def _tensor_noise(tensor: Binades, role: str, choice: NumericsChoice) -> float:
    if role == "error":
        noise = _shifted(_binade_noise(choice.backward), round(log2(choice.loss_scale)))
    else:
        noise = _binade_noise(choice.forward)
    return _weighted(tensor, noise)


def _weighted(tensor: Binades, noise: Float[np.ndarray, " binades"]) -> float:
    """Noise over the energy of a tensor, from the noise of numbers uniform in each binade."""
    return float(tensor.energy @ np.minimum(1.0, noise * UNIFORM / tensor.squares))


def _shifted(by_binade: Float[np.ndarray, " binades"], shift: int) -> Float[np.ndarray, " binades"]:
    """What holds for numbers ``2**shift`` times as large."""
    places = np.clip(np.arange(HIGH - LOW) + shift, 0, HIGH - LOW - 1)
    shifted: Float[np.ndarray, " binades"] = by_binade[places]
    return shifted


@lru_cache(maxsize=512)
def _binade_noise(fmt: FloatFormat) -> Float[np.ndarray, " binades"]:
    """Relative square error of numbers in each binade under a format that saturates."""
    numbers = _numbers()
    rounded = cast(numbers, fmt, overflow="saturate")
    noise: Float[np.ndarray, " binades"] = np.mean((rounded - numbers) ** 2, 1) / np.mean(numbers**2, 1)
    return noise


def _numbers() -> Float[np.ndarray, "binades points"]:
    """Numbers uniform in each binade."""
    uniform = 1.0 + (np.arange(_POINTS) + 0.5) / _POINTS
    return np.ldexp(uniform[None, :], np.arange(LOW, HIGH)[:, None])


def _held(tensor: Binades, fmt: FloatFormat, shift: int) -> tuple[float, float]:
    """Shares of the elements of a tensor that a format flushes to zero, and of its energy that it clips."""
    flushed, clipped = _ends(fmt)
    present = tensor.shares.sum()
    lost = float(tensor.shares @ _shifted(flushed, shift) / present) if present else 0.0
    return lost, float(tensor.energy @ _shifted(clipped, shift))


@lru_cache(maxsize=512)
def _ends(fmt: FloatFormat) -> tuple[Float[np.ndarray, " binades"], Float[np.ndarray, " binades"]]:
    numbers = _numbers()
    rounded = cast(numbers, fmt, overflow="saturate")
    return np.mean(rounded == 0.0, 1), np.mean(numbers > fmt.max, 1)


def _sum_noise(statistics: TaskStatistics, product: Product, choice: NumericsChoice) -> float:
    """Relative square error of the sums of a product under the accumulator."""
    forward, backward = choice.forward_frac_bits, choice.backward_frac_bits
    bits = forward + (forward if product.role == "forward" else backward) + 1
    chunk = choice.chunk if 0 < choice.chunk < product.length else None
    rounded = _calibrated(
        bits, product.length, chunk, round(product.density, 3), choice.accumulator_frac_bits
    )
    shift = 0.0 if product.role == "forward" else log2(choice.loss_scale)
    return min(1.0, rounded + _lost_terms(statistics, product, choice.register, shift))


@lru_cache(maxsize=16384)
def _calibrated(bits: int, length: int, chunk: int | None, density: float, frac_bits: int) -> float:
    found = loss("nearest-even", bits, length, chunk=chunk, density=max(density, 1e-3))
    return float(2.0 ** found.log2_error[ACC_BITS.index(frac_bits)])


def _lost_terms(statistics: TaskStatistics, product: Product, register: FloatFormat, shift: float) -> float:
    """Relative square error from terms near or below the least number of the register."""
    a, b = (
        statistics.tensors.get((product.layer, role)) or statistics.tensors.get((product.layer, "activation"))
        for role in _OPERANDS[product.role]
    )
    if a is None or b is None:
        return 0.0
    energy = np.convolve(a.energy, b.energy)  # of the terms by their exponents, from 2 LOW
    exponents = np.arange(len(energy)) + 2.0 * LOW + 0.5 + shift
    quantum = log2(register.min_subnormal)
    noise = np.minimum(1.0, 4.0 ** (quantum - exponents) / (12.0 * UNIFORM / 2.0))
    noise[exponents < quantum - 1.5] = 1.0
    return float(energy @ noise)


def _swamping_margin(product: Product, choice: NumericsChoice) -> float:
    """Bits by which the largest sum is below the one whose last bit is as large as what is added to it."""
    growth = product.log2_max - product.log2_term
    inside = choice.chunk * product.density
    if 0 < choice.chunk < product.length:
        # The outer level adds sums of chunks, the inner one reaches no further than a chunk does.
        growth -= 0.5 * log2(max(inside, 1.0))
        growth = max(growth, 0.5 * log2(max(inside, 1.0)))
    return _bounded(choice.accumulator_frac_bits + 1.0 - growth)


def _update_features(statistics: TaskStatistics, choice: NumericsChoice) -> dict[str, float]:
    """What rounding does to weights, momenta and their changes."""
    fmt, rounding = choice.update, choice.update_rounding
    lost, noise = _change(statistics.updates, fmt, rounding)
    momentum_lost, momentum_noise = _change(statistics.momenta, fmt, rounding)
    # Noise of every step adds up in a weight that nothing pulls back.
    walk = noise * 4.0 ** (statistics.updates.log2_rms - statistics.weights.log2_rms) * statistics.steps
    return {
        "update_lost": lost,
        "update_noise": _log(noise),
        "update_walk": _log(walk if rounding != "nearest-even" else noise * 0.0),
        "momentum_lost": momentum_lost,
        "momentum_noise": _log(momentum_noise),
        "storage_noise": _log(_weighted(statistics.weights, _binade_noise(fmt))),
    }


def _change(changes: Changes, fmt: FloatFormat, rounding: str) -> tuple[float, float]:
    """Share of the changes that is not made, and the noise of those that are, relative to their energy."""
    numbers, steps = np.nonzero(changes.energy)
    weights = changes.energy[numbers, steps]
    points = (np.arange(_POINTS) + 0.5) / _POINTS
    # The change runs through its binade in another order than the number through its own.
    other = (np.arange(_POINTS) * 13 % _POINTS + 0.25) / _POINTS
    before = cast(np.ldexp(1.0 + points[None, :], (numbers + LOW)[:, None]), fmt, overflow="saturate")
    change = np.ldexp(1.0 + other[None, :], (steps + LOW)[:, None])
    change[:, 1::2] *= -1.0
    exact = before + change
    if rounding == "stochastic":
        down, up = (cast(exact, fmt, rounding=way, overflow="saturate") for way in ("down", "up"))
        made, variance = change, (up - exact) * (exact - down)
    else:
        made = cast(exact, fmt, rounding=rounding, overflow="saturate") - before
        variance = (made - change) ** 2
    square = np.mean(change**2, 1)
    lost = np.clip(1.0 - np.mean(made * change, 1) / square, 0.0, 1.0)
    noise = np.mean(np.maximum(variance, 0.0), 1) / square
    return float(weights @ lost), float(weights @ noise)


def _log(noise: float) -> float:
    return log10(max(noise, _LEAST))


def _bounded(margin: float) -> float:
    return min(max(margin, _MARGIN[0]), _MARGIN[1])
