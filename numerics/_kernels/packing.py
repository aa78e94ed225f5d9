"""Numba kernels of `numerics.packed`: between codes, one to an array element, and a bit string.

Element i of an n-bit string occupies bits ``i*n .. i*n + n - 1``; bit b is bit ``b % 8`` (from the least
significant) of byte ``b // 8``. Eight elements are therefore n whole bytes, and the fast loops handle
eight at a time in 64-bit words: the n-bit fields are spread into lanes of 8 or 16 bits (or squeezed from
them) by halves, two masks and two shifts a step. The last elements, where a word would reach beyond the
buffer, go one by one. Indices are unsigned: a signed one costs a test for the wrap-around.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

import numpy as np
from numba import njit

_ONE, _TWO, _THREE, _FOUR, _FIVE, _SIX, _SEVEN, _EIGHT = (np.uint64(k) for k in range(1, 9))
_16, _24, _32, _40, _48, _56, _64 = (np.uint64(k) for k in range(16, 65, 8))
_BYTE, _LANE = np.uint64(0xFF), np.uint64(0xFFFF)
_EVERY_16 = np.uint64(0x0001000100010001)
_EVERY_32 = np.uint64(0x0000000100000001)


@njit(cache=True)
def _load(data, at):
    """Eight bytes as a word, the first one lowest; the compiler makes it one unaligned load."""
    return (
        np.uint64(data[at])
        | np.uint64(data[at + _ONE]) << _EIGHT
        | np.uint64(data[at + _TWO]) << _16
        | np.uint64(data[at + _THREE]) << _24
        | np.uint64(data[at + _FOUR]) << _32
        | np.uint64(data[at + _FIVE]) << _40
        | np.uint64(data[at + _SIX]) << _48
        | np.uint64(data[at + _SEVEN]) << _56
    )


@njit(cache=True)
def _store(data, at, word):
    """A word as eight bytes, the lowest one first; one unaligned store."""
    data[at] = word & _BYTE
    data[at + _ONE] = word >> _EIGHT & _BYTE
    data[at + _TWO] = word >> _16 & _BYTE
    data[at + _THREE] = word >> _24 & _BYTE
    data[at + _FOUR] = word >> _32 & _BYTE
    data[at + _FIVE] = word >> _40 & _BYTE
    data[at + _SIX] = word >> _48 & _BYTE
    data[at + _SEVEN] = word >> _56


@njit(cache=True)
def _load_lanes(lanes, at):
    """Four uint16 as a word."""
    return (
        np.uint64(lanes[at])
        | np.uint64(lanes[at + _ONE]) << _16
        | np.uint64(lanes[at + _TWO]) << _32
        | np.uint64(lanes[at + _THREE]) << _48
    )


@njit(cache=True)
def _store_lanes(lanes, at, word):
    """A word as four uint16."""
    lanes[at] = word & _LANE
    lanes[at + _ONE] = word >> _16 & _LANE
    lanes[at + _TWO] = word >> _32 & _LANE
    lanes[at + _THREE] = word >> _48


@njit(cache=True)
def _mask(bits):
    """The low `bits` (1..63) ones."""
    return (_ONE << bits) - _ONE


@njit(cache=True)
def _code_at(data, i, n):
    """Element i by itself; reads no byte that holds none of its bits."""
    first = i * n
    at, shift = first >> _THREE, first & _SEVEN
    word = np.uint64(data[at])
    if shift + n > _EIGHT:
        word |= np.uint64(data[at + _ONE]) << _EIGHT
    if shift + n > _16:
        word |= np.uint64(data[at + _TWO]) << _16
    return word >> shift & _mask(n)


@njit(cache=True)
def _groups(size, n, length, reach):
    """Whole groups of eight elements whose words, `reach` bytes from n bytes to n, stay in the buffer."""
    return min(size // _EIGHT, (length - reach) // n + _ONE) if length >= reach else np.uint64(0)


@njit(cache=True)
def _spread_8(word, n):
    """Eight fields of 1..8 bits into the eight bytes of a word."""
    two, four = _TWO * n, _FOUR * n
    low_two, low_one = _mask(two) * _EVERY_32, _mask(n) * _EVERY_16
    word = (word & _mask(four)) | ((word >> four & _mask(four)) << _32)
    word = (word & low_two) | ((word & low_two << two) << (_16 - two))
    return (word & low_one) | ((word & low_one << n) << (_EIGHT - n))


@njit(cache=True)
def _squeeze_8(word, n):
    """The inverse: eight bytes below 2**n into 8*n bits."""
    two, four = _TWO * n, _FOUR * n
    low_two, low_one = _mask(two) * _EVERY_32, _mask(n) * _EVERY_16
    word = (word & low_one) | (word >> (_EIGHT - n) & low_one << n)
    word = (word & low_two) | (word >> (_16 - two) & low_two << two)
    return (word & _mask(four)) | (word >> (_32 - four) & _mask(four) << four)


@njit(cache=True)
def _spread_4(word, n):
    """Four fields of 9..15 bits into the four 16-bit lanes of a word."""
    two = _TWO * n
    low_one = _mask(n) * _EVERY_32
    word = (word & _mask(two)) | ((word >> two & _mask(two)) << _32)
    return (word & low_one) | ((word & low_one << n) << (_16 - n))


@njit(cache=True)
def _squeeze_4(word, n):
    """The inverse: four lanes below 2**n into 4*n bits."""
    two = _TWO * n
    low_one = _mask(n) * _EVERY_32
    word = (word & low_one) | (word >> (_16 - n) & low_one << n)
    return (word & _mask(two)) | (word >> (_32 - two) & _mask(two) << two)


@njit(cache=True)
def unpack_narrow(data, out, bits):
    """Codes of 1..7 bits into a flat uint8 array."""
    n, size = np.uint64(bits), np.uint64(out.shape[0])
    groups = _groups(size, n, np.uint64(data.shape[0]), _EIGHT)
    for group in range(groups):
        g = np.uint64(group)
        _store(out, g * _EIGHT, _spread_8(_load(data, g * n), n))
    for i in range(groups * _EIGHT, size):
        out[i] = _code_at(data, np.uint64(i), n)


@njit(cache=True)
def unpack_wide(data, out, bits):
    """Codes of 9..15 bits into a flat uint16 array."""
    n, size = np.uint64(bits), np.uint64(out.shape[0])
    # The upper four of eight begin at bit 4n, which is in mid byte where n is odd.
    half, odd = n >> _ONE, _FOUR * (n & _ONE)
    groups = _groups(size, n, np.uint64(data.shape[0]), half + _EIGHT)
    for group in range(groups):
        g = np.uint64(group)
        at, first = g * n, g * _EIGHT
        _store_lanes(out, first, _spread_4(_load(data, at), n))
        _store_lanes(out, first + _FOUR, _spread_4(_load(data, at + half) >> odd, n))
    for i in range(groups * _EIGHT, size):
        out[i] = _code_at(data, np.uint64(i), n)


@njit(cache=True)
def decode_narrow(data, out, bits, table):
    """Codes of 1..8 bits, looked up: ``out[i] = table[code i]``, `table` of ``2**bits`` entries."""
    n, size, low = np.uint64(bits), np.uint64(out.shape[0]), _mask(np.uint64(bits))
    groups = _groups(size, n, np.uint64(data.shape[0]), _EIGHT)
    for group in range(groups):
        g = np.uint64(group)
        word, first = _load(data, g * n), g * _EIGHT
        for j in range(8):  # a shift after each is quicker here than to spread the fields first
            out[first + np.uint64(j)] = table[word & low]
            word >>= n
    for i in range(groups * _EIGHT, size):
        out[i] = table[_code_at(data, np.uint64(i), n)]


@njit(cache=True)
def decode_wide(data, out, bits, table):
    """The same for codes of 9..16 bits."""
    n, size, low = np.uint64(bits), np.uint64(out.shape[0]), _mask(np.uint64(bits))
    half, odd = n >> _ONE, _FOUR * (n & _ONE)
    groups = _groups(size, n, np.uint64(data.shape[0]), half + _EIGHT)
    for group in range(groups):
        g = np.uint64(group)
        at, first = g * n, g * _EIGHT
        lower, upper = _load(data, at), _load(data, at + half) >> odd
        for j in range(4):
            out[first + np.uint64(j)] = table[lower & low]
            out[first + np.uint64(j) + _FOUR] = table[upper & low]
            lower >>= n
            upper >>= n
    for i in range(groups * _EIGHT, size):
        out[i] = table[_code_at(data, np.uint64(i), n)]


@njit(cache=True)
def decode_narrow_blocks(data, out, bits, table, factors, block):
    """`decode_narrow` with every `block` elements, a multiple of eight, times a factor of their own."""
    n, size, low = np.uint64(bits), np.uint64(out.shape[0]), _mask(np.uint64(bits))
    groups = _groups(size, n, np.uint64(data.shape[0]), _EIGHT)
    of_block = np.uint64(block) >> _THREE
    for k in range(factors.shape[0]):
        factor = factors[np.uint64(k)]
        start = np.uint64(k) * of_block
        for group in range(start, min(start + of_block, groups)):
            g = np.uint64(group)
            word, first = _load(data, g * n), g * _EIGHT
            for j in range(8):
                out[first + np.uint64(j)] = table[word & low] * factor
                word >>= n
    for i in range(groups * _EIGHT, size):
        out[i] = table[_code_at(data, np.uint64(i), n)] * factors[np.uint64(i) // np.uint64(block)]


@njit(cache=True)
def pack_narrow(codes, data, bits):
    """Flat uint8 codes of 1..7 bits into zeroed `data`; returns the union of all codes' bits.

    A union beyond ``2**bits - 1`` tells that some code does not fit and `data` is worthless.
    """
    n, size = np.uint64(bits), np.uint64(codes.shape[0])
    groups = _groups(size, n, np.uint64(data.shape[0]), _EIGHT)
    union = np.uint64(0)
    for group in range(groups):
        g = np.uint64(group)
        word = _load(codes, g * _EIGHT)
        union |= word
        _store(data, g * n, _squeeze_8(word, n))  # its upper, empty bytes are overwritten by the next
    union |= union >> _32
    union |= union >> _16
    union = (union | union >> _EIGHT) & _BYTE
    return union | _put(codes, data, n, groups * _EIGHT)


@njit(cache=True)
def pack_wide(codes, data, bits):
    """The same for flat uint16 codes of 9..15 bits."""
    n, size = np.uint64(bits), np.uint64(codes.shape[0])
    four = _FOUR * n
    groups = _groups(size, n, np.uint64(data.shape[0]), _16)
    union = np.uint64(0)
    for group in range(groups):
        g = np.uint64(group)
        low, high = _load_lanes(codes, g * _EIGHT), _load_lanes(codes, g * _EIGHT + _FOUR)
        union |= low | high
        low, high = _squeeze_4(low, n), _squeeze_4(high, n)
        _store(data, g * n, low | high << four)
        _store(data, g * n + _EIGHT, high >> (_64 - four))
    union |= union >> _32
    union = (union | union >> _16) & _LANE
    return union | _put(codes, data, n, groups * _EIGHT)


@njit(cache=True)
def _put(codes, data, n, start):
    """Pack the codes from `start` on, one by one."""
    union = np.uint64(0)
    for k in range(start, np.uint64(codes.shape[0])):
        i = np.uint64(k)
        code = np.uint64(codes[i])
        union |= code
        at, shift = i * n >> _THREE, i * n & _SEVEN
        word = (code & _mask(n)) << shift
        data[at] |= word & _BYTE
        if shift + n > _EIGHT:
            data[at + _ONE] = word >> _EIGHT & _BYTE
        if shift + n > _16:
            data[at + _TWO] = word >> _16
    return union
