import numpy as np
import pytest

from studies.accuracy.policies import NAMES, NumericsChoice, drawn, space


def test_a_choice_reads_back_from_its_parameters():
    choice = NumericsChoice(forward_exp_bits=4, chunk=16, update_rounding="stochastic", loss_scale=256.0)
    assert NumericsChoice.of(choice.parameters) == choice
    assert tuple(choice.parameters) == NAMES


def test_numbers_of_a_table_are_read_as_they_were_written():
    row = {"forward_frac_bits": np.float64(3.0), "chunk": 64.0, "update_rounding": "stochastic"}
    choice = NumericsChoice.of(row)
    assert (choice.forward_frac_bits, choice.chunk, str(choice.update_rounding)) == (3, 64, "stochastic")


def test_parameters_of_a_chip_are_ignored():
    assert NumericsChoice.of({"rows": 16, "dataflow": "os"}) == NumericsChoice()


def test_the_policy_rounds_each_tensor_as_the_choice_says():
    choice = NumericsChoice(
        forward_exp_bits=4,
        forward_frac_bits=2,
        backward_exp_bits=6,
        backward_frac_bits=1,
        accumulator_exp_bits=6,
        accumulator_frac_bits=9,
        chunk=64,
        update_exp_bits=6,
        update_frac_bits=9,
        update_rounding="stochastic",
    )
    policy = choice.policy()
    layer = policy.layer("fc")
    assert [str(getattr(layer, role)) for role in ("weight", "activation", "error")] == [
        "e4m2",
        "e4m2",
        "e6m1",
    ]
    assert {str(getattr(layer, role)) for role in ("forward", "backward", "gradient")} == {"e6m9 chunk=64"}
    assert str(policy.update) == "e6m9 rounding=stochastic"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"forward_exp_bits": 1}, "forward_exp_bits must be in 2..8, got 1"),
        ({"accumulator_frac_bits": 24}, "accumulator_frac_bits must be in 1..23, got 24"),
        ({"chunk": -1}, "chunk must be in 0.."),
        ({"loss_scale": 0.0}, "loss_scale must be positive and finite, got 0"),
        ({"loss_scale": float("nan")}, "loss_scale must be positive and finite, got nan"),
        ({"update_rounding": "sideways"}, "sideways"),
    ],
)
def test_a_value_out_of_its_range_is_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        NumericsChoice.of(parameters)


def test_a_number_that_is_not_whole_is_refused():
    with pytest.raises(TypeError, match=r"chunk must be an integer, got 2\.5"):
        NumericsChoice.of({"chunk": 2.5})


def test_the_draw_is_a_sequence_without_repetition():
    first, longer = drawn(8), drawn(24)
    assert longer[:8] == first
    assert len({tuple(choice.parameters.values()) for choice in longer}) == 24


def test_the_draw_meets_every_level_of_every_parameter():
    found = [choice.parameters for choice in drawn(64)]
    for parameter in space().parameters:
        assert {row[parameter.name] for row in found} == set(parameter.choices)
