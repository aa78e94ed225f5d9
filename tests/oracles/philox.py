"""Philox 4x32-10 in plain Python integers, and the documented layout of counter and key.

J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3.
"""

from __future__ import annotations

MASK = 0xFFFFFFFF


def philox4x32(counter, key):
    """Four random words of a 4-word counter and a 2-word key."""
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * x0, 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * x2, 1 << 32)
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return x0, x1, x2, x3


def stream_key(seed, stream):
    """Key of a stream."""
    return philox4x32((stream & MASK, stream >> 32, 0, 0), (seed & MASK, seed >> 32))[:2]


def cast_digits(element, page, seed, stream):
    """Digits of an element of a cast: 16 bits on page 0, eight to a counter; then 32 bits, four to one."""
    block, lane = divmod(element, 4 if page else 8)
    words = philox4x32((page, 0, block & MASK, block >> 32), stream_key(seed, stream))
    return words[lane] if page else words[lane // 2] >> 16 * (lane % 2) & 0xFFFF


def mixed(x):
    """Finalizer of MurmurHash3, 32 bits."""
    x = (x ^ x >> 16) * 0x85EBCA6B & MASK
    x = (x ^ x >> 13) * 0xC2B2AE35 & MASK
    return x ^ x >> 16


def sum_word(element, number, page, seed, stream):
    """Word of addition `number` of an output element: a multiply-add hash, drawn anew for each number."""
    counter = (number & MASK, number >> 32, page, 1 << 31)
    a, b = philox4x32(counter, stream_key(seed, stream))[:2]
    return ((a | 1) * mixed((element & MASK) ^ mixed(element >> 32)) + b) & MASK


def draw_of(digits_of_page, first, bits):
    """``(bits, value)`` from the top of the digits, `first` bits and 32 on each later page; 0: of 4 pages."""
    total, number = first, digits_of_page(0)
    for page in (1, 2, 3):
        total, number = total + 32, number << 32 | digits_of_page(page)
    return (bits, number >> (total - bits)) if bits else (total, number)


def cast_draws(seed, stream, bits):
    """Draw of an element of a cast."""
    return lambda element: draw_of(lambda page: cast_digits(element, page, seed, stream), 16, bits)


def sum_draws(seed, stream, bits):
    """Draw of an addition, by output element and number."""
    return lambda element, number: draw_of(
        lambda page: sum_word(element, number, page, seed, stream), 32, bits
    )
