"""Casts of float32 arrays, emitted as vector instructions: twins of the loops in `numerics._kernels.casts`.

Results of large arrays are made block by block in the first-level cache and go to memory past the
caches: an ordinary store would first read what it overwrites.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from numerics._kernels.random import stream_key
from numerics._kernels.roundings import KINDS, Full32
from numerics._kernels.vectors import I32, I64, LANES_32, LANES_64, VECTOR_BYTES, Vectors

BLOCK = 2048  # elements; 8 KiB stay in the first-level cache, and random words come in fours
_PAST_CACHES = 1 << 21  # elements of an array that does not fit the caches anyway

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


def _vector_loop(builder, count, step, start, body):
    """``body(i, carried)`` for i = 0, step, ... below `count`, at least once; returns the last carried."""
    before = builder.block
    block, after = builder.append_basic_block("vectors"), builder.append_basic_block("after")
    builder.branch(block)
    builder.position_at_end(block)
    i, carried = builder.phi(I64), builder.phi(start.type)
    i.add_incoming(ir.Constant(I64, 0), before)
    carried.add_incoming(start, before)
    result = body(i, carried)
    following = builder.add(i, ir.Constant(I64, step))
    i.add_incoming(following, builder.block)
    carried.add_incoming(result, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), block, after)
    builder.position_at_end(after)
    return result


@intrinsic
def _round_lanes(typing, source, target, count, setting):
    """Round `count` float32 at an address as `setting` says; a multiple of `STRIDE`, not 0."""
    family = setting.instance_class
    signature = types.void(types.uintp, types.uintp, types.intp, setting)

    def emit(context, builder, signature, arguments):
        source, target, count, setting = arguments
        v = Vectors(builder, 32)
        source, target = (builder.inttoptr(x, v.stored.as_pointer()) for x in (source, target))
        fields = [builder.extract_value(setting, i) for i in range(len(family._fields))]
        rounding = KINDS[family](v, fields, {})

        def body(i, carried):
            for part in range(0, STRIDE, LANES_32):
                at = builder.add(i, ir.Constant(I64, part))
                v.store(
                    rounding.round(v.load(builder.gep(source, [at])), None, None), builder.gep(target, [at])
                )
            return carried

        _vector_loop(builder, count, STRIDE, ir.Constant(I32, 0), body)
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def _round_lanes_randomly(typing, source, target, count, setting, first, k0, k1, doubts):
    """The same for `Random`, with digits from counter `first` on; marks vectors where they may not decide."""
    fields_of = setting.instance_class._fields
    signature = types.void(
        types.uintp, types.uintp, types.intp, setting, types.intp, types.uint64, types.uint64, types.uintp
    )

    def emit(context, builder, signature, arguments):
        source, target, count, setting, first, k0, k1, doubts = arguments
        doubts = builder.inttoptr(doubts, ir.IntType(8).as_pointer())
        v = Vectors(builder, 32)
        source, target = (builder.inttoptr(x, v.stored.as_pointer()) for x in (source, target))
        rounding = _Randomly(v, [builder.extract_value(setting, i) for i in range(len(fields_of))])

        def body(i, carried):
            counter = builder.add(first, builder.lshr(i, ir.Constant(I64, 3)))
            for part, digits in enumerate(_digits(builder, counter, k0, k1)):
                at = builder.add(i, ir.Constant(I64, part * LANES_32))
                rounded, doubt = rounding.round(v.load(builder.gep(source, [at])), digits)
                v.store(rounded, builder.gep(target, [at]))
                flag = builder.zext(v.any_bit(doubt), ir.IntType(8))
                group = builder.add(builder.udiv(i, ir.Constant(I64, LANES_32)), ir.Constant(I64, part))
                builder.store(flag, builder.gep(doubts, [group]))
            return carried

        _vector_loop(builder, count, STRIDE, ir.Constant(I32, 0), body)
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def _past_caches(typing, source, target, count):
    """Copy `count` float32, a multiple of a vector, to an aligned address, past the caches."""
    signature = types.void(types.uintp, types.uintp, types.intp)

    def emit(context, builder, signature, arguments):
        source, target, count = arguments
        v = Vectors(builder, 32)
        source, target = (builder.inttoptr(x, v.stored.as_pointer()) for x in (source, target))
        hint = builder.module.add_metadata([ir.Constant(I32, 1)])

        def body(i, carried):
            pointer = builder.bitcast(builder.gep(target, [i]), v.type.as_pointer())
            stored = builder.store(v.load(builder.gep(source, [i])), pointer)
            stored.align = VECTOR_BYTES
            stored.set_metadata("nontemporal", hint)
            return carried

        _vector_loop(builder, count, LANES_32, ir.Constant(I32, 0), body)
        return context.get_dummy_value()

    return signature, emit


@njit(cache=True, nogil=True)
def _put(buffer, out, first, count):
    """Copy the first `count` elements of the buffer to ``out[first:]``, past the caches."""
    address = out.ctypes.data + 4 * first
    head = min(count, (-address % VECTOR_BYTES) // 4)
    for i in range(head):
        out[first + i] = buffer[i]
    body = (count - head) // LANES_32 * LANES_32
    if body > 0:
        _past_caches(buffer.ctypes.data + 4 * head, address + 4 * head, body)
    for i in range(head + body, count):
        out[first + i] = buffer[i]


@njit(cache=True, nogil=True)
def round_nearest_even(x, out, least, most, lift, high, over):
    """Round a flat array to nearest even, the numbers those of a `Full32`; `out` may be `x`."""
    setting = Full32(least, most, lift, high, over)
    size = x.shape[0]
    buffer = np.zeros(BLOCK, np.float32)
    if size < _PAST_CACHES:
        whole = size // STRIDE * STRIDE
        if whole > 0:
            _round_lanes(x.ctypes.data, out.ctypes.data, whole, setting)
        for i in range(whole, size):
            buffer[i - whole] = x[i]
        if whole < size:
            _round_lanes(buffer.ctypes.data, buffer.ctypes.data, STRIDE, setting)
        for i in range(whole, size):
            out[i] = buffer[i - whole]
        return
    for first in range(0, size, BLOCK):
        count = min(BLOCK, size - first)
        whole = count // STRIDE * STRIDE
        if whole > 0:
            _round_lanes(x.ctypes.data + 4 * first, buffer.ctypes.data, whole, setting)
        if whole < count:
            for i in range(whole, count):
                buffer[i] = x[first + i]
            _round_lanes(buffer.ctypes.data + 4 * whole, buffer.ctypes.data + 4 * whole, STRIDE, setting)
        _put(buffer, out, first, count)


@njit(cache=True, nogil=True)
def round_stochastic(x, out, setting, seed, stream, undecided):
    """Round a flat array stochastically, `setting` a `Random`; `out` may be `x`.

    ``undecided[j]`` tells whether more than 16 random bits might decide otherwise in vector j, of `LANES_32`
    elements; its length is a multiple of ``STRIDE // LANES_32``.
    """
    size = x.shape[0]
    k0, k1 = stream_key(seed, stream)
    k0, k1 = np.uint64(k0), np.uint64(k1)
    buffer = np.zeros(BLOCK, np.float32)
    past = size >= _PAST_CACHES
    for first in range(0, size, BLOCK):
        count = min(BLOCK, size - first)
        whole = count // STRIDE * STRIDE
        target = buffer.ctypes.data if past else out.ctypes.data + 4 * first
        doubts = undecided.ctypes.data + first // LANES_32
        if whole > 0:
            source = x.ctypes.data + 4 * first
            _round_lanes_randomly(source, target, whole, setting, first // 8, k0, k1, doubts)
        if whole < count:
            for i in range(whole, count):
                buffer[i] = x[first + i]
            rest = buffer.ctypes.data + 4 * whole
            _round_lanes_randomly(
                rest, rest, STRIDE, setting, (first + whole) // 8, k0, k1, doubts + whole // LANES_32
            )
            if not past:
                for i in range(whole, count):
                    out[first + i] = buffer[i]
        if past:
            _put(buffer, out, first, count)
