"""The study of the online SVM: training replayed in rationals, bounds beside measurements, the page."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binom

from numerics import FixedFormat, cast
from oracles.rational import round_rational
from studies.online_svm import (
    Config,
    Data,
    load,
    quantise,
    run,
    train_fixed,
    train_float,
    write_report,
)

SMALL = Config(
    replicates=2,
    epochs=2,
    data_bits=(3, 5, 8),
    classifier_bits=(3, 6, 9),
    update_bits=(4, 9, 13),
    uniform_bits=(4, 8, 12),
)


@pytest.fixture(scope="module")
def small():
    return run(SMALL)


@pytest.mark.parametrize("bits", range(2, 25))
def test_the_quantiser_is_cast_to_the_bit(bits):
    rng = np.random.default_rng(bits)
    grid = np.arange(-8, 9) * 2.0 ** (1 - bits)
    x = np.concatenate(
        [
            rng.uniform(-1.2, 1.2, 500),
            [-1, 1, -3, 3],
            grid,
            grid + 2.0**-bits,
            grid + 0.26 * 2.0**-bits,
            1 - grid,
        ]
    )
    expected = cast(x, f"s0.{bits - 1}")
    np.testing.assert_array_equal(quantise(x, 2.0 ** (1 - bits)), expected)
    wide = quantise(np.stack([x, x]), np.array([[2.0 ** (1 - bits)], [0.25]]))
    np.testing.assert_array_equal(wide[0], expected)


def tiny():
    rng = np.random.default_rng(0)
    train = rng.uniform(-1, 1, (12, 3))
    labels = np.where(train @ [1.0, -0.5, 0.2] + 0.1 > 0, 1.0, -1.0)
    return Data(train=train, train_labels=labels, test=train[:4], test_labels=labels[:4])


def replay(data, order, design, gamma, decay):
    """A design's weights and bias in Fractions, each rounded once where hardware does."""

    def fmt(bits):
        return FixedFormat(int_bits=0, frac_bits=bits - 1)

    def rounded(value, bits):
        return Fraction(round_rational(value, fmt(bits)))

    gamma, decay = Fraction(gamma), Fraction(decay)
    w, b = [Fraction(0)] * data.train.shape[1], Fraction(0)
    for index in order:
        x = [rounded(Fraction(float(v)), design[0]) for v in data.train[index]]
        y = int(data.train_labels[index])
        z = sum(rounded(p, design[1]) * q for p, q in zip(w, x, strict=True)) + rounded(b, design[1])
        inside = y * z <= 1
        w = [
            rounded((1 - gamma * decay) * p + inside * gamma * y * q, design[2])
            for p, q in zip(w, x, strict=True)
        ]
        b = rounded(b + inside * gamma * y, design[2])
    return [float(v) for v in [*w, b]]


def test_training_is_bit_true():
    data = tiny()
    rng = np.random.default_rng(1)
    orders = np.stack([np.concatenate([rng.permutation(12) for _ in range(6)]) for _ in range(2)])
    designs = [(2, 2, 6), (4, 3, 5), (8, 8, 8), (3, 24, 24), (24, 5, 9), (5, 4, 3)]
    for gamma, decay in ((0.25, 0.125), (0.5, 1.0)):
        found = train_fixed(data, orders, designs, gamma, decay)
        assert found.shape == (2, 6, 4)
        for weights, order in zip(found, orders, strict=True):
            for one, design in zip(weights, designs, strict=True):
                assert one.tolist() == replay(data, order, design, gamma, decay)


def test_wide_designs_train_as_float64_does():
    data = tiny()
    orders = np.stack([np.random.default_rng(seed).permutation(12) for seed in range(3)])
    exact = train_float(data, orders, 0.125, 0.25)
    assert exact.shape == (3, 4)
    assert abs(exact).max() < 1
    wide = train_fixed(data, orders, [(24, 24, 24)], 0.125, 0.25)[:, 0]
    np.testing.assert_allclose(wide, exact, atol=1e-5)


