"""What really enters the three products of each layer: densities, and operands to emulate.

A PyTorch module runs forward and backward on real data. Convolutions and linear layers are watched; the
products of two activations (attention) are no modules, and stay dense.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from accel.accumulations import Network
from studies.predict.bits import PRODUCTS, Densities, Product, length_of

Batch: TypeAlias = tuple[Tensor, Tensor | None]  # inputs and labels
_WATCHED = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One use of a layer: its input, weight, and the error of its output."""

    module: nn.Module
    inputs: Tensor
    errors: Tensor


@dataclass
class _Counts:
    """Products that are not zero, and all, of the three products of a layer."""

    present: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PRODUCTS, 0.0))
    whole: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PRODUCTS, 0.0))


def measured_densities(
    module: nn.Module, network: Network, batches: Sequence[Batch]
) -> tuple[Densities, tuple[str, ...]]:
    """Fraction of the products of each layer that are not zero, over some batches.

    A product counts as zero if one of its factors is: an activation that a ReLU cut off, padding, an error
    that no pooling passed on, a place between the errors of a convolution with a stride.

    Parameters
    ----------
    module
        Not changed; it runs in training mode, its buffers on a copy.
    network
        Its training products, named after its modules.
    batches
        Inputs, and labels if there are any: without them the loss is that of the classes which the module
        itself predicts, or for outputs that are no logits half their mean square.

    Returns
    -------
    densities
        Where there is a product at all.
    notes
        What could not be measured, a line each.

    Raises
    ------
    ValueError
        The module does not run on these inputs.
    """
    counts: dict[str, _Counts] = {}
    lengths = {layer.layer: layer for layer in network.products}
    for name, seen in observe(module, batches):
        if (row := lengths.get(name)) is None:
            continue
        found = counts.setdefault(name, _Counts())
        for product, present in _present(seen).items():
            length = length_of(row, product)
            if length is None:
                continue
            weight = _weight(seen.module)
            outputs = {
                "forward": seen.errors.numel(),
                "backward": seen.inputs.numel(),
                "gradient": weight.numel(),
            }[product]
            terms = _positions(seen) if product == "gradient" else length
            found.present[product] += present
            found.whole[product] += float(outputs) * terms
    densities: dict[tuple[str, str], float] = {}
    notes = []
    for name, found in counts.items():
        for product in PRODUCTS:
            if found.present[product] > 0.0:
                densities[name, product] = min(found.present[product] / found.whole[product], 1.0)
            elif found.whole[product] > 0.0:
                notes.append(f"{name}: all {product} products were zero; the density is taken as 1")
    missed = [name for name in lengths if name not in counts]
    if missed:
        shown = ", ".join(missed[:4]) + (f" and {len(missed) - 4} more" if len(missed) > 4 else "")
        notes.append(f"not measured, as they are no modules of their own, and taken as dense: {shown}")
    return densities, tuple(notes)


def observe(module: nn.Module, batches: Sequence[Batch]) -> Iterator[tuple[str, Seen]]:
    """Every use of every watched layer in training steps on `batches`, with the layer's name."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    training, gradients = module.training, {p: p.grad for p in module.parameters()}
    module.train()
    try:
        for inputs, labels in batches:
            seen: list[tuple[str, Seen]] = []
            with _watching(module, seen):
                try:
                    outputs = module(inputs)
                    _loss(outputs, labels).backward()  # type: ignore[no-untyped-call]
                except (RuntimeError, IndexError, TypeError, ValueError) as error:
                    line = str(error).splitlines()[0] if str(error) else type(error).__name__
                    raise ValueError(
                        f"the module does not run on data of shape {tuple(inputs.shape)}: {line}"
                    ) from error
            yield from seen
    finally:
        module.train(training)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])


def real_operands(
    seen: Seen, product: str, rows: int, columns: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Some rows and columns of the two operands of a product, (rows, k) and (k, columns) float32.

    The first group of a grouped convolution serves. ``None`` for layers other than linear ones and
    convolutions over images with zero padding.
    """
    module = seen.module
    with torch.no_grad():
        if isinstance(module, nn.Linear):
            x = seen.inputs.reshape(-1, module.in_features)
            g = seen.errors.reshape(-1, module.out_features)
            w = module.weight
            a, b = {"forward": (x, w.T), "backward": (g, w), "gradient": (g.T, x)}[product]
        elif isinstance(module, nn.Conv2d) and module.padding_mode == "zeros":
            a, b = _convolution_operands(module, seen, product)
        else:
            return None
        some_rows = torch.from_numpy(rng.permutation(a.shape[0])[:rows].copy())
        some_columns = torch.from_numpy(rng.permutation(b.shape[1])[:columns].copy())
        return a[some_rows].float().numpy(), b[:, some_columns].float().numpy()


