"""Turn an existing module into its bit-true twin, and back."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from numerics.torch.emulation import Emulation, Observer
from numerics.torch.interception import PRODUCT_NAMES, Owner
from numerics.torch.modules import (
    FLOAT32_PARTS,
    LAYERS,
    Emulated,
    EmulatedContainer,
    EmulatedLayer,
    LeftAlone,
    RoundedOutput,
    emulated_class,
    is_composite,
    is_float32,
    is_known,
    is_loss,
    layer_kind,
)
from numerics.torch.policy import LayerPolicy, Policy

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def emulate(
    model: ModuleT,
    policy: Policy | LayerPolicy,
    *,
    seed: int,
    inplace: bool = False,
    statistics: Observer | None = None,
) -> ModuleT:
    """Bit-true twin of `model`: all three products of every layer, under the declared numerics.

    Parameters, their names, hooks and the rest of the module stay as they are; only the classes of modules
    change. Linear layers, convolutions, transposed convolutions (of one and two axes) and embeddings are
    layers. In a module with code of its own (of a user, `nn.MultiheadAttention`, `nn.Transformer`) matrix
    products, `einsum` of two operands, attention and functional layers are found as it runs; see
    `numerics.torch.interception` for their names. Normalisation, softmax, activations, pooling, dropout and
    losses run in float32, and a rule may give their output a format.

    Parameters
    ----------
    model
        A module on the CPU in float32.
    policy
        Formats and accumulators by module name.
    seed
        Key of stochastic rounding. The random numbers of a layer depend on it, on the layer's name and on
        how often the layer was used.
    inplace
        Change `model` itself rather than a copy.
    statistics
        Observer of every tensor and product, such as `numerics.torch.Statistics`.

    Raises
    ------
    ValueError
        A module that cannot be emulated (the error names it; a rule with ``unsupported = "pass"`` leaves it
        in float32), a layer that no rule matches, or a rule that matches no module.

    Examples
    --------
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.constant_(layer.weight, 1.0)
    >>> twin = emulate(layer, LayerPolicy.uniform("e5m2", "e6m9"), seed=0)
    >>> twin(torch.tensor([[1.0, 2.0**-12]])).item()
    1.0
    """
    rules = policy if isinstance(policy, Policy) else Policy(policy)
    named = dict(model.named_modules())
    for name, module in named.items():
        _check(name, module, rules)
    ordered = [
        name
        for name, module in named.items()
        if layer_kind(module) is not None and not isinstance(module, nn.Embedding)
    ]
    products = [
        f"{name}.{short}".lstrip(".")
        for name, module in named.items()
        if is_composite(module)
        for short in PRODUCT_NAMES
    ]
    parameters = (name for name, _ in model.named_parameters())
    products += [name.removesuffix(".weight") for name in parameters if not name.endswith("bias")]
    rules.check([*named], product_names=products)
    make = Maker(rules, (ordered[0], ordered[-1]) if ordered else (None, None), seed, statistics)
    # Every policy is looked up before anything is changed.
    kinds = {name: kind for name, module in named.items() if (kind := layer_kind(module)) is not None}
    emulations = {name: make(name) for name in kinds}
    for name, module in named.items():
        if is_float32(module) and not is_loss(module) and any(rule.matches(name) for rule in rules.rules):
            emulation = make(name)
            if emulation.tensor("output") is not None:
                kinds[name], emulations[name] = RoundedOutput, emulation
    if not inplace:
        model = copy.deepcopy(model)
    for name, module in model.named_modules():
        if name in kinds:
            module.__class__ = emulated_class(type(module), kinds[name])
            module.emulation = emulations[name]
        elif is_composite(module):
            module.__class__ = emulated_class(type(module), EmulatedContainer)
            module.owner = Owner(name, make, passes=rules.unsupported(name) == "pass")
        elif not is_known(module) and not isinstance(module, torch.jit.ScriptModule):
            module.__class__ = emulated_class(type(module), LeftAlone)
    return model


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes the emulation of a layer or product from its name.

    Attributes
    ----------
    ends
        Names of the first and the last layer, for rules on them.
    """

    rules: Policy
    ends: tuple[str | None, str | None]
    seed: int
    observer: Observer | None

    def __call__(self, name: str) -> Emulation:
        """Emulation under the policy of `name`."""
        policy = self.rules.layer(name, first=name == self.ends[0], last=name == self.ends[1])
        return Emulation(name, policy, self.seed, self.observer)

    def __reduce__(self) -> Any:
        """Pickle without the observer, as an emulation does."""
        return Maker, (self.rules, self.ends, self.seed, None)


