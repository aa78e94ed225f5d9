"""Counter-based random words: Philox, keyed by (seed, stream).

J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import numpy as np
from numba import njit

_PHILOX_M0 = np.uint64(0xD2511F53)
_PHILOX_M1 = np.uint64(0xCD9E8D57)
_PHILOX_W0 = np.uint32(0x9E3779B9)
_PHILOX_W1 = np.uint32(0xBB67AE85)
_LOW_32 = np.uint64(0xFFFFFFFF)


@njit(cache=True)
def philox(c0, c1, c2, c3, k0, k1):
    """Philox 4x32-10: four random words from a 128-bit counter and a 64-bit key.

    J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
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
def random_word(element, step, k0, k1):
    """Word number `step` of the sequence that belongs to a stream's key and an element."""
    block = np.uint64(step) >> np.uint64(2)
    words = philox(
        np.uint32(np.uint64(element) & _LOW_32),
        np.uint32(np.uint64(element) >> np.uint64(32)),
        np.uint32(block & _LOW_32),
        np.uint32(block >> np.uint64(32)),
        k0,
        k1,
    )
    lane = step & 3
    if lane == 0:
        return words[0]
    if lane == 1:
        return words[1]
    return words[2] if lane == 2 else words[3]


@njit(cache=True)
def fill_words(words, first, k0, k1):
    """Words ``4 * first, ...`` of element 0 of a stream: each round runs over all counters at once.

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
