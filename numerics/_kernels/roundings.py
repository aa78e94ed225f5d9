"""How a sum in a register tile is rounded: the kinds as values, and the instructions of each.

A kind is a named tuple of scalars, so a kernel is compiled for it when it is first used. `KINDS` has for
each what emits its instructions.
"""

from typing import NamedTuple

from llvmlite import ir

from numerics._kernels.vectors import HAS_ADDERS, I64


class Nearest32(NamedTuple):
    """To nearest even in float32, of sums that neither overflow nor leave the normal range inexactly."""

    shift: int  # bits of a float32 significand that the format does not have


class Nearest64(NamedTuple):
    """The same in float64."""

    shift: int


class Binary32(NamedTuple):
    """None: a float32 sum of an exact product and a float32 number is that of the register."""

    bits: int  # 32: a kind has a field


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


class Rounder:
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


class _Nearest(Rounder):
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


class _Binary(Rounder):
    """A fused multiply-add has rounded the sum already."""

    def prepare(self, bits):
        pass

    def round(self, x, cell, shared):
        return x


class _Nearest64(_Nearest):
    bits = 64


class _Full(Rounder):
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


class _Biased(Rounder):
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


class _Random(Rounder):
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


class _Any64(_Any, Rounder):
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


KINDS = {
    Binary32: _Binary,
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
