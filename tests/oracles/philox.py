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


def random_word(element, step, seed, stream):
    """Word of addition `step` of `element`: four steps share one counter, one lane each."""
    key = philox4x32((stream & MASK, stream >> 32, 0, 0), (seed & MASK, seed >> 32))[:2]
    counter = (element & MASK, element >> 32, step // 4 & MASK, step // 4 >> 32)
    return philox4x32(counter, key)[step % 4]


def draws(seed, stream, bits):
    """Draw function ``(element, step) -> (bits, value)``: the high bits of the word."""
    return lambda element, step: (bits, random_word(element, step, seed, stream) >> (32 - bits))
