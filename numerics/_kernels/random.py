"""Counter-based random words, keyed by (seed, stream).

Every word is of 32 bits and a function of its key and its place alone, whatever the number of threads or
the order of evaluation. A place has pages: page 0 is what a rounding uses, the others hold the further
bits of a random number for the rare case that its first 32 do not decide.

`cast_word` is Philox 4x32-10 (J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
`sum_word` serves the additions of a matrix product, of which each output element needs its own: word
``(A * H + B) mod 2**32`` with A (odd) and B from Philox for each addition number, and H a fixed bijection
of the output element. One output's words are independent and uniform, as those of Philox are; at one
addition the words of any two outputs are as the values of a random multiply-add hash: B makes each
uniform, A makes their difference ``A * (H - H')`` nearly so in its upper bits, which are the ones used
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
def cast_word(element, page, k0, k1):
    """Word of an element of a cast array; four elements share one counter."""
    block = np.uint64(element) >> np.uint64(2)
    words = philox(
        np.uint32(page),
        np.uint32(0),
        np.uint32(block & _LOW_32),
        np.uint32(block >> np.uint64(32)),
        k0,
        k1,
    )
    lane = element & 3
    if lane == 0:
        return words[0]
    if lane == 1:
        return words[1]
    return words[2] if lane == 2 else words[3]


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
def fill_words(words, first, k0, k1):
    """Words ``4 * first, ...`` of page 0 of a cast: each round runs over all counters at once.

    Lane by lane this is `philox`; by rounds, the loops vectorise.
    """
    count = words.shape[0] // 4
    c0, c1 = np.empty(count, np.uint32), np.empty(count, np.uint32)
    c2, c3 = np.empty(count, np.uint32), np.empty(count, np.uint32)
    for j in range(count):
        block = np.uint64(first + j)
        c0[j], c1[j] = 0, 0
        c2[j], c3[j] = np.uint32(block & _LOW_32), np.uint32(block >> np.uint64(32))
    for _ in range(10):
        for j in range(count):
            p0 = _PHILOX_M0 * np.uint64(c0[j])
            p1 = _PHILOX_M1 * np.uint64(c2[j])
            c0[j] = np.uint32(p1 >> np.uint64(32)) ^ c1[j] ^ k0
            c1[j] = np.uint32(p1 & _LOW_32)
            c2[j] = np.uint32(p0 >> np.uint64(32)) ^ c3[j] ^ k1
            c3[j] = np.uint32(p0 & _LOW_32)
        k0 = np.uint32(k0 + _PHILOX_W0)
        k1 = np.uint32(k1 + _PHILOX_W1)
    for j in range(count):
        words[4 * j], words[4 * j + 1] = c0[j], c1[j]
        words[4 * j + 2], words[4 * j + 3] = c2[j], c3[j]
