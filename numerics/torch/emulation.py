"""What an emulated layer carries: its policy, its random numbers, its scales, and how it rounds a tensor.

A tensor enters a product as `Rounded` says: values on its format, times a scale whose inverse is kept beside
them. The product is summed from the values, and multiplied by the inverses of both scales at the end.

* Without scaling the values are those of `numerics.cast`, saturating.
* With a scale ``s = fl32(max(format) / amax)``, held in 2**-126..2**126, the values are
  ``cast(fl32(x * s))``, saturating, and the inverse is ``fl32(1 / s)``. ``amax`` is that of the tensor, of
  this use or the largest of some uses before (delayed scaling [TE]_), or that of every index that is not
  summed ("channel"). A scale is 1 where ``amax`` is 0.
* In a block format the blocks run along the axis that is summed.
* What leaves a layer, output and weight gradient, is rounded as a tensor whose features are summed: the last
  axis, of four the second. Blocks run along them, and scales by channel belong to the axes before.

A tensor with one scale is rounded once and enters both of its products; with scales by channel or by block
it is rounded anew for each of them, for the axis that is summed changes.

What is not finite stays as it is: no layer hides an overflow from a loss scaler. A matrix unit, an integer
or an exact accumulator that meets such an operand answers NaN throughout.

References
----------
.. [TE] P. Micikevicius et al., "FP8 Formats for Deep Learning", arXiv 2209.05433, section 3.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from numerics.accumulate import AnyAccumulator, matmul
from numerics.accumulator import Accumulator, Register
from numerics.block import BlockFormat
from numerics.elementwise import axpy, cast
from numerics.formats import BINARY32, FloatFormat
from numerics.fused import FusedAdder
from numerics.rounding import Rounding
from numerics.torch.policy import LayerPolicy, Scaling, TensorPolicy

ONES = "ones"  #: role of an operand that only adds up the other one
_INFERENCE = 1 << 62  # streams from here on serve passes that nobody differentiates


class Rounded(NamedTuple):
    """A tensor as it enters a product.

    Attributes
    ----------
    values
        float32, on the format.
    inverse
        Of the scale, to be broadcast with `values`; ``None`` without scaling.
    finite
        Whether all values are.
    """

    values: np.ndarray
    inverse: np.ndarray | None = None
    finite: bool = True

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> Rounded:
        """The same with another view of the values, and of scales that are no single number."""
        single = self.inverse is None or self.inverse.size == 1
        return Rounded(
            change(self.values),
            self.inverse if single or self.inverse is None else change(self.inverse),
            self.finite,
        )

    @property
    def T(self) -> Rounded:  # noqa: N802  as numpy names it
        """Transposed matrix, or matrices."""
        return self.map(lambda x: x.swapaxes(-1, -2))


class Observer(Protocol):
    """Who wants to see tensors and products of training passes, such as `numerics.torch.Statistics`."""

    def tensor(self, layer: str, role: str, x: np.ndarray, rounded: Rounded, policy: TensorPolicy) -> None:
        """A tensor was rounded."""

    def product(self, layer: str, role: str, accumulator: AnyAccumulator, sample: Sample) -> None:
        """A product was summed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A way to look at some elements of a product.

    Attributes
    ----------
    shape
        Rows, products of a sum, columns.
    operands
        Function of row and column numbers, (r,) and (c,): rows (r, k) of the left and columns (k, c) of the
        right operand as they were summed.
    result
        Function of the same numbers: the elements (r, c) as summed, before any scale is undone.
    formats
        Of a fused adder.
    """

    shape: tuple[int, int, int]
    operands: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    result: Callable[[np.ndarray, np.ndarray], np.ndarray]
    formats: tuple[FloatFormat, FloatFormat] | None = None


class Streams:
    """Numbers of random streams, each used once."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.used = 0

    def next(self) -> int:
        """Take a fresh number."""
        self.used += 1
        return self.first + self.used


