"""Register tiles of rounded sums, emitted as vector instructions, and the products made of them.

A tile keeps ``height x 2`` vectors of running sums in registers. Lanes run over columns; along k every sum
keeps its order, so tiles of any shape and in any sequence give the bits of the plain loops in
`numerics._kernels.loops`, their twin. Left to itself the compiler keeps the sums in memory, for it cannot
tell that operands and result are apart.

How a sum is rounded is a value, one of the named tuples below; each is a kind of tile, compiled when it
is first used. Operands come packed (`numerics._kernels.panels`), all of them float32.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from numerics._kernels.panels import height_at
from numerics._kernels.random import output_hash, step_words
from numerics._kernels.rounding import round_sum
from numerics._kernels.vectors import (
    HAS_ADDERS,
    I32,
    I64,
    INEXACT,
    REGISTERS,
    TOWARD_ZERO,
    Vectors,
    offset,
    read_control,
    write_control,
)

VECTORS = 2  # of a tile's columns
#: Steps after which a tile is put down, so that panels stay in the near caches.
DEPTH = 1024
#: The same where a tile may have to be done again, from where it was last put down.
CHECKED_DEPTH = 512

# What a tile starts from, and what it does with the result.
REPLACE, RESUME, ADD = range(3)


class Nearest32(NamedTuple):
    """To nearest even in float32, of sums that neither overflow nor leave the normal range inexactly."""

    shift: int  # bits of a float32 significand that the format does not have


class Nearest64(NamedTuple):
    """The same in float64."""

    shift: int


class Full32(NamedTuple):
    """To nearest even, of any float32 sum, with subnormals, overflow, zeros of both signs, NaN."""

    least: int  # exponent fields, in place: of the smallest normal number,
    most: int  # beyond which the sum is an overflow anyway,
    lift: int  # and from a sum to the constant that rounds it
    high: float  # largest value, and what becomes of larger ones
    over: float


class Biased32(NamedTuple):
    """A number of units in the last place of float32 is added and the rest is cut off.

    With float32 sums rounded toward zero, downward or upward, this is every rounding that never needs to
    know whether bits were lost below: toward zero, to nearest away, and down or up in that direction.
    """

    positive: int  # added to the magnitude of positive sums
    negative: int
    keep: int  # bits that stay


class Random32(NamedTuple):
    """Stochastic rounding of float32 sums that were rounded toward zero, with all random bits there are."""

    drop: int  # bits by which a word is moved to the discarded ones
    keep: int


class Sieved32(NamedTuple):
    """The same with fewer random bits than discarded ones."""

    drop: int
    keep: int
    sieve: int  # of the word, the bits that count


class Random64(NamedTuple):
    """Stochastic rounding of exact float64 sums."""

    drop: int
    keep: int
    sieve: int
    low: int  # the discarded bits, and above which of their sums with a word 32 bits do not decide
    undecided: int


class Any64(NamedTuple):
    """Any rounding but a stochastic one of exact float64 sums, with subnormals and overflow."""

    least: int  # pattern of the smallest normal number
    lift: int  # pattern of what brings a smaller one into the binade whose last place is the spacing there
    place: int  # bits of a float64 significand that the format does not have
    positive: int  # units in the last place of float64 that are added to positive sums before the cut,
    negative: int  # to negative ones,
    odd: int  # and to those whose last bit that stays is set
    high: float  # largest value, and what becomes of larger magnitudes
    over_positive: float
    over_negative: float


class AnyRandom64(NamedTuple):
    """The same for stochastic rounding."""

    least: int
    lift: int
    drop: int  # the next five as in `Random64`
    keep: int
    sieve: int
    low: int
    undecided: int
    high: float
    over: float


class _Rounding:
    """Rounding of one kind, for `_emit`: constants at the entry of a tile, then `round` at every step."""

    bits = 32

    def __init__(self, vectors, setting, hashes):
        self.v, self.hashes = vectors, hashes
        self.prepare(*setting)

    def step(self, words):
        """What all roundings of a step share; `words` is the address of its random words."""

    def finish(self, x):
        """Last change before a sum is stored."""
        return x

    def doubt(self):
        """Bits that are set where some rounding so far could not be decided, or None."""
        return


class _Nearest(_Rounding):
    """Of the sum x and the signed power of two s of x times ``2**shift``, ``(x + s) - s``."""

    def prepare(self, shift):
        v, builder = self.v, self.v.builder
        self.mask = v.integer(-(1 << v.frac_bits))
        if HAS_ADDERS:
            self.lift = v.splat_integer(builder.shl(shift, ir.Constant(I64, v.frac_bits)))
        else:
            self.up = v.power(shift)
            self.down = builder.fneg(self.up)

    def round(self, x, cell, shared):
        v, builder = self.v, self.v.builder
        power = builder.and_(v.ints(x), self.mask)
        if HAS_ADDERS:  # a zero gets a tiny constant, and stays
            big = v.floats(builder.add(power, self.lift))
            return builder.fsub(builder.fadd(x, big), big)
        power = v.floats(power)
        return v.fma(power, self.down, v.fma(power, self.up, x))


class _Nearest64(_Nearest):
    bits = 64


class _Full(_Rounding):
    """As `numerics._kernels.casts.cast_nearest_even_f32`."""

    def prepare(self, least, most, lift, high, over):
        v, builder = self.v, self.v.builder
        self.least, self.most, self.lift = (v.splat_integer(x) for x in (least, most, lift))
        narrow = ir.FloatType()
        self.high, self.over = (v.splat(builder.fptrunc(x, narrow)) for x in (high, over))

    def round(self, x, cell, shared):
        v, builder = self.v, self.v.builder
        bits = v.ints(x)
        sign = builder.and_(bits, v.integer(-0x80000000))
        field = builder.and_(bits, v.integer(0x7F800000))
        field = builder.select(builder.icmp_signed(">", field, self.least), field, self.least)
        field = builder.select(builder.icmp_signed("<", field, self.most), field, self.most)
        big = v.floats(builder.add(field, self.lift))
        rounded = v.ints(builder.fsub(builder.fadd(x, big), big))
        magnitude = builder.and_(rounded, v.integer(0x7FFFFFFF))
        above = builder.fcmp_ordered(">", v.floats(magnitude), self.high)
        chosen = builder.select(above, v.ints(self.over), rounded)
        return v.floats(builder.or_(chosen, sign))


class _Biased(_Rounding):
    def prepare(self, positive, negative, keep):
        v, builder = self.v, self.v.builder
        self.positive, self.keep = v.splat_integer(positive), v.splat_integer(keep)
        self.change = v.splat_integer(builder.sub(negative, positive))

    def round(self, x, cell, shared):
        v, builder = self.v, self.v.builder
        bits = v.ints(x)
        change = builder.and_(builder.ashr(bits, v.integer(31)), self.change)
        bits = builder.add(builder.add(bits, self.positive), change)
        return v.floats(builder.and_(bits, self.keep))

    def finish(self, x):
        # Rounding downward, opposite numbers add up to -0; in the definition it is +0.
        minus = self.v.integer(-0x80000000)
        bits = self.v.ints(x)
        zero = self.v.builder.icmp_signed("==", bits, minus)
        return self.v.floats(self.v.builder.select(zero, self.v.integer(0), bits))


class _Random(_Rounding):
    def prepare(self, drop, keep):
        self.drop, self.keep = self.v.splat_integer(drop), self.v.splat_integer(keep)

    def step(self, words):
        builder = self.v.builder
        pair = [builder.load(builder.gep(words, [ir.Constant(I64, i)])) for i in (0, 1)]
        if self.v.bits == 64:
            pair = [builder.zext(word, I64) for word in pair]
        return [self.v.splat(word) for word in pair]

    def noise(self, cell, shared):
        """Random units in the last place of a sum."""
        v, builder = self.v, self.v.builder
        multiplier, addend = shared
        word = builder.add(builder.mul(multiplier, v.load_words(self.hashes[cell])), addend)
        return builder.lshr(word, self.drop)

    def round(self, x, cell, shared):
        v, builder = self.v, self.v.builder
        return v.floats(builder.and_(builder.add(v.ints(x), self.noise(cell, shared)), self.keep))


class _Sieved(_Random):
    def prepare(self, drop, keep, sieve):
        super().prepare(drop, keep)
        self.sieve = self.v.splat_integer(sieve)

    def noise(self, cell, shared):
        return self.v.builder.and_(super().noise(cell, shared), self.sieve)


class _Random64(_Random):
    bits = 64

    def prepare(self, drop, keep, sieve, low, undecided):
        super().prepare(drop, keep)
        self.sieve = self.v.splat_integer(sieve)
        self.low, self.undecided = self.v.splat_integer(low), self.v.splat_integer(undecided)
        self.doubts = []

    def noise(self, cell, shared):
        v, builder = self.v, self.v.builder
        multiplier, addend = shared
        word = builder.add(builder.mul(multiplier, v.load_words(self.hashes[cell])), addend)
        word = builder.lshr(builder.shl(word, v.integer(32)), self.drop)  # its upper half is no part of it
        return builder.and_(word, self.sieve)

    def round(self, x, cell, shared):
        v, builder = self.v, self.v.builder
        summed = builder.add(v.ints(x), self.noise(cell, shared))
        self.question(summed)
        return v.floats(builder.and_(summed, self.keep))

    def question(self, summed):
        """Keep account of sums with a word that 32 bits do not decide."""
        v, builder = self.v, self.v.builder
        doubt = builder.icmp_signed(">", builder.and_(summed, self.low), self.undecided)
        self.doubts.append(builder.sext(doubt, v.integers))

    def doubt(self):
        found = self.doubts[0]
        for other in self.doubts[1:]:
            found = self.v.builder.or_(found, other)
        self.doubts = []
        return found


class _Any:
    """What the roundings of any float64 sum share: magnitudes in one binade below the normal range."""

    def magnitude(self, x):
        """Pattern of ``abs(x)``, lifted where it is small, and what it was lifted by."""
        v, builder = self.v, self.v.builder
        bits = builder.and_(v.ints(x), v.integer((1 << 63) - 1))
        small = builder.icmp_signed("<", bits, self.least)
        lift = v.floats(builder.select(small, self.lift, v.integer(0)))
        return v.ints(builder.fadd(v.floats(bits), lift)), lift

    def signed(self, bits, lift, over, x):
        """The magnitude back in its place, or `over` beyond the range, with the sign of x."""
        v, builder = self.v, self.v.builder
        magnitude = builder.fsub(v.floats(bits), lift)
        above = builder.fcmp_ordered(">", magnitude, self.high)
        magnitude = builder.select(above, over, magnitude)
        return v.floats(builder.or_(v.ints(magnitude), builder.and_(v.ints(x), v.integer(-1 << 63))))


class _Any64(_Any, _Rounding):
    bits = 64

    def prepare(self, least, lift, place, positive, negative, odd, high, over_positive, over_negative):
        v, builder = self.v, self.v.builder
        self.least, self.lift, self.place = (v.splat_integer(x) for x in (least, lift, place))
        self.positive, self.negative, self.odd = (v.splat_integer(x) for x in (positive, negative, odd))
        self.high, self.over, self.under = (v.splat(x) for x in (high, over_positive, over_negative))
        self.keep = builder.shl(v.integer(-1), self.place)

    def round(self, x, cell, shared):
        v, builder = self.v, self.v.builder
        bits, lift = self.magnitude(x)
        negative = builder.icmp_signed("<", v.ints(x), v.integer(0))
        last = builder.and_(builder.lshr(bits, self.place), v.integer(1))
        odd = builder.and_(builder.sub(v.integer(0), last), self.odd)
        bits = builder.add(builder.add(bits, odd), builder.select(negative, self.negative, self.positive))
        over = builder.select(negative, self.under, self.over)
        return self.signed(builder.and_(bits, self.keep), lift, over, x)


class _AnyRandom64(_Any, _Random64):
    def prepare(self, least, lift, drop, keep, sieve, low, undecided, high, over):
        super().prepare(drop, keep, sieve, low, undecided)
        self.least, self.lift = self.v.splat_integer(least), self.v.splat_integer(lift)
        self.high, self.over = self.v.splat(high), self.v.splat(over)

    def round(self, x, cell, shared):
        builder = self.v.builder
        bits, lift = self.magnitude(x)
        summed = builder.add(bits, self.noise(cell, shared))
        self.question(summed)
        return self.signed(builder.and_(summed, self.keep), lift, self.over, x)


_KINDS = {
    Nearest32: _Nearest,
    Nearest64: _Nearest64,
    Full32: _Full,
    Biased32: _Biased,
    Random32: _Random,
    Sieved32: _Sieved,
    Random64: _Random64,
    Any64: _Any64,
    AnyRandom64: _AnyRandom64,
}
# Rows of a tile of two vectors. Its sums must hide the latency of one rounded addition, and with what a
# rounding needs they must stay in the registers.
_HEIGHTS = dict.fromkeys(_KINDS, 8 if REGISTERS == 32 else 4)
if REGISTERS == 16:
    _HEIGHTS[Nearest32] = _HEIGHTS[Nearest64] = 6


def kind_of(family: type) -> type[_Rounding]:
    """What emits the rounding of a kind."""
    return _KINDS[family]


def height_of(setting: tuple[float, ...]) -> int:
    """Rows of the tallest tile of a kind."""
    return _HEIGHTS[type(setting)]


def _emit(builder, v, rounding, rows, arguments, out):
    """One tile, from the current block on; ends with branches to `out`.

    Returns pairs of a block that ends so and of the doubts of the tile.
    """
    a, b, b_stride, c, c_stride, depth, mode, hashes, steps, outer = arguments
    one = ir.Constant(I64, 1)
    cells = [(i, j) for i in range(rows) for j in range(VECTORS)]
    at = {(i, j): offset(builder, c, (c_stride, i), (one, j * v.lanes)) for i, j in cells}
    places = {(i, j): offset(builder, hashes, (c_stride, i), (one, j * v.lanes)) for i, j in cells}
    kind, setting = rounding
    target = kind(v, setting, places)
    entry = builder.block
    blocks = [builder.append_basic_block(name) for name in ("resume", "loop", "end", "add", "put")]
    resume, loop, end, add, put = blocks
    builder.cbranch(builder.icmp_signed("==", mode, ir.Constant(I64, RESUME)), resume, loop)

    builder.position_at_end(resume)
    held = {cell: v.load(at[cell]) for cell in cells}
    builder.branch(loop)

    builder.position_at_end(loop)
    k = builder.phi(I64)
    sums = {cell: builder.phi(v.type) for cell in cells}
    doubts = builder.phi(v.integers)
    per_panel = v.memory_lanes // v.lanes
    columns = [
        v.load(
            offset(
                builder, b, (k, v.memory_lanes), (b_stride, j // per_panel), (one, j % per_panel * v.lanes)
            )
        )
        for j in range(VECTORS)
    ]
    scales = [v.load_scalar(offset(builder, a, (k, rows), (one, i))) for i in range(rows)]
    shared = target.step(offset(builder, steps, (k, 2)))
    rounded = {
        (i, j): target.round(v.fma(scales[i], columns[j], sums[i, j]), (i, j), shared) for i, j in cells
    }
    doubt = target.doubt()
    doubted = doubts if doubt is None else builder.or_(doubts, doubt)
    following = builder.add(k, one)
    for block in (entry, resume):
        k.add_incoming(ir.Constant(I64, 0), block)
        doubts.add_incoming(v.integer(0), block)
    k.add_incoming(following, loop)
    doubts.add_incoming(doubted, loop)
    for cell in cells:
        sums[cell].add_incoming(v.zero, entry)
        sums[cell].add_incoming(held[cell], resume)
        sums[cell].add_incoming(rounded[cell], loop)
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, end)

    builder.position_at_end(end)
    builder.cbranch(builder.icmp_signed("==", mode, ir.Constant(I64, ADD)), add, put)
    builder.position_at_end(add)
    shared = target.step(outer)
    for cell in cells:
        total = builder.fadd(v.load(at[cell]), rounded[cell])
        v.store(target.finish(target.round(total, cell, shared)), at[cell])
    doubt = target.doubt()
    in_all = v.any_bit(doubted if doubt is None else builder.or_(doubted, doubt))
    builder.branch(out)
    builder.position_at_end(put)
    for cell in cells:
        v.store(target.finish(rounded[cell]), at[cell])
    in_sums = v.any_bit(doubted)
    builder.branch(out)
    return [(add, in_all), (put, in_sums)]


@intrinsic
def _tile(typing, a, b, b_stride, c, c_stride, depth, mode, height, setting, hashes, steps, outer):
    """Sums of ``a @ b``, rounded at every step as `setting` says, for `height` rows and two vectors.

    `a`, `b`, `c`, `hashes`, `steps` and `outer` are addresses; strides count elements, from one panel of
    `b` and one row of `c` and `hashes` to the next. The sums start from +0, or with `RESUME` from `c`.
    They are written to `c`, or with `ADD` added to it and rounded once more. `steps` holds the random
    words of the steps, `outer` those of the addition. Returns whether any rounding could not be decided.
    """
    family = setting.instance_class
    kind = _KINDS[family]
    p, n = types.uintp, types.intp
    signature = types.boolean(p, p, n, p, n, n, n, n, setting, p, p, p)

    def emit(context, builder, signature, arguments):
        a, b, b_stride, c, c_stride, depth, mode, height, setting, hashes, steps, outer = arguments
        v = Vectors(builder, kind.bits)
        fields = [builder.extract_value(setting, i) for i in range(len(family._fields))]
        a, b, c = (builder.inttoptr(address, v.stored.as_pointer()) for address in (a, b, c))
        hashes, steps, outer = (builder.inttoptr(x, I32.as_pointer()) for x in (hashes, steps, outer))
        shared = a, b, b_stride, c, c_stride, depth, mode, hashes, steps, outer
        out = builder.append_basic_block("out")
        # The first height is the default: no other one is ever asked for.
        switch, ends = None, []
        for rows in sorted({_HEIGHTS[family], 4, 2, 1}, reverse=True):
            block = builder.append_basic_block(f"tile_{rows}")
            if switch is None:
                switch = builder.switch(height, block)
            else:
                switch.add_case(ir.Constant(I64, rows), block)
            builder.position_at_end(block)
            ends += _emit(builder, v, (kind, fields), rows, shared, out)
        builder.position_at_end(out)
        found = builder.phi(ir.IntType(1))
        for block, doubt in ends:
            found.add_incoming(doubt, block)
        return found

    return signature, emit


@njit(cache=True, nogil=True)
def gemm(a, b, out, chunk, top, setting, control, panels, from_zero, first_panel, last_panel):
    """Panels ``first_panel .. last_panel - 1`` of the columns of ``out = a @ b``.

    `a` is packed in panels of at most `top` rows; `out` is (m, panels * lanes) float32. `control` is the
    direction in which the processor rounds, `panels` those of a tile of two vectors. With `from_zero` the
    first chunk of several is added to what is in `out`, zeros: a sum of -0 becomes +0.
    """
    before = read_control()
    write_control(np.uint32(control))
    rows, width = out.shape
    depth, lanes = b.shape[1], b.shape[2]
    chunked = chunk < depth
    step = chunk if chunked else min(depth, DEPTH)
    run = max(DEPTH // step, 1) * step
    none = np.uintp(0)
    for low in range(0, depth, run):
        high = min(low + run, depth)
        p = first_panel
        while p < last_panel:
            i, height = 0, top
            while i < rows:
                height = height_at(i, rows, height)
                c = out.ctypes.data + 4 * (i * width + p * lanes)
                for k in range(low, high, step):
                    n = min(step, high - k)
                    pa = a.ctypes.data + 4 * (i * depth + k * height)
                    pb = b.ctypes.data + 4 * (p * depth + k) * lanes
                    mode = ADD if chunked else RESUME
                    if k == 0 and not (from_zero and chunked):
                        mode = REPLACE
                    _tile(pa, pb, depth * lanes, c, width, n, mode, height, setting, none, none, none)
                i += height
            p += panels
    write_control(before)


@njit(cache=True, nogil=True)
def fill_hashes(out, first, row_step, column_step):
    """Hashes of the output elements ``first + i * row_step + j * column_step``."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = output_hash(first + i * row_step + j * column_step)


