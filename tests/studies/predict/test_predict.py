"""`bitfront predict`: tables checked by hand, files, verdicts, and one line for bad input."""

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from accel.accumulations import Network, TrainingProducts
from accel.networks import zoo
from numerics import FloatFormat
from numerics.theory import required_bits
from studies.cli import main
from studies.predict.bits import COLUMNS, Arithmetic, most, parse_operands, predict, read_densities
from studies.predict.report import Prediction, write_report
from studies.predict.verify import most_demanding, verify


def run(*arguments):
    return CliRunner().invoke(main, ["predict", *arguments])


def small_net():
    """For the command line, which calls it by name."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 300), nn.ReLU(), nn.Linear(300, 3))


def layer(name, **lengths):
    given = {"forward": 8, "backward": 8, "gradient": 8, **lengths}
    return TrainingProducts(layer=name, operator="linear", m=8, n=8, k=8, **given)


def arithmetic(text="e5m2", **options):
    return Arithmetic(operands=parse_operands(text), **options)


NETWORK = Network(
    name="two", batch=4, products=(layer("a", forward=100_000, backward=None), layer("b", gradient=4096))
)


def test_a_table_has_a_row_for_each_product_that_training_needs(tmp_path):
    table = predict(NETWORK, arithmetic(), {("a", "forward"): 0.25})
    assert tuple(table.columns) == COLUMNS
    assert table[["layer", "gemm", "length", "density"]].values.tolist() == [
        ["a", "forward", 100_000, 0.25],
        ["a", "gradient", 8, 1.0],
        ["b", "forward", 8, 1.0],
        ["b", "backward", 8, 1.0],
        ["b", "gradient", 4096, 1.0],
    ]
    first = table.iloc[0]
    assert first["bits_theory"] == required_bits(100_000, density=0.25)
    assert first["bits_theory_chunked"] == required_bits(100_000, density=0.25, chunk=64)
    assert first["bits_emulated"] == required_bits(100_000, density=0.25, rule="emulated")
    assert first["bits_emulated_chunked"] == required_bits(100_000, density=0.25, rule="emulated", chunk=64)
    largest = most(table)
    assert largest["gemm"].tolist() == ["forward", "backward", "gradient"]
    assert largest["length"].tolist() == [100_000, 8, 4096]


def test_formats_and_rounding_reach_the_answer():
    assert arithmetic("e4m3fn x e5m2").product_bits == 6
    assert arithmetic("bf16").product_bits == 15
    table = predict(NETWORK, arithmetic(), {})
    assert (predict(NETWORK, arithmetic("e4m3fn"), {})["bits_theory"] > 6).all()
    truncated = predict(NETWORK, arithmetic(rounding="toward-zero"), {})
    assert truncated["bits_emulated"].iloc[0] > table["bits_emulated"].iloc[0] + 2
    assert truncated["bits_theory"].equals(table["bits_theory"])
    loose = predict(NETWORK, arithmetic(tolerance=0.2), {})
    assert loose["bits_emulated"].iloc[0] < table["bits_emulated"].iloc[0]


def test_the_command_writes_the_table_and_the_page(tmp_path):
    table, page = tmp_path / "t.csv", tmp_path / "t.html"
    result = run("digits-cnn", "--batch", "10", "--csv", str(table), "--html", str(page))
    assert result.exit_code == 0, result.output
    frame = pd.read_csv(table)
    assert tuple(frame.columns) == COLUMNS
    lengths = {(row["layer"], row["gemm"]): row["length"] for _, row in frame.iterrows()}
    # 8 x 8 pixels, 3 x 3 windows with padding, 8 and 16 channels, then 4 x 4 pixels; 64 features.
    assert lengths == {
        ("conv1", "forward"): 9,
        ("conv1", "gradient"): 10 * 64,
        ("conv2", "forward"): 72,
        ("conv2", "backward"): 144,
        ("conv2", "gradient"): 10 * 16,
        ("fc", "forward"): 64,
        ("fc", "backward"): 10,
        ("fc", "gradient"): 10,
    }
    text = page.read_text()
    assert "How wide must the accumulators of digits-cnn be?" in text
    assert "conv2" in text
    assert "http://" not in text.replace("http://www.w3.org", "")[: text.index("<script>")]


@pytest.mark.parametrize("name", sorted(zoo()))
def test_every_zoo_graph_goes_through(name):
    result = run(name)
    assert result.exit_code == 0, result.output
    assert "largest, for one accumulator in the whole network" in result.output


def test_a_module_by_name_with_measured_densities_and_real_operands(tmp_path):
    rng = np.random.default_rng(0)
    inputs = np.where(rng.random((64, 6)) < 0.5, 0.0, rng.normal(size=(64, 6)))
    np.savez(tmp_path / "data.npz", inputs=inputs, labels=rng.integers(0, 3, 64))
    table = tmp_path / "t.csv"
    result = run(
        "studies_predict_net:small_net", "--input-shape", "6", "--batch", "64", "--density", "measured",
        "--data", str(tmp_path / "data.npz"), "--verify", "2", "--csv", str(table),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    frame = pd.read_csv(table, dtype={"layer": str}).set_index(["layer", "gemm"])
    assert frame.loc[("0", "forward"), "density"] == pytest.approx(np.mean(inputs != 0))
    assert 0.3 < frame.loc[("2", "forward"), "density"] < 0.7
    assert frame.loc[("2", "backward"), "density"] == 1.0
    assert "real" in result.output
    assert "2 " in result.output


@pytest.fixture(autouse=True)
def _module(monkeypatch):
    import sys
    import types

    made = types.ModuleType("studies_predict_net")
    made.small_net = small_net
    monkeypatch.setitem(sys.modules, "studies_predict_net", made)


def test_densities_come_from_a_file_or_a_number(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("gemm,layer,density,remark\nforward,a,0.5,x\ngradient,b,1,\n")
    assert read_densities(path, NETWORK) == {("a", "forward"): 0.5, ("b", "gradient"): 1.0}
    table = tmp_path / "t.csv"
    assert run("digits-cnn", "--density", "0.125", "--csv", str(table)).exit_code == 0
    assert (pd.read_csv(table)["density"] == 0.125).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer,gemm\na,forward\n", "a column density is missing"),
        ("layer,gemm,density\nc,forward,1\n", "line 2: the network has no 'forward' product of a layer 'c'"),
        (
            "layer,gemm,density\na,backward,1\n",
            "line 2: the network has no 'backward' product of a layer 'a'",
        ),
        ("layer,gemm,density\na,forward,0\n", r"line 2: a density must be in \(0, 1\], got '0'"),
        ("layer,gemm,density\na,forward,half\n", r"line 2: a density must be in \(0, 1\], got 'half'"),
    ],
)
def test_a_bad_density_file_is_named(tmp_path, text, message):
    path = tmp_path / "d.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_densities(path, NETWORK)


def test_predicted_bits_hold_when_they_are_emulated():
    network = Network(name="n", batch=1, products=(layer("a", forward=3000, gradient=40_000),))
    for rounding in ("nearest-even", "toward-zero", "stochastic"):
        given = arithmetic(rounding=rounding)
        table = predict(network, given, {("a", "forward"): 0.4})
        checked = verify(table, given, 2, operands={}, seed=1)
        assert checked["length"].tolist() == [40_000, 40_000, 3000, 3000]
        assert set(checked["verdict"]) <= {
            "as few as can be",
            "at the limit",
            "as few as the products",
            "one to spare",
        }
        assert (checked["relative_error"] <= 1.1 * np.sqrt(given.allowed)).all()
        assert (checked["relative_error_one_bit_fewer"] > checked["relative_error"]).all()


def test_a_verdict_can_be_bad():
    network = Network(name="n", batch=1, products=(layer("a", forward=3000),))
    table = predict(network, arithmetic(), {})
    wrong = table.assign(bits_emulated=3, bits_emulated_chunked=12)
    checked = verify(wrong, arithmetic(), 1, operands={}, seed=1)
    assert checked["verdict"].tolist() == ["too few", "one to spare"]
    assert checked["retained_variance"].iloc[0] < 0.9


def test_operands_with_a_mean_need_more_bits_than_the_table_says():
    rng = np.random.default_rng(0)
    network = Network(name="n", batch=1, products=(layer("a", forward=20_000),))
    given = arithmetic(rounding="toward-zero")
    table = predict(network, given, {})
    real = {("a", "forward"): (rng.random((8, 20_000), np.float32), rng.random((20_000, 8), np.float32))}
    checked = verify(table, given, 1, operands=real, seed=1)
    assert checked["operands"].tolist() == ["real", "real"]
    short = {("a", "forward"): (np.ones((8, 20), np.float32), np.ones((20, 8), np.float32))}
    assert set(verify(table, given, 1, operands=short, seed=1)["operands"]) == {"sampled"}


def test_the_most_demanding_products_come_first_and_once():
    network = Network(
        name="n",
        batch=1,
        products=(layer("a", forward=64), layer("b", forward=9000), layer("c", forward=9000)),
    )
    found = most_demanding(predict(network, arithmetic(), {}), 2)
    assert found["layer"].tolist() == ["b", "a"]
    assert found["length"].tolist() == [9000, 64]


def test_notes_of_equal_text_are_one_line(tmp_path):
    products = tuple(
        TrainingProducts(
            layer=name, operator="conv", forward=9, backward=9, gradient=9, m=9, n=1, k=9, notes=("padded",)
        )
        for name in "abc"
    )
    network = Network(name="<n>", batch=1, products=products, notes=("of all",))
    found = Prediction(network=network, arithmetic=arithmetic(), table=predict(network, arithmetic(), {}))
    assert found.all_notes == ["of all", "a and 2 more: padded"]
    write_report(found, tmp_path / "p.html")
    assert "&lt;n&gt;" in (tmp_path / "p.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet19"], "did you mean resnet18?"),
        (["digits-cnn", "--chunk", "0"], "chunk must be at least 1, got 0"),
        (["digits-cnn", "--density", "1.5"], "a density must be in (0, 1], got '1.5'"),
        (
            ["digits-cnn", "--density", "nofile.csv"],
            "--density must be measured, a number in (0, 1] or a CSV file",
        ),
        (["zoo:vgg19", "--density", "measured"], "zoo:vgg19 has shapes only"),
        (
            ["studies_predict_net:small_net", "--input-shape", "6", "--density", "measured"],
            "needs --data FILE",
        ),
        (["studies_predict_net:small_net"], "needs --input-shape"),
        (["studies_predict_net:none", "--input-shape", "6"], "has no none"),
        (["no_such_module:x"], "there is no module no_such_module"),
        (["digits-cnn", "--input", "int8"], "input must be a floating-point format, got s7.0"),
        (["digits-cnn", "--input", "e5m2 x e5m2 x e5m2"], "input must be one format or two"),
        (["digits-cnn", "--rounding", "to-odd"], "rounding must be one of the calibrated"),
        (["digits-cnn", "--tolerance", "2"], "tolerance must be between 0 and 1, got 2.0"),
        (
            ["digits-cnn", "--dim", "a=0"],
            "a dimension is given as name=size with a size of at least 1, got 'a=0'",
        ),
        (["digits-cnn", "--input-shape", "3"], "--input-shape is for package.module:callable"),
        (["studies_predict_net:small_net", "--input-shape", "3,x"], "got '3,x'"),
        (["digits-cnn", "--csv", "no/folder.csv"], "there is no folder no"),
        (["digits-cnn", "--data", "no.npz"], "no.npz: No such file or directory"),
        (["no.onnx"], "there is no file no.onnx"),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1


def test_operands_are_floating_point_formats():
    assert parse_operands("e4m3fn x e5m2") == (FloatFormat.parse("e4m3fn"), FloatFormat.parse("e5m2"))
    with pytest.raises(ValueError, match="format must be"):
        parse_operands("")
