"""The table of emulated sums: computed again here and there, and interpolated against emulation."""

import math

import numpy as np
import pytest

from numerics.theory import calibration as module
from numerics.theory import emulated_bits, emulated_retention, operand_noise, required_bits
from numerics.theory.calibrate import accumulator_of, part, sums_of
from numerics.theory.calibration import (
    ACC_BITS,
    CHUNKS,
    LENGTHS,
    PRODUCT_BITS,
    ROUNDINGS,
    TABLE,
    calibrated_rounding,
    decode_table,
    encode_table,
    loss,
)


def stored():
    return decode_table(TABLE.read_bytes())


def test_the_table_has_every_axis_and_is_small():
    logs, ratios = stored()
    shape = (len(PRODUCT_BITS), len(LENGTHS), len(ROUNDINGS), len(CHUNKS), len(ACC_BITS))
    assert logs.shape == ratios.shape == shape
    assert np.array_equal(np.isnan(logs), np.isnan(ratios))
    assert not np.isnan(logs).all(axis=-1).any()
    assert TABLE.stat().st_size < 1 << 18


@pytest.mark.parametrize("seed", range(6))
def test_entries_are_what_the_code_of_today_computes(seed):
    rng = np.random.default_rng(seed)
    logs, ratios = stored()
    kind, place = int(rng.integers(len(PRODUCT_BITS))), int(rng.integers(3, 13))
    sums = sums_of(PRODUCT_BITS[kind], LENGTHS[place])
    for _ in range(6):
        row = int(rng.integers(len(ROUNDINGS)))
        column = int(rng.choice([j for j, chunk in enumerate(CHUNKS) if chunk < LENGTHS[place]]))
        known = np.flatnonzero(~np.isnan(logs[kind, place, row, column]))
        bit = int(rng.choice(known))
        kept = sums.under(accumulator_of(ROUNDINGS[row], CHUNKS[column], ACC_BITS[bit]))
        expected = logs[kind, place, row, column, bit], ratios[kind, place, row, column, bit]
        found = math.log2(max(kept.error.value**2, 2.0**-30)), min(kept.variance.value, 32.767)
        # The sums are the same to the bit; their statistics are float64 sums, stored in thousandths.
        assert found == pytest.approx(expected, abs=6e-4)


def test_a_part_is_measured_as_far_as_it_is_worth():
    shorter = part(3, 2, None)
    found = part(3, 4, shorter)
    logs, _ = stored()
    place = LENGTHS.index(4), PRODUCT_BITS.index(3)
    again, _ = decode_table(encode_table(found[None, None]))
    np.testing.assert_array_equal(again[0, 0], logs[place[1], place[0]])
    assert np.array_equal(found[:, :, CHUNKS.index(16)], found[:, :, 0], equal_nan=True)
    for row in found[0].reshape(-1, len(ACC_BITS)):
        measured = row[~np.isnan(row)]
        assert (measured[:-1] >= module.FLOOR).all()


def test_stored_numbers_come_back():
    rng = np.random.default_rng(0)
    table = 2.0 ** rng.uniform(-26, 0, (2, 3, 2, 4, 5, 6))
    table[0, 0, :, 0, 0, 0], table[1, 1, :, 1, 1, 1], table[1, 1, 1, 2, 2, 2] = np.nan, 0.0, 1e9
    logs, ratios = decode_table(encode_table(table))
    assert np.isnan(logs[0, 0, 0, 0, 0])
    assert np.isnan(ratios[0, 0, 0, 0, 0])
    assert logs[1, 1, 1, 1, 1] == -30.0
    assert ratios[1, 1, 2, 2, 2] == 32.767
    good = table[:, :, 0] > 0
    np.testing.assert_allclose(logs[good], np.log2(table[:, :, 0][good]), atol=5.1e-4)


def test_lengths_and_chunks_of_the_table_are_not_changed_by_interpolation():
    logs, ratios = stored()
    for kind, row, place, column in ((2, 0, 10, 0), (1, 2, 12, 3), (4, 4, 8, 1), (0, 3, 14, 5)):
        found = loss(ROUNDINGS[row], PRODUCT_BITS[kind], LENGTHS[place], chunk=CHUNKS[column])
        known = ~np.isnan(logs[kind, place, row, column])
        assert known.sum() > 3
        entry = (kind, place, row, column, known)
        np.testing.assert_allclose(found.log2_error[known], logs[entry], atol=1e-9)
        np.testing.assert_allclose(found.retention[known], ratios[entry], atol=1e-9)


def test_zeros_shorten_sums_and_chunks():
    for one, other in (
        (loss("stochastic", 5, 4096, density=0.25), loss("stochastic", 5, 1024)),
        (loss("toward-zero", 5, 4096, chunk=64, density=0.25), loss("toward-zero", 5, 1024, chunk=16)),
        (loss("nearest-even", 5, 4096, chunk=2, density=0.25), loss("nearest-even", 5, 1024)),
        (loss("nearest-even", 5, 4096, chunk=4096), loss("nearest-even", 5, 4096)),
        (loss("nearest-even", 30, 4096), loss("nearest-even", 21, 4096)),
        (loss("up", 3, 500), loss("down", 3, 500)),
    ):
        np.testing.assert_array_equal(one.log2_error, other.log2_error)
        np.testing.assert_array_equal(one.retention, other.retention)


