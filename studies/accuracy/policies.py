"""The space of numerics that the accuracy model speaks of: plain parameters, and the policy they mean.

A campaign, a run table and the model's features read the same eleven parameters, by these names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dse import Categorical, Ordinal, Space
from numerics import Accumulator, FloatFormat, Rounding

if TYPE_CHECKING:
    from numerics.torch import Policy

SEQUENCE_SEED = 0  #: of the Sobol sequence of `drawn`


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericsChoice:
    """One point of the space: all layers alike, formats of IEEE kind with subnormals.

    Operands that are too large for their format saturate; sums and weights that are become infinite.

    Attributes
    ----------
    forward_exp_bits, forward_frac_bits
        Format of weights and activations, 2..8 and 1..23 bits.
    backward_exp_bits, backward_frac_bits
        Format of the errors (gradients by the outputs of a layer), in the same ranges.
    accumulator_exp_bits, accumulator_frac_bits
        Register of the sums of all three products, to nearest even.
    chunk
        Products that are summed first, at least 1; 0 is no chunk.
    update_exp_bits, update_frac_bits, update_rounding
        Format of master weights and momenta, and how they are rounded.
    loss_scale
        Constant factor of the loss, positive.

    Raises
    ------
    TypeError, ValueError
        A value out of its range; the message names it.

    Examples
    --------
    >>> choice = NumericsChoice.of({"forward_frac_bits": 3, "chunk": 64})
    >>> str(choice.forward), str(choice.accumulator), choice.update_rounding
    ('e5m3', 'e8m23 chunk=64', 'nearest-even')
    """

    forward_exp_bits: int = 5
    forward_frac_bits: int = 10
    backward_exp_bits: int = 5
    backward_frac_bits: int = 10
    accumulator_exp_bits: int = 8
    accumulator_frac_bits: int = 23
    chunk: int = 0
    update_exp_bits: int = 8
    update_frac_bits: int = 23
    update_rounding: str = "nearest-even"
    loss_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in NAMES:
            value = getattr(self, name)
            if name == "update_rounding":
                object.__setattr__(self, name, str(Rounding.parse(value)))
            elif name == "loss_scale":
                if not (isinstance(value, int | float) and 0.0 < value < np.inf):
                    raise ValueError(f"loss_scale must be positive and finite, got {value!r}")
                object.__setattr__(self, name, float(value))
            else:
                low, high = _RANGES["chunk" if name == "chunk" else name.partition("_")[2]]
                if isinstance(value, bool) or not isinstance(value, int):
                    raise TypeError(f"{name} must be an integer, got {value!r}")
                if not low <= value <= high:
                    raise ValueError(f"{name} must be in {low}..{high}, got {value}")

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """Choice of parameters by name; those that are absent do not narrow anything.

        Other parameters of a design (of its array, its memory) are ignored.
        """
        return cls(**{name: _plain(parameters[name]) for name in NAMES if name in parameters})

    @property
    def forward(self) -> FloatFormat:
        """Of weights and activations."""
        return FloatFormat(exp_bits=self.forward_exp_bits, frac_bits=self.forward_frac_bits)

    @property
    def backward(self) -> FloatFormat:
        """Of errors."""
        return FloatFormat(exp_bits=self.backward_exp_bits, frac_bits=self.backward_frac_bits)

    @property
    def register(self) -> FloatFormat:
        """Format of the accumulator."""
        return FloatFormat(exp_bits=self.accumulator_exp_bits, frac_bits=self.accumulator_frac_bits)

    @property
    def accumulator(self) -> Accumulator:
        """Of all three products."""
        chunk = f" chunk={self.chunk}" if self.chunk else ""
        return Accumulator.parse(f"{self.register}{chunk}")

    @property
    def update(self) -> FloatFormat:
        """Of weights and momenta."""
        return FloatFormat(exp_bits=self.update_exp_bits, frac_bits=self.update_frac_bits)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters by name."""
        return asdict(self)

    def policy(self) -> Policy:
        """What `numerics.torch.emulate` takes; the loss is to be scaled beside it.

        A policy with a loss scale asks that the format of the errors hold the scale itself. What it has to
        hold are scaled errors, which a mean over the batch has made far smaller.
        """
        from numerics.torch import LayerPolicy, Policy, UpdatePolicy

        layer = LayerPolicy(
            weight=self.forward,
            activation=self.forward,
            error=self.backward,
            forward=self.accumulator,
            backward=self.accumulator,
            gradient=self.accumulator,
        )
        update = UpdatePolicy(self.update, self.update_rounding)
        return Policy(layer, update=update)


#: Names of the parameters, in the order of tables.
NAMES = tuple(field.name for field in fields(NumericsChoice))
_RANGES = {"exp_bits": (2, 8), "frac_bits": (1, 23), "chunk": (0, 1 << 20)}


def space() -> Space:
    """What the run table draws from: wide enough that training goes from perfect to hopeless."""
    return Space(
        [
            Ordinal("forward_exp_bits", [2, 3, 4, 5]),
            Ordinal("forward_frac_bits", [1, 2, 3, 5, 7]),
            Ordinal("backward_exp_bits", [3, 4, 5, 6]),
            Ordinal("backward_frac_bits", [1, 2, 3, 5, 7]),
            Ordinal("accumulator_exp_bits", [4, 5, 6, 8]),
            Ordinal("accumulator_frac_bits", [2, 3, 4, 5, 6, 7, 9, 12]),
            Ordinal("chunk", [0, 16, 64]),
            Ordinal("update_exp_bits", [4, 5, 6, 8]),
            Ordinal("update_frac_bits", [3, 5, 7, 9, 12, 16]),
            Categorical("update_rounding", ["nearest-even", "stochastic"]),
            Ordinal("loss_scale", [1.0, 16.0, 256.0, 4096.0, 65536.0], log=True),
        ]
    )


def drawn(count: int) -> list[NumericsChoice]:
    """First points of the Sobol sequence of the space, always the same ones."""
    searched = space()
    designs = islice(searched.sequence(np.random.default_rng(SEQUENCE_SEED)), count)
    return [NumericsChoice.of(searched.parameters_of(design)) for design in designs]


def _plain(value: Any) -> Any:
    """A number as Python has it; whole ones as integers, for a table stores them as floats."""
    if isinstance(value, np.generic):
        value = value.item()
    return int(value) if isinstance(value, float) and value.is_integer() else value
