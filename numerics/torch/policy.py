"""Which tensor and which training product of which layer gets which format and accumulator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase

from numerics.accumulator import Accumulator
from numerics.formats import Format, parse_format
from numerics.rounding import Rounding

_FORMATS = ("weight", "activation", "error", "weight_gradient")
_ACCUMULATORS = ("forward", "backward", "gradient")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPolicy:
    """Numerics of one layer; ``None`` leaves a tensor or a product in float32.

    Attributes
    ----------
    weight, activation, error, weight_gradient
        Formats of the weights and the input where they enter a product, of the output gradient
        where it enters one, and of the weight gradient that the layer hands to the optimizer.
    forward, backward, gradient
        Accumulators of the three products: output, input gradient, weight gradient.
    rounding
        Of the four formats; the accumulators hold their own. Text is parsed everywhere.
    """

    weight: Format | None = None
    activation: Format | None = None
    error: Format | None = None
    weight_gradient: Format | None = None
    forward: Accumulator | None = None
    backward: Accumulator | None = None
    gradient: Accumulator | None = None
    rounding: Rounding = Rounding.NEAREST_EVEN

    def __post_init__(self) -> None:
        for name in _FORMATS:
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, parse_format(value))
        for name in _ACCUMULATORS:
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, Accumulator.parse(value))
        object.__setattr__(self, "rounding", Rounding.parse(self.rounding))

    def __str__(self) -> str:
        items = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ", ".join(f"{name}={value}" for name, value in items if value is not None)

    @classmethod
    def uniform(
        cls,
        operand: Format | str,
        accumulator: Accumulator | str,
        *,
        weight_gradient: Format | str | None = None,
    ) -> LayerPolicy:
        """One operand format and one accumulator for all three products.

        Examples
        --------
        >>> print(LayerPolicy.uniform("e5m2", "e6m9 chunk=64").gradient)
        e6m9 chunk=64
        """
        operand, accumulator = parse_format(operand), Accumulator.parse(accumulator)
        return cls(
            weight=operand,
            activation=operand,
            error=operand,
            weight_gradient=None if weight_gradient is None else parse_format(weight_gradient),
            forward=accumulator,
            backward=accumulator,
            gradient=accumulator,
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """Ordered rules ``(module-name glob, LayerPolicy)``; the first that matches a layer holds.

    Examples
    --------
    >>> fp8 = LayerPolicy.uniform("e5m2", "e6m9 chunk=64")
    >>> policy = Policy([("fc", LayerPolicy.uniform("e5m10", "e6m9 chunk=64")), ("*", fp8)])
    >>> str(policy.layer("fc").weight), str(policy.layer("conv1").weight)
    ('e5m10', 'e5m2')
    """

    rules: tuple[tuple[str, LayerPolicy], ...]

    def __init__(self, rules: LayerPolicy | Iterable[tuple[str, LayerPolicy]]) -> None:
        listed = (("*", rules),) if isinstance(rules, LayerPolicy) else tuple(rules)
        if not listed:
            raise ValueError("a policy must have at least one rule, got none")
        object.__setattr__(self, "rules", listed)

    def layer(self, name: str) -> LayerPolicy:
        """Rule of the layer `name`.

        Raises
        ------
        ValueError
            No rule matches.
        """
        for pattern, layer in self.rules:
            if fnmatchcase(name, pattern):
                return layer
        patterns = ", ".join(pattern for pattern, _ in self.rules)
        raise ValueError(f"no rule of the policy matches layer {name!r}; the rules are for {patterns}")
