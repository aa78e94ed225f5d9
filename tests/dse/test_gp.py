import warnings

import numpy as np
import pytest

import dse
from dse.surrogate import Known, Learnt, SurrogateError, sources


@pytest.fixture(scope="module")
def gp():
    from dse import _gp

    return _gp


def acquisition(gp, rows, costs, where, *, reference=None, pending=None, seed=0):
    return gp.Acquisition(
        rows,
        costs,
        where,
        reference=costs.max(axis=0) + 0.1 if reference is None else np.array(reference),
        pending=np.empty((0, rows.shape[1])) if pending is None else pending,
        seed=seed,
    )


def posterior(gp, built, rows, objective):
    import torch

    with torch.no_grad():
        found = built.model.models[objective].posterior(torch.from_numpy(rows))
    return found.mean.numpy()[..., 0], found.variance.numpy()[..., 0]


def test_a_known_objective_has_its_exact_value_and_no_variance(gp):
    rng = np.random.default_rng(0)
    points = rng.random((12, 2))
    area = np.exp(points[:, 0])
    rows = np.column_stack([points, area])
    costs = np.column_stack([area, rng.standard_normal(12)])
    built = acquisition(gp, rows, costs, [Known(2), Learnt([0, 1], [])])
    fresh = np.column_stack([rng.random((50, 2)), rng.random(50)])
    mean, variance = posterior(gp, built, fresh, 0)
    assert (mean == -fresh[:, 2]).all()
    assert (variance == 0).all()


def test_a_learnt_objective_sees_only_its_inputs(gp):
    rng = np.random.default_rng(1)
    rows = rng.random((15, 3))
    costs = np.column_stack([rows[:, 0], np.sin(5 * rows[:, 1])])
    built = acquisition(gp, rows, costs, [Known(0), Learnt([1], [])])
    fresh = rng.random((20, 3))
    changed = fresh.copy()
    changed[:, [0, 2]] = rng.random((20, 2))
    for ours, theirs in zip(posterior(gp, built, fresh, 1), posterior(gp, built, changed, 1), strict=True):
        assert (ours == theirs).all()
    assert np.abs(posterior(gp, built, fresh, 1)[0] + np.sin(5 * fresh[:, 1])).max() < 0.2


def test_the_noise_is_learnt(gp):
    rng = np.random.default_rng(2)
    rows = rng.random((80, 1))
    noise = 0.3
    cost = np.sin(6 * rows[:, 0]) + noise * rng.standard_normal(80)
    built = acquisition(
        gp, np.column_stack([rows, rows]), np.column_stack([rows, cost]), [Known(1), Learnt([0], [])]
    )
    assert built.model.models[1].model.likelihood.noise.item() == pytest.approx(noise**2, rel=0.5)


def test_categories_are_told_apart_without_an_order(gp):
    rng = np.random.default_rng(3)
    rows = np.column_stack([rng.random(60), rng.integers(3, size=60)]).astype(float)
    level = np.array([0.0, 2.0, -1.0])
    cost = level[rows[:, 1].astype(int)] + 0.5 * rows[:, 0]
    built = acquisition(gp, rows, np.column_stack([rows[:, 0], cost]), [Known(0), Learnt([0], [1])])
    mean, _ = posterior(gp, built, np.array([[0.5, 0.0], [0.5, 1.0], [0.5, 2.0]]), 1)
    np.testing.assert_allclose(-mean, level + 0.25, atol=0.1)


def test_shared_posteriors_are_blocks_of_the_joint_one(gp):
    import torch

    rng = np.random.default_rng(4)
    rows = rng.random((20, 2))
    costs = np.column_stack([rows[:, 0], rng.standard_normal(20)])
    wrapped = acquisition(gp, rows, costs, [Known(0), Learnt([0, 1], [])]).model.models[1]
    baseline = torch.from_numpy(rng.random((4, 2))).expand(7, -1, -1)
    points = torch.cat([baseline, torch.from_numpy(rng.random((7, 1, 2)))], dim=1)
    ours, plain = wrapped.posterior(points), wrapped.model.posterior(points)
    torch.testing.assert_close(ours.mean, plain.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        ours.distribution.covariance_matrix, plain.distribution.covariance_matrix, rtol=1e-8, atol=1e-10
    )


@pytest.mark.parametrize("m", [1, 2, 3])
def test_with_known_objectives_only_the_value_is_the_improvement_of_the_hypervolume(gp, m):
    rng = np.random.default_rng(m)
    costs, fresh = rng.random((8, m)), rng.random((60, m)) * 0.9
    reference = np.full(m, 1.1)
    where = [Known(column) for column in range(m)]
    values = np.exp(acquisition(gp, costs, costs, where, reference=reference)(fresh))
    before = dse.hypervolume(costs, reference)
    gain = np.array([dse.hypervolume([*costs, row], reference) - before for row in fresh])
    assert gain.max() > 0.01
    # The logarithm smooths minima and maxima by a few per mille.
    np.testing.assert_allclose(values, gain, rtol=0.02, atol=2e-3)


