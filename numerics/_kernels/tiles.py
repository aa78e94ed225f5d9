"""Register tiles of rounded sums, emitted as vector instructions, and the products made of them.

A tile keeps ``rows x vectors`` running sums in registers. Lanes run over columns; along k every sum
keeps its order, so tiles of any shape and in any sequence give the bits of the plain loops in
`numerics._kernels.loops`, their twin. Left to itself the compiler keeps the sums in memory, for it cannot
tell that operands and result are apart.

Operands come packed: `a` in panels of 8 rows, then 4, 2, 1 for the rest, (k, rows) each; `b` in panels
of one vector of columns, (k, lanes) each, the last one padded with zeros.
"""

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic

#: Bytes of the widest vectors of this processor.
VECTOR_BYTES = next(
    (width for name, width in (("avx512f", 64), ("avx2", 32)) if binding.get_host_cpu_features().get(name)),
    16,
)
LANES_32, LANES_64 = VECTOR_BYTES // 4, VECTOR_BYTES // 8
ROWS = 8  # of a full tile: with two vectors, 16 sums hide the latency of one rounded addition
DEPTH = 1024  # steps after which a tile is put down, so that panels stay in the near caches

# What a tile starts from, and what it does with the result.
REPLACE, RESUME, ADD = range(3)

_I32, _I64 = ir.IntType(32), ir.IntType(64)


class _Vectors:
    """Instructions on vectors of floats of `bits` bits."""

    def __init__(self, builder, bits):
        self.builder = builder
        self.lanes = VECTOR_BYTES * 8 // bits
        self.bytes = bits // 8
        self.scalar = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.type = ir.VectorType(self.scalar, self.lanes)
        self.integers = ir.VectorType(ir.IntType(bits), self.lanes)
        self.zero = ir.Constant(self.type, [0.0] * self.lanes)
        name = f"llvm.fma.v{self.lanes}f{bits}"
        known = builder.module.globals.get(name)
        self._fma = known or ir.Function(builder.module, ir.FunctionType(self.type, [self.type] * 3), name)
        self._exponent_and_sign = self.integer(-(1 << (23 if bits == 32 else 52)))

    def fma(self, a, b, c):
        return self.builder.call(self._fma, [a, b, c])

    def integer(self, value):
        """The same integer constant in every lane."""
        return ir.Constant(self.integers, [value] * self.lanes)

    def splat(self, value):
        undefined = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(_I32, 0))
        everywhere = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, everywhere)

    def load(self, pointer):
        loaded = self.builder.load(self.builder.bitcast(pointer, self.type.as_pointer()))
        loaded.align = self.bytes
        return loaded

    def store(self, value, pointer):
        stored = self.builder.store(value, self.builder.bitcast(pointer, self.type.as_pointer()))
        stored.align = self.bytes

    def round_nearest_even(self, x, lift, drop):
        """``(x + s) - s`` where s is the signed power of two of x times `lift`; drop is -lift."""
        bits = self.builder.and_(self.builder.bitcast(x, self.integers), self._exponent_and_sign)
        power = self.builder.bitcast(bits, self.type)
        return self.fma(power, drop, self.fma(power, lift, x))


class _Certified:
    """Rounding to nearest even of sums that neither overflow nor leave the normal range inexactly."""

    def __init__(self, vectors, setting):
        self.v = vectors
        self.up, self.down = vectors.splat(setting), vectors.splat(vectors.builder.fneg(setting))

    def round(self, x):
        return self.v.round_nearest_even(x, self.up, self.down)


