"""Products that a module computes itself, by functions of torch, found and emulated as they are called.

While the `forward` of a module that is no layer of torch runs, a `TorchFunctionMode` sees every function of
torch that it calls. Matrix products, convolutions, attention and embeddings go to `numerics.torch.layers`;
everything else passes. Layers below it have numerics of their own, and their insides are not looked at.

A product with a parameter of the module is called by the name of the parameter (without ``.weight``), any
other one by the name of the module and ``matmul``, or ``qk`` and ``av`` in attention; the second use in one
pass is ``matmul_1``. By these names rules find them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from string import ascii_uppercase
from types import FunctionType
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from numerics.torch import layers
from numerics.torch.emulation import Emulation

#: Products without a name of their own, as rules may address them below a module.
PRODUCT_NAMES = tuple(
    f"{kind}_{number}" if number else kind
    for kind in ("matmul", "qk", "av", "linear", "conv", "embedding")
    for number in range(32)
)

Make = Callable[[str], Emulation]
_STATE = threading.local()


class Owner:
    """The emulations of the products that one module computes itself.

    Parameters
    ----------
    name
        Qualified name of the module.
    make
        Builds the emulation of a product from its name.
    passes
        Whether functions that cannot be emulated run in float32, rather than being errors.
    """

    def __init__(self, name: str, make: Make, *, passes: bool) -> None:
        self.name, self.make, self.passes = name, make, passes
        self.emulations: dict[str, Emulation] = {}
        self.states: dict[str, dict[str, Any]] = {}
        self.used: dict[str, int] = {}
        self.expected: list[str] = []

    def emulation(self, module: nn.Module, kind: str, weight: torch.Tensor | None = None) -> Emulation:
        """The emulation of the next product of a kind, or of that with a parameter."""
        base = _parameter_name(module, weight) if weight is not None else None
        if base is None and self.expected:
            kind = self.expected.pop(0)
        short = kind if base is None else base.removesuffix(".weight")
        if base is not None and (layer := _layer_of(module, base)) is not None:
            return layer
        number = self.used.get(short, 0)
        self.used[short] = number + 1
        if number and base is None:
            short = f"{short}_{number}"
        name = f"{self.name}.{short}" if self.name else short
        if name not in self.emulations:
            self.emulations[name] = self.make(name)
            if (state := self.states.pop(name, None)) is not None:
                self.emulations[name].load_state(state)
        return self.emulations[name]


@contextmanager
def products_of(module: nn.Module, owner: Owner) -> Iterator[None]:
    """Emulate the products that `module` computes itself inside this context."""
    before = getattr(_STATE, "current", None)
    used, owner.used = owner.used, {}
    _STATE.current = (module, owner)
    try:
        if getattr(_STATE, "listening", False):
            yield
        else:
            _STATE.listening = True
            try:
                with _Interception():
                    yield
            finally:
                _STATE.listening = False
    finally:
        _STATE.current, owner.used = before, used


@contextmanager
def unobserved() -> Iterator[None]:
    """Leave the functions called inside this context alone."""
    before = getattr(_STATE, "current", None)
    _STATE.current = None
    try:
        yield
    finally:
        _STATE.current = before


class _Interception(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        current = getattr(_STATE, "current", None)
        if current is None:
            return func(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            current[1].expected = ["qk", "av"]  # matrix products where the weights are wanted
            try:
                with self:
                    return _multi_head_attention(*args, **kwargs)
            finally:
                current[1].expected = []
        module, owner = current
        if (emulated := _EMULATED.get(func)) is not None:
            with unobserved():
                result = emulated(module, owner, *args, **kwargs)
            if result is not NotImplemented:
                return result
        elif func not in _REFUSED:
            return func(*args, **kwargs)
        if owner.passes:
            return func(*args, **kwargs)
        kind = getattr(func, "__name__", str(func))
        own = getattr(module, "original", type(module)).__name__
        raise ValueError(
            f"module {owner.name!r} ({own}) computes {kind}, which cannot be emulated; "
            f'a rule with unsupported = "pass" leaves it in float32'
        )


def _parameter_name(module: nn.Module, tensor: torch.Tensor) -> str | None:
    """Name of the parameter that `tensor` is, or is a view of."""
    base = tensor if tensor._base is None else tensor._base
    for name, parameter in module.named_parameters():
        if parameter is base:
            return name
    return None


def _layer_of(module: nn.Module, parameter: str) -> Emulation | None:
    """Emulation of the layer below `module` whose weight the parameter is."""
    owner = module.get_submodule(parameter.rpartition(".")[0])
    emulation = getattr(owner, "emulation", None)
    return emulation if isinstance(emulation, Emulation) and owner is not module else None


def _is_weight(x: torch.Tensor) -> bool:
    return isinstance(x if x._base is None else x._base, nn.Parameter)


def _linear(
    module: nn.Module,
    owner: Owner,
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    return layers.linear(input, weight, bias, owner.emulation(module, "linear", weight))


def _matmul(
    module: nn.Module,
    owner: Owner,
    input: torch.Tensor,  # noqa: A002
    other: torch.Tensor,
    *,
    out: torch.Tensor | None = None,
) -> Any:
    if out is not None:
        return NotImplemented
    if not (input.is_floating_point() and other.is_floating_point()):
        return torch.matmul(input, other)
    weight = other if _is_weight(other) else input if _is_weight(input) else None
    if weight is None:
        return layers.matrix_product(input, other, owner.emulation(module, "matmul"))
    emulation = owner.emulation(module, "linear", weight)
    if weight.ndim <= 2:
        return layers.weighted_product(input, other, emulation, left=weight is not other)
    roles = ("activation", "weight") if weight is other else ("weight", "activation")
    return layers.matrix_product(input, other, emulation, roles)


def _reversed_matmul(module: nn.Module, owner: Owner, right: torch.Tensor, left: torch.Tensor) -> Any:
    return _matmul(module, owner, left, right)


def _added(
    module: nn.Module,
    owner: Owner,
    input: torch.Tensor,  # noqa: A002
    left: torch.Tensor,
    right: torch.Tensor,
    *,
    beta: float = 1.0,
    alpha: float = 1.0,
) -> Any:
    """``beta * input + alpha * left @ right``; a vector that is simply added counts as a bias."""
    if beta == alpha == 1.0 and input.ndim == 1 and left.ndim == 2 and _is_weight(right):
        return _linear(module, owner, left, right.t(), input)
    return beta * input + alpha * _matmul(module, owner, left, right)


def _einsum(module: nn.Module, owner: Owner, equation: Any, *operands: Any) -> Any:
    """Sums of products of two tensors, each index of an operand once; anything else is not emulated."""
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    if len(operands) == 1:
        return torch.einsum(equation, *operands)
    text = equation.replace(" ", "") if isinstance(equation, str) else ""
    inputs, arrow, out = text.partition("->")
    parts = inputs.split(",")
    if not arrow or len(operands) != 2 or len(parts) != 2:
        return NotImplemented
    # An ellipsis stands for as many leading axes as are left, the last of which are shared.
    left_over = [x.ndim - len(part.replace("...", "")) for x, part in zip(operands, parts, strict=True)]
    names = [letter for letter in ascii_uppercase if letter not in text][: max(0, *left_over)]
    spelled = [
        part.replace("...", "".join(names[len(names) - count :]) if count else "")
        for part, count in zip((*parts, out), (*left_over, len(names)), strict=True)
    ]
    first, second, out = spelled
    if any(len(set(part)) != len(part) for part in (first, second, out)):
        return NotImplemented
    summed = [i for i in first if i in second and i not in out]
    batch = [i for i in first if i in second and i in out]
    left, right = ([i for i in part if i in out and i not in batch] for part in (first, second))
    if set(first) != {*summed, *batch, *left} or set(second) != {*summed, *batch, *right}:
        return NotImplemented
    shapes = [
        dict(zip(part, x.shape, strict=True)) for part, x in zip((first, second), operands, strict=True)
    ]
    sizes = shapes[0] | shapes[1]
    if any(shape[i] != sizes[i] for shape in shapes for i in shape):
        return NotImplemented
    shared, outer, inner, terms = ([sizes[i] for i in axes] for axes in (batch, left, right, summed))
    rows = operands[0].permute([first.index(i) for i in (*batch, *left, *summed)])
    columns = operands[1].permute([second.index(i) for i in (*batch, *summed, *right)])
    y = _matmul(
        module,
        owner,
        rows.reshape(*shared, prod(outer), prod(terms)),
        columns.reshape(*shared, prod(terms), prod(inner)),
    )
    found = y.reshape(*shared, *outer, *inner)
    return found.permute([(*batch, *left, *right).index(i) for i in out])


def _attention(
    module: nn.Module,
    owner: Owner,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    return layers.attention(
        query,
        key,
        value,
        owner.emulation(module, "qk"),
        owner.emulation(module, "av"),
        attn_mask=attn_mask,
        dropout_p=dropout_p,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=enable_gqa,
    )


def _convolution(
    module: nn.Module,
    owner: Owner,
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> torch.Tensor:
    emulation = owner.emulation(module, "conv", weight)
    return layers.convolution(input, weight, bias, stride, padding, dilation, groups, emulation)


def _transposed(
    module: nn.Module,
    owner: Owner,
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> torch.Tensor:
    emulation = owner.emulation(module, "conv", weight)
    return layers.transposed_convolution(
        input, weight, bias, stride, padding, output_padding, groups, dilation, emulation
    )


def _embedding(
    module: nn.Module,
    owner: Owner,
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,  # noqa: ARG001  of max_norm, which is refused
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    if max_norm is not None or scale_grad_by_freq or sparse:
        return NotImplemented
    return layers.embedding(input, weight, padding_idx, owner.emulation(module, "embedding", weight))


def _rerun(function: Any) -> FunctionType:
    """The same function that does not ask whether a mode wants to replace it."""
    same = FunctionType(
        function.__code__,
        {**function.__globals__, "has_torch_function": lambda *_: False},
        function.__name__,
        function.__defaults__,
    )
    same.__kwdefaults__ = function.__kwdefaults__
    return same


_multi_head_attention = _rerun(functional.multi_head_attention_forward)

_EMULATED: dict[Any, Callable[..., Any]] = {
    functional.linear: _linear,
    **dict.fromkeys(
        (
            torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.linalg.matmul, torch.mm,
            torch.Tensor.mm, torch.bmm, torch.Tensor.bmm, torch.mv, torch.Tensor.mv, torch.dot,
            torch.Tensor.dot,
        ),
        _matmul,
    ),
    torch.Tensor.__rmatmul__: _reversed_matmul,
    **dict.fromkeys((torch.addmm, torch.Tensor.addmm, torch.baddbmm, torch.Tensor.baddbmm), _added),
    torch.einsum: _einsum,
    functional.scaled_dot_product_attention: _attention,
    functional.conv1d: _convolution,
    functional.conv2d: _convolution,
    functional.conv_transpose1d: _transposed,
    functional.conv_transpose2d: _transposed,
    functional.embedding: _embedding,
}  # fmt: skip

_REFUSED = {
    torch.vdot, torch.inner, torch.Tensor.inner, torch.tensordot, torch.chain_matmul, torch.linalg.multi_dot,
    torch.linalg.vecdot, torch.addmv, torch.Tensor.addmv, torch.addbmm, torch.Tensor.addbmm, torch.addr,
    functional.conv3d, functional.conv_transpose3d, functional.bilinear, functional.embedding_bag, torch.lstm,
    torch.gru, torch.rnn_tanh, torch.rnn_relu, torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell,
    torch.rnn_relu_cell, torch.cdist,
}  # fmt: skip
