import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse import Categorical, Ordinal, Space


def rows_and_columns(limit):
    return Space(
        [Ordinal("rows", (4, 8, 16), log=True), Ordinal("columns", (4, 8, 16), log=True)],
        constraints=[lambda p: None if p["rows"] * p["columns"] <= limit else f"over {limit} units"],
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ordinal("rows", ()), "choices of rows must not be empty"),
        (lambda: Ordinal("rows", (4, 8, 8)), "choices of rows must be distinct, got 8 twice"),
        (lambda: Ordinal("rows", (8, 4)), "choices of rows must increase, got 4 after 8"),
        (lambda: Ordinal("rows", (1, math.inf)), "choices of rows must be finite numbers, got inf"),
        (lambda: Ordinal("rows", (1, math.nan)), "choices of rows must be finite numbers, got nan"),
        (lambda: Ordinal("rows", (1, True)), "distinct, got True twice"),
        (lambda: Ordinal("rows", (0, 1), log=True), "choices of rows must be positive with log, got 0"),
        (lambda: Ordinal("", (1,)), "name of a parameter must be a non-empty text, got ''"),
        (lambda: Categorical("flow", ()), "choices of flow must not be empty"),
        (lambda: Categorical("flow", ("a", "a")), "choices of flow must be distinct, got 'a' twice"),
        (lambda: Categorical("flow", "abc"), "choices of flow must be a list, got the text 'abc'"),
        (lambda: Categorical("flow", ("a", ("b",))), r"booleans or None, got \('b',\)"),
        (lambda: Categorical("flow", (math.nan,)), "finite numbers, booleans or None, got nan"),
        (lambda: Space([]), "at least one parameter, got none"),
        (lambda: Space([Ordinal("a", (1,)), Categorical("a", (1,))]), "distinct, got 'a' 2 times"),
        (lambda: rows_and_columns(15), "reject all 9; {'rows': 4, 'columns': 4} for one: over 15 units"),
    ],
)
def test_a_bad_space_is_refused_with_the_value_and_the_rule(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_large_space_without_a_feasible_design_is_refused():
    never = [lambda p: "never"]
    with pytest.raises(ValueError, match=r"reject 65536 sampled of 10000000; .*: never"):
        Space([Ordinal(name, range(10)) for name in "abcdefg"], constraints=never)


def test_a_constraint_that_answers_with_a_boolean_is_refused():
    with pytest.raises(TypeError, match="must return None or a reason as text, got False"):
        Space([Ordinal("a", (1, 2))], constraints=[lambda p: p["a"] > 1])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rows": 5, "columns": 4}, "rows must be one of 4, 8, 16, got 5"),
        ({"rows": 4}, "parameter columns is missing"),
        ({"rows": 4, "columns": 4, "depth": 1}, "among rows, columns, got 'depth'"),
    ],
)
def test_a_design_outside_the_space_is_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        rows_and_columns(256).design(parameters)


def test_design_and_parameters_are_inverse_and_numpy_scalars_become_plain():
    space = Space([Ordinal("a", np.array([1, 2, 4])), Categorical("b", ("x", None, True))])
    assert all(type(value) is int for value in space.parameters[0].choices)
    for design in space.designs():
        assert space.design(space.parameters_of(design)) == design


def test_encoding_is_min_max_of_the_log_index_of_a_category_and_nothing_for_a_constant():
    space = Space(
        [
            Ordinal("rows", (4, 8, 64), log=True),
            Ordinal("fixed", (7,)),
            Ordinal("bits", (2, 3, 10)),
            Categorical("flow", ("a", "b", "c")),
        ]
    )
    encoded = space.encode([(1, 0, 1, 2), (2, 0, 0, 0)])
    assert encoded.dtype == np.float64
    np.testing.assert_allclose(encoded, [[0.25, 0.125, 2], [1, 0, 0]], rtol=1e-15)
    assert [parameter.name for parameter in space.searched] == ["rows", "bits", "flow"]


def test_neighbours_are_the_feasible_one_knob_changes():
    space = rows_and_columns(64)
    assert space.neighbours({"rows": 8, "columns": 8}) == [
        {"rows": 4, "columns": 8},
        {"rows": 8, "columns": 4},
    ]


def test_a_sample_covers_each_choice_evenly():
    space = Space([Ordinal(name, range(8)) for name in "abcd"])
    sample = space.sample(512, np.random.default_rng(0))
    for name in "abcd":
        counts = np.bincount([p[name] for p in sample], minlength=8)
        # 64 each; independent draws would have a standard deviation of 7.5.
        assert np.abs(counts - 64).max() <= 8


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    forbidden=st.integers(2, 5),
    seed=st.integers(0, 2**32 - 1),
    sobol=st.booleans(),
)
def test_a_sequence_visits_every_feasible_design_of_a_small_space_once(sizes, forbidden, seed, sobol):
    space = Space(
        [Ordinal(f"p{i}", range(size)) for i, size in enumerate(sizes)],
        constraints=[lambda p: None if sum(p.values()) % forbidden == 0 else "sum"],
    )
    expected = {d for d in itertools.product(*map(range, sizes)) if sum(d) % forbidden == 0}
    found = list(space.sequence(np.random.default_rng(seed), sobol=sobol))
    assert len(found) == len(expected)
    assert set(found) == expected


def test_a_sequence_finds_a_rare_design_of_a_space_that_can_be_walked():
    space = Space(
        [Ordinal("a", range(400)), Ordinal("b", range(400))],
        constraints=[lambda p: None if (p["a"], p["b"]) == (123, 321) else "no"],
    )
    assert space.sample(5, np.random.default_rng(0)) == [{"a": 123, "b": 321}]


def test_a_longer_sample_begins_with_the_shorter_one():
    space = rows_and_columns(64)
    short, long = (space.sample(n, np.random.default_rng(3)) for n in (3, 6))
    assert long[:3] == short
