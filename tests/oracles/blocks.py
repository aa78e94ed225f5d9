"""Block formats in exact rationals: scales and elements by their definitions, and their codes.

OCP MX 1.0, 6.3 for the scales that are powers of two; arXiv 2509.25149 for NVFP4.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import numpy as np

from oracles.rational import binade, is_fixed, last_code, round_rational, value_of_code

EMAX = {"mxfp8": 8, "mxfp8e5m2": 15, "mxfp6": 2, "mxfp6e3m2": 4, "mxfp4": 2, "mxint8": 0}  # OCP MX 1.0


def mx_blocks(row, element, emax, mode, block=32):
    """(X, elements) of every block of one row; X is None for NaN, then the elements are +0."""
    result = []
    for first in range(0, len(row), block):
        part = [float(v) for v in row[first : first + block]]
        shared = None
        if all(map(math.isfinite, part)):
            top = max(abs(Fraction(v)) for v in part)
            shared = max(binade(top) - emax, -127) if top else -127
        if shared is None or shared > 127:
            result.append((None, [0.0] * len(part)))
            continue
        scale = Fraction(2) ** shared
        quotients = [v if v == 0.0 else Fraction(v) / scale for v in part]
        result.append((shared, [round_rational(q, element, mode, overflow="saturate") for q in quotients]))
    return result


def mx_row(row, element, emax, mode, block=32):
    """Values of one row."""
    values = []
    for shared, elements in mx_blocks(row, element, emax, mode, block):
        if shared is None:
            values += [math.nan] * len(elements)
        else:
            values += [math.copysign(float(Fraction(e) * Fraction(2) ** shared), e) for e in elements]
    return values


def nearest_float32(x):
    """A positive Fraction to float32 by its two neighbours."""
    near = np.float32(float(x))
    near = [float(v) for v in (np.nextafter(near, np.float32(0)), near, np.nextafter(near, np.float32(1e38)))]
    least = min(abs(Fraction(v) - x) for v in near)
    nearest = [v for v in near if abs(Fraction(v) - x) == least]
    return min(nearest, key=lambda v: int(np.float32(v).view(np.uint32)) & 1)


def nv_blocks(rows, fmt, mode, tensor=None):
    """Scale of the tensor, and (scale, elements) of every block of every row in NVFP4."""
    top = max(abs(Fraction(float(v))) for row in rows for v in row)
    if tensor is None:
        tensor = nearest_float32(top / (448 * 6)) if top else 1.0
    tensor = Fraction(tensor)
    result = []
    for row in rows:
        blocks = []
        for first in range(0, len(row), 16):
            part = [float(v) for v in row[first : first + 16]]
            ratio = max(abs(Fraction(v)) for v in part) / (6 * tensor)
            scale = round_rational(ratio, fmt.scale, overflow="saturate")
            blocks.append((scale, [_nv_element(v, scale, tensor, fmt.element, mode) for v in part]))
        result.append(blocks)
    return tensor, result


def _nv_element(v, scale, tensor, element, mode):
    if v == 0.0 or scale == 0.0:
        return math.copysign(0.0, v)
    return round_rational(Fraction(v) / (Fraction(scale) * tensor), element, mode, overflow="saturate")


def nv_rows(rows, fmt, mode, tensor=None):
    """Values in NVFP4: exact products, before they are stored."""
    tensor, blocks_of_rows = nv_blocks(rows, fmt, mode, tensor)
    return [
        [Fraction(e) * Fraction(scale) * tensor for scale, elements in blocks for e in elements]
        for blocks in blocks_of_rows
    ]


@cache
def _codes_of_magnitudes(fmt):
    lacking = 0 if fmt.subnormals else (1 << fmt.frac_bits) - 1  # codes that read as zero too
    codes = [0, *range(1 + lacking, last_code(fmt) + 1)]
    return {float(value_of_code(code, fmt)): code for code in codes}


def code_of(value, fmt):
    """Code of a finite float that is a value of the format."""
    if is_fixed(fmt):
        steps = Fraction(value) * (1 << fmt.frac_bits)
        assert steps.denominator == 1
        return int(steps) % (1 << (fmt.signed + fmt.int_bits + fmt.frac_bits))
    sign = int(math.copysign(1.0, value) < 0) << (fmt.exp_bits + fmt.frac_bits)
    return sign | _codes_of_magnitudes(fmt)[abs(value)]


def bit_string(codes, bits):
    """One big integer in which code i stands at bit ``i * bits``, as bytes."""
    number = sum(code << (i * bits) for i, code in enumerate(codes))
    return number.to_bytes(-(-len(codes) * bits // 8), "little")