def test_the_order_of_the_samples_matters_and_other_designs_do_not():
    data = load()
    orders = np.stack([np.random.default_rng(seed).permutation(379)[:100] for seed in range(2)])
    alone = train_fixed(data, orders, [(5, 4, 10)], 2.0**-6, 2.0**-6)
    among = train_fixed(data, orders, [(9, 9, 9), (5, 4, 10), (2, 2, 5)], 2.0**-6, 2.0**-6)
    np.testing.assert_array_equal(alone[:, 0], among[:, 1])
    assert (alone[0] != alone[1]).any()


def test_the_data_lie_in_the_cube_with_the_classes_in_both_parts():
    data = load()
    assert data.train.shape == (379, 30)
    assert data.test.shape == (190, 30)
    assert abs(data.train).max() == abs(data.test).max() == 1.0  # a few outliers are cut off
    assert np.mean(abs(data.test) == 1.0) < 0.005
    for labels in (data.train_labels, data.test_labels):
        assert set(labels) == {-1.0, 1.0}
        assert np.mean(labels == 1.0) == pytest.approx(0.627, abs=0.005)


def test_there_is_a_row_for_every_design(small):
    table = small.table
    assert len(table) == 27 + 3
    assert not table[["data_bits", "classifier_bits", "update_bits"]].duplicated().any()
    assert set(table[table["uniform"]]["data_bits"]) == {4, 8, 12}
    assert table.notna().all(axis=None)


def test_no_more_labels_change_than_the_bounds_allow(small):
    rows = small.table.drop_duplicates(["data_bits", "classifier_bits"])
    assert (rows["rounded_disagreement"] <= rows["geometric_bound"]).all()
    assert rows["geometric_bound"].between(0.001, 0.999).any()
    # That on the probability, with the chance of 190 samples.
    allowed = binom.ppf(0.999, 190, rows["probabilistic_bound"].clip(upper=1)) / 190
    assert (rows["rounded_disagreement"] <= allowed).all()
    assert (rows["rounded_disagreement"] <= rows["probabilistic_bound"]).mean() > 0.7
    changed = rows["rounded_disagreement"].to_numpy()
    assert changed.max() > 0.01
    # An accuracy falls by no more than labels change.
    assert (small.float_accuracy - rows["rounded_accuracy"] <= changed + 1e-12).all()


def test_more_bits_bound_tighter(small):
    table = small.table[~small.table["uniform"]].drop_duplicates(["data_bits", "classifier_bits"])
    for fixed, free in (("data_bits", "classifier_bits"), ("classifier_bits", "data_bits")):
        for _, rows in table.groupby(fixed):
            ordered = rows.sort_values(free)
            for bound in ("geometric_bound", "probabilistic_bound"):
                assert (np.diff(ordered[bound]) <= 0).all()


def test_updates_that_vanish_leave_the_classifier_where_it_started(small):
    rows = small.table[small.table["updates"] == "vanish"]
    assert set(rows["update_bits"]) == {4}
    benign = float(np.mean(load().test_labels == 1.0))  # the label of an output of zero
    assert (rows["accuracy"] == benign).all()


def test_what_the_theory_says_of_updates(small):
    # gamma is 2**-6: a step is no more than gamma from 7 bits on, and exact from B_X + 6.
    for row in small.table.itertuples():
        expected = "vanish" if row.update_bits <= 5 else "coarse" if row.update_bits < 7 else "safe"
        assert row.updates == ("exact" if row.update_bits >= row.data_bits + 6 else expected)


def test_energy_by_hand(small):
    row = small.table.query("data_bits == 5 and classifier_bits == 6 and update_bits == 9").iloc[0]
    # 30 products of 5 by 6; 31 terms need 5 more bits; 61 additions of 9 bits.
    assert row["classification_adders"] == 30 * 30 + 30 * (5 + 6 + 5 - 1)
    assert row["update_adders"] == 61 * 9
    assert row["step_adders"] == 1350 + 549


