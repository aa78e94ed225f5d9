"""The sum that stands still: where, by hand; bit by bit, by rationals; how far off, by a prototype."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import numerics
from numerics import Accumulator
from oracles.rational import dot_rational
from studies.cli import main
from studies.swamping import COLUMNS, Config, draw, lines, run, running_sums, write_report

# Computed by a prototype that shares no code with this one, 256 runs; a few per cent of scatter.
BY_CHUNK = {
    1: 0.75, 8: 0.010, 32: 0.0043, 64: 0.0031, 256: 0.0019, 512: 0.0016, 1024: 0.0021, 4096: 0.078,
    16384: 0.75,
}  # fmt: skip
CONFIG = Config(running=16, chunks=(*BY_CHUNK, 128))


@pytest.fixture(scope="module")
def table():
    return run(CONFIG)


def running(table, accumulator):
    return table[(table["part"] == "running") & (table["accumulator"] == accumulator)].set_index("count")


def test_no_term_moves_the_sum_at_4096_and_none_stops_it_before():
    # By hand: neighbours of 4096 in (1,6,9) are 2^(12 - 9) = 8 apart above it, half of it is 4, and no term
    # is above 1 + sqrt(3) = 2.73. Below 4096 they are 4 apart, and terms above 2 move the sum.
    assert 1 + math.sqrt(3) < 2.0 ** (12 - 9) / 2
    assert 1 + math.sqrt(3) > 2.0 ** (11 - 9) / 2
    terms = draw("mean 1", 1000, 8, seed=5)
    assert 2.6 < terms.max() <= np.float32(1 + math.sqrt(3))
    above = np.concatenate([np.full((1, 8), 4096, np.float32), terms])
    assert (numerics.sum(above, "e6m9", axis=0) == 4096).all()
    below = np.concatenate([np.full((1, 8), 4092, np.float32), terms])
    assert (numerics.sum(below, "e6m9", axis=0) == 4096).all()


def test_the_plain_sum_stands_still_at_exactly_4096(table):
    sums = running(table, "e6m9")
    stalled = sums.loc[5120:]
    assert len(stalled) == 20
    assert (stalled[["least_sum", "largest_sum"]] == 4096).all(axis=None)
    assert sums.loc[4096, "largest_sum"] < 4096
    np.testing.assert_allclose(sums.loc[:2048, "mean_sum"], sums.loc[:2048, "exact_mean"], rtol=3e-3)


def test_the_sum_in_chunks_of_32_stands_still_at_exactly_65536(table):
    # By hand: above 65536 neighbours are 2^(16 - 9) = 128 apart, and a chunk's sum is 32 +- 6.
    sums = running(table, "e6m9 chunk=32")
    assert (sums.loc[81920:, ["least_sum", "largest_sum"]] == 65536).all(axis=None)
    np.testing.assert_allclose(sums.loc[:57344, "mean_sum"], sums.loc[:57344, "exact_mean"], rtol=0.02)


def test_stochastic_rounding_and_float32_follow_to_the_end(table):
    end = running(table, "e6m9 rounding=stochastic").loc[2**17]
    scatter = 0.026 / math.sqrt(end["runs"])  # 2.6 % of one sum, computed by a prototype
    assert end["mean_sum"] == pytest.approx(end["exact_mean"], rel=4 * scatter)
    assert 0.015 < end["relative_error"] < 0.04
    assert running(table, "e8m23").loc[2**17, "relative_error"] < 1e-4


def by_chunk(table, terms, rounding):
    rows = table[(table["part"] == "by chunk") & (table["terms"] == terms)]
    stochastic = rows["accumulator"].str.contains("stochastic")
    return rows[stochastic == (rounding == "stochastic")].set_index("chunk")["relative_error"]


@pytest.mark.parametrize("chunk", BY_CHUNK)
def test_the_error_by_chunk_is_the_known_valley(table, chunk):
    assert by_chunk(table, "mean 1", "nearest-even")[chunk] == pytest.approx(BY_CHUNK[chunk], rel=0.2)


def test_terms_of_mean_zero_lose_least_at_the_root_of_their_number(table):
    errors = by_chunk(table, "mean 0", "nearest-even")
    assert errors.idxmin() in (64, 128, 256)
    assert errors[128] == pytest.approx(0.0051, rel=0.1)
    assert errors[1] == pytest.approx(0.035, rel=0.2)
    assert errors[16384] == pytest.approx(0.035, rel=0.2)


def test_a_stochastic_sum_needs_no_chunks_to_follow(table):
    errors = by_chunk(table, "mean 1", "stochastic")
    assert errors.max() < 0.04


@pytest.mark.parametrize("text", ["e6m9", "e6m9 chunk=32", "e4m3 chunk=8 rounding=toward-zero"])
def test_running_sums_are_sums_of_all_terms_so_far(text):
    accumulator = Accumulator.parse(text)
    terms = draw("mean 1", 700, 3, seed=1)
    counts = (32, 96, 160, 700)
    for count, found in zip(counts, running_sums(terms, accumulator, counts, 0), strict=True):
        mode, chunk = accumulator.rounding, accumulator.chunk
        for run_number in range(3):
            column = [Fraction(float(x)) for x in terms[:count, run_number]]
            wanted = dot_rational(column, [Fraction(1)] * count, accumulator.format, str(mode), chunk=chunk)
            assert Fraction(float(found[run_number])) == wanted


def test_the_table_is_a_function_of_its_configuration(table):
    small = Config(count=256, running=3, chunks=(1, 64), chunk_count=100, runs=4)
    first, again = run(small), run(small)
    pd.testing.assert_frame_equal(first, again)
    other = run(Config(count=256, running=3, chunks=(1, 64), chunk_count=100, runs=4, seed=1))
    assert not first["mean_sum"].equals(other["mean_sum"])
    assert list(table.columns) == list(COLUMNS)
    assert small.counts == (128, 160, 192, 224, 256)


def test_a_relative_error_is_a_ratio_of_root_mean_squares():
    config = Config(count=128, running=1, chunks=(4,), chunk_count=50, runs=3)
    row = run(config).query("part == 'by chunk' and terms == 'mean 0'").iloc[0]
    terms = draw("mean 0", 50, 3, config.seed)
    exact = [sum(Fraction(float(x)) for x in column) for column in terms.T]
    found = [Fraction(float(numerics.sum(column, "e6m9 chunk=4"))) for column in terms.T]
    error = sum((f - e) ** 2 for f, e in zip(found, exact, strict=True)) / sum(e**2 for e in exact)
    assert row["relative_error"] == pytest.approx(math.sqrt(error), rel=1e-9)
    assert row["exact_mean"] == pytest.approx(float(sum(exact) / 3), rel=1e-9)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"count": 1000}, "count must be a power of two of at least 128, got 1000"),
        ({"running": 0}, "running must be an integer of at least 1, got 0"),
        ({"chunk": 12}, "chunk must divide 32, got 12"),
        ({"chunks": (0,)}, "chunks must be in 1..16384, got 0"),
        ({"chunks": ()}, "chunks must have at least one number, got none"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
    ],
)
def test_bad_configurations_are_refused_by_name(settings, words):
    with pytest.raises(ValueError) as caught:
        Config(**settings)
    assert str(caught.value) == words


def test_the_text_has_where_sums_end(table):
    text = lines(table)
    assert any(line.split()[:2] == ["e6m9", "4096.0"] for line in text)
    assert any(line.startswith("e6m9 chunk=32") and " 65536.0 " in line for line in text)


def test_the_page_is_self_contained_and_has_the_numbers(table, tmp_path):
    write_report(table, CONFIG, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<td>4096.0</td>" in page
    assert "<td>65536.0</td>" in page
    assert "<script src" not in page


def test_the_command_writes_table_and_page(tmp_path, monkeypatch):
    small = Config(count=256, running=3, chunks=(1, 64), chunk_count=100, runs=4)
    monkeypatch.setattr("studies.swamping.Config", lambda seed: small)
    csv, html = tmp_path / "sums.csv", tmp_path / "sums.html"
    result = CliRunner().invoke(main, ["swamping", "--csv", str(csv), "--html", str(html)])
    assert result.exit_code == 0, result.output
    pd.testing.assert_frame_equal(pd.read_csv(csv), run(small))
    assert html.stat().st_size > 10_000
    refused = CliRunner().invoke(main, ["swamping", "--csv", str(tmp_path / "no" / "sums.csv")])
    assert refused.exit_code == 2
    assert "there is no folder" in refused.stderr
