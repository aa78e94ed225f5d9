"""Statistics of emulated layers: each column against a recount, the files, and the run they leave alone."""

import copy
import math
import os
import signal
import subprocess
import sys
import types
from fractions import Fraction
from importlib.machinery import ModuleSpec

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from numerics import cast, matmul
from numerics.accumulate import parse_accumulator
from numerics.torch import LayerPolicy, Policy, emulate
from numerics.torch.emulation import Rounded, Sample
from numerics.torch.policy import TensorPolicy
from numerics.torch.statistics import COLUMNS, Statistics

NAN, INF = math.nan, math.inf
E5M2 = TensorPolicy.parse("e5m2")


def floats(*values):
    return np.array(values, np.float32)


def row_of_tensor(x, values, policy="e5m2", inverse=None, **settings):
    statistics = Statistics(**settings)
    policy = TensorPolicy.parse(policy)
    statistics.tensor("fc", "weight", x, Rounded(values, inverse), policy)
    statistics.step()
    return statistics.frame().iloc[0]


def row_of_product(a, b, accumulator, result=None, *, formats=None, **settings):
    statistics = Statistics(**settings)
    accumulator = parse_accumulator(accumulator)
    if result is None:
        result = matmul(a, b, accumulator, seed=5, formats=formats)
    sample = Sample(
        shape=(len(a), *b.shape),
        operands=lambda rows, columns: (a[rows], b[:, columns]),
        result=lambda rows, columns: result[np.ix_(rows, columns)],
        formats=formats,
    )
    statistics.product("fc", "forward", accumulator, sample)
    statistics.step()
    return statistics.frame().iloc[0]


def recounted(x, values, inverse, low, high):
    """The shares and errors by plain Python; inverse, low and high by element."""
    x, values = [float(v) for v in x.flat], [float(v) for v in values.flat]
    inverse = [float(v) for v in np.broadcast_to(inverse, (len(x),)).flat]
    count, share = len(x), lambda flags: sum(flags) / len(x)
    triples = list(zip(x, values, inverse, strict=True))
    both = [(v, w * r) for v, w, r in triples if math.isfinite(v) and math.isfinite(w)]
    exact = [(Fraction(v), Fraction(w) - Fraction(v)) for v, w in both]
    power, noise = sum(v * v for v, _ in exact), sum(e * e for _, e in exact)
    total, lost, drift = (sum(f(*pair) for pair in exact) for f in (
        lambda v, e: abs(v), lambda v, e: abs(e), lambda v, e: e))  # fmt: skip
    return {
        "looked_at": count,
        "amax": max((abs(v) for v in x if math.isfinite(v)), default=0.0),
        "nonzero_before": share([v != 0.0 for v in x]),
        "nonzero": share([w != 0.0 for w in values]),
        "underflow": share([v != 0.0 and w == 0.0 for v, w, _ in triples]),
        "saturation": share([math.isfinite(v) and not low * r <= v <= high * r for v, _, r in triples]),
        "overflow": share([math.isfinite(v) and not math.isfinite(w) for v, w, _ in triples]),
        "nonfinite": share([not math.isfinite(w) for w in values]),
        "sqnr_db": NAN if not both else 10 * math.log10(power / noise) if noise else INF,
        "relative_error": float(lost / total) if both else NAN,
        "bias": float(drift / total) if both else NAN,
    }


def agrees(row, expected):
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=1e-12, abs=1e-15, nan_ok=True), name


def test_columns_of_a_tensor_agree_with_a_recount():
    x = floats(0.0, -0.0, 1.0, 1.1, -3.3, 1e-7, -1e-7, 57344.0, 61000.0, -1e30, 2.0**-16, INF, -INF, NAN)
    values = cast(x, "e5m2", overflow="saturate")
    values[11:13] = x[11:13]
    row = row_of_tensor(x, values)
    agrees(row, recounted(x, values, 1.0, -57344.0, 57344.0))
    assert row["saturation"] == 2 / 14
    assert row["underflow"] == 2 / 14
    assert row["nonfinite"] == 3 / 14
    assert row["amax"] == np.float32(1e30)
    assert math.isnan(row["swamped"])
    assert row[["step", "layer", "role", "uses", "size", "length"]].tolist() == [0, "fc", "weight", 1, 14, 0]


