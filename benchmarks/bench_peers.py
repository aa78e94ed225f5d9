"""Our casts and products beside other emulators: rates, ratios and bits in one process, on one thread.

Peers are optional; one that cannot be imported gets a row that says so. They install from PyPI with::

    pip install --no-deps gfloat array-api-compat more-itertools pychop qtorch apytypes torchao ml_dtypes

(``--no-deps`` keeps torch as it is). qtorch compiles its C++ at the first import, in about a minute, and
needs g++ and ninja. mptorch, CPFloat and microxcaling are not on PyPI: mptorch's ratios are quoted from a
record, CPFloat's way of rounding is written here in numpy.

Every row times ours and the peer in turns, and ours and the plain operation (a copy, numpy's float32
product) in turns; the peer's ratio to the plain operation is the quotient. A peer gets its own kind of
array, made beforehand, and returns a new one; ours writes into a given array. Where a peer has no product
of its own, one is composed the way its users do: ``acc = round(acc + a[:, k:k+1] * b[k:k+1, :])``.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from timing import machine, medians

from numerics import FloatFormat, cast, matmul, threads

Native = Any  # an array of the peer's own kind
Round = Callable[[Native], Native]
Product = Callable[[Native, Native], Native]

NEAREST, STOCHASTIC = "nearest-even", "stochastic"
CASTS = (
    ("e5m2", NEAREST),
    ("e4m3fn", NEAREST),
    ("e6m9", NEAREST),
    ("e5m2", STOCHASTIC),
    ("e6m9", STOCHASTIC),
)
FLOAT32 = FloatFormat(exp_bits=8, frac_bits=23)
# Fractions of numpy's speed as they were handed to us: not measured here.
RECORDED = (("mptorch's CPU GEMM as installed", 1725), ("mptorch's CPU GEMM rebuilt with -O3", 602))


def same(x: np.ndarray, _: FloatFormat) -> Native:
    """Numpy arrays are the peer's own kind."""
    return x


def tensor(x: np.ndarray, _: FloatFormat) -> Native:
    return torch.from_numpy(x)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """An emulator under its own conventions.

    Attributes
    ----------
    rounder
        Rounding to a format in a mode, or ``None`` where the peer lacks it.
    accumulators
        Accumulator formats of the peer's products, to nearest even; those of `stochastic` besides.
    product
        The peer's own matrix product for an accumulator and a mode; ``None``: the composed loop.
    nearest
        What its rounding to nearest is among ours.
    load, read
        From float32 values (of a format, which some peers want to know) to the peer's arrays and back.
    """

    name: str
    rounder: Callable[[FloatFormat, str], Round | None]
    accumulators: tuple[str, ...] = ("e6m9",)
    stochastic: tuple[str, ...] = ()
    product: Callable[[FloatFormat, str], Product] | None = None
    nearest: str = NEAREST
    load: Callable[[np.ndarray, FloatFormat], Native] = same
    read: Callable[[Native], np.ndarray] = np.asarray


