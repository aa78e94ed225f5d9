"""Emulated classes of modules: only the class of a module changes, and with it what `forward` does."""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from numerics.torch import layers
from numerics.torch.emulation import Emulation, Streams
from numerics.torch.interception import Owner, products_of, unobserved


class Emulated(nn.Module):
    """A module whose class was changed; `original` is what it was."""

    original: type[nn.Module]
    kind: type[Emulated]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle by the two classes: that of this object is made when it is needed."""
        return _rebuild, (self.kind, self.original), self.__dict__


def _rebuild(kind: type[Emulated], original: type[nn.Module]) -> nn.Module:
    module: nn.Module = object.__new__(emulated_class(original, kind))
    return module


_CLASSES: dict[tuple[type[nn.Module], type[Emulated]], type[Any]] = {}


def emulated_class(original: type[nn.Module], kind: type[Emulated]) -> type[Any]:
    """Subclass of both, called ``Emulated<original>``; the same one every time."""
    if (known := _CLASSES.get((original, kind))) is not None:
        return known
    members: dict[str, Any] = {
        "original": original,
        "kind": kind,
        "__module__": original.__module__,
        "__doc__": original.__doc__,
    }
    if kind is EmulatedContainer:
        members["forward"] = _with_products(original)
    made = type(f"Emulated{original.__name__}", (kind, original), members)
    _CLASSES[original, kind] = made
    return made


class EmulatedLayer(Emulated):
    """A layer with one product, under `emulation`."""

    emulation: Emulation


class EmulatedLinear(EmulatedLayer):
    """`nn.Linear`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  torch's own name
        """Output of shape (..., out_features)."""
        with unobserved():
            return layers.linear(input, self.weight, self.bias, self.emulation)  # type: ignore[arg-type]


class EmulatedConvolution(EmulatedLayer):
    """`nn.Conv1d` and `nn.Conv2d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """Output of the convolution; other paddings than zeros are put on in float32 before it."""
        this: Any = self
        with unobserved():
            padding = this.padding
            if this.padding_mode != "zeros":
                mode = this.padding_mode
                input = functional.pad(input, this._reversed_padding_repeated_twice, mode=mode)  # noqa: A001
                padding = 0
            return layers.convolution(
                input,
                this.weight,
                this.bias,
                this.stride,
                padding,
                this.dilation,
                this.groups,
                self.emulation,
            )


class EmulatedTransposed(EmulatedLayer):
    """`nn.ConvTranspose1d` and `nn.ConvTranspose2d`."""

    def forward(self, input: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:  # noqa: A002
        """Output of the transposed convolution."""
        this: Any = self
        with unobserved():
            extra = this._output_padding(
                input, output_size, this.stride, this.padding, this.kernel_size,
                len(this.kernel_size), this.dilation,
            )  # fmt: skip
            return layers.transposed_convolution(
                input, this.weight, this.bias, this.stride, this.padding, extra, this.groups, this.dilation,
                self.emulation,
            )  # fmt: skip


class EmulatedEmbedding(EmulatedLayer):
    """`nn.Embedding`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """Rows of the table."""
        this: Any = self
        with unobserved():
            return layers.embedding(input, this.weight, this.padding_idx, self.emulation)


class RoundedOutput(EmulatedLayer):
    """A module that runs in float32 and whose output is rounded; gradients pass as they are."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module returns, on its output format."""
        y = super().forward(*args, **kwargs)
        if not (isinstance(y, torch.Tensor) and y.is_floating_point()):
            return y
        with unobserved():
            return _RoundOutput.apply(y, self.emulation, self.emulation.streams(y))  # type: ignore[no-untyped-call]


class _RoundOutput(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: torch.Tensor, emulation: Emulation, streams: Streams) -> torch.Tensor:
        return emulation.restored(x, "output", streams).clone()

    @staticmethod
    def backward(_: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return grads[0], None, None


class LeftAlone(Emulated):
    """A module that cannot be emulated and may stay: its insides are not looked at, wherever it runs."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module returns."""
        with unobserved():
            return super().forward(*args, **kwargs)


class EmulatedContainer(Emulated):
    """A module with code of its own, the products in which are emulated as it runs."""

    owner: Owner


def _with_products(original: type[nn.Module]) -> Any:
    inner = original.forward

    @wraps(inner)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        with products_of(self, self.owner):
            return inner(self, *args, **kwargs)

    return forward


#: Kinds of layers with a product, each with the class that emulates it.
LAYERS: dict[type[nn.Module], type[EmulatedLayer]] = {
    nn.Linear: EmulatedLinear,
    nn.Conv1d: EmulatedConvolution,
    nn.Conv2d: EmulatedConvolution,
    nn.ConvTranspose1d: EmulatedTransposed,
    nn.ConvTranspose2d: EmulatedTransposed,
    nn.Embedding: EmulatedEmbedding,
}

#: Modules of `torch.nn` with code of their own, made of products that are emulated one by one.
COMPOSITE = (
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.Transformer,
)

#: Modules that only hold others.
HOLDERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)

#: Parts of `torch.nn.modules` whose modules run in float32: none of them computes a product.
FLOAT32_PARTS = (
    "activation", "batchnorm", "channelshuffle", "distance", "dropout", "flatten", "fold", "instancenorm",
    "loss", "normalization", "padding", "pixelshuffle", "pooling", "upsampling",
)  # fmt: skip


def layer_kind(module: nn.Module) -> type[EmulatedLayer] | None:
    """Class that emulates a layer: one of `LAYERS`, or a subclass that computes as they do."""
    for original, kind in LAYERS.items():
        if isinstance(module, original) and type(module).forward is original.forward:
            return kind
    return None


def is_float32(module: nn.Module) -> bool:
    """Whether the module runs in float32 by declared choice."""
    if isinstance(module, COMPOSITE):
        return False
    package, _, part = type(module).__module__.rpartition(".")
    return type(module) is nn.Identity or (package == "torch.nn.modules" and part in FLOAT32_PARTS)


def is_composite(module: nn.Module) -> bool:
    """Whether the module has code of its own, in which products are looked for."""
    foreign = not type(module).__module__.startswith("torch.")
    return isinstance(module, COMPOSITE) or (foreign and not isinstance(module, HOLDERS))


def is_known(module: nn.Module) -> bool:
    """Whether the module is emulated, runs in float32 by declared choice, or only holds others."""
    kinds = layer_kind(module) is not None or is_float32(module) or is_composite(module)
    return kinds or isinstance(module, HOLDERS)


def is_loss(module: nn.Module) -> bool:
    """Whether it is a loss, whose value is never rounded."""
    return type(module).__module__ == "torch.nn.modules.loss"
