"""ONNX files: loaded without the data of their weights, or refused in one line that says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, TensorProto
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from accel.accumulations import NetworkError
from accel.importers._onnx_protos import bodies, first_line


class MissingFileError(NetworkError, FileNotFoundError):
    """A file that is not there."""


_HEADS = (
    (b"PK\x03\x04", "it looks like a zip archive, as PyTorch, NumPy and Keras write them"),
    (b"\x80", "it looks like a Python pickle, as PyTorch once wrote them"),
    (b"\x89HDF", "it looks like HDF5, as Keras writes it"),
    (b"GGUF", "it looks like GGUF"),
    (b"\x1f\x8b", "it looks like gzip"),
    (b"version https://git-lfs", "it is a Git LFS pointer; fetch the file itself with git lfs pull"),
    (b"<", "it looks like HTML or XML"),
)


def load(path: Path) -> ModelProto:
    """Model in `path`, its functions inlined, without external data.

    Raises
    ------
    NetworkError
        This is no ONNX file.
    MissingFileError
        The file, or one in which it keeps weights, is missing.
    """
    if path.is_dir():
        raise NetworkError(f"{path} is a directory, not an ONNX file")
    if not path.exists():
        raise MissingFileError(f"there is no file {path}")
    if not path.stat().st_size:
        raise NetworkError(f"{path} is empty, not an ONNX file")
    with path.open("rb") as file:
        looks = _looks_like(file.read(64))
    try:
        model = onnx.load_model(path, load_external_data=False)
    except Exception as error:  # whatever the parser of this file's format raises
        raise NetworkError(f"{path} is not an ONNX file: {looks or first_line(error)}") from error
    if not model.HasField("graph") or not (model.ir_version or model.opset_import):
        raise NetworkError(f"{path} is not an ONNX file: {looks or 'it holds no model'}")
    for tensor in _tensors(model.graph):
        if uses_external_data(tensor):
            place = path.parent / _location(tensor)
            if not place.is_file():
                raise MissingFileError(f"{path} keeps weights in {place}, which is missing ({tensor.name})")
    return model


def inlined(name: str, model: ModelProto) -> ModelProto:
    """`model` without functions of its own."""
    from onnx.inliner import inline_local_functions

    if not model.functions:
        return model
    try:
        return inline_local_functions(model)
    except Exception as error:  # the inliner names no exception of its own
        raise NetworkError(f"{name}: its functions cannot be inlined: {first_line(error)}") from error


def with_data(tensor: TensorProto, folder: Path | None) -> TensorProto | None:
    """The same tensor with its data, or ``None`` if they cannot be had from `folder`."""
    if not uses_external_data(tensor):
        return tensor
    if folder is None:
        return None
    copied = TensorProto()
    copied.CopyFrom(tensor)
    try:
        load_external_data_for_tensor(copied, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError):
        return None
    return copied


def _looks_like(head: bytes) -> str:
    """What a file that starts like this is, or nothing if that is not known."""
    for start, what in _HEADS:
        if head.startswith(start):
            return what
    if head[4:8] == b"TFL3":
        return "it looks like TensorFlow Lite"
    if head[8:9] == b"{":
        return "it looks like safetensors"
    text = all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head)
    return f"it is text that starts with {head[:20].decode()!r}" if text else ""


def _location(tensor: TensorProto) -> str:
    return next((str(entry.value) for entry in tensor.external_data if entry.key == "location"), "")


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """All constants of a graph and its subgraphs."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
        for body in bodies(node):
            yield from _tensors(body)
