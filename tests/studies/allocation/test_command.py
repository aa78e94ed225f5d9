"""`bitfront allocate`: what it prints and writes, and one line for bad input."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner

from studies.cli import main


def run(*arguments):
    return CliRunner().invoke(main, ["allocate", *map(str, arguments)])


def refused(*arguments):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr.strip().removeprefix("error: ")


def test_formats_of_the_network_are_searched_stored_and_written(tmp_path):
    store, csv = tmp_path / "answers.jsonl", tmp_path / "formats.csv"
    arguments = ("formats", "digits-cnn", "--method", "by-size", "--method", "random", "--budget", 12)
    result = run(*arguments, "--store", store, "--csv", csv)
    assert result.exit_code == 0, result.output
    assert "digits CNN, inference of one image: 12 tensor groups, accuracy, % >= " in result.stdout
    assert "conv2.weight" in result.stdout
    frame = pd.read_csv(csv)
    assert frame["method"].tolist() == ["by-size", "random"]
    assert (frame["asked"] == 12).all()
    answers = [json.loads(line) for line in store.read_text().splitlines()]
    assert frame["quality"][0] in [answer["quality"] for answer in answers]
    again = run(*arguments, "--store", store)
    assert "  12      0" in again.stdout
    other = refused(*arguments, "--store", store, "--seed", 1)
    assert "line 1 must be of the oracle 'digits-cnn seed=1', got 'digits-cnn seed=0'" in other


def test_the_robot_arm_with_two_formats():
    result = run(
        "formats", "robot-arm", "--budget", 4, "--format", "binary16", "--format", "e5m8", "--seed", 1
    )
    assert result.exit_code == 0, result.output
    assert "13 tensor groups, excess cost over float64 <= 0.2" in result.stdout
    assert "point_jacobian" in result.stdout


def test_bits_of_layers():
    result = run("bits", "--bits-per-weight", 3.5)
    assert result.exit_code == 0, result.output
    for text in ("trace of the Hessian", "at most 3.5 bits per weight", "water-filling", "ILP", "bisection"):
        assert text in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("formats", "digits-cnn", "--budget", 0), "--budget must be at least 1, got 0"),
        (("formats", "digits-cnn", "--threshold", 101), "threshold must be at most"),
        (("formats", "digits-cnn", "--threshold", "nan"), "threshold must be a number, got nan"),
        (("formats", "digits-cnn", "--format", "e2m1"), "formats must be at least two different ones"),
        (("formats", "digits-cnn", "--format", "e2m1", "--format", "e99"), "e99"),
        (
            ("formats", "robot-arm", "--format", "binary32", "--format", "e2m1"),
            "of at most 16 bits, got binary32",
        ),
        (("formats", "digits-cnn", "--method", "exhaustive"), "exhaustive takes a budget of 16,777,216"),
        (("formats", "digits-cnn", "--csv", "/nowhere/x.csv"), "there is no folder /nowhere"),
        (("bits", "--bits-per-weight", 9), "--bits-per-weight must be in 2..8, got 9"),
        (("bits", "--lost", -1), "--lost must be at least 0 and below 100, got -1"),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    assert message in refused(*arguments)


def test_an_unknown_subject_is_refused_with_those_there_are():
    result = run("formats", "toaster")
    assert result.exit_code == 2
    assert "'robot-arm', 'digits-cnn'" in result.stderr
