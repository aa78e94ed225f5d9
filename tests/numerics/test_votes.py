"""Second and third votes: ml_dtypes, gfloat and numpy round and read as we do, where they are right.

ml_dtypes casts from float32 only: its float64 casts round twice. Neither is asked about E8M0 scales, whose
ties ml_dtypes sends up. `test_codes` and `test_cast` ask them about all codes of the common formats and all
finite float16; here about all patterns of float16 and bfloat16, hard float32 numbers, every mode and other
formats.
"""

import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import pytest
from gfloat import RoundMode

from numerics import cast, decode, encode, parse_format
from oracles.grid import same
from oracles.rational import DETERMINISTIC, round_rational
from oracles.strategies import hard_values

pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy: NaNs that signal

ML_DTYPES = {
    "e4m3fn": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e4m3ieee": ml_dtypes.float8_e4m3,
    "e3m4": ml_dtypes.float8_e3m4,
    "e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "e4m3fnuzb11": ml_dtypes.float8_e4m3b11fnuz,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "bf16": ml_dtypes.bfloat16,
    "fp16": np.float16,
}
P3109 = {"p3109": gfloat.Domain.Extended, "fnuz": gfloat.Domain.Finite}
GFLOAT = {
    "e4m3fn": gfloat.formats.format_info_ocp_e4m3,
    "e5m2": gfloat.formats.format_info_ocp_e5m2,
    "e2m3": gfloat.formats.format_info_ocp_e2m3,
    "e3m2": gfloat.formats.format_info_ocp_e3m2,
    "e2m1": gfloat.formats.format_info_ocp_e2m1,
    "bf16": gfloat.formats.format_info_bfloat16,
    "fp16": gfloat.formats.format_info_binary16,
    # With k bits, precision p: of their finite domain the values are those of the fnuz family.
    **{
        f"e{k - p}m{p - 1}{family}": gfloat.formats.format_info_p3109(k, p, domain=domain)
        for family, domain in P3109.items()
        for k in (4, 6, 8)
        for p in range(2, k)
    },
}
MODES = {
    "nearest-even": RoundMode.TiesToEven,
    "nearest-away": RoundMode.TiesToAway,
    "toward-zero": RoundMode.TowardZero,
    "down": RoundMode.TowardNegative,
    "up": RoundMode.TowardPositive,
}


def patterns():
    """All of float16 and of bfloat16 as float32."""
    codes = np.arange(1 << 16, dtype=np.uint16)
    return np.concatenate(
        [codes.view(np.float16).astype(np.float32), (codes.astype(np.uint32) << 16).view(np.float32)]
    )


def hard_floats(text):
    """float32 numbers on, between and beside the values of a format, and of random bits."""
    rng = np.random.default_rng(3)
    with np.errstate(over="ignore", under="ignore"):
        hard = hard_values(parse_format(text), rng, 60_000).astype(np.float32)
        beside = np.concatenate([np.nextafter(hard, np.float32(s)) for s in (0, np.inf, -np.inf)])
    return np.concatenate([hard, beside, rng.integers(0, 1 << 32, 60_000, np.uint32).view(np.float32)])


# ml_dtypes: to nearest even.


@pytest.mark.parametrize("text", ML_DTYPES)
@pytest.mark.parametrize("numbers", ["patterns", "hard"])
def test_ml_dtypes_rounds_every_pattern_and_hard_numbers_alike(text, numbers):
    x = patterns() if numbers == "patterns" else hard_floats(text)
    if text in ("e2m3", "e3m2", "e2m1"):
        x = x[np.isfinite(x)]  # ml_dtypes makes zeros or other numbers of what these cannot hold
    with np.errstate(over="ignore", under="ignore"):
        theirs = x.astype(ML_DTYPES[text]).astype(np.float32)
    # Formats of the fn and fnuz kinds make NaN of an overflow there.
    overflow = "nan" if "fn" in text else "format"
    same(cast(x, text, overflow=overflow), theirs)


@pytest.mark.parametrize("text", [text for text in ML_DTYPES if parse_format(text).bits == 8])
def test_the_codes_of_ml_dtypes_are_ours(text):
    codes = np.arange(256, dtype=np.uint8)
    theirs = codes.view(ML_DTYPES[text]).astype(np.float32)
    same(decode(codes, text), theirs)
    x = hard_floats(text)
    x = x[np.abs(x) <= parse_format(text).max]
    ours = encode(x, text)
    kept = ~np.isnan(theirs[ours])
    assert kept.all()
    np.testing.assert_array_equal(ours, x.astype(ML_DTYPES[text]).view(np.uint8))


