"""Number formats, rounding, accumulation and bit-true matrix products."""

from numerics.accumulate import dot, matmul
from numerics.accumulator import Accumulator
from numerics.certificate import Certificate
from numerics.elementwise import axpy, cast
from numerics.formats import (
    BFLOAT16,
    BINARY16,
    BINARY32,
    E2M1,
    E2M3,
    E3M2,
    E4M3,
    E5M2,
    E6M9,
    HFP8,
    TF32,
    FixedFormat,
    FloatFormat,
    Format,
    parse_format,
)
from numerics.rounding import Mode, Rounding

__all__ = [
    "BFLOAT16",
    "BINARY16",
    "BINARY32",
    "E2M1",
    "E2M3",
    "E3M2",
    "E4M3",
    "E5M2",
    "E6M9",
    "HFP8",
    "TF32",
    "Accumulator",
    "Certificate",
    "FixedFormat",
    "FloatFormat",
    "Format",
    "Mode",
    "Rounding",
    "axpy",
    "cast",
    "dot",
    "matmul",
    "parse_format",
]
