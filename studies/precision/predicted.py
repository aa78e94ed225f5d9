"""Accumulators as wide as a prediction says, and predicted bits beside those that a policy uses.

A study asks for them in a policy's table::

    [[policies]]
    name = "predicted"
    preset = "wang2018"            # formats, update, loss scale
    [policies.predict]
    rule = "theory"                # or "emulated": see `numerics.theory.required_bits`
    chunk = [0, 64]                # 0: plain sums; a list is a sweep, also of `rule` and `offset`
    offset = [0, -1, -2, -3]       # fraction bits beside the prediction, the perturbation PP of [ABS]_

References
----------
.. [ABS] C. Sakr et al., "Accumulation Bit-Width Scaling For Ultra-Low Precision Training Of Deep Networks",
   ICLR 2019, arXiv 1901.06588.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from glob import escape
from itertools import product as combinations
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import pandas as pd
import torch
from torch import nn

from accel.accumulations import Network
from numerics.accumulate import AnyAccumulator
from numerics.accumulator import Accumulator
from numerics.block import BlockFormat
from numerics.formats import FixedFormat, FloatFormat
from numerics.rounding import Rounding
from numerics.theory import required_bits
from numerics.theory.calibration import calibrated_rounding
from numerics.torch import LayerPolicy, Policy, PolicyError, Rule
from numerics.torch.policy import PRODUCTS
from numerics.torch.rules import meant
from studies.config import ConfigError
from studies.precision.sums import Passing, Sum, Sums, layer_policies, passing, training_sums
from studies.predict.measure import measured_densities
from studies.tasks import TaskError

if TYPE_CHECKING:
    from studies.precision.plan import Plan
    from studies.tasks import Data, Task

Width: TypeAlias = Literal["theory", "emulated"]

#: Columns of the table of `predicted_policy`.
PREDICTED = ("layer", "product", "length", "density", "product_bits", "predicted_bits", "used_bits")
#: Columns of `bits_table`.
BITS = ("layer", "product", "length", "chunk", "used_bits", "theory_bits", "emulated_bits", "slack")

_INTEGERS = dict.fromkeys(BITS[2:], "Int64")  # that may be empty
_RULES = ("theory", "emulated")
_WIDEST = 23  # fraction bits that an accumulator's format may have
_LATER = re.compile(r"(?P<first>.*)_[1-9][0-9]*")  # product of a kind in a module, as matmul_1
_SWEPT = ("rule", "chunk", "offset")
_WHOLE = ("chunk", "offset", "exp_bits", "minimum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """How wide accumulators are made, see `numerics.theory.required_bits`.

    Attributes
    ----------
    rule
        ``"theory"`` or ``"emulated"``, the calibrated rule.
    chunk
        Products in a chunk; 0 for plain sums.
    offset
        Fraction bits added to what is predicted.
    exp_bits, rounding
        Of the accumulators.
    tolerance
        Relative square error that the emulated rule allows.
    minimum
        Fraction bits that a prediction has at least; those of the products, if not given.
    density
        Fraction of the products that are not zero: of all, or ``"measured"``, on the first batch with the
        initial weights.
    products
        Whose accumulators are made; others stay as they are.
    layers
        Globs of the layers that get them.

    Raises
    ------
    PolicyError
        A bad value, by the name of its key.
    """

    rule: Width = "theory"
    chunk: int = 0
    offset: int = 0
    exp_bits: int = 6
    rounding: str = "nearest-even"
    tolerance: float | None = None
    minimum: int | None = None
    density: float | Literal["measured"] = 1.0
    products: tuple[str, ...] = PRODUCTS
    layers: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        if self.rule not in _RULES:
            raise PolicyError(f"rule: must be one of {', '.join(_RULES)}, got {self.rule!r}")
        for name in _WHOLE:
            value = getattr(self, name)
            if name == "minimum" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise PolicyError(f"{name}: must be a whole number, got {value!r}")
        if self.chunk < 0:
            raise PolicyError(f"chunk: must be at least 0, which is none, got {self.chunk}")
        if not 2 <= self.exp_bits <= 8:
            raise PolicyError(f"exp_bits: must be in 2..8, got {self.exp_bits}")
        if self.minimum is not None and not 1 <= self.minimum <= _WIDEST:
            raise PolicyError(f"minimum: must be in 1..{_WIDEST}, got {self.minimum}")
        if self.tolerance is not None and self.rule == "theory":
            raise PolicyError(f"tolerance: belongs to rule 'emulated', got {self.tolerance!r} with 'theory'")
        if self.tolerance is not None and not _is_share(self.tolerance, below_one=True):
            raise PolicyError(f"tolerance: must be between 0 and 1, got {self.tolerance!r}")
        if self.density != "measured" and not _is_share(self.density, below_one=False):
            raise PolicyError(f"density: must be in (0, 1] or 'measured', got {self.density!r}")
        try:
            Rounding.parse(self.rounding)
            if self.rule == "emulated":
                calibrated_rounding(self.rounding)
        except (ValueError, TypeError) as error:
            raise PolicyError(f"rounding: {error}") from None
        wrong = [name for name in self.products if name not in PRODUCTS]
        if wrong or not self.products:
            got = repr(wrong[0]) if wrong else "none"
            raise PolicyError(f"products: must be some of {', '.join(PRODUCTS)}, got {got}")
        if not self.layers or not all(isinstance(glob, str) for glob in self.layers):
            raise PolicyError(f"layers: must be globs of layers, got {list(self.layers)!r}")

    @classmethod
    def expand(cls, table: Any) -> list[tuple[dict[str, Any], Prediction]]:
        """All predictions of a ``[policies.predict]`` table, each with what a sweep gave to it by key.

        Raises
        ------
        PolicyError
            A line for a bad key or value.

        Examples
        --------
        >>> [values for values, _ in Prediction.expand({"chunk": 64, "offset": [0, -1]})]
        [{'offset': 0}, {'offset': -1}]
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(table, Mapping):
            raise PolicyError(f"must be a table with some of {', '.join(known)}, got {table!r}")
        for key in table:
            if key not in known:
                raise PolicyError(f"{key}: unknown key; keys are {', '.join(known)}{meant(key, known)}")
        swept = {key: value for key in _SWEPT if isinstance(value := table.get(key), list)}
        for key, listed in swept.items():
            if not listed:
                raise PolicyError(f"{key}: a sweep must have at least one value, got an empty list")
        fixed = {key: value for key, value in table.items() if key not in swept}
        for key in {"products", "layers"} & fixed.keys():
            given = fixed[key]
            fixed[key] = tuple(given) if isinstance(given, list) else (given,)
        points = [dict(zip(swept, point, strict=True)) for point in combinations(*swept.values())]
        return [(point, cls(**fixed, **point)) for point in points]


