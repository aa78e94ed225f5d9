"""Numerics of one layer: the formats of its tensors and the accumulators of its three training products."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ldexp
from typing import Any, TypeAlias, get_args

from numerics.accumulate import AnyAccumulator, parse_accumulator
from numerics.block import BlockFormat
from numerics.formats import FixedFormat, FloatFormat, Format
from numerics.fused import FusedAdder
from numerics.integer import IntegerAccumulator
from numerics.rounding import Rounding
from numerics.torch.scaling import Scaling, TensorPolicy

TENSORS = ("weight", "activation", "error", "weight_gradient", "output")
PRODUCTS = ("forward", "backward", "gradient")

#: The two tensors that each product multiplies.
OPERANDS = {
    "forward": ("activation", "weight"),
    "backward": ("error", "weight"),
    "gradient": ("error", "activation"),
}

Tensor: TypeAlias = TensorPolicy | Format | BlockFormat | str | None
Product: TypeAlias = AnyAccumulator | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPolicy:
    """Numerics of one layer. ``None`` (as text: ``native``) leaves a tensor or a product in float32.

    Attributes
    ----------
    weight, activation, error
        The weights, the input and the output gradient where they enter a product.
    weight_gradient, output
        The gradient that the layer hands to the optimizer, and what it hands to the next module.
    forward, backward, gradient
        Accumulators of the three products: output, input gradient, weight gradient.
    rounding, scaling
        Of the tensors that do not say; the accumulators hold their own rounding.

    Examples
    --------
    >>> layer = LayerPolicy(weight="e4m3fn", error="e5m2 rounding=stochastic", scaling="tensor")
    >>> print(layer.tensor("error"))
    e5m2 scaling=tensor rounding=stochastic
    >>> LayerPolicy.parse(str(layer)) == layer
    True
    """

    weight: TensorPolicy | None = None
    activation: TensorPolicy | None = None
    error: TensorPolicy | None = None
    weight_gradient: TensorPolicy | None = None
    output: TensorPolicy | None = None
    forward: AnyAccumulator | None = None
    backward: AnyAccumulator | None = None
    gradient: AnyAccumulator | None = None
    rounding: Rounding = Rounding.NEAREST_EVEN
    scaling: Scaling = Scaling.NONE

    def __init__(
        self,
        *,
        weight: Tensor = None,
        activation: Tensor = None,
        error: Tensor = None,
        weight_gradient: Tensor = None,
        output: Tensor = None,
        forward: Product = None,
        backward: Product = None,
        gradient: Product = None,
        rounding: Rounding | str = Rounding.NEAREST_EVEN,
        scaling: Scaling | str = Scaling.NONE,
    ) -> None:
        given = {
            "weight": weight,
            "activation": activation,
            "error": error,
            "weight_gradient": weight_gradient,
            "output": output,
            "forward": forward,
            "backward": backward,
            "gradient": gradient,
            "rounding": rounding,
            "scaling": scaling,
        }
        for name, value in given.items():
            try:
                object.__setattr__(self, name, read_setting(name, value))
            except TypeError as error:
                raise TypeError(f"{name}: {error}") from None
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        for name in PRODUCTS:
            self._check(name)

    @classmethod
    def uniform(
        cls,
        operand: TensorPolicy | Format | BlockFormat | str,
        accumulator: AnyAccumulator | str,
        *,
        weight_gradient: Tensor = None,
    ) -> LayerPolicy:
        """One operand format and one accumulator for all three products.

        Examples
        --------
        >>> print(LayerPolicy.uniform("e5m2", "e6m9 chunk=64").gradient)
        e6m9 chunk=64
        """
        return cls(
            weight=operand,
            activation=operand,
            error=operand,
            weight_gradient=weight_gradient,
            forward=accumulator,
            backward=accumulator,
            gradient=accumulator,
        )

    @classmethod
    def parse(cls, text: str | LayerPolicy) -> LayerPolicy:
        """Read ``weight=e4m3fn, forward=e6m9 chunk=64``, or ``native``; a policy passes through.

        Raises
        ------
        ValueError
            An unknown name, one that is given twice, or a bad value.
        """
        if isinstance(text, LayerPolicy):
            return text
        if not isinstance(text, str):
            raise TypeError(f"the policy of a layer must be text or LayerPolicy, got {text!r}")
        if text.strip() == "native":
            return cls()
        given: dict[str, Any] = {}
        known = [field.name for field in fields(cls)]
        for item in text.split(","):
            name, _, value = (part.strip() for part in item.partition("="))
            if name not in known or name in given:
                raise ValueError(f"each of {', '.join(known)} may be given once, got {item.strip()!r}")
            given[name] = value
        return cls(**given)

    def __str__(self) -> str:
        items = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        return ", ".join(f"{name}={value}" for name, value, usual in items if value != usual) or "native"

    def tensor(self, role: str) -> TensorPolicy | None:
        """Policy of the tensor `role` with scaling and rounding filled in; ``None`` where it is native."""
        if role not in TENSORS:
            raise ValueError(f"role must be one of {', '.join(TENSORS)}; got {role!r}")
        policy: TensorPolicy | None = getattr(self, role)
        if policy is None:
            return None
        default = Scaling.NONE if isinstance(policy.format, BlockFormat) else self.scaling
        return TensorPolicy(
            policy.format,
            default if policy.scaling is None else policy.scaling,
            self.rounding if policy.rounding is None else policy.rounding,
        )

    def _check(self, product: str) -> None:
        """Refuse an accumulator that can never take the operands of its product."""
        accumulator = getattr(self, product)
        policies = {role: getattr(self, role) for role in OPERANDS[product]}
        if isinstance(accumulator, FusedAdder):
            for role, policy in policies.items():
                if policy is None or not isinstance(policy.format, FloatFormat):
                    raise ValueError(
                        f"{product}={accumulator} adds products of floating-point formats: {role} must have "
                        f"one, got {'native' if policy is None else policy.format}"
                    )
        if isinstance(accumulator, IntegerAccumulator) and accumulator.rounding is None:
            steps = [_step(policy) for policy in policies.values()]
            unit = ldexp(1.0, -accumulator.frac_bits)
            if steps[0] * steps[1] < unit:
                (a, left), (b, right) = ((role, policy or "native") for role, policy in policies.items())
                raise ValueError(
                    f"{product}={accumulator} adds multiples of {unit:g} and has no rounding: {a} and {b} "
                    f"must have formats whose products are such multiples (as int8), got {left} and {right}"
                )


def read_setting(name: str, value: Any) -> Any:
    """Value of a field of a `LayerPolicy` from a value or its text.

    Raises
    ------
    ValueError, TypeError
        Of the parser of that field.
    """
    if name == "rounding":
        return Rounding.parse(value)
    if name == "scaling":
        return Scaling.parse(value)
    if value is None or (isinstance(value, str) and value.strip().lower() == "native"):
        return None
    if name in TENSORS:
        return TensorPolicy.parse(value)
    if not isinstance(value, (str, *get_args(AnyAccumulator))):
        raise TypeError(f"accumulator must be text or an accumulator, got {value!r}")
    read: AnyAccumulator = parse_accumulator(value)  # type: ignore[arg-type]  # of one of these types, as checked
    return read


def _step(policy: TensorPolicy | None) -> float:
    """What all values of a format are multiples of; 0 if nothing is."""
    if policy is None or isinstance(policy.format, BlockFormat):
        return 0.0
    return policy.format.step if isinstance(policy.format, FixedFormat) else policy.format.min_subnormal
