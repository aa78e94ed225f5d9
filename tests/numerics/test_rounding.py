"""Rounding modes as values."""

import pytest

from numerics import Mode, Rounding


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.STOCHASTIC])
def test_deterministic_modes_read_back(mode):
    rounding = Rounding.parse(mode.value)
    assert (str(rounding), rounding.is_stochastic) == (mode.value, False)
    assert rounding == getattr(Rounding, mode.name)
    assert Rounding.parse(f" {mode.value.upper()} ") == rounding


@pytest.mark.parametrize("bits", range(1, 33))
def test_stochastic_rounding_reads_back(bits):
    rounding = Rounding(mode=Mode.STOCHASTIC, random_bits=bits)
    assert Rounding.parse(str(rounding)) == rounding
    assert Rounding.parse(f"stochastic:{bits}") == rounding
    assert rounding.is_stochastic


def test_plain_stochastic_is_the_exact_one():
    assert Rounding.parse("stochastic") == Rounding.STOCHASTIC
    assert Rounding(mode="stochastic") == Rounding.STOCHASTIC
    assert Rounding.parse("stochastic:32") != Rounding.STOCHASTIC
    assert str(Rounding.STOCHASTIC) == "stochastic"


@pytest.mark.parametrize("text", ["stochastic:0", "stochastic:33"])
def test_the_number_of_random_bits_has_a_range(text):
    with pytest.raises(ValueError, match=rf"bits must be in 1\.\.32, .*got .*{text[11:]}"):
        Rounding.parse(text)


@pytest.mark.parametrize("text", ["", "nearest", "stochastic:", "stochastic:-1", "stochastic:ten", None, 3])
def test_what_is_no_mode_is_an_error_that_lists_the_modes(text):
    with pytest.raises(ValueError, match=r"nearest-even, .* got"):
        Rounding.parse(text)


def test_random_bits_belong_to_stochastic_rounding():
    with pytest.raises(ValueError, match="random_bits belongs to stochastic rounding, got 3"):
        Rounding(mode=Mode.UP, random_bits=3)


def test_an_unknown_mode_is_an_error_at_birth():
    with pytest.raises(ValueError, match="bogus"):
        Rounding(mode="bogus")


def test_a_mode_given_by_its_text_is_that_mode():
    assert Rounding(mode="stochastic", random_bits=3) == Rounding.parse("stochastic:3")