def predicted_policy(
    base: Policy,
    network: nn.Module,
    input_shape: Sequence[int],
    batch: int,
    *,
    inputs: torch.Tensor | None = None,
    rule: Width = "theory",
    chunk: int | None = None,
    offset: int = 0,
    exp_bits: int = 6,
    rounding: Rounding | str = Rounding.NEAREST_EVEN,
    tolerance: float | None = None,
    minimum: int | None = None,
    density: float | Mapping[tuple[str, str], float] = 1.0,
    products: Iterable[str] = PRODUCTS,
    layers: Iterable[str] = ("*",),
) -> tuple[Policy, pd.DataFrame]:
    """A policy with an accumulator of its own for every product of every layer, as wide as predicted.

    Products that `base` leaves in float32 stay so.

    Parameters
    ----------
    base
        Formats of the tensors, update and loss scale; its rules follow those made here, one for each layer.
    network
        Not changed.
    input_shape
        Of one sample.
    batch
        Samples of a step, over which the gradients are summed.
    inputs : (batch, *input_shape)
        Inputs of a step, for a network that takes indices; float32 zeros if not given.
    chunk
        Products in a chunk; ``None`` or 0 for plain sums.
    density
        Fraction of the products that are not zero; or by layer and product, 1 where it is not given.

    Other parameters: see `Prediction` and `numerics.theory.required_bits`.

    Returns
    -------
    policy
    table
        `PREDICTED`, a row for each accumulator. `used_bits` are `predicted_bits` and the offset.

    Raises
    ------
    PolicyError
        A layer of which no prediction is known, an operand without a format, or an accumulator that would
        have fewer than 1 or more than 23 fraction bits.

    Examples
    --------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> base = Policy(LayerPolicy.uniform("e5m2", "e6m9"))
    >>> policy, table = predicted_policy(base, net, (8, 8), 16384, chunk=64, offset=-1)
    >>> print(policy.rules[0])
    1: forward=e6m4 chunk=64, gradient=e6m5 chunk=64
    >>> table[["product", "length", "predicted_bits", "used_bits"]].to_numpy().tolist()
    [['forward', 64, 5, 4], ['gradient', 16384, 6, 5]]
    """
    prediction = Prediction(
        rule=rule,
        chunk=chunk or 0,
        offset=offset,
        exp_bits=exp_bits,
        rounding=str(rounding),
        tolerance=tolerance,
        minimum=minimum,
        density=1.0 if isinstance(density, Mapping) else density,
        products=tuple(products),
        layers=tuple(layers),
    )
    found = training_sums(network, _inputs(input_shape, batch, inputs), base)
    densities = density if isinstance(density, Mapping) else {}
    return _predicted(base, network, found, prediction, densities)


