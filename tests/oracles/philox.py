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


def cast_word(element, page, seed, stream):
    """Word of an element of a cast: four elements share one counter, one lane each."""
    counter = (page, 0, element // 4 & MASK, element // 4 >> 32)
    return philox4x32(counter, stream_key(seed, stream))[element % 4]


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


def draw_of(word_of_page, bits):
    """``(bits, value)`` from the top of the first word; without bits, 128 of them from four pages."""
    if bits:
        return bits, word_of_page(0) >> (32 - bits)
    return 128, sum(word_of_page(page) << (96 - 32 * page) for page in range(4))


def cast_draws(seed, stream, bits):
    """Draw of an element of a cast."""
    return lambda element: draw_of(lambda page: cast_word(element, page, seed, stream), bits)


def sum_draws(seed, stream, bits):
    """Draw of an addition, by output element and number."""
    return lambda element, number: draw_of(lambda page: sum_word(element, number, page, seed, stream), bits)
