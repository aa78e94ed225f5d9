"""The named formats, one list for tables and tests."""

from __future__ import annotations

from numerics.block import BLOCK_FORMATS, BlockFormat
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
    Format,
)

#: Every name parses to its format, the blocks with `BlockFormat.parse`, the others with `parse_format`.
NAMED_FORMATS: dict[str, Format | BlockFormat] = {
    "e2m1": E2M1,
    "e2m3": E2M3,
    "e3m2": E3M2,
    "e4m3fn": E4M3,
    "e5m2": E5M2,
    "e4m3fnuz": E4M3FNUZ,
    "e5m2fnuz": E5M2FNUZ,
    "binary8p3": BINARY8P3,
    "binary8p4": BINARY8P4,
    "hfp8": HFP8,
    "binary16": BINARY16,
    "bfloat16": BFLOAT16,
    "e6m9": E6M9,
    "dlfloat16": DLFLOAT16,
    "tf32": TF32,
    "binary32": BINARY32,
    "int4": FixedFormat(int_bits=3, frac_bits=0),
    "int8": FixedFormat(int_bits=7, frac_bits=0),
    **BLOCK_FORMATS,
}