def bits_table(
    policy: Policy,
    network: nn.Module,
    input_shape: Sequence[int],
    batch: int,
    *,
    inputs: torch.Tensor | None = None,
) -> pd.DataFrame:
    """Fraction bits that the accumulators of a policy have, and those that are predicted.

    Parameters
    ----------
    network, input_shape, batch, inputs
        As of `predicted_policy`.

    Returns
    -------
    `BITS`, a row for each product of each layer; what is not known is empty.

    chunk, used_bits
        Of the accumulator, if it is a floating-point one.
    theory_bits, emulated_bits
        Predicted for products of the formats of the operands, chunks of the same size (plain sums for other
        kinds of accumulators) and all products dense; emulation with the rounding of the accumulator, if it
        is a calibrated one. Empty for sums in another order than a plain or a chunked one, with an outer
        register of its own, and where an operand is in float32.
    slack
        Used bits beyond those of emulation.

    Examples
    --------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> table = bits_table(Policy(LayerPolicy.uniform("e5m2", "e6m9")), net, (8, 8), 16384)
    >>> table[["used_bits", "theory_bits", "emulated_bits", "slack"]].to_numpy().tolist()
    [[9, 5, 5, 4], [9, 10, 8, 1]]
    """
    found = training_sums(network, _inputs(input_shape, batch, inputs), policy)
    return _bits(policy, network, found)


class Predictor:
    """Predictions for the network of a task, whose data are read once and when they are needed.

    Parameters
    ----------
    batch
        Samples of a step.
    data
        Of the task, if they have been read.
    """

    def __init__(self, task: Task, batch: int, data: Data | None = None) -> None:
        self.task, self.batch = task, batch
        self._data = data
        self._network: nn.Module | None = None
        self._sums: dict[Passing, Sums] = {}
        self._densities: dict[int, Mapping[tuple[str, str], float]] = {}

    def expand(self, table: Any, base: Policy) -> list[tuple[dict[str, Any], Policy]]:
        """Policies with predicted accumulators, each with what a sweep gave to it by path.

        Parameters
        ----------
        table
            Of the keys of `Prediction`.

        Raises
        ------
        PolicyError
            With the path of the key.
        ConfigError
            The data cannot be read.
        """
        try:
            points = []
            for values, prediction in Prediction.expand(table):
                found = self._of(base)
                measured = prediction.density == "measured"
                densities = self._measured(found) if measured else {}
                policy, _ = _predicted(base, self.network, found, prediction, densities)
                points.append(({f"predict.{key}": value for key, value in values.items()}, policy))
        except PolicyError as error:
            lines = str(error).splitlines()
            prefix = "predict." if isinstance(table, Mapping) else "predict: "
            raise PolicyError("\n".join(f"{prefix}{line}" for line in lines)) from None
        except ValueError as error:
            raise PolicyError(f"predict: {str(error).splitlines()[0]}") from None
        return points

    def table(self, policies: Mapping[str, Policy]) -> pd.DataFrame:
        """`bits_table` of several policies, the first column being ``policy``.

        Raises
        ------
        ValueError
            The lengths of the sums cannot be read from the network.
        """
        tables = [
            _bits(policy, self.network, self._of(policy)).assign(policy=name)
            for name, policy in policies.items()
        ]
        return pd.concat(tables, ignore_index=True)[["policy", *BITS]]

    @property
    def network(self) -> nn.Module:
        """The task's network with some initial weights."""
        if self._network is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self._network = self.task.network()
        return self._network

    @property
    def data(self) -> Data:
        """Data of the task."""
        if self._data is None:
            try:
                self._data = self.task.load()
            except (TaskError, OSError) as error:
                raise ConfigError("\n".join(f"task: {line}" for line in str(error).splitlines())) from None
        return self._data

    def _of(self, policy: Policy) -> Sums:
        key = passing(policy)
        if key not in self._sums:
            inputs = self.data.train_inputs
            if self.batch > len(inputs):
                raise ConfigError(
                    f"batch: must be at most {len(inputs)}, the size of the training set, got {self.batch}"
                )
            self._sums[key] = training_sums(self.network, inputs[: self.batch], policy)
        return self._sums[key]

    def _measured(self, found: Sums) -> Mapping[tuple[str, str], float]:
        if id(found) not in self._densities:
            labels = self.data.train_labels[: self.batch]
            whole = _WithLoss(self.network, self.task, labels)
            # Below that module the layers have other names.
            rows = tuple(replace(row, layer=f"network.{row.layer}") for row in found.network.products)
            network = Network(name=found.network.name, batch=self.batch, products=rows)
            densities, _ = measured_densities(whole, network, [(self.data.train_inputs[: self.batch], None)])
            self._densities[id(found)] = {
                (layer.removeprefix("network."), product): density
                for (layer, product), density in densities.items()
            }
        return self._densities[id(found)]


