"""Turn an existing module into its bit-true twin, and back."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from numerics.torch.policy import LayerPolicy, Policy
from numerics.torch.products import Conv2dProduct, Emulation, LinearProduct

ModuleT = TypeVar("ModuleT", bound=nn.Module)

# Modules without a matrix product: they run in float32 on values that their neighbours rounded.
_FLOAT32_MODULES = (
    nn.ReLU,
    nn.Identity,
    nn.Flatten,
    nn.Dropout,
    nn.AvgPool2d,
    nn.MaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.CrossEntropyLoss,
)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class _EmulatedLinear(nn.Linear):
    emulation: Emulation

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  torch's own name
        y: torch.Tensor = LinearProduct.apply(input, self.weight, self.bias, self.emulation)  # type: ignore[no-untyped-call]
        return y


class _EmulatedConv2d(nn.Conv2d):
    emulation: Emulation

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        images = input if input.ndim == 4 else input.unsqueeze(0)
        y: torch.Tensor = Conv2dProduct.apply(  # type: ignore[no-untyped-call]
            images,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.emulation,
        )
        return y if input.ndim == 4 else y.squeeze(0)


_TWINS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: _EmulatedLinear,
    nn.Conv2d: _EmulatedConv2d,
}
_ORIGINALS = {twin: original for original, twin in _TWINS.items()}


def emulate(model: ModuleT, policy: Policy | LayerPolicy, *, seed: int, inplace: bool = False) -> ModuleT:
    """Bit-true twin of `model`: all three products of every linear layer and convolution.

    Parameters, their names, hooks and the rest of the module stay as they are; only the class of
    each layer changes. ReLU, pooling, dropout and the loss run in float32.

    Parameters
    ----------
    model
        Modules of `torch.nn` on the CPU in float32.
    policy
        Formats and accumulators by layer name.
    seed
        Key of stochastic rounding.
    inplace
        Change `model` itself rather than a copy.

    Raises
    ------
    ValueError
        A module that holds parameters or computes and is not supported (the error names it), a
        padding mode other than zeros, or a layer that no rule matches.

    Examples
    --------
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.constant_(layer.weight, 1.0)
    >>> twin = emulate(layer, LayerPolicy.uniform("e5m2", "e6m9"), seed=0)
    >>> twin(torch.tensor([[1.0, 2.0**-12]])).item()
    1.0
    """
    rules = policy if isinstance(policy, Policy) else Policy(policy)
    layers = {name: module for name, module in model.named_modules() if type(module) in _TWINS}
    for name, module in model.named_modules():
        _check(name, module)
    policies = {name: rules.layer(name) for name in layers}
    if not inplace:
        model = copy.deepcopy(model)
    for index, (name, module) in enumerate(model.named_modules()):
        if name in policies:
            module.__class__ = _TWINS[type(module)]
            module.emulation = Emulation(policies[name], seed, index)
    return model


def restore(model: nn.Module) -> None:
    """Turn emulated layers of `model` back into the float32 ones, in place."""
    for module in model.modules():
        if (original := _ORIGINALS.get(type(module))) is not None:
            del module.emulation
            module.__class__ = original


def _check(name: str, module: nn.Module) -> None:
    kind = type(module).__name__
    if type(module) in _ORIGINALS:
        raise ValueError(f"module {name!r} is emulated already; call restore first")
    if isinstance(module, nn.Conv2d) and (module.padding_mode != "zeros" or isinstance(module.padding, str)):
        raise ValueError(
            f"padding of module {name!r} must be numbers of zeros, "
            f"got padding={module.padding!r}, padding_mode={module.padding_mode!r}"
        )
    for parameter in module.parameters(recurse=False):
        if parameter.dtype != torch.float32 or parameter.device.type != "cpu":
            raise ValueError(
                f"parameters of module {name!r} must be float32 on the CPU, "
                f"got {parameter.dtype} on {parameter.device}"
            )
    if type(module) in _TWINS or isinstance(module, _FLOAT32_MODULES):
        return
    own_parameters = any(True for _ in module.parameters(recurse=False))
    is_leaf = next(module.children(), None) is None and not isinstance(module, _CONTAINERS)
    if own_parameters or is_leaf:
        supported = ", ".join(cls.__name__ for cls in (*_TWINS, *_FLOAT32_MODULES))
        raise ValueError(f"module {name!r} ({kind}) cannot be emulated; supported are {supported}")