class _Full:
    """Rounding to nearest even of any float32 sum, with subnormals, overflow, zeros of both signs, NaN.

    As `_kernels.cast_nearest_even_f32`; `setting` is the address of its five bit patterns, see
    `full_setting`.
    """

    def __init__(self, vectors, setting):
        self.v = vectors
        builder = vectors.builder
        base = builder.inttoptr(setting, _I32.as_pointer())
        scalars = [builder.load(builder.gep(base, [ir.Constant(_I64, i)])) for i in range(5)]
        self.least, self.most, self.lift, high, over = (vectors.splat(scalar) for scalar in scalars)
        self.high, self.over = builder.bitcast(high, vectors.type), over

    def round(self, x):
        v, builder = self.v, self.v.builder
        bits = builder.bitcast(x, v.integers)
        sign = builder.and_(bits, v.integer(-0x80000000))
        field = builder.and_(bits, v.integer(0x7F800000))
        field = builder.select(builder.icmp_signed(">", field, self.least), field, self.least)
        field = builder.select(builder.icmp_signed("<", field, self.most), field, self.most)
        big = builder.bitcast(builder.add(field, self.lift), v.type)
        rounded = builder.bitcast(builder.fsub(builder.fadd(x, big), big), v.integers)
        magnitude = builder.and_(rounded, v.integer(0x7FFFFFFF))
        above = builder.fcmp_ordered(">", builder.bitcast(magnitude, v.type), self.high)
        return builder.bitcast(builder.or_(builder.select(above, self.over, rounded), sign), v.type)


def _tile(bits, rows, vectors, rounding=_Certified):
    """Intrinsic ``tile(a, b, b_stride, c, c_stride, depth, setting, mode)``.

    `a`, `b`, `c` are addresses; strides count elements, from one panel of `b` and one row of `c` to the
    next. The sums of ``a @ b`` start from +0, or with `RESUME` from `c`, and are rounded at every step.
    They are written to `c`, or with `ADD` added to it and rounded once more.
    """

    @intrinsic
    def tile(typing, a, b, b_stride, c, c_stride, depth, setting, mode):
        kind = types.uintp if rounding is _Full else (types.float32 if bits == 32 else types.float64)
        signature = types.void(
            types.uintp, types.uintp, types.intp, types.uintp, types.intp, types.intp, kind, types.intp
        )

        def emit(context, builder, signature, arguments):
            a, b, b_stride, c, c_stride, depth, setting, mode = arguments
            v = _Vectors(builder, bits)
            a, b, c = (builder.inttoptr(address, v.scalar.as_pointer()) for address in (a, b, c))
            target = rounding(v, setting)

            def at(base, *terms):
                offset = ir.Constant(_I64, 0)
                for factor, count in terms:
                    offset = builder.add(offset, builder.mul(factor, ir.Constant(_I64, count)))
                return builder.gep(base, [offset])

            one = ir.Constant(_I64, 1)
            cells = [(i, j) for i in range(rows) for j in range(vectors)]
            places = {(i, j): at(c, (c_stride, i), (one, j * v.lanes)) for i, j in cells}
            entry = builder.block
            blocks = (
                builder.append_basic_block(name) for name in ("resume", "loop", "end", "add", "put", "out")
            )
            resume, loop, end, add, put, out = blocks
            builder.cbranch(builder.icmp_signed("==", mode, ir.Constant(_I64, RESUME)), resume, loop)

            builder.position_at_end(resume)
            held = {cell: v.load(places[cell]) for cell in cells}
            builder.branch(loop)

            builder.position_at_end(loop)
            k = builder.phi(_I64)
            sums = {cell: builder.phi(v.type) for cell in cells}
            columns = [v.load(at(b, (k, v.lanes), (b_stride, j))) for j in range(vectors)]
            scales = [v.splat(builder.load(at(a, (k, rows), (one, i)))) for i in range(rows)]
            rounded = {(i, j): target.round(v.fma(scales[i], columns[j], sums[i, j])) for i, j in cells}
            following = builder.add(k, one)
            for block in (entry, resume):
                k.add_incoming(ir.Constant(_I64, 0), block)
            k.add_incoming(following, loop)
            for cell in cells:
                sums[cell].add_incoming(v.zero, entry)
                sums[cell].add_incoming(held[cell], resume)
                sums[cell].add_incoming(rounded[cell], loop)
            builder.cbranch(builder.icmp_signed("<", following, depth), loop, end)

            builder.position_at_end(end)
            builder.cbranch(builder.icmp_signed("==", mode, ir.Constant(_I64, ADD)), add, put)
            builder.position_at_end(add)
            for cell in cells:
                total = builder.fadd(v.load(places[cell]), rounded[cell])
                v.store(target.round(total), places[cell])
            builder.branch(out)
            builder.position_at_end(put)
            for cell in cells:
                v.store(rounded[cell], places[cell])
            builder.branch(out)
            builder.position_at_end(out)
            return context.get_dummy_value()

        return signature, emit

    return tile


