from itertools import islice

import numpy as np
import pytest

from dse.diagnostics import Feasibility, Model
from dse.space import Categorical, Integer, Ordinal, Permutation, PowerOfTwo, Real, Space

SPACE = Space(
    [
        PowerOfTwo("size", 1, 64),
        Real("rate", 0.0, 1.0),
        Categorical("mode", ("a", "b")),
        Ordinal("child", (1, 2, 3), active_if=("mode", ["b"])),
        Permutation("loops", ("m", "n")),
        Integer("idle", 0, 50),
        Ordinal("constant", (7,)),
    ]
)


def designs(n):
    return list(islice(SPACE.sequence(np.random.default_rng(0)), n))


def additive(design):
    """Variances by hand: log2 of the size over 0..6 has 4, ten times the mode has 25."""
    size, _, mode, *_ = design
    return np.log2(size) + 10 * (mode == "b")


@pytest.fixture(scope="module")
def model():
    chosen = designs(60)
    return Model(SPACE, chosen, np.array([additive(design) for design in chosen]))


def test_predictions_and_left_out_predictions_fit_a_simple_function(model):
    unseen = designs(160)[60:]
    mean, std = model.predict(unseen)
    truth = np.array([additive(design) for design in unseen])
    assert np.sqrt(((mean - truth) ** 2).mean()) < 0.1 * truth.std()
    assert (std > 0).all()
    assert model.explained > 0.95
    assert model.coverage(1.645) >= 0.8
    assert model.coverage(0.0) <= model.coverage(1.0) <= model.coverage(100.0) == 1.0


def test_total_effects_are_those_of_the_function(model):
    effects = model.effects()
    assert set(effects) == {"size", "rate", "mode", "child", "loops", "idle"}
    assert effects["size"] == pytest.approx(4 / 29, abs=0.05)
    assert effects["mode"] == pytest.approx(25 / 29, abs=0.12)
    assert all(effects[name] < 0.03 for name in ("rate", "loops", "idle"))


def test_designs_along_a_parameter_change_it_and_its_children_alone(model):
    base = SPACE.design({"size": 4, "rate": 0.5, "mode": "a", "loops": ("m", "n"), "idle": 3, "constant": 7})
    assert [design[0] for design in model.along(base, "size")] == [1, 2, 4, 8, 16, 32, 64]
    assert {design[1:] for design in model.along(base, "size")} == {base[1:]}
    assert [design[2:4] for design in model.along(base, "mode")] == [("a", None), ("b", 2)]
    assert len(model.along(base, "rate", points=9)) == 9
    assert len(model.along(base, "idle", points=9)) == 9


def test_equal_seeds_give_equal_models(model):
    chosen = designs(60)
    again = Model(SPACE, chosen, np.array([additive(design) for design in chosen]))
    assert (again.left_out == model.left_out).all()


@pytest.mark.parametrize(
    ("count", "change", "message"),
    [
        (4, lambda y: y, "at least 5 results, got 4"),
        (6, lambda y: y[:5], r"shape \(6,\), got \(5,\)"),
        (6, lambda y: y * np.nan, "must be finite, got nan"),
        (6, lambda y: 0 * y + 2.0, "must vary, got 2.0"),
    ],
)
def test_what_cannot_be_modelled_is_named(count, change, message):
    chosen = designs(count)
    with pytest.raises(ValueError, match=message):
        Model(SPACE, chosen, change(np.array([additive(design) for design in chosen])))


def test_equal_designs_cannot_be_modelled():
    with pytest.raises(ValueError, match="must differ"):
        Model(SPACE, designs(1) * 6, np.arange(6.0))


def test_feasibility_is_learnt_from_what_failed_and_what_did_not():
    space = Space([Ordinal("x", range(12)), Ordinal("y", range(12)), Real("z", 0.0, 1.0)])
    designs = list(islice(space.sequence(np.random.default_rng(3)), 80))
    fits = np.array([x + y < 12 for x, y, _ in designs])
    model = Feasibility(space, designs[:60], fits[:60], seed=1)
    chance = model.probability(designs[60:])
    assert ((chance > 0.5) == fits[60:]).mean() > 0.85
    effects = model.effects()
    assert effects == Feasibility(space, designs[:60], fits[:60], seed=1).effects()
    assert effects["z"] < 0.1 < min(effects["x"], effects["y"])


@pytest.mark.parametrize(
    ("designs", "feasible", "message"),
    [
        ([(1,), (2,)], [True, False], "at least 5 trials, got 2"),
        ([(k,) for k in range(6)], [True] * 6, "needs a design that failed, got none"),
        ([(1,)] * 6, [True, False] * 3, "designs must differ"),
        ([(k,) for k in range(6)], [False] * 5, r"must have the shape \(6,\), got \(5,\)"),
    ],
)
def test_what_says_nothing_of_feasibility_is_named(designs, feasible, message):
    with pytest.raises(ValueError, match=message):
        Feasibility(Space([Ordinal("x", range(9))]), designs, np.array(feasible))
