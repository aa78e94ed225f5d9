"""Which sums the training of an emulated network makes, and how long each of them is.

The lengths come from `accel.importers.torch_products`; the names of layers and products from a pass of the
network's emulated twin in float32, so that they are those of a policy's rules. Three things differ from what
is read there, for that is what the emulation sums:

* Both gradients of a product of two activations are summed by the backward accumulator: the longer counts.
* The gradient of an embedding sums one error for each time that a row is read: the most read row counts.
* A weight that is used more than once has a gradient of each use, which float32 adds; one that is used by one
  module is one layer, and its longest sums count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import nn

from accel.accumulations import Network, TrainingProducts
from accel.importers.torch_products import read_torch
from numerics.torch import LayerPolicy, Policy, Rule, emulate
from numerics.torch.interception import PRODUCT_NAMES
from numerics.torch.modules import EmulatedContainer, EmulatedEmbedding, EmulatedLayer
from numerics.torch.policy import OPERANDS, PRODUCTS

Passing: TypeAlias = tuple[tuple[tuple[str, ...], str], ...]

_UNNAMED = re.compile(rf"({'|'.join(PRODUCT_NAMES)})(_\d+)?")
_OF_ATTENTION = re.compile(r"(?P<module>.*?)(?P<number>_\d+)? (QK\^T|PV)")
_TWO_ACTIVATIONS = ("attention", "einsum", "matmul")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """The sums of one product of one layer.

    Attributes
    ----------
    layer
        Name by which rules find it.
    product
        ``forward``, ``backward`` or ``gradient``: whose accumulator sums.
    length
        Terms of a sum.
    operands
        Roles of the tensors that are multiplied; one, if its elements are summed as they are.
    """

    layer: str
    product: str
    length: int
    operands: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """All sums of a network in the order in which it runs.

    Attributes
    ----------
    unknown
        Layers that compute but whose lengths are not known.
    unnamed
        Layers that are products without a name of their own, as of attention.
    network
        The training products that were read.
    """

    sums: tuple[Sum, ...]
    unknown: tuple[str, ...]
    unnamed: frozenset[str]
    network: Network


def passing(policy: Policy) -> Passing:
    """What a policy says of modules that cannot be emulated, which is all that its sums depend on."""
    settings = ((rule.modules, rule.settings.get("unsupported")) for rule in policy.rules)
    return tuple((modules, str(setting)) for modules, setting in settings if setting is not None)


def training_sums(network: nn.Module, inputs: torch.Tensor, policy: Policy) -> Sums:
    """Sums of a training step of `network` on `inputs`.

    Parameters
    ----------
    network
        Not changed.
    inputs : (batch, ...)
        Samples of one step. Of an embedding's indices the values matter, of other inputs the shape.
    policy
        What may run in float32 (``unsupported = "pass"``) is none of the sums.

    Raises
    ------
    ValueError
        The network cannot be read or emulated, or does not run on such inputs.
    """
    read = read_torch(network, inputs, batch=len(inputs))
    used, lookups, layers = _used(network, inputs, policy)
    # A module may compute with the weight of a layer below it: that layer has a row, but is never called.
    names = used.keys() | layers
    unnamed = frozenset(name for name, owned in used.items() if owned and _is_unnamed(name))
    rows: dict[str, list[TrainingProducts]] = {}
    others: dict[str, list[TrainingProducts]] = {}
    owners = {_owner(name) for name, owned in used.items() if owned}
    for row in read.products:
        name = row.layer if row.layer in names else re.sub(r"_\d+$", "", row.layer)
        if name in names - unnamed:
            rows.setdefault(name, []).append(row)
        else:
            others.setdefault(_owner_of_row(row.layer, owners), []).append(row)
    for owner in owners:
        own = [name for name, owned in used.items() if owned and name not in rows and _owner(name) == owner]
        rows |= _paired(own, others.get(owner, []))
    order = {row.layer: place for place, row in enumerate(read.products)}
    sums = [
        Sum(layer=name, product="gradient", length=most, operands=("error",))
        for name, most in lookups.items()
    ]
    for name in sorted(rows, key=lambda name: order[rows[name][0].layer]):
        sums += _of_layer(name, rows[name], of_activations=name in unnamed and _is_of_activations(name))
    return Sums(
        sums=tuple(sums),
        unknown=tuple(name for name in used if name not in rows and name not in lookups),
        unnamed=unnamed,
        network=read,
    )


def layer_policies(network: nn.Module, policy: Policy, layers: Iterable[str]) -> dict[str, LayerPolicy]:
    """Numerics of each of the `layers` of the emulated network, by name.

    Raises
    ------
    ValueError
        The policy does not fit the network.
    """
    twin = emulate(network, policy, seed=0)
    found = {
        name: module.emulation.policy
        for name, module in twin.named_modules()
        if isinstance(module, EmulatedLayer)
    }
    owners = [module.owner for module in twin.modules() if isinstance(module, EmulatedContainer)]
    if others := [layer for layer in layers if layer not in found]:
        make = owners[0].make  # the same of all
        found |= {layer: make(layer).policy for layer in others}
    return {layer: found[layer] for layer in layers}


def _paired(names: list[str], rows: list[TrainingProducts]) -> dict[str, list[TrainingProducts]]:
    """Rows of the products that a module computes itself; both are in the order in which it runs."""
    if len(names) == len(rows):
        return {name: [row] for name, row in zip(names, rows, strict=True)}
    # A weight that is used twice has two rows and one name: the products of two activations, and the rest.
    found: dict[str, list[TrainingProducts]] = {}
    for pairs in (True, False):
        some = [name for name in names if _is_of_activations(name) is pairs]
        fitting = [row for row in rows if (row.operator in _TWO_ACTIVATIONS) is pairs]
        if len(some) == len(fitting):
            found |= {name: [row] for name, row in zip(some, fitting, strict=True)}
        elif len(some) == 1 and fitting and not pairs:
            found[some[0]] = fitting
    return found


def _of_layer(name: str, rows: list[TrainingProducts], *, of_activations: bool) -> Iterator[Sum]:
    lengths = {product: max(getattr(row, product) or 0 for row in rows) for product in PRODUCTS}
    if lengths["gradient"]:
        lengths["gradient"] = max(row.m for row in rows)  # of each use of a weight, not of all
    operands: Mapping[str, tuple[str, ...]] = OPERANDS
    if of_activations:
        lengths = {"forward": lengths["forward"], "backward": max(lengths["backward"], lengths["gradient"])}
        operands = {"forward": ("activation", "activation"), "backward": ("error", "activation")}
    for product, length in lengths.items():
        if length:
            yield Sum(layer=name, product=product, length=length, operands=operands[product])


def _used(
    network: nn.Module, inputs: torch.Tensor, policy: Policy
) -> tuple[dict[str, bool], dict[str, int], set[str]]:
    """What a pass uses.

    Returns
    -------
    used
        Layers and products, each with whether it is a product that a module computes itself.
    lookups
        Of each embedding, how often its most read row is read.
    layers
        All layers, used or not.
    """
    rules = [Rule(modules, unsupported=setting) for modules, setting in passing(policy)]
    twin = emulate(network, Policy([*rules, Rule.every("*", LayerPolicy())]), seed=0).eval()
    used: dict[str, bool] = {}
    lookups: dict[str, int] = {}

    def note(name: str, layer: nn.Module, given: tuple[Any, ...], _: Any) -> None:
        used[name] = False
        if isinstance(layer, EmulatedEmbedding):
            most = int(given[0].flatten().bincount().max())
            lookups[name] = max(lookups.get(name, 0), most)

    layers = {name: module for name, module in twin.named_modules() if isinstance(module, EmulatedLayer)}
    for name, module in layers.items():
        module.register_forward_hook(partial(note, name))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            twin(inputs)
        except (RuntimeError, IndexError, TypeError) as error:
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"the network does not run on {inputs.dtype} inputs of shape {tuple(inputs.shape)}: {line}"
            ) from error
    for container in twin.modules():
        if isinstance(container, EmulatedContainer):
            used |= dict.fromkeys(container.owner.emulations, True)
    return used, lookups, set(layers)


def _is_unnamed(name: str) -> bool:
    return _UNNAMED.fullmatch(name.rpartition(".")[2]) is not None


def _is_of_activations(name: str) -> bool:
    """Whether a product without a name of its own is one of two activations."""
    found = _UNNAMED.fullmatch(name.rpartition(".")[2])
    return found is not None and found[1] in ("matmul", "qk", "av")


def _owner(name: str) -> str:
    """Module that computes a product itself."""
    return name.rpartition(".")[0]


def _owner_of_row(layer: str, owners: set[str]) -> str:
    """The same from the name that the product's row has."""
    found = _OF_ATTENTION.fullmatch(layer)
    if found is None:
        return _owner(layer)
    whole = f"{found['module']}{found['number'] or ''}"
    known = [name for name in (whole, found["module"]) if name in owners]
    return known[0] if known else ""
