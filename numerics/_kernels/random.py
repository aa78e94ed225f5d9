"""Counter-based random words, keyed by (seed, stream).

A random number is a sequence of binary digits, a page at a time, and a function of its key and its place
alone, whatever the number of threads or the order of evaluation. Most roundings are decided on page 0.

`cast_digits`, for the elements of an array, are those of Philox 4x32-10 (J. Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3", SC 2011): 16 bits on page 0, eight elements to a counter, and 32 on
each later one. `sum_word` serves the additions of a matrix product, of which each output element needs
its own: word ``(A * H + B) mod 2**32`` with A (odd) and B from Philox for each addition number, and H a
fixed bijection of the output element. One output's words are independent and uniform, as those of Philox
are; at one addition the words of any two outputs are as the values of a random multiply-add hash: B makes
each uniform, A makes their difference ``A * (H - H')`` nearly so in its upper bits, which are the ones
used, unless H and H' agree in nearly all of their lower bits, as one pair in 2**29 does by chance
(M. Dietzfelbinger, "Universal hashing and k-wise independent random variables via integer arithmetic
without primes", STACS 1996).
"""

import numpy as np
from numba import njit

_PHILOX_M0 = np.uint64(0xD2511F53)
_PHILOX_M1 = np.uint64(0xCD9E8D57)
_PHILOX_W0 = np.uint32(0x9E3779B9)
_PHILOX_W1 = np.uint32(0xBB67AE85)
_LOW_32 = np.uint64(0xFFFFFFFF)
_SUMS = np.uint32(0x80000000)  # last counter word of all sums; casts stay below
_MIX_0, _MIX_1 = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)


@njit(cache=True)
def philox(c0, c1, c2, c3, k0, k1):
    """Philox 4x32-10: four random words from a 128-bit counter and a 64-bit key."""
    for _ in range(10):
        p0 = _PHILOX_M0 * np.uint64(c0)
        p1 = _PHILOX_M1 * np.uint64(c2)
        c0, c1, c2, c3 = (
            np.uint32(p1 >> np.uint64(32)) ^ c1 ^ k0,
            np.uint32(p1 & _LOW_32),
            np.uint32(p0 >> np.uint64(32)) ^ c3 ^ k1,
            np.uint32(p0 & _LOW_32),
        )
        k0 = np.uint32(k0 + _PHILOX_W0)
        k1 = np.uint32(k1 + _PHILOX_W1)
    return c0, c1, c2, c3


@njit(cache=True)
def stream_key(seed, stream):
    """Key of a stream: the first words of Philox keyed by the seed, at the stream's number."""
    low, high = np.uint64(stream) & _LOW_32, np.uint64(stream) >> np.uint64(32)
    words = philox(
        np.uint32(low),
        np.uint32(high),
        np.uint32(0),
        np.uint32(0),
        np.uint32(np.uint64(seed) & _LOW_32),
        np.uint32(np.uint64(seed) >> np.uint64(32)),
    )
    return words[0], words[1]


@njit(cache=True)
def cast_digits(element, page, k0, k1):
    """Digits of an element of a cast array: 16 on page 0, 32 on the others."""
    element = np.uint64(element)
    block = element >> np.uint64(3) if page == 0 else element >> np.uint64(2)
    words = philox(
        np.uint32(page),
        np.uint32(0),
        np.uint32(block & _LOW_32),
        np.uint32(block >> np.uint64(32)),
        k0,
        k1,
    )
    lane = (element >> np.uint64(1) if page == 0 else element) & np.uint64(3)
    word = words[0]
    if lane == 1:
        word = words[1]
    elif lane == 2:
        word = words[2]
    elif lane == 3:
        word = words[3]
    if page > 0:
        return word
    return np.uint32((word >> np.uint32(16)) if element & np.uint64(1) else (word & np.uint32(0xFFFF)))


@njit(cache=True)
def step_words(number, page, k0, k1):
    """Multiplier A, odd, and addend B of an addition."""
    number = np.uint64(number)
    words = philox(
        np.uint32(number & _LOW_32), np.uint32(number >> np.uint64(32)), np.uint32(page), _SUMS, k0, k1
    )
    return words[0] | np.uint32(1), words[1]


@njit(cache=True)
def _mixed(x):
    x = np.uint32(x ^ (x >> np.uint32(16))) * _MIX_0
    x = np.uint32(np.uint32(x) ^ (np.uint32(x) >> np.uint32(13))) * _MIX_1
    return np.uint32(np.uint32(x) ^ (np.uint32(x) >> np.uint32(16)))


@njit(cache=True)
def output_hash(element):
    """H of an output element: below 2**32 a bijection, the finalizer of MurmurHash3."""
    element = np.uint64(element)
    high = _mixed(np.uint32(element >> np.uint64(32)))
    return _mixed(np.uint32(element & _LOW_32) ^ high)


@njit(cache=True)
def sum_word(element, number, page, k0, k1):
    """Word of addition `number` of an output element."""
    multiplier, addend = step_words(number, page, k0, k1)
    product = np.uint64(multiplier) * np.uint64(output_hash(element)) + np.uint64(addend)
    return np.uint32(product & _LOW_32)


@njit(cache=True)
def fill_halves(out, first, k0, k1):
    """Digits on page 0 of the elements ``8 * first, ...``, eight of them to a counter, as uint16."""
    for j in range(out.shape[0] // 8):
        block = np.uint64(first + j)
        low, high = np.uint32(block & _LOW_32), np.uint32(block >> np.uint64(32))
        w0, w1, w2, w3 = philox(np.uint32(0), np.uint32(0), low, high, k0, k1)
        out[8 * j], out[8 * j + 1] = np.uint16(w0), np.uint16(w0 >> 16)
        out[8 * j + 2], out[8 * j + 3] = np.uint16(w1), np.uint16(w1 >> 16)
        out[8 * j + 4], out[8 * j + 5] = np.uint16(w2), np.uint16(w2 >> 16)
        out[8 * j + 6], out[8 * j + 7] = np.uint16(w3), np.uint16(w3 >> 16)
