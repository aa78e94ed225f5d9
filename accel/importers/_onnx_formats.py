"""Element formats of ONNX tensors."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import TensorProto

from accel.accumulations import NetworkError
from numerics.formats import Format, parse_format

# A fixed format has at most 31 bits and a sign: an index of 64 bits counts as one of 32, which is what
# hardware keeps, with or without a sign. A truth value is one bit.
_TEXTS: Mapping[str, str] = {
    "FLOAT": "fp32",
    "FLOAT16": "fp16",
    "BFLOAT16": "bf16",
    "FLOAT8E4M3FN": "e4m3fn",
    "FLOAT8E4M3FNUZ": "e4m3fnuz",
    "FLOAT8E5M2": "e5m2",
    "FLOAT8E5M2FNUZ": "e5m2fnuz",
    "FLOAT4E2M1": "e2m1",
    "BOOL": "uint1",
    "INT64": "int32",
    "INT32": "int32",
    "UINT32": "int32",
    "UINT64": "int32",
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (2, 4, 8, 16)},
}

_FORMATS: Mapping[int, Format] = {
    TensorProto.DataType.Value(name): parse_format(text)
    for name, text in _TEXTS.items()
    if name in TensorProto.DataType.keys()  # noqa: SIM118  an enumeration of protobuf is no mapping
}


def element_format(name: str, elem_type: int) -> Format:
    """Format of the elements of the tensor called `name`.

    Raises
    ------
    NetworkError
        No format holds elements of that type: float64, complex numbers, text.
    """
    if (found := _FORMATS.get(elem_type)) is not None:
        return found
    known = ", ".join(sorted(TensorProto.DataType.Name(number) for number in _FORMATS))
    raise NetworkError(
        f"tensor {name} holds elements of type {TensorProto.DataType.Name(elem_type)}, known are {known}"
    )


def is_index(elem_type: int) -> bool:
    """Whether elements of this type pick rows, or say yes or no, rather than hold data."""
    return elem_type in (TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL)