@pytest.mark.parametrize("shape", [(), (6, 1, 1), (1, 5, 1), (6, 1, 7), (6, 5, 1)])
def test_scales_of_any_kind_are_undone(shape):
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(6, 5, 7)) * np.exp2(rng.integers(-20, 9, (6, 5, 7)))).astype(np.float32)
    scale = np.float32(rng.uniform(0.5, 300.0, shape))
    values = cast(x * scale, "e4m3fn", overflow="saturate")
    inverse = np.asarray(np.float32(1.0) / scale)
    row = row_of_tensor(x, values, "e4m3fn scaling=channel", inverse)
    expected = recounted(x, values, np.broadcast_to(inverse, x.shape).reshape(-1), -448.0, 448.0)
    assert expected["saturation"] > 0.0
    assert expected["underflow"] > 0.0
    agrees(row, expected)


def test_the_largest_element_under_its_own_scale_is_not_saturated():
    rng = np.random.default_rng(4)
    for _ in range(200):
        x = rng.normal(size=33).astype(np.float32)
        scale = np.float32(448.0 / np.abs(x).max().astype(np.float64))
        inverse = np.asarray(np.float32(1.0) / scale)
        row = row_of_tensor(
            x, cast(x * scale, "e4m3fn", overflow="saturate"), "e4m3fn scaling=tensor", inverse
        )
        assert row["saturation"] == 0.0


def test_formats_of_integers_saturate_at_both_ends():
    x = floats(-200.0, -128.4, -128.0, -127.6, 127.0, 127.4, 128.0, 0.4, 0.0, 3.0)
    values = cast(x, "s7.0", overflow="saturate")
    row = row_of_tensor(x, values, "s7.0")
    agrees(row, recounted(x, values, 1.0, -128.0, 127.0))
    assert row["saturation"] == 0.4  # -200, -128.4, 127.4 and 128


def test_block_formats_have_every_column_but_saturation():
    x = np.random.default_rng(5).normal(size=(3, 40)).astype(np.float32) ** 5
    x[1, 3] = INF
    values = cast(x, "mxfp4")
    row = row_of_tensor(x, values, "mxfp4")
    expected = recounted(x, values, 1.0, -INF, INF)
    assert expected["overflow"] == 31 / 120  # the infinity made NaN of its block
    agrees(row, expected | {"saturation": NAN})


def test_nothing_is_lost_of_zeros_and_exact_values():
    for x in (np.zeros(5, np.float32), floats(1.0, -2.0, 0.0)):
        row = row_of_tensor(x, x.copy())
        assert row[["sqnr_db", "relative_error", "bias"]].tolist() == [INF, 0.0, 0.0]
    row = row_of_tensor(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32))
    assert row["size"] == 0
    assert np.isnan(row[["nonzero", "underflow", "sqnr_db", "bias"]].astype(float)).all()


def test_of_non_finite_elements_alone_there_is_no_error():
    x = floats(NAN, INF)
    row = row_of_tensor(x, x.copy())
    assert np.isnan(row[["sqnr_db", "relative_error", "bias"]].astype(float)).all()
    assert (row["amax"], row["nonfinite"]) == (0.0, 1.0)


def test_several_tensors_of_a_step_make_one_row():
    first, second = floats(1.1, 0.0, 9.0), floats(1e-9, 1e9)
    statistics = Statistics()
    for x in (first, second):
        statistics.tensor("fc", "weight", x, Rounded(cast(x, "e5m2", overflow="saturate")), E5M2)
    statistics.step()
    (row,) = statistics.frame().to_dict("records")
    joined = np.concatenate([first, second])
    agrees(row, recounted(joined, cast(joined, "e5m2", overflow="saturate"), 1.0, -57344.0, 57344.0))
    assert (row["uses"], row["size"]) == (2, 5)