def test_designs_are_the_cheapest_that_are_good_enough(small):
    table = small.table
    good = table[table["accuracy"] >= small.float_accuracy - 0.01 - 1e-12]
    assert small.minimum["step_adders"] == good["step_adders"].min()
    assert small.uniform["step_adders"] == good[good["uniform"]]["step_adders"].min()
    assert (
        small.saving == small.uniform["step_adders"] / small.minimum["step_adders"] >= small.matching_saving
    )
    assert small.matching["accuracy"] >= small.uniform["accuracy"]
    assert small.matching_saving >= 1
    by_theory = small.predicted("exact")
    assert by_theory["updates"] == "exact"
    assert by_theory["probabilistic_bound"] <= 0.01
    assert by_theory["accuracy"] >= small.target


def test_equal_seeds_repeat_and_others_do_not(small):
    again = run(SMALL)
    assert again.table.equals(small.table)
    assert again.float_accuracy == small.float_accuracy
    few = {
        "replicates": 1,
        "epochs": 1,
        "data_bits": (5,),
        "classifier_bits": (6,),
        "update_bits": (8, 9, 10),
    }
    one, other = (run(Config(seed=seed, **few)).table["disagreement"] for seed in (0, 1))
    assert not one.equals(other)


def test_a_sweep_without_a_good_design_says_so(tmp_path):
    poor = Config(
        replicates=1,
        epochs=1,
        data_bits=(2,),
        classifier_bits=(2,),
        update_bits=(4,),
        uniform_bits=(2, 3),
        accuracy_loss=0.0,
    )
    result = run(poor)
    assert result.minimum is result.uniform is result.matching is None
    assert math.isnan(result.saving)
    assert any("none in the sweep" in line for line in result.lines())
    write_report(result, tmp_path / "poor.html")
    assert "no pair of designs" in (tmp_path / "poor.html").read_text()


def test_the_facts_as_printed(small):
    lines = small.lines()
    assert (
        lines[0] == f"{'float64':<24}accuracy {100 * small.float_accuracy:.2f} %; up to 1 % less is allowed"
    )
    assert f"saving{' ' * 18}{small.saving:.2f} x" in "\n".join(lines)


def test_the_page_needs_no_other_file(small, tmp_path):
    path = tmp_path / "svm.html"
    write_report(small, path)
    page = path.read_text()
    assert not list(tmp_path.glob("*.part"))
    assert page.count('class="plotly-graph-div"') == 4
    body = page[page.index("<body>") :]
    assert not re.search(r"(src|href)=", body)
    assert f"{small.saving:.2f} x less energy" in body
    assert "<td>none</td>" in body  # three bits of weights vouch for nothing
    for name in ("minimum precision", "cheapest uniform", "theory, exact updates"):
        assert name in body


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"replicates": 0}, "replicates must be an integer of at least 1, got 0"),
        ({"epochs": 1.5}, r"epochs must be an integer of at least 1, got 1\.5"),
        ({"data_bits": (4, 1)}, r"data_bits must be integers in 2\.\.24, got 1"),
        ({"update_bits": (25,)}, r"update_bits must be integers in 2\.\.24, got 25"),
        ({"classifier_bits": ()}, "classifier_bits must have at least one number, got none"),
        ({"step_size": 0.1}, r"step_size must be a power of two of at most 1, got 0\.1"),
        ({"decay": 2.0}, r"decay must be a power of two of at most 1, got 2\.0"),
        ({"accuracy_loss": 1.0}, r"accuracy_loss must be in \[0, 1\), got 1\.0"),
    ],
)
def test_bad_settings_are_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        Config(**changes)


@pytest.mark.slow
def test_the_full_sweep():
    result = run()
    table = result.table
    assert (table["rounded_disagreement"] <= table["geometric_bound"]).all()
    assert result.saving > 2
    assert result.matching_saving > 1.5
    by_theory = result.predicted("exact")
    assert by_theory["accuracy"] >= result.target
    assert by_theory["step_adders"] < result.uniform["step_adders"]
    # Half of the range of the data is used, and the safe rule keeps only updates by more than that.
    exact = table[(table["updates"] == "exact") & (table["data_bits"] >= 4) & (table["classifier_bits"] >= 4)]
    assert (exact["accuracy"] >= result.float_accuracy - 0.015).all()
