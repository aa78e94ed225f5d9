"""Networks that are known by name, to try a prediction or a cost on without a file.

``resnet18`` and its like are built from PyTorch modules without memory; ``zoo:resnet50`` and its like
are the light graphs, without weights, that the ``onnx`` package carries for its own tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from accel._given import whole
from accel.accumulations import Network, NetworkError

if TYPE_CHECKING:
    from accel.fusion import Fuse
    from accel.importers.torch_export import Module, TorchTensor
    from accel.workload import Workload

ZOO = "zoo:"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleInput:
    """One input of a network.

    Attributes
    ----------
    shape
        Of one sample, without the batch.
    dtype
        Name of its PyTorch type; tokens are ``int64``.
    """

    shape: tuple[int, ...]
    dtype: Literal["float32", "int64"] = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """Positions that a causal transformer works on, by default and at most, and its cache.

    Attributes
    ----------
    tokens
        Positions at once if nothing else is asked for: those it was trained with.
    limit
        Most positions, those of the cache included; ``None`` if its weights set none.
    blocks, heads, size
        Of keys and of values: how many blocks have a cache, of how many heads of which size.
    """

    tokens: int
    limit: int | None
    blocks: int
    heads: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedNetwork:
    """A network that is known by name.

    Attributes
    ----------
    title
        What it is and what it reads, in a few words.
    build
        Makes the module, on the meta device: its weights have shapes and no memory.
    inputs
        What it reads.
    positions
        Of a causal transformer, whose first input has them as first axis.
    """

    title: str
    build: Callable[[], Module]
    inputs: tuple[ExampleInput, ...]
    positions: Positions | None = None

    def examples(
        self, batch: int, tokens: int | None = None, context: int | None = None
    ) -> tuple[TorchTensor, ...]:
        """Inputs of `batch` samples, without memory.

        Parameters
        ----------
        tokens
            New positions per sample; by default those of `positions`, and one beside a cache.
        context
            Positions in the cache, whose keys and values, two tensors per block, follow the inputs;
            without it there is no cache.

        Raises
        ------
        TypeError
            A number is no whole number.
        NetworkError
            A number is below 1, the positions are more than the limit, or the network has none.
        """
        from accel.importers.torch_networks import example

        for name, number in (("batch", batch), ("tokens", tokens), ("context", context)):
            if number is not None:
                _checked(name, number)
        shapes = [(batch, *given.shape) for given in self.inputs]
        found = self.positions
        if found is None:
            if tokens is not None or context is not None:
                able = ", ".join(name for name, network in NETWORKS.items() if network.positions)
                name = "context" if tokens is None else "tokens"
                raise NetworkError(f"{name} can be chosen of {able} only, not of {self.title}")
        else:
            tokens = tokens or (1 if context else found.tokens)
            total = tokens + (context or 0)
            if found.limit is not None and total > found.limit:
                raise NetworkError(
                    f"tokens and context must be at most {found.limit} together for {self.title}, got {total}"
                )
            shapes[0] = (batch, tokens, *self.inputs[0].shape[1:])
        read = [example(shape, given.dtype) for shape, given in zip(shapes, self.inputs, strict=True)]
        if found is not None and context:
            cache = (batch, found.heads, context, found.size)
            read += [example(cache, "float32") for _ in range(2 * found.blocks)]
        return tuple(read)


def _builder(name: str) -> Callable[[], Module]:
    """Function that builds the network that ``accel.importers.torch_networks`` defines as `name`."""

    def build() -> Module:
        from accel.importers import torch_networks  # PyTorch loads slowly

        return torch_networks.on_meta(getattr(torch_networks, name))

    return build


_IMAGE = (ExampleInput(shape=(3, 224, 224)),)

_CIFAR = (ExampleInput(shape=(3, 32, 32)),)
_GPT2 = Positions(tokens=1024, limit=1024, blocks=12, heads=12, size=64)

NETWORKS: Mapping[str, NamedNetwork] = MappingProxyType(
    {
        "resnet18": NamedNetwork(
            title="ResNet-18, ImageNet 224 x 224", build=_builder("resnet18"), inputs=_IMAGE
        ),
        "resnet20": NamedNetwork(
            title="ResNet-20, CIFAR-10 32 x 32", build=_builder("resnet20"), inputs=_CIFAR
        ),
        "resnet50": NamedNetwork(
            title="ResNet-50, ImageNet 224 x 224", build=_builder("resnet50"), inputs=_IMAGE
        ),
        "resnet8": NamedNetwork(
            title="ResNet-8 of MLPerf Tiny, CIFAR-10 32 x 32", build=_builder("resnet8"), inputs=_CIFAR
        ),
        "digits-cnn": NamedNetwork(
            title="CNN of two convolutions, digits 8 x 8",
            build=_builder("digits_cnn"),
            inputs=(ExampleInput(shape=(1, 8, 8)),),
        ),
        "mobilenetv2": NamedNetwork(
            title="MobileNetV2, ImageNet 224 x 224", build=_builder("mobilenetv2"), inputs=_IMAGE
        ),
        "vit-tiny": NamedNetwork(
            title="ViT-Ti/16, ImageNet 224 x 224", build=_builder("VisionTransformer"), inputs=_IMAGE
        ),
        "vit-block": NamedNetwork(
            title="one block of ViT-B/16, 197 tokens",
            build=_builder("vit_block"),
            inputs=(ExampleInput(shape=(197, 768)),),
        ),
        "gpt2-small": NamedNetwork(
            title="GPT-2 small, 1024 tokens",
            build=_builder("GPT2"),
            inputs=(ExampleInput(shape=(1024,), dtype="int64"),),
            positions=_GPT2,
        ),
        "gpt2-block": NamedNetwork(
            title="one block of GPT-2 small, 1024 tokens",
            build=_builder("gpt2_block"),
            inputs=(ExampleInput(shape=(1024, 768)),),
            positions=replace(_GPT2, limit=None, blocks=1),
        ),
        "llama-block": NamedNetwork(
            title="one block of Llama 3 8B, 8192 tokens",
            build=_builder("LlamaBlock"),
            inputs=(ExampleInput(shape=(8192, 4096)),),
            positions=Positions(tokens=8192, limit=None, blocks=1, heads=8, size=128),
        ),
    }
)


def zoo() -> Mapping[str, Path]:
    """Light graphs of the installed ``onnx`` package by name, as ``zoo:resnet50``."""
    folder = Path(str(files("onnx"))) / "backend" / "test" / "data" / "light"
    return {f"{ZOO}{path.stem.removeprefix('light_')}": path for path in sorted(folder.glob("light_*.onnx"))}


def named_products(name: str, batch: int = 256) -> Network:
    """Training products of the network called `name`, for `batch` samples per step.

    Raises
    ------
    NetworkError
        There is no such network; the message lists those there are.
    """
    found = _find(name)
    if isinstance(found, NamedNetwork):
        from accel.importers.torch_products import read_torch

        return read_torch(found.build(), *found.examples(batch), batch=batch, name=name)
    from accel.importers.onnx_products import read_onnx

    return read_onnx(found, batch=_checked("batch", batch), name=name)


def named_workload(
    name: str,
    *,
    batch: int = 1,
    tokens: int | None = None,
    context: int | None = None,
    fold_batch_norm: bool = True,
    fold_parameters: bool = True,
    fuse: Fuse = "compiler",
) -> Workload:
    """Graph of one inference pass of the network called `name`.

    Parameters
    ----------
    batch
        Samples.
    tokens
        New positions per sample of a causal transformer: all of them to prefill, as is the default.
    context
        Positions before them whose keys and values are in a cache, which is read as graph inputs:
        decoding, where `tokens` is 1 by default.
    fold_batch_norm
        Whether batch normalisations become part of the convolutions before them, as for inference;
        the graphs called ``zoo:...`` always have them so. It counts where `fuse` is ``"compiler"``.
    fold_parameters
        Whether operators that read parameters alone are done beforehand, as for inference and always in the
        graphs called ``zoo:...``. It counts where `fuse` is not ``"none"``.
    fuse
        What is joined: ``"compiler"``, as for inference; ``"elementwise"``, every element-wise operator with
        the producer of its operand and all parameters kept, as studies of on-chip memory count; or
        ``"none"``, see ``accel.importers.onnx_graph`` and ``accel.importers.torch_export``.

    Raises
    ------
    NetworkError
        There is no such network, with a list of those there are; or a number is out of range.
    TypeError
        A number is no whole number.
    ValueError
        `fuse` is none of the three.

    Examples
    --------
    >>> decode = named_workload("llama-block", context=4096)
    >>> decode.macs == 4096 * (4096 + 1024 + 1024 + 4096 + 3 * 14336) + 2 * 4096 * (4096 + 1)
    True
    """
    found = _find(name)
    if isinstance(found, NamedNetwork):
        examples = found.examples(batch, tokens, context)
        from accel.importers.torch_export import from_torch

        return from_torch(
            found.build(),
            *examples,
            name=name,
            fold_batch_norm=fold_batch_norm,
            fold_parameters=fold_parameters,
            fuse=fuse,
        )
    if tokens is not None or context is not None:
        able = ", ".join(known for known, network in NETWORKS.items() if network.positions)
        raise NetworkError(f"tokens and context can be chosen of {able} only, not of {name}")
    from accel.importers.onnx_graph import from_onnx

    return from_onnx(found, batch=_checked("batch", batch), name=name, fuse=fuse)


def _find(name: str) -> NamedNetwork | Path:
    """The network called `name`, or the file of its graph."""
    graphs = zoo()
    if isinstance(name, str) and (found := NETWORKS.get(name) or graphs.get(name)) is not None:
        return found
    known = (*NETWORKS, *graphs)
    text = str(name)
    close = [full for full in known if text in full] or get_close_matches(text, known, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    raise NetworkError(f"there is no network {name!r}, known are {', '.join(known)}{meant}")


def _checked(name: str, number: int) -> int:
    """A number of at least 1; a `NetworkError` tells what is out of range."""
    try:
        return whole(name, number)
    except ValueError as error:
        raise NetworkError(str(error)) from None
