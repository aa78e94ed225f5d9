"""Vector instructions for intrinsics, and the processor's floating-point control register.

The lane count follows the host; the instructions are LLVM's own, which any target has. The control
register is that of x86-64: elsewhere `HAS_DIRECTED` is false and nothing touches it.
"""

import platform

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_FEATURES = binding.get_host_cpu_features()

#: Bytes of the widest vectors of this processor, and how many registers hold them.
VECTOR_BYTES = next((width for name, width in (("avx512f", 64), ("avx2", 32)) if _FEATURES.get(name)), 16)
REGISTERS = 32 if VECTOR_BYTES == 64 or platform.machine() in ("aarch64", "arm64") else 16
LANES_32, LANES_64 = VECTOR_BYTES // 4, VECTOR_BYTES // 8
#: Whether additions have units beside those of the multipliers, so that two of them beat one multiply-add.
HAS_ADDERS = binding.get_host_cpu_name().startswith("znver")
#: Whether the directed roundings and the flags of the processor can be used.
HAS_DIRECTED = platform.machine() in ("x86_64", "AMD64")

# Rounding direction field of MXCSR; all exceptions masked, no flag set, subnormals as they are.
TO_NEAREST, DOWNWARD, UPWARD, TOWARD_ZERO = (0x1F80 | field << 13 for field in range(4))
INEXACT = 0x20

I32, I64 = ir.IntType(32), ir.IntType(64)


class Vectors:
    """Instructions on vectors of floats of `bits` bits, which memory holds in `memory_bits`."""

    def __init__(self, builder, bits, memory_bits=32):
        self.builder = builder
        self.bits = bits
        self.lanes = VECTOR_BYTES * 8 // bits
        self.memory_lanes = VECTOR_BYTES * 8 // memory_bits
        self.frac_bits = 23 if bits == 32 else 52
        self.scalar, self.stored = (
            ir.FloatType() if b == 32 else ir.DoubleType() for b in (bits, memory_bits)
        )
        self.type = ir.VectorType(self.scalar, self.lanes)
        self.word = ir.IntType(bits)
        self.integers = ir.VectorType(self.word, self.lanes)
        self.stored_type = ir.VectorType(self.stored, self.lanes)
        self.widens = bits != memory_bits
        self.align = memory_bits // 8
        self.zero = ir.Constant(self.type, [0.0] * self.lanes)

    def fma(self, a, b, c):
        name = f"llvm.fma.v{self.lanes}f{self.bits}"
        return self.builder.call(_declared(self.builder, name, self.type, [self.type] * 3), [a, b, c])

    def integer(self, value):
        """The same integer constant in every lane."""
        return ir.Constant(self.integers, [value] * self.lanes)

    def splat(self, value):
        """A scalar in every lane."""
        undefined = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(I32, 0))
        everywhere = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, everywhere)

    def splat_integer(self, value):
        """A 64-bit integer, cut or not, in every lane."""
        return self.splat(self.builder.trunc(value, self.word) if self.bits == 32 else value)

    def power(self, exponent):
        """``2**exponent`` for a 64-bit integer, in every lane."""
        bias = ir.Constant(I64, 127 if self.bits == 32 else 1023)
        field = self.builder.shl(self.builder.add(exponent, bias), ir.Constant(I64, self.frac_bits))
        return self.builder.bitcast(self.splat_integer(field), self.type)

    def load(self, pointer):
        loaded = self.builder.load(self.builder.bitcast(pointer, self.stored_type.as_pointer()))
        loaded.align = self.align
        return self.builder.fpext(loaded, self.type) if self.widens else loaded

    def load_scalar(self, pointer):
        """One number, of the type of the lanes in memory too, in every lane."""
        return self.splat(self.builder.load(pointer))

    def load_words(self, pointer):
        """Unsigned 32-bit integers, widened to the lanes."""
        narrow = ir.VectorType(I32, self.lanes)
        loaded = self.builder.load(self.builder.bitcast(pointer, narrow.as_pointer()))
        loaded.align = 4
        return loaded if self.bits == 32 else self.builder.zext(loaded, self.integers)

    def store(self, value, pointer):
        if self.widens:
            value = self.builder.fptrunc(value, self.stored_type)
        stored = self.builder.store(value, self.builder.bitcast(pointer, self.stored_type.as_pointer()))
        stored.align = self.align

    def any_bit(self, x):
        """Whether any bit of any lane is set."""
        name = f"llvm.vector.reduce.or.v{self.lanes}i{self.bits}"
        found = self.builder.call(_declared(self.builder, name, self.word, [self.integers]), [x])
        return self.builder.icmp_unsigned("!=", found, ir.Constant(self.word, 0))

    def ints(self, x):
        return self.builder.bitcast(x, self.integers)

    def floats(self, bits):
        return self.builder.bitcast(bits, self.type)


def offset(builder, base, *terms):
    """Address of element ``sum of factor * count`` from a pointer; the counts are constants."""
    total = ir.Constant(I64, 0)
    for factor, count in terms:
        total = builder.add(total, builder.mul(factor, ir.Constant(I64, count)))
    return builder.gep(base, [total])


def _declared(builder, name, result, arguments):
    """An LLVM intrinsic, declared once in a module."""
    known = builder.module.globals.get(name)
    return known or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


def _control(builder, name, pointer):
    byte = ir.IntType(8).as_pointer()
    builder.call(_declared(builder, name, ir.VoidType(), [byte]), [builder.bitcast(pointer, byte)])


@intrinsic
def read_control(typing):
    """The control and status register, MXCSR; 0 where there is none."""

    def emit(context, builder, signature, arguments):
        if not HAS_DIRECTED:
            return ir.Constant(I32, 0)
        slot = cgutils.alloca_once(builder, I32)  # in a loop each alloca would take its own room
        _control(builder, "llvm.x86.sse.stmxcsr", slot)
        return builder.load(slot)

    return types.uint32(), emit


@intrinsic
def write_control(typing, value):
    """Set MXCSR: rounding direction, flags, what becomes of subnormals."""

    def emit(context, builder, signature, arguments):
        if HAS_DIRECTED:
            slot = cgutils.alloca_once(builder, I32)
            builder.store(arguments[0], slot)
            _control(builder, "llvm.x86.sse.ldmxcsr", slot)
        return context.get_dummy_value()

    return types.void(types.uint32), emit