def study_bits(plan: Plan) -> pd.DataFrame:
    """`bits_table` of all policies of a study, the first column being ``policy``.

    A network that cannot be read for its lengths has no rows, and ``attrs["note"]`` says why.
    """
    policies = {point.name: point.policy for point in plan.points if point.policy is not None}
    try:
        return Predictor(plan.study.task, plan.study.batch, plan.data).table(policies)
    except ValueError as error:
        table = pd.DataFrame(columns=["policy", *BITS])
        table.attrs["note"] = str(error).splitlines()[0]
        return table.astype({**dict.fromkeys(("policy", "layer", "product"), "str"), **_INTEGERS})


class _WithLoss(nn.Module):
    """A network whose output is its loss on a batch."""

    def __init__(self, network: nn.Module, task: Task, labels: torch.Tensor) -> None:
        super().__init__()
        self.network = network
        self._loss, self._labels = task.loss, labels

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._loss(self.network(inputs), self._labels)


def _predicted(
    base: Policy,
    network: nn.Module,
    found: Sums,
    prediction: Prediction,
    densities: Mapping[tuple[str, str], float],
) -> tuple[Policy, pd.DataFrame]:
    if found.unknown:
        raise PolicyError(
            f"no accumulation lengths are known of {', '.join(map(repr, found.unknown))}; known are "
            f"{', '.join(repr(name) for name in dict.fromkeys(each.layer for each in found.sums)) or 'none'}"
        )
    layers = layer_policies(network, base, dict.fromkeys(each.layer for each in found.sums))
    for glob in prediction.layers:
        if not any(fnmatchcase(name, glob) for name in layers):
            raise PolicyError(f"layers: {glob!r} is no layer; layers are {', '.join(map(repr, layers))}")
    common = 1.0 if prediction.density == "measured" else prediction.density
    made: dict[str, dict[str, AnyAccumulator | None]] = {}
    rows = []
    for each in found.sums:
        layer = layers[each.layer]
        chosen = any(fnmatchcase(each.layer, glob) for glob in prediction.layers)
        if not chosen or each.product not in prediction.products or getattr(layer, each.product) is None:
            continue
        product_bits = _product_bits(layer, each)
        if product_bits is None:
            native = next(role for role in each.operands if layer.tensor(role) is None)
            raise PolicyError(
                f"layer {each.layer!r}: the {each.product} product needs operands with formats, "
                f"got {native} = native"
            )
        density = densities.get((each.layer, each.product), common)
        bits = _required(each.length, product_bits, density, prediction)
        used = bits + prediction.offset
        if not 1 <= used <= _WIDEST:
            raise PolicyError(
                f"offset: must leave 1 to {_WIDEST} fraction bits, got {prediction.offset} where {bits} are "
                f"predicted for the {each.product} product of {each.layer!r}; see minimum"
            )
        made.setdefault(each.layer, {})[each.product] = Accumulator(
            FloatFormat(exp_bits=prediction.exp_bits, frac_bits=used),
            rounding=prediction.rounding,
            chunk=prediction.chunk or None,
        )
        rows.append((each.layer, each.product, each.length, density, product_bits, bits, used))
    if not rows:
        raise PolicyError(f"products: none of {', '.join(prediction.products)} is emulated in these layers")
    rules = [_rule(name, made[name], layers[name], found) for name in made]
    policy = Policy((*rules, *base.rules), base.update, base.loss_scale, base.name)
    return policy, pd.DataFrame(rows, columns=list(PREDICTED))


def _rule(
    name: str, accumulators: Mapping[str, AnyAccumulator | None], layer: LayerPolicy, found: Sums
) -> Rule:
    globs = [name]
    if f"{name}_1" in found.unnamed:
        # The rules of later products name this one, too: for it, nothing may be left to them.
        accumulators = {**{product: getattr(layer, product) for product in PRODUCTS}, **accumulators}
    elif name in found.unnamed and (match := _LATER.fullmatch(name)) is not None:
        # Later products are known only when the module runs: alone, such a rule would seem to match nothing.
        globs.append(match["first"])
    return Rule([escape(glob) for glob in globs], **accumulators)


