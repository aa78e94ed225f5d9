import math

import numpy as np
import pandas as pd
import pytest

import dse
from dse.features import Features, Scale


def space(n=12):
    return dse.Space([dse.Ordinal("x", range(n)), dse.Ordinal("y", range(n)), dse.Ordinal("z", range(n))])


def theory(p):
    """What explains most of the loss, and no smooth function of the knobs does."""
    return {"remainder": float((5 * p["x"] + 3 * p["y"] + 7 * p["z"]) % 23)}


def loss(p):
    return {"loss": theory(p)["remainder"] + 0.05 * p["x"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": theory, "known": lambda p: 1.0}, "features belong to a learnt objective, but loss"),
        ({"features": {"a": 1.0}}, r"features of loss must be a function, got \{'a': 1.0\}"),
    ],
)
def test_bad_features_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dse.Objective("loss", **options)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (lambda p: 1.0, "features must be numbers by name, got 1.0"),
        (lambda p: {}, r"features must be numbers by name, got \{\}"),
        (lambda p: {"a": math.nan}, "feature a must be finite, got nan"),
        (lambda p: {"a": "b"}, "feature a must be a number, got 'b'"),
        (lambda p: {"a" if p["x"] else "b": 1.0}, "features must always be b, got a"),
    ],
)
def test_what_features_may_not_return_is_named_with_objective_and_design(features, message):
    c = dse.Campaign(space(2), [dse.Objective("loss", features=features)], seed=0, initial=2)
    for trial in c.ask(2):
        c.tell(trial, {"loss": trial.id})
    with pytest.raises(ValueError, match=message) as caught:
        c.ask()
    assert "in the features of the objective loss of {'x':" in caught.value.__notes__[0]


def test_columns_of_an_objective_are_beside_each_other_and_scaled_over_the_space_and_what_was_seen():
    wanted = [
        dse.Objective("a", features=lambda p: {"one": p["x"], "two": 4.0}),
        dse.Objective("b"),
        dse.Objective("c", features=lambda p: {"sum": p["x"] + p["y"] - 10.0}),
    ]
    features = Features(space(3), wanted, seed=0)
    assert [features.columns(j, 7) for j in range(3)] == [(7, 8), (), (9,)]
    scale = features.scale()
    assert scale == Scale((0.0, 4.0, -10.0), (2.0, 4.0, -6.0))
    designs = [space(3).design({"x": 1, "y": 2, "z": 0})]
    np.testing.assert_array_equal(scale(features.values(designs)), [[0.5, 0.0, 0.75]])
    assert features.values([]).shape == (0, 3)


def test_a_large_space_is_sampled_and_designs_seen_widen_the_scale():
    large = dse.Space([dse.Real("x", 0.0, 1.0)])
    features = Features(large, [dse.Objective("a", features=lambda p: {"x": p["x"]})], seed=3)
    scale = features.scale()
    assert 0.0 < scale.low[0] < 0.05 < 0.95 < scale.high[0] < 1.0
    seen = [large.design({"x": 0.0}), large.design({"x": 1.0})]
    assert features.scale(seen) == Scale((0.0,), (1.0,))
    assert Features(large, [dse.Objective("a", features=lambda p: {"x": p["x"]})], seed=3).scale() == scale


def test_features_are_computed_once_per_design():
    calls = []

    def counted(p):
        calls.append(tuple(p.values()))
        return theory(p)

    c = dse.Campaign(space(5), [dse.Objective("loss", features=counted)], seed=0, initial=4)
    c.run(loss, budget=7)
    c.predict(pd.DataFrame([t.parameters for t in c.trials]))
    assert len(calls) == len(set(calls)) == 125


def regret(seed, features, budget):
    c = dse.Campaign(space(), [dse.Objective("loss", features=features)], seed=seed, initial=6)
    c.run(loss, budget=budget)
    return float(c.frame()["loss"].min())


def test_a_feature_that_explains_the_outcome_saves_evaluations():
    # Three evaluations that a model chose find one of the best of 1728 designs.
    with_theory = [regret(seed, theory, budget=9) for seed in range(3)]
    without = [regret(seed, None, budget=9) for seed in range(3)]
    assert max(with_theory) <= 0.2
    assert np.mean(without) > 1.0


def test_a_feature_that_explains_the_outcome_predicts_it():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(rng.integers(0, 12, (400, 3)), columns=["x", "y", "z"]).drop_duplicates()
    rows["loss"] = [loss(p)["loss"] for p in rows.to_dict("records")]
    known, other = rows[:25], rows[25:]
    errors = {}
    for name, features in (("with", theory), ("without", None)):
        c = dse.Campaign(space(), [dse.Objective("loss", features=features)], seed=0, method="predict")
        c.attach(known)
        mean, _ = c.predict(other)
        errors[name] = float(np.sqrt(np.mean((mean - other["loss"]) ** 2)))
    assert errors["with"] < 0.3 * errors["without"]


def test_active_learning_and_transfer_work_with_features():
    rng = np.random.default_rng(1)
    source = pd.DataFrame(rng.integers(0, 6, (30, 3)), columns=["x", "y", "z"]).drop_duplicates()
    source["loss"] = [loss(p)["loss"] + 1 for p in source.to_dict("records")]
    for method in ("predict", "auto"):
        c = dse.Campaign(
            space(6),
            [dse.Objective("loss", features=theory)],
            seed=0,
            method=method,
            initial=5,
            transfer=[source],
        )
        c.run(loss, budget=7)
        assert not any("Sobol design" in text for _, text in c.notes)


def test_a_campaign_with_features_resumes_as_it_was(tmp_path):
    def make(**options):
        return dse.Campaign(
            dse.Space([dse.Real("x", 0, 1), dse.Ordinal("y", range(9))]),
            [dse.Objective("loss", features=lambda p: {"f": p["x"] * p["y"]})],
            seed=2,
            initial=4,
            **options,
        )

    def evaluate(p):
        return {"loss": (p["x"] * p["y"] - 3) ** 2}

    straight = make()
    straight.run(evaluate, budget=8)
    for budget in (5, 7, 8):
        with make(store=tmp_path / "c.sqlite") as resumed:
            resumed.run(evaluate, budget=budget)
    assert [t.parameters for t in resumed.trials] == [t.parameters for t in straight.trials]
    with pytest.raises(dse.StoreMismatch, match=r"objectives\[0\].features: True in the store, False now"):
        dse.Campaign(
            dse.Space([dse.Real("x", 0, 1), dse.Ordinal("y", range(9))]),
            [dse.Objective("loss")],
            seed=2,
            initial=4,
            store=tmp_path / "c.sqlite",
        )