def test_of_a_large_tensor_a_spread_part_is_looked_at_and_the_largest_of_all():
    # Periods of the size of a run of neighbours, of parts and of images must not show.
    for period in (64, 784, 3136):
        x = np.tile(np.r_[np.zeros(period // 4), np.ones(period - period // 4)], 401_408 // period)
        x = x.astype(np.float32)
        x[12_345] = 7.0
        row = row_of_tensor(x, x * np.float32(1.25), elements=16384)
        assert (row["size"], row["looked_at"], row["amax"]) == (401_408, 16384, 7.0)
        assert row["nonzero"] == pytest.approx(0.75, abs=0.06)
        assert row["relative_error"] == pytest.approx(0.25)


def test_large_tensors_are_looked_at_in_every_part_and_elsewhere_at_the_next_step():
    x = np.arange(1, 65_537, dtype=np.float32)
    statistics = Statistics(every=1, elements=4096)
    for _ in range(2):
        for part in range(64):  # only one part is off
            q = x.copy()
            q[part * 1024 : part * 1024 + 1024] = 0.0
            statistics.tensor(f"{part}", "weight", x, Rounded(q), E5M2)
        statistics.step()
    frame = statistics.frame()
    assert (frame["underflow"] == 64 / 4096).all()
    first, second = (frame[frame["step"] == step]["relative_error"].tolist() for step in (0, 1))
    assert first != second


def test_scales_by_channel_of_large_tensors():
    x = np.ones((200, 1000), np.float32)
    inverse = np.arange(1, 201, dtype=np.float32).reshape(-1, 1)
    row = row_of_tensor(x, (x / inverse).astype(np.float32), "e5m2 scaling=channel", inverse)
    assert row["looked_at"] == 16384
    assert row["relative_error"] < 1e-7


def test_half_of_the_additions_are_swamped_when_1024_is_reached():
    ones = np.ones((1, 2048), np.float32)
    row = row_of_product(ones, ones.T, "e6m9")
    assert row[["length", "swamped", "nonzero", "amax"]].tolist() == [2048, 0.5, 1.0, 2048.0]
    assert row["relative_error"] == 0.5
    assert row["bias"] == -0.5
    assert row["sqnr_db"] == pytest.approx(20 * math.log10(2))
    spread = np.zeros((1, 4096), np.float32)
    spread[:, ::2] = 1.0
    row = row_of_product(spread, spread.T, "e6m9")
    assert (row["swamped"], row["nonzero"]) == (0.5, 0.5)  # zeros are never swamped
    row = row_of_product(ones, ones.T, "e6m9 chunk=64")
    assert row[["swamped", "relative_error", "sqnr_db"]].tolist() == [0.0, 0.0, INF]


def swamped_by_hand(a, b, fmt, chunk):
    """Additions that change nothing and those of non-zero products, by exact fractions."""
    swamped = additions = 0
    for left in a:
        for right in b.T:
            total = Fraction(0)
            for first in range(0, len(left), chunk):
                partial = Fraction(0)
                for p, q in zip(left[first : first + chunk], right[first : first + chunk], strict=True):
                    term = Fraction(float(p)) * Fraction(float(q))
                    if term == 0:
                        continue
                    after = Fraction(float(cast(np.array([float(partial + term)]), fmt)[0]))
                    additions, swamped = additions + 1, swamped + (after == partial)
                    partial = after
                if chunk < len(left):
                    after = Fraction(float(cast(np.array([float(total + partial)]), fmt)[0]))
                    additions += 1
                    swamped += partial != 0 and after == total
                    total = after
    return swamped, additions


@pytest.mark.parametrize("chunk", [16, 1000])
def test_swamped_additions_agree_with_a_recount(chunk):
    rng = np.random.default_rng(6)
    a, b = (cast(rng.normal(1.0, 1.0, s).astype(np.float32), "e5m2") for s in ((3, 200), (200, 5)))
    a[rng.random(a.shape) < 0.4] = 0.0
    row = row_of_product(a, b, f"e6m4 chunk={chunk}")
    swamped, additions = swamped_by_hand(a, b, "e6m4", chunk)
    assert swamped > 50
    assert row["swamped"] == pytest.approx(swamped / additions, rel=1e-12)
    nonzero = np.mean((a[:, :, None] * b[None]) != 0.0)
    assert row["nonzero"] == pytest.approx(nonzero, rel=1e-12)


@pytest.mark.parametrize(
    ("accumulator", "formats"),
    [
        ("e6m9", None),
        ("e6m5 chunk=32", None),
        ("e5m3 rounding=toward-zero", None),
        ("e6m4 rounding=stochastic:8 chunk=16", None),
        ("e6m4 order=pairwise chunk=64", None),
        ("e6m4 lanes=4 outer=e6m9 chunk=64", None),
        ("e4m2", None),  # overflows
        ("e2m6", None),  # underflows and overflows
        ("int10", None),
        ("int9-wrap", None),
        ("hopper-fp8 promote=128", ("e4m3fn", "e4m3fn")),
        ("exact output=e3m3", None),
    ],
)
def test_what_is_counted_is_what_a_report_of_the_product_tells(accumulator, formats):
    rng = np.random.default_rng(7)
    a, b = (cast(3 * rng.normal(0.7, 1.0, s).astype(np.float32), "e4m3fn") for s in ((4, 192), (192, 6)))
    if accumulator.startswith("int"):
        a, b = np.rint(a), np.rint(b)
    y, report = matmul(a, b, accumulator, seed=0, formats=formats, report=True)
    row = row_of_product(a, b, accumulator, y, formats=formats)
    exact = accumulator.startswith("exact")
    zeros = int((a[:, :, None] * b[None] == 0.0).sum())
    additions = y.size if exact else report.additions
    rivals = additions - (0 if "pairwise" in accumulator else zeros)
    agrees(
        row,
        {
            "looked_at": 24,
            "swamped": 0.0 if exact else report.swamped / rivals,
            "underflow": report.underflow / additions,
            "saturation": report.saturation / additions,
            "overflow": report.overflow / additions,
        },
    )
    sums = a.astype(np.float64) @ b.astype(np.float64)
    expected = recounted(sums, y, 1.0, -INF, INF)
    del expected["saturation"], expected["overflow"], expected["underflow"], expected["nonzero"]
    del expected["nonzero_before"]
    agrees(row, expected)
    assert row["numerics"] == str(parse_accumulator(accumulator))


def test_sums_of_infinite_operands_are_counted_where_the_register_has_them():
    a, b = floats(1.0, INF, 2.0)[None], np.ones((3, 1), np.float32)
    row = row_of_product(a, b, "e5m2")
    assert row[["nonfinite", "overflow"]].tolist() == [1.0, 0.0]
    row = row_of_product(a, b, "int16", np.full((1, 1), NAN, np.float32))
    assert row["nonfinite"] == 1.0
    assert np.isnan(row[["swamped", "saturation", "sqnr_db"]].astype(float)).all()


@pytest.mark.parametrize(
    "shape", [(200, 10, 300), (1, 10, 5000), (5000, 10, 1), (3, 10, 3), (40, 50_000, 30)]
)
def test_sums_are_chosen_all_over_a_product(shape):
    rows, length, columns = shape
    seen = []

    def operands(r, c):
        seen.append((r.tolist(), c.tolist()))
        return np.ones((len(r), length), np.float32), np.ones((length, len(c)), np.float32)

    sample = Sample(shape=shape, operands=operands, result=lambda r, c: np.full((len(r), len(c)), length))
    statistics = Statistics(every=1, sums=64)
    for _ in range(2):
        statistics.product("fc", "forward", parse_accumulator("e8m23"), sample)
        statistics.step()
    frame = statistics.frame()
    for r, c in seen:
        assert r == sorted(set(r))
        assert c == sorted(set(c))
        assert 0 <= r[0] <= r[-1] < rows
        assert 0 <= c[0] <= c[-1] < columns
        assert r[0] < rows / len(r) or rows == len(r)  # one in each of equal parts
        assert c[-1] >= columns - columns / len(c) - 1
    assert (frame["looked_at"] <= min(64, rows * columns)).all()
    assert (frame["looked_at"] >= (1 if length > 1000 else min(9, rows * columns))).all()
    assert seen[0] != seen[1] or rows * columns == 9  # another choice at the next step
    assert frame["relative_error"].tolist() == [0.0, 0.0]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


POLICY = LayerPolicy(
    weight="e4m3fn scaling=tensor",
    activation="e4m3fn scaling=channel",
    error="e5m2",
    weight_gradient="e5m2",
    output="e5m10",
    forward="e6m9 chunk=16",
    backward="e6m9 rounding=stochastic:8",
    gradient="e6m9 rounding=stochastic",
    rounding="stochastic",
)
X = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def trained(statistics, steps=3, model=None):
    twin = emulate(network(), POLICY, seed=3, statistics=statistics) if model is None else model
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        twin(X).square().sum().backward()
        optimizer.step()
        if statistics is not None:
            statistics.step()
    return twin


def test_training_has_the_same_bits_with_and_without():
    plain, observed = trained(None), trained(Statistics(every=1))
    for (name, a), (_, b) in zip(plain.named_parameters(), observed.named_parameters(), strict=True):
        assert torch.equal(a, b), name
        assert torch.equal(a.grad, b.grad), name


def test_there_is_a_row_for_every_step_layer_and_role():
    statistics = Statistics(every=1)
    trained(statistics)
    frame = statistics.frame()
    assert list(frame.columns) == list(COLUMNS)
    tensors = {"weight", "activation", "error", "weight_gradient", "output"}
    roles = {"0": tensors | {"forward", "gradient"}, "3": tensors | {"forward", "backward", "gradient"}}
    roles |= {"1": {"output"}, "2": {"output"}}
    expected = [(step, layer, role) for step in range(3) for layer in "0123" for role in roles[layer]]
    found = list(frame[["step", "layer", "role"]].itertuples(index=False, name=None))
    assert sorted(found) == sorted(expected)
    assert frame["step"].is_monotonic_increasing
    by_role = frame[(frame["layer"] == "3") & (frame["step"] == 1)].set_index("role")
    assert by_role["length"].to_dict() == dict.fromkeys(tensors, 0) | {
        "forward": 144, "backward": 3, "gradient": 5,
    }  # fmt: skip
    assert (by_role["sqnr_db"] > 5).all()
    start = frame[(frame["layer"] == "3") & (frame["role"] == "weight")].iloc[0]
    assert start["amax"] == network()[3].weight.abs().max().item()


@pytest.mark.parametrize("preset", ["bf16", "hfp8", "hopper", "int8", "mxfp4", "nvfp4", "wang2018"])
def test_every_kind_of_policy_has_its_rows(preset):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    statistics = Statistics()
    twin = emulate(model, Policy.preset(preset), seed=0, statistics=statistics)
    twin(X.repeat(1, 2, 1, 1)).square().sum().backward()
    statistics.step()
    frame = statistics.frame()
    products = frame[frame["length"] > 0]
    tensors = frame[frame["length"] == 0]
    assert {"weight", "activation", "error"} <= set(tensors["role"])
    assert (tensors["sqnr_db"] > 6).all()
    assert tensors["nonzero"].between(0.2, 1.0).all()
    assert (products["sqnr_db"] > 20).all()
    assert products["swamped"].between(0.0, 0.2).all()
    assert (frame["numerics"].str.len() > 3).all()
    assert (frame[["nonfinite", "overflow"]] == 0.0).all(axis=None)


def test_other_steps_and_pauses_are_not_looked_at():
    statistics = Statistics(every=2)
    twin = trained(statistics, steps=5)
    assert statistics.frame()["step"].unique().tolist() == [0, 2, 4]
    before = len(statistics.frame())
    statistics.step()
    with statistics.paused(), torch.no_grad():
        twin(X)
    statistics.step()
    assert len(statistics.frame()) == before
    assert statistics.steps == 7


def test_files_are_the_table(tmp_path):
    folder = tmp_path / "made" / "statistics"
    with Statistics(every=1, path=folder) as statistics:
        for _ in range(3):
            trained(statistics, steps=2)
            statistics.flush()
        trained(statistics, steps=1)
        frame = statistics.frame()
    assert sorted(file.name for file in folder.iterdir()) == [
        f"steps-{first:09d}.parquet" for first in (0, 2, 4, 6)
    ]
    pd.testing.assert_frame_equal(pd.read_parquet(folder), frame)
    assert frame["step"].unique().tolist() == list(range(7))
    in_memory = Statistics(every=1)
    for _ in range(3):
        trained(in_memory, steps=2)
    trained(in_memory, steps=1)
    pd.testing.assert_frame_equal(in_memory.frame(), frame)


def test_many_rows_are_written_as_they_come(tmp_path):
    statistics = Statistics(every=1, path=tmp_path)
    x = floats(1.0)
    for _ in range(50):
        for layer in range(100):
            statistics.tensor(f"{layer}", "weight", x, Rounded(x), E5M2)
        statistics.step()
    assert len(pd.read_parquet(tmp_path)) == 4100  # whole steps
    assert len(statistics.frame()) == 5000


def test_a_run_that_goes_on_has_every_row_once(tmp_path):
    whole = Statistics(every=1)
    trained(whole, steps=6)
    first = Statistics(every=1, path=tmp_path)
    twin = trained(first, steps=2)
    state, model = first.state_dict(), copy.deepcopy(twin.state_dict())
    assert state == {"step": 2}
    from numerics.torch.emulate import emulation_state, load_emulation_state

    streams = copy.deepcopy(emulation_state(twin))
    trained(first, steps=2, model=twin)  # rows that a resumed run computes again
    first.flush()
    trained(first, steps=1, model=twin)
    assert pd.read_parquet(tmp_path)["step"].max() == 3
    second = Statistics(every=1, path=tmp_path)
    second.load_state_dict(state)
    assert second.frame()["step"].max() == 1
    again = emulate(network(), POLICY, seed=3, statistics=second)
    again.load_state_dict(model)
    load_emulation_state(again, streams)
    trained(second, steps=4, model=again)
    second.close()
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path), whole.frame())


def test_an_older_state_cuts_a_file_and_memory(tmp_path):
    expected = Statistics(every=1)
    trained(expected, steps=4)
    for path in (None, tmp_path):
        statistics = Statistics(every=1, path=path)
        trained(statistics, steps=4)
        statistics.flush()
        statistics.load_state_dict({"step": 3})
        frame = statistics.frame()
        pd.testing.assert_frame_equal(frame, expected.frame().iloc[: len(frame)])
        assert frame["step"].max() == 2
    statistics.load_state_dict({"step": 0})
    assert list(tmp_path.iterdir()) == []


def test_rows_of_another_run_are_neither_joined_nor_overwritten(tmp_path):
    with Statistics(path=tmp_path) as statistics:
        trained(statistics, steps=1)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    other = Statistics(path=tmp_path)
    with pytest.raises(ValueError, match="has rows of another run; load the state"):
        trained(other, steps=1)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    other.load_state_dict({"step": 0})
    trained(other, steps=2)
    assert other.frame()["step"].unique().tolist() == [0]


KILLED = """
import sys, numpy as np
from numerics.torch.emulation import Rounded
from numerics.torch.policy import TensorPolicy
from numerics.torch.statistics import Statistics
statistics = Statistics(every=1, path=sys.argv[1])
x, policy = np.ones(3, np.float32), TensorPolicy.parse("e5m2")
while True:
    statistics.tensor("fc", "weight", x, Rounded(x), policy)
    statistics.step()
    if statistics.steps % 10 == 0:
        statistics.flush()
        print(statistics.steps, flush=True)
"""


def test_a_killed_writer_leaves_whole_files(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if (flushed := int(line)) >= 30:
            os.kill(process.pid, signal.SIGKILL)
            break
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    flushed = max([flushed, *map(int, rest)])
    steps = pd.read_parquet(tmp_path)["step"].tolist()
    assert steps == list(range(len(steps)))
    assert len(steps) - flushed in (0, 10)
    resumed = Statistics(every=1, path=tmp_path)
    resumed.load_state_dict({"step": flushed})
    assert resumed.frame()["step"].tolist() == list(range(flushed))


def test_a_half_written_file_is_no_part_of_the_table(tmp_path):
    with Statistics(every=1, path=tmp_path) as statistics:
        trained(statistics, steps=1)
        frame = statistics.frame()
    (tmp_path / ".steps-000000001.parquet.part").write_bytes(b"PAR1 and no more")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path), frame)
    again = Statistics(every=1, path=tmp_path)
    again.load_state_dict({"step": 1})
    pd.testing.assert_frame_equal(again.frame(), frame)


