"""`bitfront explain` and `bitfront formats`: facts by hand, and one line for bad input."""

from fractions import Fraction

import pytest
from click.testing import CliRunner

from numerics import NAMED_FORMATS
from studies.cli import main
from studies.explain import explain


def run(*arguments):
    return CliRunner().invoke(main, list(arguments))


def test_a_tie_by_hand():
    e = explain(17.0, "e4m3fn")
    assert (e.below.value, e.above.value, e.is_tie, e.result.value) == (16.0, 18.0, True, 16.0)
    assert (e.below.code, e.above.code) == ("0_1011_000", "0_1011_001")
    assert (e.absolute_error, e.relative_error, e.ulp_error) == (-1, Fraction(-1, 17), Fraction(-1, 2))
    assert explain(17.0, "e4m3fn", rounding="up").result.value == 18.0
    assert not explain(17.5, "e4m3fn").is_tie


def test_a_value_of_the_format_has_no_error():
    e = explain(-1.75, "e2m3")
    assert e.below == e.above == e.result
    assert e.result.code == "1_01_110"
    assert (e.absolute_error, e.ulp_error, e.is_tie) == (0, 0, False)


def test_beyond_the_largest_value_there_is_one_neighbour():
    e = explain(957.0, "e4m3fn")
    assert (e.below.value, e.above, e.result.value) == (448.0, None, 448.0)
    assert (e.absolute_error, e.ulp_error) == (448 - 957, Fraction(448 - 957, 32))
    e = explain(-1e6, "e5m2")
    assert (e.below, e.above.value, e.result.value) == (None, -57344.0, float("-inf"))
    assert e.absolute_error is e.relative_error is e.ulp_error is None


@pytest.mark.parametrize(
    ("value", "text", "code", "ulp_error"),
    [
        (0.0, "e4m3fn", "0_0000_000", 0),
        (2.0**-11, "e4m3fn", "0_0000_000", Fraction(-1, 4)),
        (-0.26, "s3.4", "1_111_1100", (Fraction(-1, 4) - Fraction(-0.26)) * 16),
        (0.3, "u0.8", "01001101", (Fraction(77, 256) - Fraction(0.3)) * 256),
        (-1.0, "u0.8", "00000000", 256),
        (8.0, "s3.4-wrap", "1_000_0000", -16 * 16),
        (1.0, "binary8p4", "0_1000_000", 0),
    ],
)
def test_codes_and_errors_of_other_formats(value, text, code, ulp_error):
    e = explain(value, text)
    assert (e.result.code, e.ulp_error) == (code, ulp_error)


def test_the_command_prints_the_facts():
    result = run("explain", "957", "--format", "e4m3fn")
    assert result.exit_code == 0
    for line in (
        "value           957.0",
        "below           448.0                    code 0_1111_110",
        "above           none, beyond the end of the format",
        "tie             no",
        "absolute error  -509",
    ):
        assert line in result.output.splitlines()


def test_negative_values_are_no_options():
    result = run("explain", "-3.3", "--format", "e2m1", "--rounding", "up")
    assert result.exit_code == 0
    assert "result          -3.0" in result.output


def test_stochastic_rounding_takes_a_seed():
    result = run("explain", "17", "--format", "e4m3fn", "--rounding", "stochastic", "--seed", "3")
    assert result.exit_code == 0
    assert any(f"result          {value}" in result.output for value in ("16.0", "18.0"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x", "--format", "e4m3fn"), "value must be a number, got 'x'"),
        (("nan", "--format", "e4m3fn"), "value must be a finite number, got nan"),
        (("1", "--format", "e9m9"), "exp_bits must be in 1..8, got 9"),
        (("1", "--format", "hello"), "got 'hello'"),
        (("1", "--format", "mxfp4"), "got 'mxfp4'"),
        (("1", "--format", "e4m3fn", "--rounding", "sideways"), "got 'sideways'"),
        (("1", "--format", "e4m3fn", "--rounding", "stochastic"), "needs a seed"),
        (("1", "--format", "e4m3fn", "--seed", "-1", "--rounding", "stochastic"), "got -1"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message):
    result = run("explain", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.splitlines()) == 1


def test_the_table_has_a_line_for_every_named_format():
    lines = run("formats").output.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(NAMED_FORMATS)
    e4m3 = next(line for line in lines if line.startswith("e4m3fn "))
    assert e4m3.split() == ["e4m3fn", "e4m3fn", "8", "448", "-448", "0.015625", "0.0019531"]
    assert next(line for line in lines if line.startswith("nvfp4")).split()[-1] == "4.5"
