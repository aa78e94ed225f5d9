"""Networks that are known by name, to try a prediction on without a file.

``resnet18`` and its like are built from PyTorch modules without memory; ``zoo:resnet50`` and its like
are the light graphs, without weights, that the ``onnx`` package carries for its own tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from accel.accumulations import Network, NetworkError

if TYPE_CHECKING:
    from accel.importers.torch_export import Module, TorchTensor

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
    """

    title: str
    build: Callable[[], Module]
    inputs: tuple[ExampleInput, ...]

    def examples(self, batch: int) -> tuple[TorchTensor, ...]:
        """Inputs of `batch` samples, without memory."""
        from accel.importers.torch_networks import example

        return tuple(example((batch, *given.shape), given.dtype) for given in self.inputs)


def _builder(name: str) -> Callable[[], Module]:
    """Function that builds the network that ``accel.importers.torch_networks`` defines as `name`."""

    def build() -> Module:
        from accel.importers import torch_networks  # PyTorch loads slowly

        return torch_networks.on_meta(getattr(torch_networks, name))

    return build


_IMAGE = (ExampleInput(shape=(3, 224, 224)),)

NETWORKS: Mapping[str, NamedNetwork] = MappingProxyType(
    {
        "resnet18": NamedNetwork(
            title="ResNet-18, ImageNet 224 x 224", build=_builder("resnet18"), inputs=_IMAGE
        ),
        "resnet20": NamedNetwork(
            title="ResNet-20, CIFAR-10 32 x 32",
            build=_builder("resnet20"),
            inputs=(ExampleInput(shape=(3, 32, 32)),),
        ),
        "mobilenetv2": NamedNetwork(
            title="MobileNetV2, ImageNet 224 x 224", build=_builder("mobilenetv2"), inputs=_IMAGE
        ),
        "vit-tiny": NamedNetwork(
            title="ViT-Ti/16, ImageNet 224 x 224", build=_builder("VisionTransformer"), inputs=_IMAGE
        ),
        "gpt2-small": NamedNetwork(
            title="GPT-2 small, 1024 tokens",
            build=_builder("GPT2"),
            inputs=(ExampleInput(shape=(1024,), dtype="int64"),),
        ),
        "llama-block": NamedNetwork(
            title="one block of Llama 3 8B, 8192 tokens",
            build=_builder("LlamaBlock"),
            inputs=(ExampleInput(shape=(8192, 4096)),),
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
    if (found := NETWORKS.get(name)) is not None:
        from accel.importers.torch_products import read_torch

        return read_torch(found.build(), *found.examples(batch), batch=batch, name=name)
    graphs = zoo()
    if name in graphs:
        from accel.importers.onnx_products import read_onnx

        return read_onnx(graphs[name], batch=batch, name=name)
    known = (*NETWORKS, *graphs)
    close = [full for full in known if name in full] or get_close_matches(name, known, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    raise NetworkError(f"there is no network {name!r}, known are {', '.join(known)}{meant}")