def restore(model: nn.Module) -> None:
    """Turn emulated modules of `model` back into what they were, in place."""
    for module in model.modules():
        if isinstance(module, Emulated):
            for name in ("emulation", "owner"):
                module.__dict__.pop(name, None)
            module.__class__ = module.original  # type: ignore[assignment]


def emulation_state(model: nn.Module) -> dict[str, Any]:
    """What a resumed run needs beside parameters: positions of random streams, histories of delayed scales.

    It may be saved with `torch.save`; `load_emulation_state` takes it.
    """
    state = {emulation.name: emulation.state() for emulation in _emulations(model)}
    for owner in _owners(model):
        state |= owner.states
    return state


def load_emulation_state(model: nn.Module, state: dict[str, Any]) -> None:
    """Take up where `emulation_state` was, in a twin made from the same model, policy and seed.

    Raises
    ------
    ValueError
        The state is that of another model.
    """
    left = dict(state)
    for emulation in _emulations(model):
        if emulation.name not in left:
            raise ValueError(
                f"the state has no layer {emulation.name!r}; it has {', '.join(state) or 'none'}"
            )
        emulation.load_state(left.pop(emulation.name))
    # Products that modules compute themselves are known once they are used.
    for owner in _owners(model):
        prefix = f"{owner.name}." if owner.name else ""
        owner.states = {name: left.pop(name) for name in [*left] if name.startswith(prefix)}
    if left:
        raise ValueError(f"the state has layers that the model has not: {', '.join(left)}")


def _emulations(model: nn.Module) -> Iterator[Emulation]:
    for module in model.modules():
        if isinstance(module, EmulatedLayer):
            yield module.emulation
    for owner in _owners(model):
        yield from owner.emulations.values()


def _owners(model: nn.Module) -> Iterator[Owner]:
    """Owners, the innermost first: a name belongs to the deepest module that it begins with."""
    owners = [module.owner for module in model.modules() if isinstance(module, EmulatedContainer)]
    yield from sorted(owners, key=lambda owner: -len(owner.name))


def _check(name: str, module: nn.Module, rules: Policy) -> None:
    kind = type(module).__name__
    if isinstance(module, Emulated):
        raise ValueError(f"module {name!r} is emulated already; call restore first")
    if rules.unsupported(name) == "pass" and layer_kind(module) is None:
        return
    for parameter in module.parameters(recurse=False):
        if parameter.dtype != torch.float32 or parameter.device.type != "cpu":
            raise ValueError(
                f"parameters of module {name!r} must be float32 on the CPU, "
                f"got {parameter.dtype} on {parameter.device}"
            )
    if isinstance(module, nn.Embedding):
        for option in ("max_norm", "scale_grad_by_freq", "sparse"):
            if getattr(module, option):
                raise ValueError(
                    f"option {option} of module {name!r} must be off, got {getattr(module, option)!r}"
                )
    if not is_known(module):
        supported = ", ".join(cls.__name__ for cls in LAYERS)
        raise ValueError(
            f"module {name!r} ({kind}) cannot be emulated; supported are {supported}, modules with code of "
            f"their own made of such products, and in float32 the modules of torch.nn for "
            f'{", ".join(FLOAT32_PARTS)}; a rule with unsupported = "pass" leaves it in float32'
        )