def test_tensorboard_is_asked_for_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'bitfront\[tensorboard\]'"):
        Statistics(tensorboard=tmp_path)


@pytest.mark.parametrize("with_files", [False, True])
def test_tensorboard_gets_each_finite_number_once(tmp_path, monkeypatch, with_files):
    scalars = []

    class Writer:
        def __init__(self, folder, purge_step):
            scalars.append(("open", folder, purge_step))

        def add_scalar(self, tag, value, step):
            scalars.append((tag, value, step))

        def flush(self):
            pass

        def close(self):
            scalars.append("closed")

    installed = types.ModuleType("tensorboard")
    installed.__spec__ = ModuleSpec("tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard", installed)
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    statistics = Statistics(every=1, tensorboard="board", path=tmp_path if with_files else None)
    trained(statistics, steps=1)
    statistics.flush()
    trained(statistics, steps=1)
    frame = statistics.frame()
    statistics.close()
    measures = list(COLUMNS)[8:]
    expected = [
        (f"{row.layer}/{row.role}/{name}", getattr(row, name), row.step)
        for row in frame.itertuples()
        for name in measures
        if math.isfinite(getattr(row, name))
    ]
    assert scalars == [("open", "board", 0), *expected, "closed"]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"every": 0}, ValueError, "every must be at least 1, got 0"),
        ({"elements": 63}, ValueError, "elements must be at least 64, got 63"),
        ({"sums": 0}, ValueError, "sums must be at least 1, got 0"),
        ({"sums": 2.5}, TypeError, "sums must be an integer, got 2.5"),
        ({"every": True}, TypeError, "every must be an integer, got True"),
    ],
)
def test_bad_settings_are_named(settings, error, message):
    with pytest.raises(error, match=message):
        Statistics(**settings)