def version(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


def bit_trick() -> Peer:
    """Rounding on the bits of float32, as CPFloat does in C, as passes of numpy."""

    def rounder(fmt: FloatFormat, rounding: str) -> Round | None:
        if rounding != NEAREST:
            return None
        shift = 23 - fmt.frac_bits
        half, kept = np.uint32((1 << (shift - 1)) - 1), np.uint32((0xFFFFFFFF << shift) & 0xFFFFFFFF)
        least_normal = np.float32(2.0**fmt.emin)
        magic = np.float32(1.5 * 2.0 ** (fmt.emin + shift))  # its last place is the format's
        beyond = np.float32(np.inf if fmt.specials == "ieee" else fmt.max)

        def round_bits(x: Native) -> Native:
            bits = x.view(np.uint32)
            normal = ((bits + (half + ((bits >> np.uint32(shift)) & np.uint32(1)))) & kept).view(np.float32)
            size = np.abs(x)
            rounded = np.where(size < least_normal, np.copysign((size + magic) - magic, x), normal)
            return np.where(np.abs(rounded) > fmt.max, np.copysign(beyond, x), rounded)

        return round_bits

    return Peer(name=f"CPFloat's way in numpy {np.__version__}", rounder=rounder)


def numpy_half() -> Peer:
    """The float16 of numpy, an accumulator that needs no package."""

    def rounder(fmt: FloatFormat, rounding: str) -> Round | None:
        if (str(fmt), rounding) != ("e5m10", NEAREST):
            return None
        return lambda x: x.astype(np.float16).astype(np.float32)

    return Peer(name=f"numpy {np.__version__} float16", rounder=rounder, accumulators=("e5m10",))


def ml_dtypes_peer() -> Peer:
    """Casts to the dtypes of ml_dtypes and back to float32."""
    library = importlib.import_module("ml_dtypes")
    names = {"e5m2": "float8_e5m2", "e4m3fn": "float8_e4m3fn", "e8m7": "bfloat16"}

    def rounder(fmt: FloatFormat, rounding: str) -> Round | None:
        if rounding != NEAREST or str(fmt) not in names:
            return None
        dtype = getattr(library, names[str(fmt)])
        return lambda x: x.astype(dtype).astype(np.float32)

    return Peer(name=version("ml_dtypes"), rounder=rounder, accumulators=("e8m7", "e5m2"))


def torch_peer() -> Peer:
    """Casts to torch's own dtypes and back to float32."""
    dtypes = {
        "e5m2": torch.float8_e5m2,
        "e4m3fn": torch.float8_e4m3fn,
        "e8m7": torch.bfloat16,
        "e5m10": torch.float16,
    }

    def rounder(fmt: FloatFormat, rounding: str) -> Round | None:
        if rounding != NEAREST or str(fmt) not in dtypes:
            return None
        dtype = dtypes[str(fmt)]
        return lambda x: x.to(dtype).to(torch.float32)

    accumulators = ("e8m7", "e5m10")
    return Peer(name=version("torch"), rounder=rounder, load=tensor, accumulators=accumulators)


def torchao_peer() -> Peer:
    """Small floats without special codes of torchao's prototypes, to codes and back; casts alone."""
    library = importlib.import_module("torchao.prototype.custom_fp_utils")

    def rounder(fmt: FloatFormat, rounding: str) -> Round | None:
        if rounding != NEAREST or fmt.bits > 8:
            return None
        shape = fmt.exp_bits, fmt.frac_bits
        encode, decode = library._f32_to_floatx_unpacked, library._floatx_unpacked_to_f32
        return lambda x: decode(encode(x, *shape), *shape)

    return Peer(name=version("torchao"), rounder=rounder, load=tensor, accumulators=())


def gfloat_peer() -> Peer:
    """round_ndarray of gfloat on numpy arrays, with 24 random bits where stochastic."""
    library = importlib.import_module("gfloat")
    rng = np.random.default_rng(0)

    def rounder(fmt: FloatFormat, rounding: str) -> Round | None:
        finite = fmt.specials == "fn"
        info = library.FormatInfo(
            str(fmt),
            fmt.bits,
            fmt.frac_bits + 1,
            bias=fmt.bias,
            is_signed=True,
            domain=library.Domain.Finite if finite else library.Domain.Extended,
            has_nz=True,
            num_high_nans=1 if finite else 2**fmt.frac_bits - 1,
            has_subnormals=True,
            is_twos_complement=False,
        )
        if rounding == NEAREST:
            return lambda x: library.round_ndarray(info, x, sat=finite)
        mode = library.RoundMode.StochasticFastest

        def stochastic(x: Native) -> Native:
            words = rng.integers(0, 1 << 24, x.shape)
            return library.round_ndarray(info, x, mode, sat=finite, srbits=words, srnumbits=24)

        return stochastic

    return Peer(name=version("gfloat"), rounder=rounder, stochastic=("e6m9",))


def pychop_peer() -> Peer:
    """Chop of pychop on numpy arrays, kept away from Dask's small chunks, which are slower."""
    library = importlib.import_module("pychop")

    def rounder(fmt: FloatFormat, rounding: str) -> Round | None:
        mode = {NEAREST: 1, STOCHASTIC: 5}[rounding]
        chop: Round = library.Chop(fmt.exp_bits, fmt.frac_bits, rmode=mode, chunk_size=1 << 62)
        return chop

    return Peer(name=version("pychop"), rounder=rounder, stochastic=("e6m9",))


def qtorch_peer() -> Peer:
    """float_quantize of QPyTorch as it installs: torch compiles it without optimization."""
    quantize = importlib.import_module("qtorch.quant").float_quantize

    def rounder(fmt: FloatFormat, rounding: str) -> Round | None:
        mode = rounding.removesuffix("-even")
        return lambda x: quantize(x, fmt.exp_bits, fmt.frac_bits, mode)

    return Peer(
        name=version("qtorch"), rounder=rounder, load=tensor, stochastic=("e6m9",), nearest="nearest-away"
    )


def qtorch_rebuilt() -> Peer:
    """The same sources compiled with -O3."""
    installed = importlib.import_module("qtorch.quant.quant_function")
    sources = [
        f"{installed.current_path}/quant_cpu/{name}.cpp" for name in ("quant_cpu", "bit_helper", "sim_helper")
    ]
    extension = importlib.import_module("torch.utils.cpp_extension")
    library = extension.load(name="quant_cpu_o3", sources=sources, extra_cflags=["-O3"])

    def rounder(fmt: FloatFormat, rounding: str) -> Round | None:
        quantize = getattr(library, f"float_quantize_{rounding.removesuffix('-even')}")
        return lambda x: quantize(x, fmt.frac_bits, fmt.exp_bits)

    return replace(qtorch_peer(), name=f"{version('qtorch')} -O3", rounder=rounder)


def apytypes_peer() -> Peer:
    """APyFloatArray of APyTypes: cast, and its own product with an accumulator context."""
    library = importlib.import_module("apytypes")
    library.reset_thread_pool(1)
    modes = {
        NEAREST: library.QuantizationMode.TIES_EVEN,
        STOCHASTIC: library.QuantizationMode.STOCH_WEIGHTED,
    }

    def rounder(fmt: FloatFormat, rounding: str) -> Round | None:
        return lambda x: x.cast(fmt.exp_bits, fmt.frac_bits, quantization=modes[rounding])

    def product(fmt: FloatFormat, rounding: str) -> Product:
        def multiply(a: Native, b: Native) -> Native:
            with library.APyFloatAccumulatorContext(
                exp_bits=fmt.exp_bits, man_bits=fmt.frac_bits, quantization=modes[rounding]
            ):
                return a @ b

        return multiply

    return Peer(
        name=version("apytypes"),
        rounder=rounder,
        product=product,
        stochastic=("e6m9",),
        load=lambda x, fmt: library.APyFloatArray.from_float(x, fmt.exp_bits, fmt.frac_bits),
        read=lambda x: x.to_numpy(),
    )


PEERS: dict[str, Callable[[], Peer]] = {
    "bit trick": bit_trick,
    "float16": numpy_half,
    "ml_dtypes": ml_dtypes_peer,
    "torch": torch_peer,
    "torchao": torchao_peer,
    "gfloat": gfloat_peer,
    "pychop": pychop_peer,
    "qtorch": qtorch_peer,
    "qtorch -O3": qtorch_rebuilt,
    "apytypes": apytypes_peer,
}


def differences(x: np.ndarray, ours: np.ndarray, theirs: np.ndarray, text: str) -> str:
    """How many bit patterns differ, sorted by what is special about them."""
    differ = ours.view(np.uint32) != theirs.view(np.uint32)
    if not differ.any():
        return "equal"
    x, ours, theirs = x[differ], ours[differ], theirs[differ]
    middle = (cast(x, text, rounding="down").astype(np.float64) + cast(x, text, rounding="up")) / 2
    least_normal = 2.0 ** FloatFormat.parse(text).emin
    zero, tie = (ours == theirs), (middle == x)
    carry = ~zero & ~tie & (np.abs(ours) == least_normal)
    kinds = {"ties": tie & ~zero, "signs of 0": zero, "that round up to the least normal": carry}
    found = {kind: int(which.sum()) for kind, which in kinds.items() if which.any()}
    if other := ours.size - sum(found.values()):
        found["others"] = other
    return f"{ours.size} differ: " + ", ".join(f"{count} {kind}" for kind, count in found.items())


def strays(x: np.ndarray, rounded: np.ndarray, text: str) -> str:
    """How many stochastic results are neither neighbour of their argument."""
    down, up = (cast(x, text, rounding=mode) for mode in ("down", "up"))
    return f"{int(((rounded != down) & (rounded != up)).sum())} not neighbours"


def cast_row(peer: Peer, text: str, rounding: str, size: int, repeats: int) -> tuple[str, ...] | None:
    """Cast of float32 from N(0, 4), or ``None`` if the peer has no such cast."""
    fmt = FloatFormat.parse(text)
    round_ = peer.rounder(fmt, rounding)
    if round_ is None:
        return None
    x = np.random.default_rng(0).normal(0.0, 4.0, size).astype(np.float32)
    out, native = np.empty_like(x), peer.load(x, FLOAT32)

    def work() -> object:
        return cast(x, text, rounding=rounding, seed=0, out=out)

    theirs = peer.read(round_(native)).astype(np.float32)
    if rounding == NEAREST:
        bits = differences(x, cast(x, text), theirs, text)
    else:
        bits = f"{strays(x, theirs, text)}, ours {strays(x, cast(x, text, rounding=rounding, seed=0), text)}"
    ours, peers = medians(work, lambda: round_(native), repeats)
    again, copied = medians(work, lambda: np.copyto(out, x), repeats)
    return (
        peer.name,
        f"{rounding} to {text}",
        f"{size / ours / 1e9:.3f}",
        f"{size / peers / 1e9:.4f}",
        f"{peers / ours:.1f}x",
        f"{copied / again:.2f}",
        f"{copied / again * ours / peers:.4f}",
        bits,
    )


def composed(round_: Round) -> Product:
    """Product as a loop over k of outer products, each sum rounded."""

    def multiply(a: Native, b: Native) -> Native:
        acc = round_(a[:, :1] * b[:1, :])
        for k in range(1, a.shape[1]):
            acc = round_(acc + a[:, k : k + 1] * b[k : k + 1, :])
        return acc

    return multiply


def matmul_row(peer: Peer, text: str, rounding: str, size: int, repeats: int) -> tuple[str, ...]:
    """Product of e4m3fn matrices summed in `text`, with a rounding after each addition."""
    fmt, operand = FloatFormat.parse(text), FloatFormat.parse("e4m3fn")
    rng = np.random.default_rng(0)
    a, b = (cast(rng.normal(size=(size, size)).astype(np.float32), operand) for _ in range(2))
    accumulator = text if rounding == NEAREST else f"{text} rounding={rounding}"

    def work() -> np.ndarray:
        return matmul(a, b, accumulator, seed=0)

    if peer.product is not None:
        how, multiply = "its product", peer.product(fmt, rounding)
    else:
        round_ = peer.rounder(fmt, rounding)
        assert round_ is not None
        how, multiply = "composed", composed(round_)
    left, right = peer.load(a, operand), peer.load(b, operand)
    theirs = peer.read(multiply(left, right)).astype(np.float32)

    def differ(mode: str) -> int:
        expected = matmul(a, b, f"{text} rounding={mode}")
        return int((theirs.view(np.uint32) != expected.view(np.uint32)).sum())

    if rounding == STOCHASTIC:
        bits = "own random words"
    elif (count := differ(NEAREST)) == 0:
        bits = "equal"
    elif peer.nearest == NEAREST:
        bits = f"{count} differ"
    else:
        bits = f"{count} differ, {differ(peer.nearest)} from ours to {peer.nearest}"
    ours, peers = medians(work, lambda: multiply(left, right), repeats)
    again, plain = medians(work, lambda: a @ b, 5 * repeats)
    return (
        f"{peer.name}, {how}",
        f"{accumulator}, {size}**3",
        f"{size**3 / ours / 1e9:.3f}",
        f"{size**3 / peers / 1e9:.4f}",
        f"{peers / ours:.1f}x",
        f"{plain / again:.3f}",
        f"1/{peers / ours * again / plain:.0f}",
        bits,
    )


def installed() -> tuple[list[Peer], list[str]]:
    """Peers that import here, and why the others do not."""
    found, missing = [], []
    logging.disable(logging.WARNING)  # what torchao says of its GPU libraries
    for name, make in PEERS.items():
        try:
            found.append(make())
        except Exception as error:  # whatever a peer's own import or compilation raises
            reason = (str(error).splitlines() or [""])[0]
            missing.append(f"not installed: {name} ({type(error).__name__}: {reason})")
    logging.disable(logging.NOTSET)
    return found, missing


def matmul_rows(peers: list[Peer], size: int, repeats: int) -> Iterator[tuple[str, ...]]:
    for peer in peers:
        for text in peer.accumulators:
            yield matmul_row(peer, text, NEAREST, size, repeats)
    for peer in peers:
        for text in peer.stochastic:
            yield matmul_row(peer, text, STOCHASTIC, size // 2, repeats)
    for name, ratio in RECORDED:
        yield name, "recorded, not measured here", "", "", "", "", f"1/{ratio}", ""


def show(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    print(f"\n{title}")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in chain((header,), rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each, at least 5")
    parser.add_argument("--elements", type=int, default=1 << 22, help="elements of a cast")
    parser.add_argument("--size", type=int, default=256, help="side of a product; half of it if stochastic")
    arguments = parser.parse_args()
    repeats, elements = max(5, arguments.repeats), arguments.elements
    torch.set_num_threads(1)
    peers, missing = installed()
    with threadpool_limits(limits=1):
        threads.limit(1)
        print(machine())
        for line in missing:
            print(line)
        casts = [
            row
            for text, rounding in CASTS
            for peer in peers
            if (row := cast_row(peer, text, rounding, elements, repeats)) is not None
        ]
        show(
            f"Casts of {elements} float32 from N(0, 4), GElem/s",
            ("peer", "cast", "ours", "peer's", "ours/peer", "ours/copy", "peer/copy", "bits"),
            casts,
        )
        show(
            "Products of e4m3fn matrices from N(0, 1), a rounding after each addition, GMAC/s",
            ("peer", "accumulator", "ours", "peer's", "ours/peer", "ours/numpy", "peer/numpy", "bits"),
            list(matmul_rows(peers, arguments.size, repeats)),
        )
    print(
        "\nWhere bits differ: qtorch's nearest rounds ties away from zero and gives +0 for what vanishes"
        "\nfrom below; apytypes' cast gives 0 for what rounds up from the subnormals to the least normal"
        "\nnumber. Other differences are unexplained and count as errors of ours until shown otherwise."
    )


if __name__ == "__main__":
    main()
