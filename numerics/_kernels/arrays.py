"""Casts of float32 arrays, emitted as vector instructions: twins of the loops in `numerics._kernels.casts`.

Results of large arrays go to memory past the caches: an ordinary store would first read what it
overwrites.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from numerics._kernels.random import stream_key
from numerics._kernels.roundings import KINDS, Full32
from numerics._kernels.vectors import I32, I64, LANES_32, LANES_64, Vectors

PAST_CACHES = 1 << 21  # elements of an array that does not fit the caches anyway

GROUPS = 2  # of counters at a time
STRIDE = 4 * GROUPS * LANES_32  # elements that a turn of a loop rounds

_PHILOX = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


class Random(NamedTuple):
    """Stochastic rounding of any float32, with subnormals, overflow, NaN; at most 14 fraction bits."""

    most: int  # pattern of a power of two beyond the range, at least twice the largest value
    least: int  # exponent field, in place, of the smallest normal number
    shift: int  # fraction bits, in the place of an exponent field
    bits: int  # random bits, at most 16
    high: float  # largest value, and what becomes of larger ones
    over: float


class _Randomly:
    """The rounding of `Random`: the number in its unit with r fraction bits, plus r random ones, cut."""

    def __init__(self, v, setting):
        self.v, builder = v, v.builder
        most, least, shift, bits, high, over = setting
        self.most, self.least, self.shift = (v.splat_integer(x) for x in (most, least, shift))
        self.high, self.over = (v.splat(builder.fptrunc(x, ir.FloatType())) for x in (high, over))
        self.bits = v.splat_integer(bits)
        self.drop = builder.sub(v.integer(16), self.bits)
        self.move = builder.sub(v.integer(32), self.bits)
        self.ones = builder.shl(v.integer(-1), self.move)
        # From the exponent field of a number to that of the inverse of its unit over 2**r.
        bits = builder.shl(self.bits, v.integer(23))
        self.inverse = builder.add(builder.add(self.shift, bits), v.integer(254 << 23))

    def round(self, x, digits):
        """Rounded vector, and lanes in which the random bits and the discarded ones add up to ones."""
        v, builder = self.v, self.v.builder
        least = lambda a, b: builder.select(builder.icmp_signed("<", a, b), a, b)  # noqa: E731
        bits = v.ints(x)
        magnitude = least(builder.and_(bits, v.integer(0x7FFFFFFF)), self.most)
        field = builder.and_(magnitude, v.integer(0x7F800000))
        field = builder.select(builder.icmp_signed(">", field, self.least), field, self.least)
        finer = builder.fmul(v.floats(magnitude), v.floats(builder.sub(self.inverse, field)))
        summed = builder.add(builder.fptosi(finer, v.integers), builder.lshr(digits, self.drop))
        ones = builder.icmp_signed("==", builder.shl(summed, self.move), self.ones)
        whole = builder.sitofp(builder.lshr(summed, self.bits), v.type)
        rounded = builder.fmul(whole, v.floats(builder.sub(field, self.shift)))
        above = builder.fcmp_ordered(">", rounded, self.high)
        rounded = v.ints(builder.select(above, self.over, rounded))
        rounded = v.floats(builder.or_(rounded, builder.and_(bits, v.integer(-0x80000000))))
        unordered = builder.fcmp_unordered("uno", x, x)
        return builder.select(unordered, x, rounded), builder.sext(ones, v.integers)


def _digits(builder, first, k0, k1):
    """Digits of 16 bits of ``GROUPS * LANES_64`` counters from `first` on, in order, as 32-bit integers."""
    vector = ir.VectorType(I64, LANES_64)
    splat = lambda value: ir.Constant(vector, [value] * LANES_64)  # noqa: E731
    everywhere = ir.Constant(ir.VectorType(I32, LANES_64), [0] * LANES_64)

    def spread(value):
        undefined = ir.Constant(vector, ir.Undefined)
        return builder.shuffle_vector(
            builder.insert_element(undefined, value, ir.Constant(I32, 0)), undefined, everywhere
        )

    low, half = splat(0xFFFFFFFF), splat(32)
    m0, m1 = splat(_PHILOX[0]), splat(_PHILOX[1])
    # The chains of several groups are interleaved: one alone would wait for its own products.
    chains = []
    for group in range(GROUPS):
        places = [group * LANES_64 + lane for lane in range(LANES_64)]
        counter = builder.add(spread(first), ir.Constant(vector, places))
        chains.append((splat(0), splat(0), builder.and_(counter, low), builder.lshr(counter, half)))
    for turn in range(10):
        keys = []
        for key, step in ((k0, _WEYL[0]), (k1, _WEYL[1])):
            scalar = builder.add(key, ir.Constant(I64, turn * step & 0xFFFFFFFF))
            keys.append(spread(builder.and_(scalar, ir.Constant(I64, 0xFFFFFFFF))))
        # Upper halves of the lanes hold rubbish that no product sees.
        products = [
            (builder.mul(builder.and_(c0, low), m0), builder.mul(builder.and_(c2, low), m1))
            for c0, _, c2, _ in chains
        ]
        chains = [
            (
                builder.xor(builder.lshr(p1, half), builder.xor(c1, keys[0])),
                p1,
                builder.xor(builder.lshr(p0, half), builder.xor(c3, keys[1])),
                p0,
            )
            for (_, c1, _, c3), (p0, p1) in zip(chains, products, strict=True)
        ]
    order = [place for i in range(LANES_64) for place in (i, LANES_64 + i)]
    narrow, wide = ir.VectorType(ir.IntType(16), 2 * LANES_32), ir.VectorType(I32, LANES_32)
    digits = []
    for c0, c1, c2, c3 in chains:
        left = builder.or_(builder.and_(c0, low), builder.shl(c1, half))
        right = builder.or_(builder.and_(c2, low), builder.shl(c3, half))
        for start in (0, LANES_64):
            places = ir.Constant(ir.VectorType(I32, LANES_64), order[start : start + LANES_64])
            halves = builder.bitcast(builder.shuffle_vector(left, right, places), narrow)
            for lane in (0, LANES_32):
                part = ir.Constant(ir.VectorType(I32, LANES_32), list(range(lane, lane + LANES_32)))
                digits.append(builder.zext(builder.shuffle_vector(halves, halves, part), wide))
    return digits


def _vector_loop(builder, count, body):
    """``body(i)`` for i = 0, STRIDE, ... below `count`, at least once."""
    before = builder.block
    block, after = builder.append_basic_block("vectors"), builder.append_basic_block("after")
    builder.branch(block)
    builder.position_at_end(block)
    i = builder.phi(I64)
    i.add_incoming(ir.Constant(I64, 0), before)
    body(i)
    following = builder.add(i, ir.Constant(I64, STRIDE))
    i.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), block, after)
    builder.position_at_end(after)


def _store_past(v, value, pointer):
    """Store a vector past the caches, in parts of 16 bytes, to whose multiples arrays are aligned."""
    builder = v.builder
    hint = builder.module.add_metadata([ir.Constant(I32, 1)])
    part = ir.VectorType(v.scalar, 4)
    for lane in range(0, v.lanes, 4):
        lanes = ir.Constant(ir.VectorType(I32, 4), list(range(lane, lane + 4)))
        place = builder.bitcast(builder.gep(pointer, [ir.Constant(I64, lane)]), part.as_pointer())
        stored = builder.store(builder.shuffle_vector(value, value, lanes), place)
        stored.align = 16
        stored.set_metadata("nontemporal", hint)


def _emit_nearest(context, builder, signature, arguments, store):
    source, target, count, setting = arguments
    v = Vectors(builder, 32)
    source, target = (builder.inttoptr(x, v.stored.as_pointer()) for x in (source, target))
    family = signature.args[3].instance_class
    fields = [builder.extract_value(setting, i) for i in range(len(family._fields))]
    rounding = KINDS[family](v, fields, {})

    def body(i):
        for part in range(0, STRIDE, LANES_32):
            at = builder.add(i, ir.Constant(I64, part))
            rounded = rounding.round(v.load(builder.gep(source, [at])), None, None)
            store(v, rounded, builder.gep(target, [at]))

    _vector_loop(builder, count, body)
    return context.get_dummy_value()


def _emit_random(context, builder, signature, arguments, store):
    source, target, count, setting, first, k0, k1, doubts = arguments
    doubts = builder.inttoptr(doubts, ir.IntType(8).as_pointer())
    v = Vectors(builder, 32)
    source, target = (builder.inttoptr(x, v.stored.as_pointer()) for x in (source, target))
    rounding = _Randomly(v, [builder.extract_value(setting, i) for i in range(len(Random._fields))])

    def body(i):
        counter = builder.add(first, builder.lshr(i, ir.Constant(I64, 3)))
        for part, digits in enumerate(_digits(builder, counter, k0, k1)):
            at = builder.add(i, ir.Constant(I64, part * LANES_32))
            rounded, doubt = rounding.round(v.load(builder.gep(source, [at])), digits)
            store(v, rounded, builder.gep(target, [at]))
            flag = builder.zext(v.any_bit(doubt), ir.IntType(8))
            group = builder.add(builder.udiv(i, ir.Constant(I64, LANES_32)), ir.Constant(I64, part))
            builder.store(flag, builder.gep(doubts, [group]))

    _vector_loop(builder, count, body)
    return context.get_dummy_value()


def _in_cache(v, value, pointer):
    v.store(value, pointer)


@intrinsic
def _nearest(typing, source, target, count, setting):
    """Round `count` float32 at an address as `setting` says; a multiple of `STRIDE`, not 0."""
    signature = types.void(types.uintp, types.uintp, types.intp, setting)
    return signature, partial(_emit_nearest, store=_in_cache)


@intrinsic
def _nearest_past(typing, source, target, count, setting):
    """The same past the caches, to an address that 16 divides."""
    signature = types.void(types.uintp, types.uintp, types.intp, setting)
    return signature, partial(_emit_nearest, store=_store_past)


def _random_signature(setting):
    p, word = types.uintp, types.uint64
    return types.void(p, p, types.intp, setting, types.intp, word, word, p)


@intrinsic
def _random(typing, source, target, count, setting, first, k0, k1, doubts):
    """The same for `Random`, with digits from counter `first` on; marks vectors where they may not decide."""
    return _random_signature(setting), partial(_emit_random, store=_in_cache)


@intrinsic
def _random_past(typing, source, target, count, setting, first, k0, k1, doubts):
    """The same past the caches."""
    return _random_signature(setting), partial(_emit_random, store=_store_past)


@njit(cache=True, nogil=True)
def round_nearest_even(x, out, least, most, lift, high, over):
    """Round a flat array to nearest even, the numbers those of a `Full32`; `out` may be `x`."""
    setting = Full32(least, most, lift, high, over)
    size = x.shape[0]
    whole = size // STRIDE * STRIDE
    if whole > 0:
        _nearest(x.ctypes.data, out.ctypes.data, whole, setting)
    if whole < size:
        buffer = np.zeros(STRIDE, np.float32)
        for i in range(whole, size):
            buffer[i - whole] = x[i]
        _nearest(buffer.ctypes.data, buffer.ctypes.data, STRIDE, setting)
        for i in range(whole, size):
            out[i] = buffer[i - whole]


@njit(cache=True, nogil=True)
def round_nearest_even_past(x, out, least, most, lift, high, over):
    """The same past the caches, for a multiple of `STRIDE` elements and an address that 16 divides."""
    setting = Full32(least, most, lift, high, over)
    _nearest_past(x.ctypes.data, out.ctypes.data, x.shape[0], setting)


@njit(cache=True, nogil=True)
def round_stochastic(x, out, setting, first, seed, stream, undecided):
    """Round a flat array stochastically, `setting` a `Random`; `out` may be `x`.

    Its first element is element `first`, a multiple of `STRIDE`, of the stream. ``undecided[j]`` tells
    whether more than 16 random bits might decide otherwise in vector j, of `LANES_32` elements; its length
    is a multiple of ``STRIDE // LANES_32``.
    """
    size = x.shape[0]
    k0, k1 = stream_key(seed, stream)
    k0, k1 = np.uint64(k0), np.uint64(k1)
    doubts = undecided.ctypes.data
    whole = size // STRIDE * STRIDE
    if whole > 0:
        _random(x.ctypes.data, out.ctypes.data, whole, setting, first // 8, k0, k1, doubts)
    if whole < size:
        buffer = np.zeros(STRIDE, np.float32)
        for i in range(whole, size):
            buffer[i - whole] = x[i]
        address = buffer.ctypes.data
        doubts += whole // LANES_32
        _random(address, address, STRIDE, setting, (first + whole) // 8, k0, k1, doubts)
        for i in range(whole, size):
            out[i] = buffer[i - whole]


@njit(cache=True, nogil=True)
def round_stochastic_past(x, out, setting, seed, stream, undecided):
    """The same from element 0 past the caches, for a multiple of `STRIDE` and an address that 16 divides."""
    k0, k1 = stream_key(seed, stream)
    k0, k1 = np.uint64(k0), np.uint64(k1)
    _random_past(x.ctypes.data, out.ctypes.data, x.shape[0], setting, 0, k0, k1, undecided.ctypes.data)