def test_many_rows_keep_the_values_of_the_best(gp):
    rng = np.random.default_rng(5)
    rows = rng.random((20, 2))
    costs = np.column_stack([rows[:, 0], (rows[:, 1] - 0.4) ** 2 - rows[:, 0]])
    built = acquisition(gp, rows, costs, [Known(0), Learnt([0, 1], [])])
    fresh = rng.random((1000, 2))
    values = built(fresh)
    one_by_one = np.concatenate([built(part) for part in np.array_split(fresh, 10)])
    kept = np.isfinite(values)
    assert kept.sum() == gp._KEPT
    np.testing.assert_allclose(values[kept], one_by_one[kept], rtol=1e-6, atol=1e-6)
    assert values.argmax() == one_by_one.argmax()


def test_a_pending_design_is_not_worth_asking_again(gp):
    rng = np.random.default_rng(6)
    rows = rng.random((12, 2))
    costs = np.column_stack([rows[:, 0], np.sin(4 * rows[:, 1])])
    where = [Known(0), Learnt([0, 1], [])]
    fresh = rng.random((100, 2))
    values = acquisition(gp, rows, costs, where)(fresh)
    best = [values.argmax()]
    after = acquisition(gp, rows, costs, where, pending=fresh[best])(fresh)
    assert after[best] < values[best] - 1.0
    assert after.argmax() != best


@pytest.mark.parametrize("worst", ["no design beats the reference", "every design does"])
def test_a_threshold_anywhere_gives_finite_values(gp, worst):
    rng = np.random.default_rng(7)
    rows = rng.random((10, 2))
    costs = np.column_stack([rows[:, 0], rng.standard_normal(10)])
    reference = [-1.0, -5.0] if worst.startswith("no") else [5.0, 5.0]
    values = acquisition(gp, rows, costs, [Known(0), Learnt([0, 1], [])], reference=reference)(
        rng.random((9, 2))
    )
    assert np.isfinite(values).all()


@pytest.mark.parametrize("m", [1, 3, 5])
def test_any_number_of_learnt_objectives_works(gp, m):
    rng = np.random.default_rng(8)
    rows = rng.random((8, 2))
    costs = np.column_stack([np.sin((j + 1) * rows[:, 0]) + j * rows[:, 1] for j in range(m)])
    values = acquisition(gp, rows, costs, [Learnt([0, 1], [])] * m)(rng.random((5, 2)))
    assert np.isfinite(values).all()
    assert np.ptp(values) > 0


def test_constant_inputs_are_left_out_of_a_fit_and_need_not_be_the_last_word(gp):
    rng = np.random.default_rng(9)
    rows = np.column_stack([rng.random(10), np.full(10, 0.5), np.ones(10)])
    costs = np.column_stack([rows[:, 0], rng.standard_normal(10)])
    built = acquisition(gp, rows, costs, [Known(0), Learnt([0, 1], [2])])
    assert built.model.models[1].columns == [0]
    with pytest.raises(SurrogateError, match="none of its inputs varies"):
        acquisition(gp, rows, costs, [Known(0), Learnt([1], [2])])


def test_equal_arguments_give_equal_bits_and_the_session_is_left_as_it_was(gp):
    import torch

    rng = np.random.default_rng(10)
    rows = np.column_stack([rng.random((10, 2)), rng.integers(2, size=10)])
    costs = rng.standard_normal((10, 2))
    where, fresh = [Learnt([0, 1], [2])] * 2, rng.random((300, 3)).round()
    torch.manual_seed(123)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = acquisition(gp, rows, costs, where, seed=5)(fresh)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    torch.manual_seed(321)
    assert (acquisition(gp, rows, costs, where, seed=5)(fresh) == first).all()
    assert (acquisition(gp, rows, costs, where, seed=6)(fresh) != first).any()


def test_warnings_of_a_fit_become_notes_and_others_stay_warnings(gp, monkeypatch):
    from botorch.exceptions.warnings import OptimizationWarning

    fit = gp.fit_gpytorch_mll

    def loud(*arguments, **options):
        warnings.warn("did not converge\nat all", OptimizationWarning, stacklevel=1)
        return fit(*arguments, **options)

    monkeypatch.setattr(gp, "fit_gpytorch_mll", loud)
    rng = np.random.default_rng(11)
    rows, costs = rng.random((6, 1)), rng.random((6, 1))
    assert acquisition(gp, rows, costs, [Learnt([0], [])]).notes == ["OptimizationWarning: did not converge"]

    def deprecated(*arguments, **options):
        warnings.warn("soon gone", FutureWarning, stacklevel=1)

    monkeypatch.setattr(gp, "fit_gpytorch_mll", deprecated)
    with pytest.raises(FutureWarning, match="soon gone"):
        acquisition(gp, rows, costs, [Learnt([0], [])])


def test_sources_point_at_the_encoding_and_at_one_column_per_known_objective():
    space = dse.Space(
        [
            dse.Ordinal("fixed", (1,)),
            dse.Ordinal("x", (1, 2)),
            dse.Categorical("flow", ("a", "b")),
            dse.Ordinal("y", (1, 2)),
        ]
    )
    wanted = [
        dse.Objective("area", known=len),
        dse.Objective("loss"),
        dse.Objective("power", known=len),
        dse.Objective("error", inputs=("flow", "fixed", "y")),
    ]
    assert sources(space, wanted) == [Known(3), Learnt([0, 2], [1]), Known(4), Learnt([2], [1])]
