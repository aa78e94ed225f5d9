"""Number formats, rounding, accumulation and bit-true matrix products."""

from numerics._ordered import Report
from numerics._packing import prepare
from numerics.accumulate import dot, matmul, parse_accumulator, sum  # noqa: A004
from numerics.accumulator import Accumulator, Register
from numerics.block import BlockFormat
from numerics.block_codes import BlockCodes, decode_blocks, encode_blocks
from numerics.catalogue import NAMED_FORMATS
from numerics.certificate import Certificate
from numerics.codes import decode, encode
from numerics.elementwise import axpy, cast
from numerics.formats import (
    BFLOAT16,
    BINARY8P3,
    BINARY8P4,
    BINARY16,
    BINARY32,
    DLFLOAT16,
    E2M1,
    E2M3,
    E3M2,
    E4M3,
    E4M3FNUZ,
    E5M2,
    E5M2FNUZ,
    E6M9,
    HFP8,
    TF32,
    FixedFormat,
    FloatFormat,
    Format,
    FormatInfo,
    parse_format,
)
from numerics.fused import FusedAdder
from numerics.integer import IntegerAccumulator, register_codes
from numerics.kulisch import ExactAccumulator
from numerics.packed import PackedTensor
from numerics.rounding import Mode, Rounding
from numerics.widths import exact_sum_bits, overflow_free_bits, overflow_free_bits_for_weights

__all__ = [
    "BFLOAT16",
    "BINARY8P3",
    "BINARY8P4",
    "BINARY16",
    "BINARY32",
    "DLFLOAT16",
    "E2M1",
    "E2M3",
    "E3M2",
    "E4M3",
    "E4M3FNUZ",
    "E5M2",
    "E5M2FNUZ",
    "E6M9",
    "HFP8",
    "NAMED_FORMATS",
    "TF32",
    "Accumulator",
    "BlockCodes",
    "BlockFormat",
    "Certificate",
    "ExactAccumulator",
    "FixedFormat",
    "FloatFormat",
    "Format",
    "FormatInfo",
    "FusedAdder",
    "IntegerAccumulator",
    "Mode",
    "PackedTensor",
    "Register",
    "Report",
    "Rounding",
    "axpy",
    "cast",
    "decode",
    "decode_blocks",
    "dot",
    "encode",
    "encode_blocks",
    "exact_sum_bits",
    "matmul",
    "overflow_free_bits",
    "overflow_free_bits_for_weights",
    "parse_accumulator",
    "parse_format",
    "prepare",
    "register_codes",
    "sum",
]