def _required(length: int, product_bits: int, density: float, prediction: Prediction) -> int:
    emulated = prediction.rule == "emulated"
    bits = required_bits(
        length,
        product_bits,
        chunk=prediction.chunk or None,
        density=density,
        rule=prediction.rule,
        rounding=prediction.rounding if emulated else Rounding.NEAREST_EVEN,
        tolerance=prediction.tolerance,
        minimum=prediction.minimum,
    )
    return int(bits)


def _product_bits(layer: LayerPolicy, found: Sum) -> int | None:
    """Fraction bits of an exact product of two operands; ``None`` if one of them is in float32."""
    widths = []
    for role in found.operands:
        tensor = layer.tensor(role)
        if tensor is None:
            return None
        widths.append(_frac_bits(tensor.format))
    return max(sum(widths) + len(widths) - 1, 1)


def _frac_bits(fmt: FloatFormat | FixedFormat | BlockFormat) -> int:
    """Bits behind the leading one, of the largest numbers."""
    if isinstance(fmt, BlockFormat):
        return _frac_bits(fmt.element)
    return fmt.int_bits + fmt.frac_bits - 1 if isinstance(fmt, FixedFormat) else fmt.frac_bits


def _bits(policy: Policy, network: nn.Module, found: Sums) -> pd.DataFrame:
    layers = layer_policies(network, policy, dict.fromkeys([*(s.layer for s in found.sums), *found.unknown]))
    rows: list[tuple[Any, ...]] = []
    for each in found.sums:
        layer = layers[each.layer]
        accumulator: AnyAccumulator | None = getattr(layer, each.product)
        product_bits = _product_bits(layer, each)
        chunk, used = _chunk_and_bits(accumulator)
        theory = emulated = None
        if isinstance(accumulator, Accumulator) and accumulator.product and product_bits:
            product_bits = min(product_bits, accumulator.product.frac_bits)
        if product_bits is not None and _is_covered(accumulator):
            rounding = str(accumulator.rounding) if isinstance(accumulator, Accumulator) else "nearest-even"
            theory, emulated = (_or_none(rule, each.length, product_bits, chunk, rounding) for rule in _RULES)
        slack = None if used is None or emulated is None else used - emulated
        rows.append((each.layer, each.product, each.length, chunk, used, theory, emulated, slack))
    for name in found.unknown:
        for product in PRODUCTS:
            chunk, used = _chunk_and_bits(getattr(layers[name], product))
            rows.append((name, product, None, chunk, used, None, None, None))
    table = pd.DataFrame(rows, columns=list(BITS))
    return table.astype({"layer": str, "product": str, **_INTEGERS})


def _chunk_and_bits(accumulator: AnyAccumulator | None) -> tuple[int | None, int | None]:
    """Chunk and fraction bits of a floating-point register."""
    if not isinstance(accumulator, Accumulator):
        return None, None
    return accumulator.chunk, accumulator.format.frac_bits


def _is_covered(accumulator: AnyAccumulator | None) -> bool:
    """Whether the predictions speak of such sums; of a unit that is no register, as of a plain one."""
    return not isinstance(accumulator, Accumulator) or (
        accumulator.lanes == 1 and accumulator.order == "sequential" and accumulator.outer is None
    )


@lru_cache(maxsize=1 << 14)
def _or_none(rule: Width, length: int, product_bits: int, chunk: int | None, rounding: str) -> int | None:
    """Bits that a rule asks for, if it has an answer."""
    try:
        prediction = Prediction(rule=rule, chunk=chunk or 0, rounding=rounding)
        return _required(length, product_bits, 1.0, prediction)
    except ValueError:  # a rounding that is not calibrated, or no accumulator is wide enough
        return None


def _inputs(input_shape: Sequence[int], batch: int, inputs: torch.Tensor | None) -> torch.Tensor:
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ValueError(f"batch must be a whole number of at least 1, got {batch!r}")
    shape = (batch, *input_shape)
    if inputs is None:
        return torch.zeros(shape)
    if tuple(inputs.shape) != shape:
        raise ValueError(f"inputs must be of shape {shape}, got {tuple(inputs.shape)}")
    return inputs


def _is_share(value: object, *, below_one: bool) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    return number and 0.0 < cast("float", value) <= 1.0 and not (below_one and value == 1.0)