def test_four_times_a_very_long_sum_loses_as_much_as_with_one_bit_less():
    longest = LENGTHS[-1]
    here, there = loss("nearest-even", 5, longest), loss("nearest-even", 5, 4 * longest)
    np.testing.assert_allclose(there.log2_error[8:16], here.log2_error[7:15], atol=1e-9)
    # The same law inside the table, where it is measured.
    inside = loss("nearest-even", 5, longest // 4)
    np.testing.assert_allclose(here.log2_error[9:14], inside.log2_error[8:13], atol=0.25)


def test_losses_fall_with_every_bit_and_rise_with_the_length():
    for rounding in set(ROUNDINGS) - {"nearest-away"}:
        errors = np.array([loss(rounding, 5, n).log2_error for n in (100, 1000, 10_000, 100_000)])
        usual = (errors > -18) & (errors < -1)
        assert (np.diff(errors, axis=1)[usual[:, 1:]] < 0).all()
        assert (np.diff(errors, axis=0)[usual[1:]] > 0).all()
    # Truncation is far worse than rounding; stochastic rounding lies between.
    nearest, random, cut = (
        loss(rounding, 5, 4608).log2_error[9] for rounding in ("nearest-even", "stochastic", "toward-zero")
    )
    assert nearest < random < cut - 2


def test_ties_away_from_zero_inflate_sums_of_short_products():
    kept = emulated_retention("e8m9 rounding=nearest-away", 4608, samples=1024, seed=0)
    assert kept.variance.low > 1.5
    table = loss("nearest-away", 5, 4608)
    assert table.retention[ACC_BITS.index(9)] == pytest.approx(kept.variance.value, rel=0.1)
    assert table.log2_error[ACC_BITS.index(9)] == pytest.approx(2 * math.log2(kept.error.value), abs=0.3)


def test_every_number_of_bits_has_an_answer():
    logs, ratios = module._tables()
    assert np.isfinite(logs).all()
    assert np.isfinite(ratios).all()


def test_bits_by_rounding():
    bits = {rounding: required_bits(4608, rule="emulated", rounding=rounding) for rounding in ROUNDINGS}
    assert bits["nearest-even"] < required_bits(4608)
    # Products of few bits make many ties, and to send all of them away from zero lets sums grow.
    assert bits["nearest-away"] > required_bits(4608)
    assert bits["stochastic"] - bits["nearest-even"] in (0, 1)
    assert bits["toward-zero"] > required_bits(4608)
    lengths = np.array([[100, 10_000], [1_000_000, 100_000_000]])
    found = required_bits(lengths, rule="emulated")
    assert found.tolist() == [[required_bits(int(n), rule="emulated") for n in row] for row in lengths]
    assert required_bits(4608, rule="emulated", minimum=1, tolerance=0.5) < 5
    assert required_bits(4608, rule="emulated", offset=2) == bits["nearest-even"] + 2


def cases(count, longest, seed):
    """Random lengths, products, chunks, densities and roundings."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        length = round(2.0 ** rng.uniform(3, math.log2(longest)))
        options = {
            "chunk": None if rng.random() < 0.4 else int(2.0 ** rng.uniform(2, 10)),
            "density": 1.0 if rng.random() < 0.6 else float(rng.uniform(0.1, 1.0)),
            "rounding": str(rng.choice([*ROUNDINGS, "up"])),
        }
        yield i, length, int(rng.choice([*PRODUCT_BITS, 4, 6, 9, 13])), options


def compared(count, longest, seed):
    """Differences between the interpolated and the emulated answer."""
    return [
        required_bits(length, bits, rule="emulated", minimum=1, **options)
        - emulated_bits(length, bits, minimum=1, seed=1000 + i, **options)
        for i, length, bits, options in cases(count, longest, seed)
    ]


def test_interpolated_answers_are_those_of_emulation_for_short_sums():
    off = np.array(compared(30, 4000, seed=0))
    assert abs(off).max() <= 1
    assert (off == 0).sum() >= 27


@pytest.mark.slow
def test_interpolated_answers_are_those_of_emulation():
    off = np.array(compared(200, 1 << 18, seed=1))
    assert abs(off).max() <= 1
    assert (off == 0).mean() >= 0.95


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: required_bits(10, rule="emulated", rounding="to-odd"),
            "rounding must be one of the calibrated nearest-even, .*, got 'to-odd'; emulated_bits",
        ),
        (lambda: required_bits(10, rule="emulated", cutoff=1.0), "cutoff belongs to rule='theory', got 1.0"),
        (
            lambda: required_bits(10, rule="emulated", tolerance=0.0),
            "tolerance must be between 0 and 1, got 0.0",
        ),
        (
            lambda: required_bits(1 << 30, 5, rule="emulated", rounding="toward-zero", tolerance=1e-7),
            "no accumulator of up to 23 bits that rounds toward-zero keeps a sum of 1073741824 products",
        ),
        (lambda: calibrated_rounding("odd"), "got 'odd'"),
    ],
)
def test_what_the_table_cannot_say_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_operand_noise_is_the_default_tolerance():
    noise = operand_noise(7)
    assert required_bits(3000, 7, rule="emulated") == required_bits(3000, 7, rule="emulated", tolerance=noise)
