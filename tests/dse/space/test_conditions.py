import pytest

from dse.space import Categorical, Integer, Ordinal, Permutation, PowerOfTwo, Real, Space


def caches(**options):
    """A cache that may be absent, and a victim buffer that only a cache of at least 2 ways has."""
    return Space(
        [
            Categorical("cache", ("no", "yes", "shared")),
            PowerOfTwo("ways", 1, 4, active_if=("cache", ["yes", "shared"])),
            Integer("victims", 1, 3, active_if=("ways", [2, 4])),
        ],
        **options,
    )


def test_the_designs_of_nested_conditions_by_hand():
    one = [(1, None), *((ways, victims) for ways in (2, 4) for victims in (1, 2, 3))]
    expected = [("no", None, None), *(("yes", *rest) for rest in one), *(("shared", *rest) for rest in one)]
    space = caches()
    assert list(space.designs()) == expected
    assert space.size == len(expected) == 15


def test_moves_switch_children_on_and_off():
    space = caches()
    assert set(space.moves(("yes", 2, 3))) == {
        ("no", None, None),
        ("shared", 2, 3),
        ("yes", 1, None),
        ("yes", 4, 3),
        ("yes", 2, 1),
        ("yes", 2, 2),
    }
    others = {("yes", 1, None), *(("yes", ways, victims) for ways in (2, 4) for victims in (1, 2, 3))}
    assert set(space.moves(("no", None, None))) == others | {("shared", *rest) for _, *rest in others}


def test_a_move_that_activates_too_much_takes_the_defaults():
    space = Space(
        [
            Categorical("cache", ("no", "yes")),
            Integer("lines", 0, 100, active_if=("cache", ["yes"])),
            Real("share", 0, 1, active_if=("cache", ["yes"])),
        ]
    )
    assert list(space.moves(("no", None, None))) == [("yes", 50, 0.5)]
    assert space.size is None


def test_what_is_active_already_keeps_its_value_beside_what_wakes():
    space = Space(
        [
            Categorical("cache", ("yes", "shared")),
            Integer("lines", 0, 100, active_if=("cache", ["yes", "shared"])),
            Integer("cores", 1, 3, active_if=("cache", ["shared"])),
        ]
    )
    switched = {move for move in space.moves(("yes", 7, None)) if move[0] == "shared"}
    assert switched == {("shared", 7, cores) for cores in (1, 2, 3)}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"cache": "no", "ways": 2, "victims": None},
            "ways must be None where cache is 'no', got 2; it belongs to 'yes', 'shared'",
        ),
        (
            {"cache": "yes", "ways": None, "victims": None},
            "ways must have a value where cache is 'yes', got None; it belongs to 'yes', 'shared'",
        ),
        ({"cache": "yes"}, "ways must have a value where cache is 'yes', got None"),
        ({"cache": "no", "victims": 1}, "victims must be None where ways is None, got 1; it belongs to 2, 4"),
        ({"cache": "yes", "ways": 3, "victims": 1}, "ways must be one of 1, 2, 4, got 3"),
        ({"cache": None, "ways": None, "victims": None}, "cache must be one of no, yes, shared, got None"),
        ({"ways": 2, "victims": 1}, "parameter cache is missing"),
    ],
)
def test_a_value_and_a_condition_that_disagree_are_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        caches().design(parameters)


def test_an_inactive_parameter_may_be_left_out():
    assert caches().design({"cache": "no"}) == ("no", None, None)
    assert caches().design({"cache": "yes", "ways": 1}) == ("yes", 1, None)


def test_a_constraint_finds_none_for_what_is_inactive():
    space = caches(constraints=[lambda p: "too many" if (p["victims"] or 0) > 1 else None])
    assert len(list(space.designs())) == 7
    assert space.why_infeasible({"cache": "no"}) is None
    assert space.why_infeasible({"cache": "yes", "ways": 2, "victims": 3}) == "too many"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ([Real("x", 0, 1, active_if=("y", [1]))], "the parent of x must be among x, got 'y'"),
        (
            [Categorical("c", ("a", "b")), Real("x", 0, 1, active_if=("c", ["a", "z"]))],
            "active_if of x: c must be one of a, b, got 'z'",
        ),
        (
            [Integer("n", 0, 3), Real("x", 0, 1, active_if=("n", [4]))],
            "active_if of x: n must be an integer in 0..3, got 4",
        ),
        ([Ordinal("x", (1, 2), active_if=("x", [1]))], "must not go in a circle, got x on x"),
        (
            [
                Ordinal("a", (1, 2), active_if=("c", [1])),
                Ordinal("b", (1, 2), active_if=("a", [1])),
                Ordinal("c", (1, 2), active_if=("b", [1])),
            ],
            "conditions must not go in a circle, got a on c on b on a",
        ),
        (
            [Real("r", 0, 1), Ordinal("x", (1, 2), active_if=("r", [0.5]))],
            "the parent of x must have a list of values, got the real r",
        ),
        (
            [Permutation("o", ("m", "n")), Ordinal("x", (1, 2), active_if=("o", [("m", "n")]))],
            "the parent of x must have a list of values, got the permutation o",
        ),
    ],
)
def test_bad_conditions_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        Space(parameters)


@pytest.mark.parametrize("active_if", [("c", "yes"), ("c", []), ("c", 3), ("", ["a"]), "c", (1, 2, 3), 5])
def test_a_condition_of_another_form_is_refused(active_if):
    with pytest.raises(ValueError, match=r"active_if of x must be \(parent, list of its values\), got "):
        Real("x", 0, 1, active_if=active_if)


def test_a_description_has_the_condition():
    assert caches().describe()["parameters"][1] == {
        "name": "ways",
        "kind": "power_of_two",
        "low": 1,
        "high": 4,
        "active_if": {"parent": "cache", "values": ["yes", "shared"]},
    }


def test_none_may_be_a_choice_that_others_depend_on():
    space = Space([Categorical("chunk", (None, 64)), Integer("pad", 0, 1, active_if=("chunk", [None]))])
    assert list(space.designs()) == [(None, 0), (None, 1), (64, None)]
    assert space.design({"chunk": None, "pad": 1}) == (None, 1)
    assert set(space.moves((64, None))) == {(None, 0), (None, 1)}