@pytest.mark.parametrize("text", ["e4m3fn", "e5m2", "e3m4", "e2m1", "bf16", "e6m9"])
def test_float64_is_rounded_once_where_a_cast_by_way_of_float32_rounds_twice(text):
    # A little beside a tie: float32 forgets on which side. ml_dtypes goes that way.
    fmt = parse_format(text)
    ties = np.ldexp(np.arange(1 << fmt.frac_bits, 2 << fmt.frac_bits) + 0.5, -fmt.frac_bits)
    x = np.concatenate([ties * (1 + 2.0**-40), ties * (1 - 2.0**-40)])
    x = np.concatenate([x, -x])
    expected = [round_rational(float(v), fmt) for v in x]
    same(cast(x, fmt), expected)
    by_float32 = cast(x.astype(np.float32), fmt)
    assert (by_float32 != expected).mean() == 0.5  # every other tie goes to the wrong side of even


# gfloat: every mode that it has.


def gfloat_rounds(x, text, mode, **options):
    with np.errstate(all="ignore"):
        return gfloat.round_ndarray(GFLOAT[text], x, mode, **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", GFLOAT)
def test_gfloat_rounds_every_pattern_and_hard_numbers_alike_in_every_mode(text, mode):
    x = np.concatenate([patterns(), hard_floats(text)]).astype(np.float64)
    if not parse_format(text).has_nan:
        x = x[np.isfinite(x)]
    same(cast(x, text, rounding=mode, overflow="saturate"), gfloat_rounds(x, text, MODES[mode], sat=True))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", [text for text in GFLOAT if parse_format(text).has_infinity])
def test_gfloat_overflows_alike(text, mode):
    x = np.concatenate([patterns(), hard_floats(text)]).astype(np.float64)
    same(cast(x, text, rounding=mode), gfloat_rounds(x, text, MODES[mode], sat=False))


@pytest.mark.parametrize("bits", [1, 4, 11])
@pytest.mark.parametrize("text", ["e4m3fn", "e5m2", "e3m2", "e2m1", "e4m3p3109", "bf16"])
def test_gfloat_rounds_alike_with_the_same_random_bits(text, bits):
    # Its fastest stochastic mode goes up where share + R / 2**r reaches 1: where our discarded part, a
    # multiple of 2**-r, carries. Numbers with r bits below the last place are such multiples.
    fmt = parse_format(text)
    rng = np.random.default_rng(bits)
    whole = rng.integers(1 << (fmt.frac_bits + bits), 2 << (fmt.frac_bits + bits), 30_000).astype(float)
    x = np.ldexp(whole, rng.integers(1 - fmt.bias, fmt.emax, whole.shape) - fmt.frac_bits - bits)
    x *= rng.choice([-1.0, 1.0], x.shape)
    x = x[np.abs(x) <= fmt.max]
    # Which numbers the package took shows at 1 + R / 2**r for all R: the least that goes up tells its own.
    words = random_bits(len(x), bits)
    theirs = gfloat_rounds(x, text, RoundMode.StochasticFastest, srbits=words, srnumbits=bits, sat=True)
    ours = cast(x, text, rounding=f"stochastic:{bits}", seed=6, overflow="saturate")
    same(ours, theirs)
    assert (ours != x).any()


def random_bits(count, bits):
    """The r-bit numbers of the elements of a cast with seed 6, found by casting shares one after another."""
    found = np.zeros(count, np.int64)
    for step in range(bits - 1, -1, -1):
        # R + trial >= 2**r with trial = 2**r - found - 2**step: whether R has this bit, those above known.
        trial = (1 << bits) - found - (1 << step)
        x = 1.0 + np.ldexp(trial.astype(float), -bits - 2)  # e5m2: last place 2**-2
        found += (cast(x, "e5m2", rounding=f"stochastic:{bits}", seed=6) > 1.0) << step
    return found


@pytest.mark.parametrize("text", [text for text in GFLOAT if text != "e4m3fn"])
def test_gfloat_reads_every_code_alike(text):
    fmt = parse_format(text)
    codes = np.arange(1 << fmt.bits, dtype=np.uint8 if fmt.bits <= 8 else np.uint16)
    with np.errstate(all="ignore"):
        theirs = gfloat.decode_ndarray(GFLOAT[text], codes.astype(np.int64))
    same(decode(codes, text, np.float64), theirs)


def test_each_vote_knows_modes_and_formats_enough():
    assert len(GFLOAT) > 25
    assert set(MODES) < set(DETERMINISTIC)
