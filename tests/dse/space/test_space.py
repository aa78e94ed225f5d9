import itertools
import json
import math
import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import dse.space.space
from dse.space import (
    Categorical,
    ConstraintError,
    Integer,
    Ordinal,
    Permutation,
    PowerOfTwo,
    Real,
    Space,
)
from oracles.spaces import FINITE, every_design, is_legal, spaces


def rows_and_columns(limit):
    return Space(
        [Ordinal("rows", (4, 8, 16), log=True), Ordinal("columns", (4, 8, 16), log=True)],
        constraints=[lambda p: None if p["rows"] * p["columns"] <= limit else f"over {limit} units"],
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
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


def test_a_continuum_without_a_feasible_design_is_refused():
    with pytest.raises(ValueError, match=r"reject 65536 sampled of a continuum; {'x': 0.5} for one: never"):
        Space([Real("x", 0, 1)], constraints=[lambda p: "never"])


@pytest.mark.parametrize("answer", [False, True, 0, ""])
def test_a_constraint_that_answers_with_no_text_is_refused(answer):
    def answers(p):
        return answer

    message = f"must return None or a reason as text, got {answer!r} from answers for {{'a': 1}}"
    with pytest.raises(TypeError, match=message):
        Space([Ordinal("a", (1, 2))], constraints=[answers])


def test_a_constraint_that_raises_is_named_with_the_design():
    def halves(p):
        return None if 1 / (p["a"] - 2) else "no"

    space = Space([Ordinal("a", (1, 2))], constraints=[halves])
    line = "the constraint halves raised ZeroDivisionError: division by zero; for {'a': 2}"
    with pytest.raises(ConstraintError, match=f"^{line}$") as caught:
        space.why_infeasible({"a": 2})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(ConstraintError, match=line):
        list(space.designs())


def test_only_parameters_and_functions_make_a_space():
    with pytest.raises(TypeError, match="parameters of a space must be of its own kinds, got 'rows'"):
        Space(["rows"])
    with pytest.raises(TypeError, match="a constraint must be a function, got 'rows < 8'"):
        Space([Ordinal("rows", (4, 8))], constraints=["rows < 8"])


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


def test_numpy_scalars_and_json_become_plain_values():
    space = Space(
        [Ordinal("a", np.array([1, 2, 4])), Integer("n", 0, 9), Permutation("o", np.array(["x", "y"]))]
    )
    assert all(type(value) is int for value in space.parameters[0].choices)
    design = space.design({"a": np.int64(4), "n": 3.0, "o": ["y", "x"]})
    assert design == (4, 3, ("y", "x"))
    assert [type(value) for value in design] == [int, int, tuple]
    assert type(space.design({"a": np.float64(4), "n": np.float32(3), "o": np.array(["y", "x"])})[1]) is int


def test_encoding_is_min_max_of_the_log_index_of_a_category_and_nothing_for_a_constant():
    space = Space(
        [
            Ordinal("rows", (4, 8, 64), log=True),
            Ordinal("fixed", (7,)),
            Ordinal("bits", (2, 3, 10)),
            Categorical("flow", ("a", "b", "c")),
        ]
    )
    encoded = space.encode([(8, 7, 3, "c"), (64, 7, 2, "a")])
    assert encoded.rows.dtype == np.float64
    np.testing.assert_allclose(encoded.rows, [[0.25, 0.125, 2], [1, 0, 0]], rtol=1e-15)
    assert (encoded.numeric, encoded.categorical, encoded.features) == ((0, 1), (2,), ())
    assert encoded.names == ("rows", "bits", "flow")
    assert [parameter.name for parameter in space.searched] == ["rows", "bits", "flow"]
    assert [space.columns_of(name) for name in space.names] == [(0,), (), (1,), (2,)]


def test_an_inactive_parameter_is_encoded_at_its_default():
    space = Space(
        [
            Categorical("cache", ("no", "yes")),
            PowerOfTwo("ways", 1, 4, active_if=("cache", ["yes"])),
            Permutation("order", ("m", "n"), active_if=("cache", ["yes"])),
        ]
    )
    rows = space.encode([("no", None, None), ("yes", 2, ("m", "n")), ("yes", 4, ("n", "m"))]).rows
    np.testing.assert_array_equal(rows, [[0, 0.5, 0, 1], [1, 0.5, 0, 1], [1, 1, 1, 0]])
    assert space.columns_of("order") == (2, 3)


def test_nothing_to_encode_still_has_columns():
    space = Space([Ordinal("x", (1, 2)), Permutation("o", ("m", "n"))])
    assert space.encode([]).rows.shape == (0, 3)
    assert Space([Ordinal("x", (1,))]).encode([(1,), (1,)]).rows.shape == (2, 0)


def test_a_foreign_design_is_not_encoded():
    space = Space([Ordinal("x", (1, 2)), Categorical("c", ("a", "b"))])
    with pytest.raises(ValueError, match="c must be one of a, b, got 'z'"):
        space.encode([(1, "a"), (1, "z")])
    with pytest.raises(ValueError, match="a design must have 2 values, got 1"):
        space.encode([(1,)])


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


ANY = (*FINITE, Real)
SEEDS = st.integers(0, 2**32 - 1)


@given(space=spaces())
def test_designs_are_all_feasible_designs_once(space):
    found = list(space.designs())
    assert len(set(found)) == len(found)
    assert set(found) == every_design(space)


@given(space=spaces(constrained=False))
def test_size_counts_the_designs_before_constraints(space):
    assert space.size == len(every_design(space))


@given(space=spaces(), seed=SEEDS, sobol=st.booleans())
def test_a_sequence_visits_every_feasible_design_of_a_small_space_once(space, seed, sobol):
    found = list(space.sequence(np.random.default_rng(seed), sobol=sobol))
    expected = every_design(space)
    assert len(found) == len(expected)
    assert set(found) == expected


@given(space=spaces(kinds=ANY), seed=SEEDS, sobol=st.booleans())
def test_a_sequence_is_legal_never_repeats_and_follows_from_the_seed(space, seed, sobol):
    first, again = (
        list(itertools.islice(space.sequence(np.random.default_rng(seed), sobol=sobol), 40)) for _ in "12"
    )
    assert first == again
    assert len(set(first)) == len(first)
    assert all(is_legal(space, design) for design in first)
    assert first


@given(space=spaces(kinds=ANY), seed=SEEDS)
def test_design_and_parameters_are_inverse_also_through_json(space, seed):
    for design in itertools.islice(space.sequence(np.random.default_rng(seed)), 10):
        by_name = space.parameters_of(design)
        assert space.design(by_name) == design
        assert space.design(json.loads(json.dumps(by_name))) == design
        assert hash(space.design(json.loads(json.dumps(by_name)))) == hash(design)
        absent = {name: value for name, value in by_name.items() if value is not None}
        if not any(None in getattr(p, "choices", ()) for p in space.parameters):
            assert space.design(absent) == design
        assert space.is_feasible(design)
        assert space.why_infeasible(by_name) is None


@given(space=spaces(kinds=ANY), seed=SEEDS)
def test_encoding_is_in_range_and_tells_designs_apart(space, seed):
    designs = list(itertools.islice(space.sequence(np.random.default_rng(seed)), 40))
    encoded = space.encode(designs)
    assert encoded.rows.shape == (len(designs), len(encoded.names))
    assert sorted(encoded.numeric + encoded.categorical) == list(range(len(encoded.names)))
    numeric = encoded.rows[:, encoded.numeric]
    assert ((numeric >= 0) & (numeric <= 1)).all()
    codes = encoded.rows[:, encoded.categorical]
    assert (codes == codes.astype(int)).all()
    assert (codes >= 0).all()
    assert len(np.unique(encoded.rows, axis=0)) == len(designs)
    for parameter in space.parameters:
        columns = space.columns_of(parameter.name)
        assert len(columns) == (0 if parameter.size == 1 else len(parameter.columns))
        assert [encoded.names[column] for column in columns] == list(parameter.columns)[: len(columns)]
        for column in columns:
            assert (column in encoded.categorical) == isinstance(parameter, Categorical)


@given(space=spaces(kinds=ANY), other=spaces(kinds=ANY))
def test_a_description_is_json_and_equal_exactly_for_equal_parameters(space, other):
    assert json.loads(json.dumps(space.describe())) == space.describe()
    again = Space(space.parameters, space.constraints)
    assert again.describe() == space.describe()
    same = json.dumps(space.describe()["parameters"]) == json.dumps(other.describe()["parameters"])
    assert same == (repr(space.parameters) == repr(other.parameters))


def changed(space, before, after):
    """Names of the parameters that changed, and of those that no condition made change."""
    different = [
        parameter for parameter, old, new in zip(space.parameters, before, after, strict=True) if old != new
    ]
    return [
        parameter.name
        for parameter in different
        if None
        not in (space.parameters_of(before)[parameter.name], space.parameters_of(after)[parameter.name])
    ]


@given(space=spaces(kinds=ANY), seed=SEEDS)
def test_moves_change_one_parameter_and_what_it_switches(space, seed):
    assume(not any(None in getattr(p, "choices", ()) for p in space.parameters))
    for design in itertools.islice(space.sequence(np.random.default_rng(seed)), 5):
        near = list(space.moves(design))
        assert len(set(near)) == len(near)
        for move in near:
            assert is_legal(Space(space.parameters), move)
            assert len(changed(space, design, move)) == 1
        for _ in range(5):
            move = space.mutate(design, np.random.default_rng(seed))
            if move is not None:
                assert is_legal(space, move)
                assert len(changed(space, design, move)) == 1


@given(space=spaces(constrained=False))
def test_moves_lead_from_any_design_to_any_other(space):
    start = next(space.designs())
    reached, front = {start}, [start]
    while front:
        new = {move for design in front for move in space.moves(design)} - reached
        reached |= new
        front = list(new)
    assert reached == every_design(space)


@given(space=spaces(constrained=False, most=3), seed=SEEDS)
@settings(max_examples=15)
def test_mutations_reach_every_move(space, seed):
    rng = np.random.default_rng(seed)
    design = next(space.sequence(rng))
    moves = set(space.moves(design))
    found = {space.mutate(design, rng) for _ in range(80 * (len(moves) + 1))} - {None}
    assert moves <= found


def test_a_mutation_of_the_only_feasible_design_is_none():
    space = Space([Integer("x", 0, 9)], [lambda p: None if p["x"] == 4 else "not 4"])
    assert space.mutate((4,), np.random.default_rng(0)) is None
    assert Space([Integer("x", 4, 4)]).mutate((4,), np.random.default_rng(0)) is None


@pytest.mark.parametrize("log", [False, True])
def test_mutations_of_a_real_parameter_are_wide_and_narrow(log):
    space = Space([Real("x", 1, 100, log=log)])
    rng = np.random.default_rng(0)
    start = (space.parameters[0].default,)
    moved = space.encode([space.mutate(start, rng) for _ in range(400)]).rows - space.encode([start]).rows
    sizes = np.abs(moved)
    assert (sizes < 0.01).mean() > 0.15
    assert (sizes > 0.1).mean() > 0.15


def test_recombined_values_are_completed_to_a_design():
    space = Space(
        [
            Integer("ways", 1, 9, active_if=("cache", ["yes"])),
            Categorical("cache", ("no", "yes")),
            Integer("lines", 1, 9, active_if=("cache", ["yes"])),
        ]
    )
    rng = np.random.default_rng(0)
    assert space.complete((3, "no", None), rng) == (None, "no", None)
    completed = {space.complete((3, "yes", None), rng) for _ in range(200)}
    assert completed == {(3, "yes", lines) for lines in range(1, 10)}


def test_a_sequence_finds_a_rare_design_of_a_space_that_can_be_walked():
    space = Space(
        [Ordinal("a", range(400)), Ordinal("b", range(400))],
        constraints=[lambda p: None if (p["a"], p["b"]) == (123, 321) else "no"],
    )
    assert space.sample(5, np.random.default_rng(0)) == [{"a": 123, "b": 321}]


def test_a_sequence_finds_rare_designs_of_a_large_space_near_each_other(monkeypatch):
    # One design in a thousand is feasible: 1024 draws in vain, and thus the end of sampling, come
    # after one or two of the 900, or none; the one that was found at the beginning is there then.
    space = Space(
        [Integer("a", 0, 999), Integer("b", 0, 999)],
        constraints=[lambda p: None if p["a"] // 30 == p["b"] // 30 == 7 else "no"],
    )
    monkeypatch.setattr(dse.space.space, "_PATIENCE_LARGE", 1024)
    for seed in range(3):
        found = list(space.sequence(np.random.default_rng(seed)))
        assert len(set(found)) == len(found) > 600
        assert all(210 <= value < 240 for design in found for value in design)


def test_a_longer_sample_begins_with_the_shorter_one():
    space = rows_and_columns(64)
    short, long = (space.sample(n, np.random.default_rng(3)) for n in (3, 6))
    assert long[:3] == short


def test_spaces_too_large_to_hold_are_walked_lazily():
    space = Space([Permutation("o", tuple("abcdefghijklmnop")), Integer("n", 0, 2**53)])
    assert space.size == math.factorial(16) * (2**53 + 1)
    assert [design[1] for design in itertools.islice(space.designs(), 3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="can be listed only if it is finite, but x is real"):
        Space([Integer("n", 0, 1), Real("x", 0, 1)]).designs()


def test_a_hundred_thousand_designs_are_listed_and_encoded_in_seconds():
    space = Space(
        [*(Ordinal(name, range(1, 11), log=True) for name in "abcd"), Categorical("e", range(10))],
        [lambda p: None if p["a"] < 10 or p["b"] < 10 else "both"],
    )
    begin = time.process_time()
    designs = list(space.designs())
    listed = time.process_time() - begin
    assert len(designs) == 99_000
    rows = space.encode(designs).rows
    encoded = time.process_time() - begin - listed
    assert rows.shape == (99_000, 5)
    assert listed < 4
    assert encoded < 4  # 0.2 in a process of its own