def read_batches(path: Path, size: int, most: int) -> list[Batch]:
    """Batches from a file: ``.npz`` with ``inputs`` and perhaps ``labels``, or ``.npy`` with inputs.

    Raises
    ------
    ValueError
        The file holds something else; the message says what.
    OSError
        It cannot be read.
    """
    try:
        content = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, BadZipFile):
        raise ValueError(f"{path}: data must be a .npy or .npz file of numbers") from None
    labels = None
    if isinstance(content, np.ndarray):
        inputs = content
    else:
        if "inputs" not in content:
            held = ", ".join(content.files) or "nothing"
            raise ValueError(f"{path}: data must hold an array called inputs, got {held}")
        inputs, labels = content["inputs"], content.get("labels")
    if inputs.ndim < 1 or len(inputs) == 0 or inputs.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: inputs must be numbers with samples along the first axis, "
            f"got {inputs.dtype} {inputs.shape}"
        )
    if labels is not None and len(labels) != len(inputs):
        raise ValueError(f"{path}: {len(inputs)} inputs have {len(labels)} labels")
    values = torch.from_numpy(inputs.astype(np.float32 if inputs.dtype.kind == "f" else np.int64))
    return in_batches(values, None if labels is None else torch.from_numpy(np.asarray(labels)), size, most)


def in_batches(inputs: Tensor, labels: Tensor | None, size: int, most: int) -> list[Batch]:
    """Up to `most` batches of `size` samples in their order; the last one may be shorter."""
    starts = range(0, min(len(inputs), size * most), size)
    return [(inputs[i : i + size], None if labels is None else labels[i : i + size]) for i in starts]


