"""Lists of matrix products and convolutions, as an architect writes them down.

.. code-block:: toml

    name = "my layers"
    batch = 8                  # samples that m holds, 1 by default
    format = "int8"            # of every element, fp32 by default

    [[gemm]]                   # output (m, n) = input (m, k) times weight (k, n)
    name = "qkv"
    m = 1576
    n = 1152
    k = 384
    repeat = 12                # how often the layer occurs, 1 by default

    [[gemm]]
    name = "scores"
    m = 197
    n = 197
    k = 64
    count = 48                 # independent products, 1 by default
    weight = false             # both operands are activations; by default the second is a weight

    [[conv]]
    name = "stem"
    channels = 3               # of the input
    height = 224
    width = 224
    filters = 64
    kernel = 7                 # or [7, 7]; so are stride (1), padding (0) and dilation (1)
    stride = 2
    padding = 3
    groups = 1                 # batch is that of the file by default

The layers are independent: each reads an input of its own and its result is an output, for a list does not
say who reads what, and equal sizes do not mean that. A layer with ``repeat = 12`` is twelve operators,
``qkv.1`` to ``qkv.12``, each with an input and a weight of its own. The first layer's input is the data;
in a training step the inputs of all others get an error, as if they came from layers before. Products and
convolutions keep their order, the kind that the file lists first goes first.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from accel.importers._schema import NotNegative, Positive, Table, format_text, read_text, validated
from accel.workload import ElementFormat, Gemm, Operator, Role, Tensor, Window, Workload
from numerics.block import parse_any_format

_FormatText: TypeAlias = Annotated[str, AfterValidator(format_text)]


def _pair(value: object) -> object:
    return value if isinstance(value, list) else [value, value]


_Sizes: TypeAlias = Annotated[list[Positive], BeforeValidator(_pair), Field(min_length=2, max_length=2)]
_Borders: TypeAlias = Annotated[list[NotNegative], BeforeValidator(_pair), Field(min_length=2, max_length=2)]


class _Layer(Table):
    name: Annotated[str, Field(min_length=1)]
    repeat: Positive = 1
    format: _FormatText | None = None


class _Gemm(_Layer):
    m: Positive
    n: Positive
    k: Positive
    count: Positive = 1
    weight: bool = True


class _Conv(_Layer):
    channels: Positive
    height: Positive
    width: Positive
    filters: Positive
    kernel: _Sizes
    batch: Positive | None = None
    stride: _Sizes = Field(default=[1, 1])
    padding: _Borders = Field(default=[0, 0])
    dilation: _Sizes = Field(default=[1, 1])
    groups: Positive = 1


class _List(Table):
    name: str | None = None
    batch: Positive = 1
    format: _FormatText = "fp32"
    gemm: list[_Gemm] = Field(default=[])
    conv: list[_Conv] = Field(default=[])


def from_toml(path: str | Path) -> Workload:
    """Workload of the layers in a TOML file, see the module's text.

    Raises
    ------
    ValueError
        The file cannot be read, is not TOML, does not fit, or lists no layer; one line with the file,
        the key's path and what is wrong.
    """
    try:
        data = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: is not TOML: {error}") from None
    layers = validated(_List, data, path)
    if not layers.gemm and not layers.conv:
        raise ValueError(f"{path}: must list at least one [[gemm]] or [[conv]], got none")
    builder = _Builder(layers)
    for kind in data:
        for place, layer in enumerate(getattr(layers, kind) if kind in ("gemm", "conv") else ()):
            try:
                builder.add(layer)
            except ValueError as error:
                key = str(error) if str(error).startswith(".") else f": {error}"
                raise ValueError(f"{path}: {kind}[{place}]{key}") from None
    return builder.workload(layers.name or Path(path).stem)


class _Builder:
    """Collects operators and tensors."""

    def __init__(self, layers: _List) -> None:
        self.batch = layers.batch
        self.format = parse_any_format(layers.format)
        self.operators: list[Operator] = []
        self.tensors: dict[str, Tensor] = {}
        self.inputs: list[str] = []

    def add(self, layer: _Gemm | _Conv) -> None:
        """Append all operators of one layer; an error begins with the key."""
        fmt = parse_any_format(layer.format) if layer.format else self.format
        names = [f"{layer.name}.{number + 1}" for number in range(layer.repeat)]
        for name in names if layer.repeat > 1 else [layer.name]:
            if any(f"{name}.{part}" in self.tensors for part in ("input", "output")):
                raise ValueError(f".name {layer.name!r} makes an operator {name} a second time")
            if isinstance(layer, _Gemm):
                self._add_gemm(name, layer, fmt)
            else:
                self._add_conv(name, layer, fmt)

    def workload(self, name: str) -> Workload:
        """All of them."""
        return Workload(
            name=name,
            operators=tuple(self.operators),
            tensors=self.tensors,
            inputs=tuple(self.inputs),
            outputs=tuple(operator.outputs[0] for operator in self.operators),
            batch=self.batch,
        )

    def _add_gemm(self, name: str, layer: _Gemm, fmt: ElementFormat) -> None:
        several = (layer.count,) if layer.count > 1 else ()
        gemm = Gemm(m=layer.m, n=layer.n, k=layer.k, count=layer.count)
        shapes = (*several, layer.m, layer.k), (*several, layer.k, layer.n), (*several, layer.m, layer.n)
        kind, second = ("linear", Role.WEIGHT) if layer.weight else ("matmul", Role.ACTIVATION)
        self._append(name, kind, shapes, second, fmt, gemm)

    def _add_conv(self, name: str, layer: _Conv, fmt: ElementFormat) -> None:
        batch = self.batch if layer.batch is None else layer.batch
        for key in ("channels", "filters"):
            if getattr(layer, key) % layer.groups:
                raise ValueError(
                    f".{key} must be a multiple of groups {layer.groups}, got {getattr(layer, key)}"
                )
        before = (layer.height, layer.width)
        spans = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel, strict=True)]
        padded = [size + 2 * border for size, border in zip(before, layer.padding, strict=True)]
        if any(span > size for span, size in zip(spans, padded, strict=True)):
            raise ValueError(
                f".kernel must fit into the padded input {padded}, got {spans} with its dilation"
            )
        after = tuple((p - s) // step + 1 for p, s, step in zip(padded, spans, layer.stride, strict=True))
        window = Window(
            batch=batch,
            channels=layer.channels // layer.groups,
            input=before,
            output=after,
            kernel=tuple(layer.kernel),
            stride=tuple(layer.stride),
            dilation=tuple(layer.dilation),
            padding=tuple(layer.padding),
        )
        gemm = Gemm(m=window.m, n=layer.filters // layer.groups, k=window.k, count=layer.groups)
        shapes = (
            (batch, layer.channels, *before),
            (layer.filters, window.channels, *layer.kernel),
            (batch, layer.filters, *after),
        )
        self._append(name, "conv2d", shapes, Role.WEIGHT, fmt, gemm, window)

    def _append(
        self,
        name: str,
        kind: str,
        shapes: tuple[tuple[int, ...], ...],
        second: Role,
        fmt: ElementFormat,
        gemm: Gemm,
        window: Window | None = None,
    ) -> None:
        """Operator and its three tensors, of these shapes."""
        first = Role.ACTIVATION if self.operators else Role.INPUT
        words = ("input", "weight" if second is Role.WEIGHT else "other", "output")
        names = [f"{name}.{word}" for word in words]
        roles = (first, second, Role.ACTIVATION)
        for full, shape, role in zip(names, shapes, roles, strict=True):
            self.tensors[full] = Tensor(name=full, shape=shape, role=role, format=fmt)
        self.inputs += names[:2]
        self.operators.append(
            Operator(
                name=name, kind=kind, inputs=tuple(names[:2]), outputs=(names[2],), gemm=gemm, window=window
            )
        )