_f32_8x2, _f32_4x2, _f32_2x2, _f32_1x2 = (_tile(32, rows, 2) for rows in (8, 4, 2, 1))
_f32_8x1, _f32_4x1, _f32_2x1, _f32_1x1 = (_tile(32, rows, 1) for rows in (8, 4, 2, 1))
_any_8x2, _any_4x2, _any_2x2, _any_1x2 = (_tile(32, rows, 2, _Full) for rows in (8, 4, 2, 1))
_any_8x1, _any_4x1, _any_2x1, _any_1x1 = (_tile(32, rows, 1, _Full) for rows in (8, 4, 2, 1))
_f64_8x2, _f64_4x2, _f64_2x2, _f64_1x2 = (_tile(64, rows, 2) for rows in (8, 4, 2, 1))
_f64_8x1, _f64_4x1, _f64_2x1, _f64_1x1 = (_tile(64, rows, 1) for rows in (8, 4, 2, 1))


def full_setting(
    frac_bits: int, emin: int, max_value: float, above: float
) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Numbers that `gemm` takes for sums of any kind: least and largest exponent field, lift, limits."""
    limits = np.array([max_value, above], np.float32).view(np.int32)
    fields = [(emin + 127) << 23, (231 + frac_bits) << 23, (23 - frac_bits) << 23 | 0x400000]
    return np.array([*fields, *limits], np.int32)


@njit(cache=True, nogil=True)
def pack_rows(a, out):
    """Pack (m, k) into panels of 8 rows, then 4, 2, 1; out is flat, m * k."""
    rows, depth = a.shape
    at, first, height = 0, 0, ROWS
    while first < rows:
        while first + height > rows:
            height //= 2
        panel = out[at : at + height * depth].reshape(depth, height)
        if height == ROWS:  # eight streams by name: three times as fast as a loop over them
            a0, a1, a2, a3 = a[first], a[first + 1], a[first + 2], a[first + 3]
            a4, a5, a6, a7 = a[first + 4], a[first + 5], a[first + 6], a[first + 7]
            for k in range(depth):
                panel[k, 0], panel[k, 1], panel[k, 2], panel[k, 3] = a0[k], a1[k], a2[k], a3[k]
                panel[k, 4], panel[k, 5], panel[k, 6], panel[k, 7] = a4[k], a5[k], a6[k], a7[k]
        else:
            for k in range(depth):
                for i in range(height):
                    panel[k, i] = a[first + i, k]
        at += height * depth
        first += height


@njit(cache=True, nogil=True)
def pack_columns(b, out, along_k):
    """Pack (k, n) into out, (panels, k, lanes); `along_k` where `b` is contiguous that way."""
    depth, columns = b.shape
    lanes = out.shape[2]
    for p in range(out.shape[0]):
        width = min(lanes, columns - p * lanes)
        strip, panel = b[:, p * lanes : p * lanes + width], out[p]
        if along_k:
            for j in range(width):
                for k in range(depth):
                    panel[k, j] = strip[k, j]
        elif width == LANES_32:  # a constant number of turns becomes one vector
            for k in range(depth):
                for j in range(LANES_32):
                    panel[k, j] = strip[k, j]
        elif width == LANES_64:
            for k in range(depth):
                for j in range(LANES_64):
                    panel[k, j] = strip[k, j]
        else:
            for k in range(depth):
                for j in range(width):
                    panel[k, j] = strip[k, j]
        if width < lanes:
            panel[:, width:] = 0.0


@njit(cache=True, nogil=True)
def _row_of_tiles_f32(a, b, stride, c, width, n, lift, mode, height, two):
    if two:
        if height == 8:
            _f32_8x2(a, b, stride, c, width, n, lift, mode)
        elif height == 4:
            _f32_4x2(a, b, stride, c, width, n, lift, mode)
        elif height == 2:
            _f32_2x2(a, b, stride, c, width, n, lift, mode)
        else:
            _f32_1x2(a, b, stride, c, width, n, lift, mode)
    elif height == 8:
        _f32_8x1(a, b, stride, c, width, n, lift, mode)
    elif height == 4:
        _f32_4x1(a, b, stride, c, width, n, lift, mode)
    elif height == 2:
        _f32_2x1(a, b, stride, c, width, n, lift, mode)
    else:
        _f32_1x1(a, b, stride, c, width, n, lift, mode)


@njit(cache=True, nogil=True)
def _row_of_tiles_any(a, b, stride, c, width, n, lift, mode, height, two):
    if two:
        if height == 8:
            _any_8x2(a, b, stride, c, width, n, lift, mode)
        elif height == 4:
            _any_4x2(a, b, stride, c, width, n, lift, mode)
        elif height == 2:
            _any_2x2(a, b, stride, c, width, n, lift, mode)
        else:
            _any_1x2(a, b, stride, c, width, n, lift, mode)
    elif height == 8:
        _any_8x1(a, b, stride, c, width, n, lift, mode)
    elif height == 4:
        _any_4x1(a, b, stride, c, width, n, lift, mode)
    elif height == 2:
        _any_2x1(a, b, stride, c, width, n, lift, mode)
    else:
        _any_1x1(a, b, stride, c, width, n, lift, mode)


@njit(cache=True, nogil=True)
def _row_of_tiles_f64(a, b, stride, c, width, n, lift, mode, height, two):
    if two:
        if height == 8:
            _f64_8x2(a, b, stride, c, width, n, lift, mode)
        elif height == 4:
            _f64_4x2(a, b, stride, c, width, n, lift, mode)
        elif height == 2:
            _f64_2x2(a, b, stride, c, width, n, lift, mode)
        else:
            _f64_1x2(a, b, stride, c, width, n, lift, mode)
    elif height == 8:
        _f64_8x1(a, b, stride, c, width, n, lift, mode)
    elif height == 4:
        _f64_4x1(a, b, stride, c, width, n, lift, mode)
    elif height == 2:
        _f64_2x1(a, b, stride, c, width, n, lift, mode)
    else:
        _f64_1x1(a, b, stride, c, width, n, lift, mode)


@njit(cache=True, nogil=True)
def gemm(a, b, out, chunk, lift, setting, first_panel, last_panel):
    """Panels ``first_panel .. last_panel - 1`` of the columns of ``out = a @ b``.

    Every addition is rounded to nearest even as `_kernels.gemm_f32` and `gemm_f64` do; the type of the
    arrays, float32 or float64, says which. With a `setting` of five numbers (see `full_setting`; else
    of none) the sums may be any float32, and `out` must be zero: a first chunk of -0 is added to +0.
    `out` is (m, panels * lanes).
    """
    full = setting.shape[0] > 0
    address = setting.ctypes.data
    rows, width = out.shape
    depth, lanes = b.shape[1], b.shape[2]
    size = out.itemsize
    chunked = chunk < depth
    step = chunk if chunked else min(depth, DEPTH)
    run = max(DEPTH // step, 1) * step
    for low in range(0, depth, run):
        high = min(low + run, depth)
        p = first_panel
        while p < last_panel:
            two = p + 2 <= last_panel
            i, height = 0, ROWS
            while i < rows:
                while i + height > rows:
                    height //= 2
                c = out.ctypes.data + size * (i * width + p * lanes)
                for k in range(low, high, step):
                    n = min(step, high - k)
                    pa = a.ctypes.data + size * (i * depth + k * height)
                    pb = b.ctypes.data + size * (p * depth * lanes + k * lanes)
                    mode = ADD if chunked else RESUME
                    if k == 0 and not (full and chunked):
                        mode = REPLACE
                    if full:
                        _row_of_tiles_any(pa, pb, depth * lanes, c, width, n, address, mode, height, two)
                    elif size == 4:
                        _row_of_tiles_f32(pa, pb, depth * lanes, c, width, n, lift, mode, height, two)
                    else:
                        _row_of_tiles_f64(pa, pb, depth * lanes, c, width, n, lift, mode, height, two)
                i += height
            p += 2 if two else 1