@contextmanager
def _watching(module: nn.Module, seen: list[tuple[str, Seen]]) -> Iterator[None]:
    """Note every use of the watched layers; a layer that is used again is another one, `_1`."""
    uses: dict[str, int] = {}

    def keep(name: str, layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        number = uses[name] = uses.get(name, -1) + 1
        shown = name if number == 0 else f"{name}_{number}"
        x = given[0].detach()

        def with_error(error: Tensor) -> None:
            seen.append((shown, Seen(module=layer, inputs=x, errors=error.detach())))

        if output.requires_grad:
            output.register_hook(with_error)  # type: ignore[no-untyped-call]

    hooks = [
        layer.register_forward_hook(partial(keep, name))
        for name, layer in module.named_modules()
        if isinstance(layer, _WATCHED)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _loss(outputs: object, labels: Tensor | None) -> Tensor:
    if not isinstance(outputs, Tensor):
        raise TypeError(f"a module must return one tensor, got {type(outputs).__name__}")
    classes = outputs.flatten(0, -2) if outputs.ndim > 2 else outputs
    if labels is not None and not labels.is_floating_point():
        return functional.cross_entropy(classes, labels.reshape(-1).long())
    if labels is not None:
        return functional.mse_loss(outputs, labels.to(outputs.dtype).reshape(outputs.shape)) / 2.0
    if outputs.ndim >= 2 and outputs.shape[-1] > 1:
        return functional.cross_entropy(classes, classes.detach().argmax(-1))
    return outputs.square().mean() / 2.0


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def _positions(seen: Seen) -> int:
    """Terms of one weight's gradient in this use."""
    module, weight = seen.module, _weight(seen.module)
    if isinstance(module, nn.Linear):
        return seen.inputs.numel() // module.in_features
    if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return seen.inputs.numel() // weight.shape[0]
    return seen.errors.numel() // weight.shape[0]


def _present(seen: Seen) -> dict[Product, float]:
    """Products without a zero factor, by the layer's own function on masks of ones and zeros."""
    weight = _weight(seen.module)
    x, w, g = ((tensor != 0).to(torch.float32) for tensor in (seen.inputs, weight.detach(), seen.errors))
    with torch.enable_grad():
        x.requires_grad_()
        w.requires_grad_()
        y = _applied(seen.module, x, w)
        of_inputs, of_weights = torch.autograd.grad(y, (x, w), g.reshape(y.shape))
    counted = zip(PRODUCTS, (y, of_inputs, of_weights), strict=True)
    return {product: float(numbers.detach().sum(dtype=torch.float64)) for product, numbers in counted}


def _applied(module: nn.Module, x: Tensor, w: Tensor) -> Tensor:
    """The layer without its bias, with other weights."""
    if isinstance(module, nn.Linear):
        return functional.linear(x, w)
    if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        turn: Any = {
            1: functional.conv_transpose1d,
            2: functional.conv_transpose2d,
            3: functional.conv_transpose3d,
        }[w.ndim - 2]
        widened: Tensor = turn(
            x, w, None, module.stride, module.padding, module.output_padding, module.groups, module.dilation
        )
        return widened
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    padding: Any = module.padding
    if module.padding_mode != "zeros":
        x = functional.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode)
        padding = (0,) * (w.ndim - 2)
    convolve: Any = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[w.ndim - 2]
    convolved: Tensor = convolve(x, w, None, module.stride, padding, module.dilation, module.groups)
    return convolved


def _convolution_operands(module: nn.Conv2d, seen: Seen, product: str) -> tuple[Tensor, Tensor]:
    """Operands of the lowered products of the first group."""
    outputs, inputs = module.out_channels // module.groups, module.in_channels // module.groups
    x, g, w = seen.inputs[:, :inputs], seen.errors[:, :outputs], module.weight[:outputs]
    (k1, k2), (s1, s2), (d1, d2) = module.kernel_size, module.stride, module.dilation
    padding = module._reversed_padding_repeated_twice  # left, right, top, bottom; of "same" as well
    windows = functional.unfold(functional.pad(x, padding), (k1, k2), dilation=(d1, d2), stride=(s1, s2))
    windows = windows.transpose(1, 2).reshape(-1, inputs * k1 * k2)  # (positions, k)
    if product == "forward":
        return windows, w.reshape(outputs, -1).T
    errors = g.transpose(0, 1).reshape(outputs, -1)
    if product == "gradient":
        return errors, windows
    # An input pixel meets the errors as a convolution would, with zeros between them, and the taps turned.
    apart = g.new_zeros(*g.shape[:2], (g.shape[2] - 1) * s1 + 1, (g.shape[3] - 1) * s2 + 1)
    apart[:, :, ::s1, ::s2] = g
    left, _, top, _ = padding
    before = d1 * (k1 - 1) - top, d2 * (k2 - 1) - left
    after = (x.shape[2] - apart.shape[2] + d1 * (k1 - 1) - before[0],
             x.shape[3] - apart.shape[3] + d2 * (k2 - 1) - before[1])  # fmt: skip
    apart = functional.pad(apart, (before[1], after[1], before[0], after[0]))
    met = functional.unfold(apart, (k1, k2), dilation=(d1, d2)).transpose(1, 2).reshape(-1, outputs * k1 * k2)
    return met, w.flip(2, 3).transpose(1, 0).reshape(inputs, -1).T
