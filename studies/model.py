"""What a user names: a network and the pass through it, and the formats in which tensors are stored."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TypeAlias

from accel.accumulations import NetworkError
from accel.fusion import Fuse
from accel.networks import NETWORKS, ZOO, ExampleInput, zoo
from accel.workload import ElementFormat, Workload
from numerics.block import parse_any_format

TRAINING_BATCH = 256  # samples of a step if nothing else is asked for
OWN = "own"  # the formats that a model's file gives its tensors

#: How tensors are stored: all in one format, or as the file says (`OWN`), or as the design's operands.
Stored: TypeAlias = ElementFormat | str | None

_MODULE = re.compile(r"[\w.]+:[\w.]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A network and the pass through it that is asked for.

    Attributes
    ----------
    text
        A built-in network (``resnet50``, ``zoo:vgg19``), ``package.module:callable``, or a file:
        ``.onnx``, ``.json`` (a graph) or ``.toml`` (a list of matrix products and convolutions).
    training
        A whole training step in place of an inference pass.
    batch
        Samples; if not given, `TRAINING_BATCH` of a step, and else 1 or what the file says.
    tokens, context
        New positions and cached ones, of a causal transformer that is known by name.
    inputs
        Of a module, without the batch.
    dims
        Sizes of the unknown dimensions of an ONNX graph.
    fuse
        How much an importer joins, see ``accel.fusion``; graphs in JSON and TOML stay as they are.
    """

    text: str
    training: bool = False
    batch: int | None = None
    tokens: int | None = None
    context: int | None = None
    inputs: tuple[ExampleInput, ...] = ()
    dims: Mapping[str, int] = field(default_factory=dict)
    fuse: Fuse = "compiler"


def open_model(model: Model) -> Workload:
    """Read the network and make the graph of its pass.

    For inference alone batch normalisations become part of the convolutions before them, and operators that
    read parameters alone are done beforehand.

    Raises
    ------
    ValueError, OSError
        There is no such network, or it cannot be read; the message is one line.
    """
    batch = model.batch
    if batch is None and model.training:
        batch = TRAINING_BATCH
    workload = _forward(model, batch)
    if not workload.operators:
        raise NetworkError(f"{model.text} must have at least one operator, got none")
    return workload.training() if model.training else workload


def _forward(model: Model, batch: int | None) -> Workload:
    text, path, fold = model.text, Path(model.text), not model.training
    is_named = text in NETWORKS or text.startswith(ZOO)
    is_module = not is_named and _MODULE.fullmatch(text) is not None
    is_file = path.suffix in (".onnx", ".json", ".toml") or path.exists() or "/" in text
    for given, option, fits, what in (
        (model.inputs, "--input-shape", is_module, "package.module:callable"),
        (model.dims, "--dim", path.suffix == ".onnx", "an ONNX file"),
        (model.tokens, "--tokens", is_named, "a network that is known by name"),
        (model.context, "--context", is_named, "a network that is known by name"),
    ):
        if given and not fits:
            raise NetworkError(f"{option} is for {what}, got {text!r}")
    if is_named:
        return Workload.named(
            text,
            batch=batch or 1,
            tokens=model.tokens,
            context=model.context,
            fold_batch_norm=fold,
            fold_parameters=fold,
            fuse=model.fuse,
        )
    if is_module:
        return _of_module(model, batch or 1, fold=fold)
    if not is_file:
        raise _unknown(text)
    if path.suffix == ".json":
        workload = Workload.from_json(path)
    elif path.suffix == ".toml":
        workload = Workload.from_toml(path)
    else:
        return Workload.from_onnx(path, batch=batch, shapes=model.dims, fold_batch_norm=fold, fuse=model.fuse)
    return workload if batch is None else workload.with_batch(batch)


def _of_module(model: Model, batch: int, *, fold: bool) -> Workload:
    from accel.importers.torch_export import from_torch
    from accel.importers.torch_networks import example
    from accel.importers.torch_products import load_module

    module = load_module(model.text)
    if not model.inputs:
        raise NetworkError(
            f"{model.text} needs --input-shape, such as 3,224,224 or 128:int64, without the batch"
        )
    examples = (example((batch, *given.shape), given.dtype) for given in model.inputs)
    return from_torch(
        module,
        *examples,
        name=model.text,
        fold_batch_norm=fold,
        fold_parameters=fold,
        fuse=model.fuse,
    )


def _unknown(text: str) -> NetworkError:
    known = (*NETWORKS, *zoo())
    close = [name for name in known if text.lower() in name] or get_close_matches(text.lower(), known, n=3)
    return NetworkError(
        f"MODEL must be a file (.onnx, .json, .toml), package.module:callable or one of {', '.join(known)}; "
        f"got {text!r}" + (f", did you mean {' or '.join(close[:3])}?" if close else "")
    )


def parse_stored(text: str | None) -> Stored:
    """Read the text of a format, or ``own``.

    Raises
    ------
    ValueError
        It is neither.
    """
    if text is None or text == OWN:
        return text
    try:
        return parse_any_format(text)
    except ValueError as error:
        raise ValueError(f"--format: {error}") from None


def read_formats(path: Path) -> Mapping[str, str]:
    """Read a TOML file of formats by role, name or pattern of names, such as ``"layer1.*" = "bf16"``.

    Raises
    ------
    ValueError
        It is not TOML, or a value is no text.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of TOML and of UTF-8
        raise ValueError(f"{path}: is not TOML: {error}") from None
    for key, value in table.items():
        if not isinstance(value, str):
            raise ValueError(
                f"{path}: {key} must be the text of a format, such as {key} = 'bf16', got {value!r}"
                + ("; names with dots need quotes" if isinstance(value, dict) else "")
            )
    return table
