"""The page of a study: numbers of a made-up folder by hand, and the page of a real run of three steps."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
import tomli_w
from click.testing import CliRunner

import studies
from numerics.torch import LayerPolicy
from studies.cli import main
from studies.precision.figures import bits, curves, maps, share, styles, sweep
from studies.precision.files import FolderError
from studies.precision.knees import knee, sweeps
from studies.precision.report import context_of, load_results, write_report
from studies.precision.rounding_errors import averaged, worst
from studies.precision.study import Study

NAMES = ["float32", "k frac_bits=3", "k frac_bits=5", "k frac_bits=7", "e4"]
#: Training losses and accuracies of seeds 0 and 1; None: diverged.
FINAL = {
    "float32": [(0.10, 90.0), (0.12, 92.0)],
    "k frac_bits=3": [(0.50, 70.0), None],
    "k frac_bits=5": [(0.101, 89.5), (0.120, 92.5)],
    "k frac_bits=7": [(0.10, 90.5), (0.121, 91.5)],
    "e4": [(0.21, 80.0), (0.25, 82.0)],
}


def write_run(folder, name, seed, final, *, statistics):
    folder.mkdir(parents=True)
    loss, metric = final or (None, 11.0)
    outcome = {
        "policy": name, "seed": seed, "steps": 10, "training_loss": loss, "metric": metric,
        "diverged": None if final else "step 10: the loss of a batch is nan", "skipped_steps": 2 * seed,
        "step_seconds": 0.01 if name == "float32" else 0.025, "seconds": 1.0,
    }  # fmt: skip
    (folder / "outcome.json").write_text(json.dumps({"identity": {}, "outcome": outcome}))
    measured = [2.3, math.nan, loss or math.nan]
    pd.DataFrame(
        {"step": [0, 5, 10], "loss": [2.3, 1.0, math.nan], "evaluation_loss": measured,
         "metric": [10.0, math.nan, metric]}
    ).to_parquet(folder / "curve.parquet")  # fmt: skip
    if statistics and name != "float32":
        write_statistics(folder / "statistics.parquet", seed)


def write_statistics(path, seed):
    nan = math.nan
    rows = [
        # step, layer, role, numerics, length, underflow, saturation, overflow, swamped, sqnr_db
        (0, "fc1", "weight", "e5m2", 0, 0.0, 0.0, 0.0, nan, math.inf),
        (0, "fc1", "forward", "e6m9", 64, 0.0, 0.0, 0.0, 0.1, 20.0),
        (0, "fc2", "gradient", "e6m9", 128, 0.0, 0.0, 0.0, 0.3, 10.0),
        (0, "fc2", "error", "e5m2", 0, 0.25 + 0.1 * seed, 0.02, 0.01, nan, 15.0),
        (5, "fc1", "weight", "e5m2", 0, 0.0, 0.0, 0.0, nan, math.inf),
        (5, "fc1", "forward", "e6m9", 64, 0.0, 0.0, 0.0, 0.3, 40.0),
        (5, "fc2", "gradient", "e6m9", 128, 0.0, 0.0, 0.0, 0.5, nan),
        (5, "fc2", "error", "e5m2", 0, 0.25 + 0.1 * seed, nan, 0.01, nan, 15.0),
    ]
    names = ["step", "layer", "role", "numerics", "length", "underflow", "saturation", "overflow", "swamped",
             "sqnr_db"]  # fmt: skip
    pd.DataFrame(rows, columns=names).to_parquet(path)


def made_up(folder, *, seeds=(0, 1), statistics=True, with_bits=True, missing=()):
    folder.mkdir()
    config = {"seeds": list(seeds), "steps": 10, "batch": 32, "statistics_every": 5 if statistics else 0,
              "optimizer": {"kind": "sgd"}, "task": {"name": "made-up"}}  # fmt: skip
    (folder / "config.toml").write_text(tomli_w.dumps(config))
    policies = []
    for index, name in enumerate(NAMES):
        base, _, value = name.partition(" frac_bits=")
        policies.append(
            {"name": name, "base": base, "swept": {"accumulator.frac_bits": int(value)} if value else {},
             "folder": f"runs/{index}", "toml": "" if name == "float32" else f'name = "{name}"\n'}
        )  # fmt: skip
        for place, seed in enumerate(seeds):
            if (name, seed) not in missing:
                write_run(folder / "runs" / str(index) / f"seed-{seed}", name, seed, FINAL[name][place],
                          statistics=statistics)  # fmt: skip
    record = {
        "task": "two made-up layers", "seeds": list(seeds), "policies": policies,
        "metric": {"name": "accuracy", "unit": "%", "higher_is_better": True, "resolution": 0.05},
        "versions": {"python": "3.11.7", "torch": "2.9.0"}, "machine": "x86_64",
    }  # fmt: skip
    (folder / "study.json").write_text(json.dumps(record))
    if with_bits:
        table = pd.DataFrame(
            {"policy": ["e4", "e4"], "layer": ["fc1", "fc2"], "product": ["forward", "gradient"],
             "length": [64, 4096], "chunk": [64, None], "used_bits": [9, 9], "theory_bits": [5, 12],
             "emulated_bits": [5, 11], "slack": [4, -2]}
        )  # fmt: skip
        whole = ["length", "chunk", "used_bits", "theory_bits", "emulated_bits", "slack"]
        table.astype(dict.fromkeys(whole, "Int64")).to_parquet(folder / "bits.parquet")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_up(tmp_path_factory.mktemp("made-up") / "run")


@pytest.fixture(scope="module")
def results(folder):
    return load_results(folder)


@pytest.fixture(scope="module")
def page(folder):
    return write_report(folder).read_text()


def cells_of(page, policy):
    """Texts of the first table row that begins with the policy."""
    row = re.search(rf"<tr><td class=\"text\">{re.escape(policy)}</td>.*?</tr>", page, re.DOTALL)
    return [
        re.sub(r"\s+", " ", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row[0], re.DOTALL)
    ]


def test_the_table_has_means_intervals_and_paired_differences(page):
    # By hand, t(1; 0.975) = 12.706, so that the half width of two values is 6.353 times their distance.
    name, verdict, accuracy, difference, loss, loss_difference, diverged, skipped, seconds = cells_of(
        page, "e4"
    )
    assert (name, diverged, skipped, seconds) == ("e4", "", "2", "x2.50")
    assert accuracy == "81 ± 13"
    assert difference == "-10.00 ± 0.18"  # of both seeds: 12.706 * 0.05 / sqrt(6) / sqrt(2), the resolution
    assert verdict == "worse by 10 in accuracy"
    assert loss == "0.23 ± 0.25"
    assert loss_difference == "+0.12 ± 0.13"  # of 0.11 and 0.13


def test_a_match_says_how_much_worse_it_may_be(page):
    # Differences of k frac_bits=7 are +0.5 and -0.5 points: 0 +- 6.353.
    verdict, _, difference = cells_of(page, "k frac_bits=7")[1:4]
    assert difference == "+0.0 ± 6.4"
    assert verdict == "matches, at most 6.4 worse"


def test_diverged_runs_are_counted_and_listed(page):
    cells = cells_of(page, "k frac_bits=3")
    assert cells[1] == "diverged 1 of 2"
    assert cells[6] == "1 of 2"
    assert "k frac_bits=3, seed 1: step 10: the loss of a batch is nan" in page


def test_the_facts_count_the_verdicts(page):
    assert "2 of 4 policies" in page
    assert "1 worse, 1 diverged" in page
    assert "91.0 ± 12.7" in page or "91 ± 13" in page  # the twin


def test_the_page_needs_no_other_file_and_embeds_plotly_once(page):
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    assert page.count("plotly.js v") == 1
    assert len(page) < 5_500_000


def test_configuration_versions_and_policies_are_on_the_page(page):
    for text in ("python 3.11.7", "torch 2.9.0", "x86_64", "bitfront train config.toml", "batch = 32"):
        assert text in page
    assert page.count("<summary>e4</summary>") == 1


def test_the_knee_is_the_smallest_value_as_good_as_the_largest(results, page):
    (found,) = sweeps(results)
    assert found.path == "accumulator.frac_bits"
    (line,) = found.lines
    assert line.points["value"].tolist() == [3.0, 5.0, 7.0]
    assert line.knee == 5.0  # with 3 a run diverged
    assert "k: knee at 5" in page


def runs_of(losses):
    rows = [
        {
            "policy": name,
            "seed": seed,
            "training_loss": loss,
            "diverged": None if loss is not None else "step 1",
        }
        for name, values in losses.items()
        for seed, loss in enumerate(values)
    ]
    return pd.DataFrame(rows), pd.DataFrame({"value": range(len(losses)), "policy": list(losses)})


@pytest.mark.parametrize(
    ("losses", "found"),
    [
        # Ratios to the largest value that scatter around 1, and one that does not.
        ({"a": [1.0, 1.1, 1.2], "b": [0.5, 0.6, 0.5], "c": [0.51, 0.58, 0.5]}, 1),
        ({"a": [0.50, 0.60, 0.49], "b": [1.0, 1.1, 1.2], "c": [0.51, 0.58, 0.5]}, 2),  # a gap ends it
        ({"a": [0.1, 0.1, 0.2], "b": [0.5, 0.6, 0.5], "c": [0.51, 0.58, 0.5]}, 0),  # better is as good
        ({"a": [0.50, 0.60, 0.49], "b": [0.5, None, 0.5], "c": [0.51, 0.58, 0.5]}, 2),  # diverged
        ({"a": [0.5, 0.5, 0.5], "b": [0.5, None, 0.5]}, None),
        ({"a": [0.5], "b": [0.5]}, None),  # one seed
        # Where a loss is zero, differences: 1.0 +- 0 is worse.
        ({"a": [1.0, 1.5, 2.0], "b": [0.0, 0.5, 1.0]}, 1),
    ],
)
def test_knees_by_hand(losses, found):
    runs, points = runs_of(losses)
    assert knee(points, runs) == found


def test_chunks_have_no_knee_and_plain_sums_come_last(results, folder):
    record = json.loads((folder / "study.json").read_text())
    for policy in record["policies"]:
        if policy["swept"]:
            policy["swept"] = {
                "accumulator.chunk": {3: 0, 5: 8, 7: 64}[policy["swept"]["accumulator.frac_bits"]]
            }
    changed = type(results)(results.folder, results.config, record, results.runs)
    (found,) = sweeps(changed)
    assert not found.has_knee
    assert found.lines[0].knee is None
    assert found.values == [8.0, 64.0, 0.0]
    figure = sweep(changed, found)
    assert list(figure.layout.xaxis.ticktext) == ["8", "64", "none"]


def test_the_sweep_draws_loss_and_metric_with_their_intervals(results):
    (found,) = sweeps(results)
    figure = sweep(results, found)
    drawn = [trace for trace in figure.data if trace.error_y.array is not None]
    assert len(drawn) == 2
    np.testing.assert_allclose(drawn[0].y, [0.5, 0.1105, 0.1105])
    np.testing.assert_allclose(drawn[1].y, [70.0, 91.0, 91.0])
    np.testing.assert_allclose(drawn[0].error_y.array, [0.0, 0.0095 * 12.7062, 0.0105 * 12.7062], rtol=1e-4)
    assert list(drawn[0].marker.symbol) == ["x", "circle", "circle"]
    assert drawn[0].marker.size[1] > drawn[0].marker.size[2]


def test_curves_are_means_over_the_seeds_and_diverged_runs_stand_alone(results):
    figure = curves(results)
    named = {trace.name: trace for trace in figure.data if trace.name and trace.showlegend}
    np.testing.assert_allclose(named["float32"].y, [2.3, 0.11])
    np.testing.assert_allclose(named["k frac_bits=3"].y, [2.3, 0.5])  # of seed 0 alone
    crossed = [trace for trace in figure.data if trace.marker.symbol == "x"]
    assert [list(trace.x) for trace in crossed] == [[0], [0, 10]]  # its loss was finite at step 0 only
    assert figure.layout.yaxis.type == "log"


def test_a_policy_has_one_colour_and_the_twin_is_grey(results):
    found = styles(results)
    assert found["float32"] == {"color": "#555555", "dash": "dot"}
    assert len({style["color"] for style in found.values()}) == 5


def test_statistics_are_averaged_over_steps_and_seeds(results):
    table = averaged(results.statistics)
    mine = table[table["policy"] == "e4"].set_index(["layer", "role"])
    assert list(mine.index) == [("fc1", "weight"), ("fc1", "forward"), ("fc2", "gradient"), ("fc2", "error")]
    assert mine.loc[("fc1", "forward"), "swamped"] == pytest.approx(0.2)
    assert mine.loc[("fc2", "gradient"), "swamped"] == pytest.approx(0.4)
    assert mine.loc[("fc2", "error"), "underflow"] == pytest.approx(0.3)  # 0.25 and 0.35
    # 0.02 + 0.01 at step 0, at step 5 the saturation is not known.
    assert mine.loc[("fc2", "error"), "out_of_range"] == pytest.approx(0.02)
    # Noise to signal 10^-2 and 10^-4: their mean is 10^-2.297.
    assert mine.loc[("fc1", "forward"), "sqnr_db"] == pytest.approx(-10 * math.log10((1e-2 + 1e-4) / 2))
    assert mine.loc[("fc2", "gradient"), "sqnr_db"] == pytest.approx(10.0)  # the unknown one does not count
    assert mine.loc[("fc1", "weight"), "sqnr_db"] == math.inf


def test_the_worst_places_are_named(results, page):
    table = worst(averaged(results.statistics))
    mine = table[table["policy"] == "e4"].set_index(["kind", "measure"])
    assert tuple(mine.loc[("product", "swamped"), ["layer", "role"]]) == ("fc2", "gradient")
    assert tuple(mine.loc[("tensor", "sqnr_db"), ["layer", "role"]]) == ("fc2", "error")
    assert ("tensor", "swamped") not in mine.index
    for text in ("fc2, gradient: 10.0 dB", "fc2, gradient: 40 %", "fc2, error: 15.0 dB", "fc2, error: 30 %"):
        assert f'<td class="text">{text}</td>' in page


def test_heat_maps_have_layers_by_roles_and_a_set_for_each_policy(results):
    table = averaged(results.statistics)
    figure = maps(table, "product")
    assert [trace.meta for trace in figure.data] == [name for name in NAMES[1:] for _ in range(4)]
    assert [trace.visible for trace in figure.data] == [True] * 4 + [False] * 12
    sqnr, swamped = figure.data[:2]
    assert list(swamped.y) == ["fc1", "fc2"]
    assert list(swamped.x) == ["forward", "gradient"]
    assert [list(row) for row in swamped.text] == [["20 %", ""], ["", "40 %"]]
    assert [list(row) for row in sqnr.text] == [["23", ""], ["", "10"]]
    assert sqnr.z[1][1] == pytest.approx(1 - 10 / 60)
    # A logarithmic scale from 0.01 % to all.
    assert swamped.z[1][1] == pytest.approx((math.log10(0.4) + 4) / 4)
    tensors = maps(table, "tensor")
    assert [list(row) for row in tensors.data[0].text] == [["exact", ""], ["", "15"]]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (5e-5, "<0.01 %"), (0.00123, "0.12 %"), (0.123, "12 %"), (1.0, "100 %")]
)
def test_shares_are_short(value, text):
    assert share(value) == text


def test_used_and_predicted_bits_are_drawn_and_the_short_ones_alarm(results, page):
    figure = bits(results.bits)
    used, theory, emulated = figure.data
    assert list(used.x) == [9, 9]
    assert list(theory.x) == [5, 12]
    assert list(emulated.x) == [5, 11]
    assert list(used.y) == ["fc1, forward", "fc2, gradient"]
    assert list(used.marker.color) == ["#555555", "#B00020"]
    assert "fc2, gradient: 9 used, 11 emulated" in page


def test_policies_without_a_floating_point_accumulator_have_no_bits(tmp_path):
    folder = made_up(tmp_path / "run")
    table = pd.read_parquet(folder / "bits.parquet")
    fused = table.assign(policy="fused", used_bits=pd.array([None, None], "Int64"), slack=pd.NA)
    pd.concat([table, fused.astype(table.dtypes)]).to_parquet(folder / "bits.parquet")
    assert [row["policy"] for row in context_of(load_results(folder))["bits"]["rows"]] == ["e4"]
    fused.astype(table.dtypes).to_parquet(folder / "bits.parquet")
    assert "No policy has a floating-point accumulator" in write_report(folder).read_text()


def test_layers_have_one_order_in_all_maps():
    rows = [("a", "activation"), ("b", "forward"), ("a", "forward")]
    table = pd.DataFrame(
        {"step": 0, "policy": "p", "layer": [layer for layer, _ in rows], "role": [role for _, role in rows],
         "numerics": "e6m9", "length": 1, "underflow": 0.0, "saturation": 0.0, "overflow": 0.0,
         "swamped": 0.0, "sqnr_db": 10.0}
    )  # fmt: skip
    assert list(maps(averaged(table), "product").data[0].y) == ["a", "b"]


def test_what_is_missing_is_left_out_with_a_sentence(tmp_path):
    folder = made_up(tmp_path / "run", statistics=False, with_bits=False)
    text = write_report(folder).read_text()
    assert "No statistics were recorded: <code>statistics_every = 0</code>" in text
    assert "They are written when all runs are finished" in text
    assert "<select" not in text


def test_one_seed_has_no_intervals_no_knee_and_no_verdict(tmp_path):
    folder = made_up(tmp_path / "run", seeds=(0,))
    context = context_of(load_results(folder))
    assert {row["verdict"] for row in context["rows"][1:]} == {"one seed"}
    assert "are too few" in context["sweeps"][0]["lines"][0]
    assert "One seed has no interval" in write_report(folder).read_text()


def test_an_unfinished_study_shows_what_can_be_compared(tmp_path):
    missing = [("float32", 1), ("e4", 0), ("e4", 1)]
    folder = made_up(tmp_path / "run", missing=missing, with_bits=False)
    results = load_results(folder)
    assert (len(results.runs), results.wanted) == (7, 10)
    assert results.table["policy"].tolist() == NAMES[:4]
    assert results.table["seeds"].tolist() == [1, 1, 1, 1]
    assert "not finished: 3 of 10 runs are missing" in write_report(folder).read_text()


def test_a_study_in_which_everything_diverged_has_a_page(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "FINAL", {name: [None, None] for name in FINAL})
    folder = made_up(tmp_path / "run")
    text = write_report(folder).read_text()
    assert cells_of(text, "float32")[1] == "diverged 2 of 2"
    assert "k: no knee" in text


def test_a_folder_without_a_study_or_a_finished_twin_is_refused_in_one_line(tmp_path):
    with pytest.raises(
        FolderError, match=r"config\.toml: No such file or directory; the run folder of a study"
    ):
        load_results(tmp_path)
    folder = made_up(tmp_path / "run", missing=[("float32", 0), ("float32", 1)])
    with pytest.raises(FolderError, match="no run of the full-precision twin is finished"):
        load_results(folder)
    (folder / "study.json").write_text("{")
    with pytest.raises(FolderError, match=r"study\.json is damaged"):
        load_results(folder)


def test_names_are_escaped(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "NAMES", ["float32", "<b>&"])
    monkeypatch.setitem(globals(), "FINAL", FINAL | {"<b>&": FINAL["e4"]})
    text = write_report(made_up(tmp_path / "run", with_bits=False)).read_text()
    assert '<td class="text">&lt;b&gt;&amp;</td>' in text
    assert "<b>&<" not in text


def test_a_study_of_three_steps_gets_a_page_with_the_numbers_of_its_table(points, tmp_path):
    study = Study(
        task=points,
        policies={"FP8": LayerPolicy.uniform("e5m2", "e6m9 chunk=4")},
        optimizer={"kind": "sgd", "learning_rate": 0.2},
        steps=3,
        batch=16,
        seeds=[0, 1],
        statistics_every=1,
    )
    table = studies.train(study, tmp_path / "run")
    results = load_results(tmp_path / "run")
    shown = results.table
    pd.testing.assert_frame_equal(shown, table[shown.columns])
    assert set(results.statistics["step"]) == {0, 1, 2}
    assert set(results.statistics["layer"]) == {"0", "3"}
    context = context_of(results)
    assert context["measured"] == ["FP8"]
    assert set(context["maps"]) == {"product", "tensor"}
    assert context["bits"]["rows"][0]["products"] == 5  # no error of the inputs
    text = (tmp_path / "run" / "report.html").read_text()
    assert "points in a square" in text
    assert "was made in Python" in text
    loss = table.loc[table["policy"] == "FP8", "training_loss"].iloc[0]
    shown_loss = float(cells_of(text, "FP8")[4].split()[0])
    assert shown_loss == pytest.approx(loss, abs=0.5 * float(cells_of(text, "FP8")[4].split()[2]))


def test_an_interrupted_study_leaves_a_page_of_what_is_finished(tmp_path, monkeypatch):
    file, folder = tmp_path / "study.toml", tmp_path / "run"
    file.write_text(
        'seeds = [0]\nsteps = 2\nbatch = 16\n[task]\nname = "digits-mlp"\n[optimizer]\nlearning_rate = 0.1\n'
        '[[policies]]\npreset = "bf16"\n'
    )

    def interrupt(self, outcome):
        raise KeyboardInterrupt

    monkeypatch.setattr("studies.precision.progress.Progress.done", interrupt)
    command = ["train", str(file), "--run", str(folder), "--workers", "1"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 130
    assert f"what is finished so far: {folder / 'report.html'}" in result.stderr
    assert "not finished: 1 of 2 runs are missing" in (folder / "report.html").read_text()
    monkeypatch.undo()
    assert CliRunner().invoke(main, command).exit_code == 0
    assert "not finished" not in (folder / "report.html").read_text()