@dataclass(slots=True)
class Emulation:
    """Numerics of one layer, or of one product that a module computes itself.

    The random numbers depend on the seed, the name and the number of uses alone: whatever other layers do
    and however often the model is evaluated without gradients, training draws the same ones.

    Attributes
    ----------
    name
        Qualified name of the module, as the policy and all reports call it.
    training, inference
        Random streams of passes with and without gradients.
    history
        Largest magnitudes of the last training uses, by tensor, for delayed scaling.
    """

    name: str
    policy: LayerPolicy
    seed: int
    observer: Observer | None = None
    training: Streams = field(default_factory=lambda: Streams(0))
    inference: Streams = field(default_factory=lambda: Streams(_INFERENCE))
    history: dict[str, deque[float]] = field(default_factory=dict)
    _tensors: dict[str, TensorPolicy | None] = field(default_factory=dict)
    _key: int = 0

    def __post_init__(self) -> None:
        digest = hashlib.blake2b(f"{self.seed}/{self.name}".encode(), digest_size=8).digest()
        self._key = int.from_bytes(digest, "little") >> 1

    def __deepcopy__(self, memo: dict[int, Any]) -> Emulation:
        copied = Emulation(self.name, self.policy, self.seed, self.observer)
        copied.load_state(self.state())
        return copied

    def __reduce__(self) -> Any:
        """Pickle without the observer: who opens the file has other ones."""
        return _loaded, (self.name, self.policy, self.seed, self.state())

    def state(self) -> dict[str, Any]:
        """What a resumed run needs: numbers and lists."""
        return {
            "training": self.training.used,
            "inference": self.inference.used,
            "history": {tensor: list(values) for tensor, values in self.history.items()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up where `state` was."""
        self.training.used, self.inference.used = state["training"], state["inference"]
        self.history = {tensor: deque(values) for tensor, values in state["history"].items()}

    def streams(self, *operands: torch.Tensor | None) -> Streams:
        """Random streams of a pass: of training where gradients of any operand are wanted.

        To be asked before an autograd function begins, which cannot tell.
        """
        wanted = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in operands)
        return self.training if wanted else self.inference

    def tensor(self, role: str) -> TensorPolicy | None:
        """Format, scaling and rounding of a tensor; ``None`` leaves it as it is."""
        if role not in self._tensors:
            self._tensors[role] = self.policy.tensor(role)
        return self._tensors[role]

    def once(self, role: str) -> bool:
        """Whether the tensor is rounded, and once for both of its products."""
        policy = self.tensor(role)
        if policy is None:
            return False
        by_channel = policy.scaling is not None and policy.scaling.granularity == "channel"
        return not (by_channel or isinstance(policy.format, BlockFormat))

    def round(
        self,
        x: torch.Tensor,
        role: str,
        streams: Streams,
        *,
        along: int,
        keep: tuple[int, ...],
        groups: int = 1,
        tensor: str | None = None,
        observed: bool = True,
    ) -> Rounded:
        """`x` as it enters a product that sums over the axis `along`.

        Parameters
        ----------
        keep
            The axes whose indices have scales of their own, with scaling by channel.
        groups
            Equal parts of the axis `along` that are summed apart: no block reaches from one into the next.
        tensor
            Name of the tensor where there are several of the role: each has a history of its own.
        observed
            Whether the observer hears of it.
        """
        values = x.detach().numpy()
        policy = self.tensor(role)
        if policy is None:
            return Rounded(np.ascontiguousarray(values), None, _is_finite(values))
        values = np.ascontiguousarray(values)
        if isinstance(policy.format, BlockFormat):
            rounded = Rounded(self._in_blocks(values, policy, streams, along, groups))
            rounded = rounded._replace(finite=_is_finite(rounded.values))
        else:
            rounded = self._scaled(values, tensor or role, policy, streams, keep)
        if observed and self.observer is not None and streams is self.training:
            self.observer.tensor(self.name, role, values, rounded, policy)
        return rounded

    def restored(
        self,
        x: torch.Tensor,
        role: str,
        streams: Streams,
        *,
        along: int = -1,
        keep: tuple[int, ...] | None = None,
        tensor: str | None = None,
    ) -> torch.Tensor:
        """`x` rounded and scaled back: a tensor that leaves the layer on a format.

        Without `along` and `keep`, blocks run along the last axis and scales by channel belong to all others.
        """
        policy = self.tensor(role)
        if policy is None:
            return x
        others = tuple(range(x.ndim - 1)) if keep is None else keep
        rounded = self.round(x, role, streams, along=along, keep=others, tensor=tensor)
        values = rounded.values if rounded.inverse is None else rounded.values * rounded.inverse
        return torch.from_numpy(values)

    def product(
        self, a: Rounded, b: Rounded, role: str, streams: Streams, roles: tuple[str, str]
    ) -> torch.Tensor:
        """``a @ b`` for (..., m, k) and (..., k, n), summed as the policy says for `role`."""
        accumulator = self.accumulator(role)
        if accumulator is None:
            plain = torch.from_numpy(a.values) @ torch.from_numpy(b.values)
            return torch.from_numpy(self.unscaled(plain.numpy(), a.inverse, b.inverse))
        formats = self.formats(accumulator, roles)
        if (bad := self.undefined(accumulator, a, b)) is not None:
            leading = np.broadcast_shapes(a.values.shape[:-2], b.values.shape[:-2])
            return torch.full((*leading, a.values.shape[-2], b.values.shape[-1]), bad)
        y = matmul(a.values, b.values, accumulator, seed=self._key, stream=streams.next(), formats=formats)
        if self.observer is not None and streams is self.training and y.size:
            self.observer.product(
                self.name, role, accumulator, _matrix_sample(a.values, b.values, y, formats)
            )
        return torch.from_numpy(self.unscaled(y, a.inverse, b.inverse))

    def accumulator(self, role: str) -> AnyAccumulator | None:
        """Accumulator of one of the three products."""
        found: AnyAccumulator | None = getattr(self.policy, role)
        return found

    @property
    def key(self) -> int:
        """Seed of the random numbers of this layer."""
        return self._key

    def formats(
        self, accumulator: AnyAccumulator, roles: tuple[str, str]
    ) -> tuple[FloatFormat, FloatFormat] | None:
        """Formats of the operands, for an accumulator that needs them."""
        if not isinstance(accumulator, FusedAdder):
            return None
        policies = [None if role == ONES else self.tensor(role) for role in roles]
        formats = [
            BINARY32 if role == ONES else None if policy is None else policy.format
            for role, policy in zip(roles, policies, strict=True)
        ]
        if not all(isinstance(fmt, FloatFormat) for fmt in formats):
            raise ValueError(
                f"layer {self.name!r}: accumulator {accumulator} needs floating-point formats of "
                f"{roles[0]} and {roles[1]}, got {formats[0]} and {formats[1]}"
            )
        return formats[0], formats[1]  # type: ignore[return-value]

    @staticmethod
    def undefined(accumulator: AnyAccumulator, a: Rounded, b: Rounded) -> float | None:
        """NaN where an operand is not finite and the accumulator has no answer to that."""
        has_answer = isinstance(accumulator, Accumulator) or (a.finite and b.finite)
        return None if has_answer else float("nan")

    @staticmethod
    def unscaled(y: np.ndarray, a_inverse: np.ndarray | None, b_inverse: np.ndarray | None) -> np.ndarray:
        """Undo the scales of both operands in float32."""
        y = y.astype(np.float32, copy=False)
        if a_inverse is None and b_inverse is None:
            return y
        one = np.float32(1.0)
        with np.errstate(invalid="ignore", over="ignore"):  # an overflowed sum, or scales out of range
            factor = (one if a_inverse is None else a_inverse) * (one if b_inverse is None else b_inverse)
            unscaled: np.ndarray = y * factor
        return unscaled

    def add_bias(
        self, y: torch.Tensor, bias: torch.Tensor, streams: Streams, *, axis: int, scaled: bool
    ) -> torch.Tensor:
        """``y + bias`` along `axis` of `y`, which is overwritten.

        A floating-point register, the outer one if there are two, takes the bias like one more product,
        rounded as a weight, unless an operand is scaled or the weight is in blocks. Any other unit adds it
        in float32.
        """
        accumulator = self.policy.forward
        weight = self.tensor("weight")
        in_register = isinstance(accumulator, Accumulator) and not scaled
        in_register &= weight is None or not isinstance(weight.format, BlockFormat)
        shape = [1] * y.ndim
        shape[axis] = len(bias)
        if not in_register:
            return y.add_(bias.detach().reshape(shape))
        assert isinstance(accumulator, Accumulator)
        rounded = self.round(bias, "weight", streams, along=0, keep=(), observed=False)
        spread = rounded.values.reshape(shape)
        out = y.numpy()
        register = accumulator.outer or Register(accumulator.format, accumulator.rounding)
        fmt, rounding = register.format, register.rounding
        if _sum_is_harmless(weight, register):
            with np.errstate(invalid="ignore"):  # infinities of both signs
                np.add(out, spread, out=out)
            cast(out, fmt, out=out)
            return y
        constant = np.broadcast_to(spread, out.shape)
        summed = axpy(1.0, constant, out, fmt, rounding=rounding, seed=self._key, stream=streams.next())
        return torch.from_numpy(summed)

    def _in_blocks(
        self, x: np.ndarray, policy: TensorPolicy, streams: Streams, along: int, groups: int
    ) -> np.ndarray:
        along %= x.ndim
        parted = x.reshape(*x.shape[:along], groups, x.shape[along] // groups, *x.shape[along + 1 :])
        moved = np.moveaxis(parted, along + 1, -1)
        rounded = cast(
            moved,
            policy.format,
            rounding=policy.rounding or "nearest-even",
            seed=self._key,
            stream=streams.next(),
        )
        return np.ascontiguousarray(np.moveaxis(rounded, -1, along + 1)).reshape(x.shape)

    def _scaled(
        self, x: np.ndarray, tensor: str, policy: TensorPolicy, streams: Streams, keep: tuple[int, ...]
    ) -> Rounded:
        scaling = policy.scaling or Scaling("none")
        by_channel = scaling.granularity == "channel"
        reduced = tuple(axis for axis in range(x.ndim) if axis not in {k % x.ndim for k in keep})
        amax = _amax(x, reduced if by_channel else None)
        finite = bool(np.isfinite(amax).all())
        scale, inverse = np.ones((), np.float32), None
        if scaling.granularity != "none":
            if scaling.history:
                amax = self._delayed(amax, tensor, scaling, streams)
            scale = _scale(amax, policy, power_of_two=scaling.power_of_two)
            inverse = np.float32(1.0) / scale
        with np.errstate(over="ignore"):  # what a delayed scale takes out of range saturates
            scaled = x if inverse is None else x * scale
        values = cast(
            scaled, policy.format, rounding=policy.rounding or "nearest-even", overflow="saturate",
            seed=self._key, stream=streams.next(),
        )  # fmt: skip
        if not finite:
            np.copyto(values, x, where=np.isinf(x))
        return Rounded(values, inverse, finite)

    def _delayed(self, amax: np.ndarray, tensor: str, scaling: Scaling, streams: Streams) -> np.ndarray:
        """Largest magnitude of the uses before; of this one if it is the first."""
        seen = self.history.setdefault(tensor, deque())
        before = np.array(max(seen), np.float32) if seen else amax
        if streams is self.training and np.isfinite(amax):
            seen.append(float(amax))
            while len(seen) > scaling.history:
                seen.popleft()
        return before


def _loaded(name: str, policy: LayerPolicy, seed: int, state: dict[str, Any]) -> Emulation:
    emulation = Emulation(name, policy, seed)
    emulation.load_state(state)
    return emulation


def _amax(x: np.ndarray, axes: tuple[int, ...] | None) -> np.ndarray:
    """Largest magnitudes over `axes` (all of them for ``None``), as float32; NaN where there is any."""
    if x.size == 0:
        return np.zeros((), np.float32)
    if axes is None:
        return np.array(np.maximum(x.max(), -x.min()), np.float32)
    highest: np.ndarray = np.maximum(x.max(axes, keepdims=True), -x.min(axes, keepdims=True))
    return highest


def _is_finite(x: np.ndarray) -> bool:
    return bool(np.isfinite(_amax(x, None)))


def _scale(amax: np.ndarray, policy: TensorPolicy, *, power_of_two: bool) -> np.ndarray:
    """What brings `amax` to the largest value of the format; 1 where it is zero or not finite."""
    assert not isinstance(policy.format, BlockFormat)
    top = np.float64(policy.format.max)
    usable = np.isfinite(amax) & (amax > 0)
    quotient = top / np.where(usable, amax, top).astype(np.float64)
    if power_of_two:
        quotient = np.exp2(np.frexp(quotient)[1] - 1.0)
    # A normal scale whose inverse is normal, too.
    limited: np.ndarray = np.clip(quotient, 2.0**-126, 2.0**126).astype(np.float32)
    return limited


def _sum_is_harmless(weight: TensorPolicy | None, register: Register) -> bool:
    """Whether a float32 sum of a register and a bias may be rounded again to the register.

    As in `numerics.certificate`: to nearest, with 2 p + 2 <= 24 and both addends of at most p bits.
    """
    fmt = register.format
    bias = None if weight is None else weight.format
    return (
        register.rounding == Rounding.NEAREST_EVEN
        and isinstance(bias, FloatFormat)
        and bias.precision <= fmt.precision <= 11
        and fmt.max < 2.0**100
        and fmt.subnormals
    )


def _matrix_sample(
    a: np.ndarray, b: np.ndarray, y: np.ndarray, formats: tuple[FloatFormat, FloatFormat] | None
) -> Sample:
    """Elements of a product of matrices; of several, the first of them."""
    first = (0,) * (y.ndim - 2)
    lead = y.shape[:-2]
    left = np.broadcast_to(a, (*lead, *a.shape[-2:]))[first]
    right = np.broadcast_to(b, (*lead, *b.shape[-2:]))[first]
    found = y[first]
    return Sample(
        shape=(left.shape[0], left.shape[1], right.shape[1]),
        operands=lambda rows, columns: (left[rows], right[:, columns]),
        result=lambda rows, columns: found[np.ix_(rows, columns)],
        formats=formats,
    )