@njit(cache=True, nogil=True)
def fill_steps(out, k0, k1):
    """Multipliers and addends of the additions 0, 1, ...; (additions, 2)."""
    for number in range(out.shape[0]):
        out[number, 0], out[number, 1] = step_words(number, 0, k0, k1)


@njit(cache=True, nogil=True)
def finish_exactly(a, b, out, chunk, step, at, target, elements, key):
    """What `gemm_checked` left undone of a tile, by plain loops: any sum, any target.

    ``at = (i, height, p, k)``: its rows, the first of its two panels, the first product that is missing.
    """
    i, height, p, start = at
    depth, lanes = b.shape[1], b.shape[2]
    first_element, row_step, column_step = elements
    k0, k1 = key
    for row in range(height):
        for column in range(p * lanes, (p + 2) * lanes):
            element = first_element + (i + row) * row_step + column * column_step
            total = np.float64(out[i + row, column]) if start > 0 else 0.0
            for first in range(start, depth, step):
                partial = 0.0 if chunk < depth else total
                for k in range(first, min(first + step, depth)):
                    x = np.float64(a[i * depth + k * height + row])
                    y = np.float64(b[column // lanes, k, column % lanes])
                    partial = round_sum(partial, x * y, target, True, element, k, k0, k1)
                if chunk < depth:
                    number = depth + first // chunk
                    partial = round_sum(total, partial, target, True, element, number, k0, k1)
                total = partial
            out[i + row, column] = total


@njit(cache=True, nogil=True)
def _put_back(held, tile):
    for row in range(tile.shape[0]):
        for column in range(tile.shape[1]):
            tile[row, column] = held[row, column]


@njit(cache=True, nogil=True)
def gemm_checked(
    a, b, out, chunk, top, narrow, wide, control, exactly, ceiling, from_zero, hashes, steps, stopped,
    first_panel, last_panel,
):  # fmt: skip
    """`gemm` with roundings that need to know whether a sum was exact: the processor says so.

    A tile is tried in float32, as `narrow` says if it is not None, and then in float64, as `wide` says, with
    the processor rounding as `control` says. ``exactly = (narrow, wide)`` tells whether the sums must be
    exact. Where float64 does not decide either, or a sum is so large that it might overflow (above
    `ceiling` when a tile begins), ``stopped[i, p]`` receives the product, counted from 1, with which
    `finish_exactly` must go on; (rows, panels), at first zeros.

    `hashes` is as `out`, `steps` (additions, 2): see `fill_hashes`, `fill_steps`; of a rounding that is not
    stochastic one element of each will do.
    """
    before = read_control()
    rows, width = out.shape
    depth, lanes = b.shape[1], b.shape[2]
    narrow_exactly, wide_exactly = exactly
    chunked = chunk < depth
    step = chunk if chunked else min(depth, CHECKED_DEPTH)
    run = max(CHECKED_DEPTH // step, 1) * step
    held = np.empty((top, 2 * lanes), np.float32)
    tried, failed, wide_tried, wide_failed = 0, 0, 0, 0
    for low in range(0, depth, run):
        high = min(low + run, depth)
        p = first_panel
        while p < last_panel:
            left, right = p * lanes, (p + 2) * lanes
            i, height = 0, top
            while i < rows:
                height = height_at(i, rows, height)
                place = 4 * (i * width + left)
                tile = out[i : i + height, left:right]
                k = low
                while k < high and stopped[i, p] == 0:
                    n = min(step, high - k)
                    pa = a.ctypes.data + 4 * (i * depth + k * height)
                    pb = b.ctypes.data + 4 * (p * depth + k) * lanes
                    mode = ADD if chunked else RESUME
                    if k == 0 and not (from_zero and chunked):
                        mode = REPLACE
                    words = steps.ctypes.data + 8 * k
                    outer = steps.ctypes.data + 8 * (depth + k // step) if chunked else words
                    largest = np.float32(0.0)
                    if mode != REPLACE:
                        for row in range(height):
                            for column in range(right - left):
                                held[row, column] = tile[row, column]
                                largest = max(largest, abs(tile[row, column]))
                    safe, done = ceiling == np.inf or largest <= ceiling, False
                    # Where most attempts fail, more of them only cost time.
                    if narrow is not None and safe and failed <= 8 + tried // 2:
                        write_control(np.uint32(TOWARD_ZERO))
                        _tile(
                            pa, pb, depth * lanes, out.ctypes.data + place, width, n, mode, height, narrow,
                            hashes.ctypes.data + place, words, outer,
                        )  # fmt: skip
                        done = not (narrow_exactly and read_control() & INEXACT)
                        tried += 1
                        if not done:
                            failed += 1
                            if mode != REPLACE:
                                _put_back(held, tile)
                    if safe and not done and wide_failed <= 8 + wide_tried // 2:
                        write_control(np.uint32(control))
                        doubt = False
                        for panel in range(2):
                            there = place + 4 * panel * lanes
                            doubt |= _tile(
                                pa, pb + 4 * panel * depth * lanes, 0, out.ctypes.data + there, width, n,
                                mode, height, wide, hashes.ctypes.data + there, words, outer,
                            )  # fmt: skip
                        done = not (doubt or (wide_exactly and read_control() & INEXACT))
                        wide_tried += 1
                        if not done:
                            wide_failed += 1
                            if mode != REPLACE:
                                _put_back(held, tile)
                    if not done:
                        stopped[i, p] = k + 1
                    k += n
                i += height
            p += 2
    write_control(before)
