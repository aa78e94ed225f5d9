"""What a user calls a network: an ONNX file, a name, or a function that returns a PyTorch module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from accel.accumulations import Network, NetworkError
from accel.networks import NETWORKS, ZOO, ExampleInput, named_products, zoo
from studies.tasks import TASKS, Task

if TYPE_CHECKING:
    from torch import nn

_MODULE = re.compile(r"[\w.]+:[\w.]+")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A network and what it came from.

    Attributes
    ----------
    network
        Its training products.
    module
        With weights, if it is a PyTorch module that has any.
    task
        The data it learns, if they are known.
    """

    network: Network
    module: nn.Module | None = None
    task: Task | None = None


def open_network(
    text: str, *, batch: int, inputs: tuple[ExampleInput, ...] = (), dims: Mapping[str, int]
) -> Source:
    """Find a network and its training products.

    Parameters
    ----------
    text
        A task's network (``digits-cnn``), a built-in network (``resnet18``, ``zoo:resnet50``),
        ``package.module:callable``, or an ONNX file.
    inputs
        Of a module, without the batch.
    dims
        Sizes of the dimensions of an ONNX graph that are unknown.

    Raises
    ------
    NetworkError, FileNotFoundError
        There is no such network, or it cannot be read; the message is one line.
    """
    is_module = _MODULE.fullmatch(text) is not None and not text.startswith(ZOO)
    if inputs and not is_module:
        raise NetworkError(f"--input-shape is for package.module:callable, got {text!r}")
    if text in TASKS:
        task = TASKS[text]
        module = task.network()
        return Source(
            network=_of_module(module, (ExampleInput(shape=task.input_shape),), batch=batch, name=text),
            module=module,
            task=task,
        )
    if text in NETWORKS or text.startswith(ZOO):
        return Source(network=named_products(text, batch))
    if is_module:
        from accel.importers.torch_products import load_module

        module = load_module(text)
        if not inputs:
            raise NetworkError(
                f"{text} needs --input-shape, such as 3,224,224 or 128:int64, without the batch"
            )
        return Source(network=_of_module(module, inputs, batch=batch, name=text), module=module)
    path = Path(text)
    if path.suffix == ".onnx" or path.exists() or "/" in text:
        from accel.importers.onnx_products import read_onnx

        return Source(network=read_onnx(path, batch=batch, shapes=dims))
    known = tuple(dict.fromkeys((*TASKS, *NETWORKS, *zoo())))
    close = get_close_matches(text, known, n=1) or [name for name in known if text in name]
    raise NetworkError(
        f"MODEL must be an ONNX file, package.module:callable or one of {', '.join(known)}; got {text!r}"
        + (f", did you mean {close[0]}?" if close else "")
    )


def _of_module(module: nn.Module, inputs: tuple[ExampleInput, ...], *, batch: int, name: str) -> Network:
    from accel.importers.torch_networks import example
    from accel.importers.torch_products import read_torch

    examples = (example((batch, *given.shape), given.dtype) for given in inputs)
    return read_torch(module, *examples, batch=batch, name=name)


def parse_input(text: str) -> ExampleInput:
    """Read ``3,224,224`` or ``128:int64``: sizes without the batch, and a type.

    Raises
    ------
    ValueError
        It is neither.
    """
    sizes, _, dtype = text.partition(":")
    try:
        shape = tuple(int(size) for size in sizes.split(",")) if sizes else ()
    except ValueError:
        shape = (0,)
    if any(size < 1 for size in shape) or dtype not in ("", "float32", "int64"):
        raise ValueError(
            "an input shape is sizes of at least 1 without the batch, as 3,224,224 or 128:int64, "
            f"got {text!r}"
        )
    return ExampleInput(shape=shape, dtype="int64" if dtype == "int64" else "float32")


def parse_dim(text: str) -> tuple[str, int]:
    """Read ``name=size``.

    Raises
    ------
    ValueError
        It is not that.
    """
    name, equals, size = text.rpartition("=")
    if not equals or not name or not size.isdecimal() or int(size) < 1:
        raise ValueError(f"a dimension is given as name=size with a size of at least 1, got {text!r}")
    return name, int(size)
