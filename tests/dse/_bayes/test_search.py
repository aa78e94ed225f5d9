import numpy as np
import pytest

from dse import hypervolume
from dse._bayes import search
from dse._bayes.kernels import Kernel
from dse._bayes.models import Columns, ModelError
from dse._bayes.search import SearchModel

COLUMNS = Columns((0, 1), (2,))


def designs(n, seed=0):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.random((n, 2)), rng.integers(0, 3, n)]).astype(float)


def objectives(rows, m=2):
    x, y, code = rows.T
    every = [
        (x - 0.2) ** 2 + 0.5 * y + 0.2 * (code == 1),
        (x - 0.9) ** 2 + (y - 0.6) ** 2,
        np.sin(4 * x) + y,
        x - y + 0.1 * code,
        np.cos(3 * y) * x,
    ]
    return np.column_stack(every[:m])


@pytest.mark.parametrize("m", [1, 2, 3])
def test_of_known_objectives_it_is_the_improvement_of_the_hypervolume(m):
    rows, fresh = designs(9), designs(50, seed=1)
    reference = np.full(m, 1.5)

    def with_costs(part):
        return np.column_stack([part, objectives(part, m)])

    costs = objectives(rows, m)
    known = {j: 3 + j for j in range(m)}
    model = SearchModel(with_costs(rows), costs, COLUMNS, known=known, reference=reference)
    assert model.loo == (None,) * m
    before = hypervolume(costs, reference)
    gain = [hypervolume([*costs, row], reference) - before for row in objectives(fresh, m)]
    assert max(gain) > 0.01
    # Scores are in standardised units.
    np.testing.assert_allclose(
        np.exp(model.score(with_costs(fresh))) * costs.std(axis=0).prod(), gain, rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow  # thousands of samples, for they differ by their noise
# Importing GPyTorch compiles with torch.jit, which recent PyTorch deprecates: not our doing.
@pytest.mark.filterwarnings(r"ignore:.*torch\.jit.*:DeprecationWarning")
def test_it_is_the_noisy_expected_hypervolume_improvement_of_botorch(monkeypatch):
    import torch
    from botorch.acquisition.multi_objective import logei
    from botorch.models import ModelList
    from botorch.models.gpytorch import GPyTorchModel
    from botorch.sampling.list_sampler import ListSampler
    from botorch.sampling.normal import IIDNormalSampler
    from gpytorch.constraints import GreaterThan
    from gpytorch.distributions import MultivariateNormal
    from gpytorch.kernels import ConstantKernel, MaternKernel, ScaleKernel
    from gpytorch.likelihoods import GaussianLikelihood
    from gpytorch.means import ZeroMean
    from gpytorch.models import ExactGP

    monkeypatch.setattr(logei, "_load_attempted", True)  # no C++ compilation
    monkeypatch.setattr(search, "_DRAWS", 512)
    monkeypatch.setitem(search.OutcomeModel.__init__.__kwdefaults__, "kernels", (Kernel("matern52"),))
    rng = np.random.default_rng(3)
    rows, fresh, pending = rng.random((10, 2)), rng.random((12, 2)), rng.random((2, 2))
    noise = 0.2 * rng.standard_normal((10, 2))
    costs = objectives(np.column_stack([rows, np.zeros(10)])) - 5.0 + noise
    reference = costs.max(axis=0)
    model = SearchModel(rows, costs, Columns((0, 1)), pending_rows=pending, reference=reference, seed=1)
    values = model.score(fresh)

    class Theirs(ExactGP, GPyTorchModel):
        _num_outputs = 1

        def __init__(self, member):
            super().__init__(
                torch.tensor(rows),
                torch.tensor(-member.y),
                GaussianLikelihood(noise_constraint=GreaterThan(1e-9)),
            )
            first, second, scale, noise = np.exp(member.theta)
            self.mean_module = ZeroMean()
            shape = ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=2))
            shape.base_kernel.lengthscale, shape.outputscale = torch.tensor([first, second]), scale
            constant = ConstantKernel()
            constant.constant = torch.tensor(1.0)
            self.covar_module = shape + constant
            self.likelihood.noise = noise
            self.double()

        def forward(self, x):
            return MultivariateNormal(self.mean_module(x), self.covar_module(x))

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        theirs = logei.qLogNoisyExpectedHypervolumeImprovement(
            ModelList(*(Theirs(part.members[0]).eval() for part in model.models)),
            torch.tensor(
                [
                    -float(part.standardised(worst))
                    for part, worst in zip(model.models, reference, strict=True)
                ]
            ),
            torch.tensor(rows),
            sampler=ListSampler(*(IIDNormalSampler(torch.Size([2048]), seed=seed) for seed in (5, 6))),
            X_pending=torch.tensor(pending),
            cache_root=False,
        )
        wanted = theirs(torch.tensor(fresh).unsqueeze(1)).numpy()
    near = wanted > wanted.max() - 4.0  # further down, hundreds of samples say little
    assert near.sum() >= 6
    np.testing.assert_allclose(values[near], wanted[near], atol=0.3)
    assert np.corrcoef(values[near], wanted[near])[0, 1] > 0.98


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_any_number_of_objectives_has_finite_scores_that_differ(m):
    rows = designs(14)
    model = SearchModel(rows, objectives(rows, m), COLUMNS)
    values = model.score(designs(40, seed=1))
    assert np.isfinite(values).all()
    assert np.ptp(values) > 0
    assert len(model.loo) == m
    assert all(part.rmse < 0.7 for part in model.loo)


@pytest.mark.parametrize("scalarise", [False, True])
def test_a_search_finds_the_front_with_few_evaluations(scalarise):
    every = designs(400, seed=2)
    costs = objectives(every)
    reference = costs.max(axis=0) + 0.1
    full = hypervolume(costs, reference)
    asked, state = list(np.random.default_rng(0).permutation(400)[:8]), {}
    start = hypervolume(costs[asked], reference) / full
    while len(asked) < 30:
        left = np.setdiff1d(np.arange(400), asked)
        model = SearchModel(
            every[asked], costs[asked], COLUMNS, seed=len(asked), scalarise=scalarise, state=state
        )
        asked.append(left[model.pick(every[left])[0]])
    by_chance = [
        hypervolume(costs[np.random.default_rng(s).permutation(400)[:30]], reference) for s in range(20)
    ]
    assert start < 0.95
    # Random weights do not aim at the volume.
    assert hypervolume(costs[asked], reference) / full > (0.93 if scalarise else 0.995)
    assert hypervolume(costs[asked], reference) > np.median(by_chance)


def test_a_batch_has_no_duplicates_and_is_spread():
    rows = designs(15)
    candidates = designs(300, seed=1)
    model = SearchModel(rows, objectives(rows), COLUMNS)
    batch = model.pick(candidates, 6)
    assert len(set(batch.tolist())) == 6
    alone = np.argsort(-SearchModel(rows, objectives(rows), COLUMNS).score(candidates))[:6]
    assert set(batch.tolist()) != set(alone.tolist())

    def spread(index):
        points = candidates[index, :2]
        return np.linalg.norm(points[:, None] - points, axis=2).sum()

    assert spread(batch) > spread(alone)


def test_a_batch_ends_with_the_candidates():
    rows = designs(10)
    model = SearchModel(rows, objectives(rows), COLUMNS)
    assert sorted(model.pick(designs(3, seed=1), 5).tolist()) == [0, 1, 2]


def test_a_pending_design_is_worth_less():
    rows, candidates = designs(12), designs(100, seed=1)
    before = SearchModel(rows, objectives(rows), COLUMNS).score(candidates)
    best = int(before.argmax())
    after = SearchModel(rows, objectives(rows), COLUMNS, pending_rows=candidates[[best]]).score(candidates)
    assert after[best] < before[best] - 1.0
    assert after.argmax() != best


def test_equal_arguments_give_equal_picks_with_or_without_a_cache():
    rows, candidates = designs(33), designs(200, seed=1)
    costs = objectives(rows)
    state = {}
    for n in range(3, 33, 6):
        SearchModel(rows[:n], costs[:n], COLUMNS, state=state, seed=n)
    cached = SearchModel(rows, costs, COLUMNS, state=state, seed=7)
    alone = SearchModel(rows, costs, COLUMNS, seed=7)
    assert (cached.score(candidates) == alone.score(candidates)).all()
    assert (cached.pick(candidates, 4) == alone.pick(candidates, 4)).all()


def test_the_order_of_the_candidates_tells_nothing():
    rows = designs(12)
    same = np.repeat(designs(1, seed=5), 50, axis=0)  # equal scores
    first = [int(SearchModel(rows, objectives(rows), COLUMNS, seed=s).pick(same)[0]) for s in range(8)]
    assert len(set(first)) > 4


def test_many_candidates_keep_the_best():
    rows, many = designs(20), designs(search._COARSE + 500, seed=1)
    model = SearchModel(rows, objectives(rows), COLUMNS)
    values = model.score(many)
    kept = np.isfinite(values)
    assert kept.sum() == search._KEPT
    exact = np.concatenate([model.score(part) for part in np.array_split(many, 3)])
    np.testing.assert_allclose(values[kept], exact[kept], rtol=1e-9)
    assert values.argmax() == exact.argmax()


def test_where_designs_fail_is_avoided():
    rows = designs(40)
    failed = rows[:, 1] < 0.5
    good = rows[~failed]
    model = SearchModel(good, objectives(good), COLUMNS, failed_rows=rows[failed])
    candidates = designs(300, seed=1)
    assert candidates[model.pick(candidates, 5), 1].min() > 0.4
    # Without failures to learn from, the best designs are there.
    plain = SearchModel(good, objectives(good), COLUMNS)
    assert candidates[plain.pick(candidates, 5), 1].min() < 0.4


@pytest.mark.parametrize("finished", [0, 1])
def test_while_nothing_is_feasible_failures_are_left_behind(finished):
    rng = np.random.default_rng(8)
    failed = designs(20)
    failed[:, 0] *= 0.5
    failed[:, 2] = 0
    rows = np.array([[0.9, 0.5, 0.0]])[:finished]
    model = SearchModel(rows, objectives(rows).reshape(-1, 2), COLUMNS, failed_rows=failed)
    assert not model.improves
    assert "nothing feasible yet" in model.notes[0]
    candidates = np.column_stack([rng.random((200, 2)), np.zeros(200)])
    batch = model.pick(candidates, 3)
    assert candidates[batch[0], 0] > 0.8
    distance = np.linalg.norm(failed[:, None, :2] - candidates[:, :2], axis=2).min(axis=0)
    assert distance[batch].min() > np.median(distance)
    assert len(set(batch.tolist())) == 3


def test_outcome_constraints_are_learnt_and_kept():
    rows = designs(40)
    excess = 0.5 - rows[:, [1]]  # at least one half
    model = SearchModel(rows, objectives(rows), COLUMNS, constraints=excess)
    candidates = designs(300, seed=1)
    assert candidates[model.pick(candidates, 5), 1].min() > 0.45


def test_while_no_design_keeps_the_constraints_the_likeliest_is_chosen():
    rows = designs(25)
    rows[:, 1] *= 0.5
    model = SearchModel(rows, objectives(rows), COLUMNS, constraints=0.8 - rows[:, [1]])
    assert not model.improves
    candidates = designs(200, seed=1)
    assert candidates[model.pick(candidates)[0], 1] > 0.7


def test_incumbents_that_break_a_constraint_keep_nobody_from_improving():
    rows = designs(12)
    costs = objectives(rows)
    ideal = costs.min(axis=0) - 1.0
    rows, costs = np.concatenate([rows, [[0.5, 0.5, 0.0]]]), np.concatenate([costs, [ideal]])
    excess = np.where(np.arange(13) == 12, 1.0, -1.0)[:, None]
    fresh, reference = designs(50, seed=1), costs.max(axis=0)
    free = SearchModel(rows, costs, COLUMNS, reference=reference).score(fresh)
    bound = SearchModel(rows, costs, COLUMNS, reference=reference, constraints=excess).score(fresh)
    assert np.median(bound) > np.median(free) + 1.0


def test_improvement_per_second_prefers_fast_designs():
    rows, candidates = designs(30), designs(300, seed=1)
    seconds = np.exp(6.0 * rows[:, 1])
    slow = SearchModel(rows, objectives(rows)[:, [1]], COLUMNS)
    fast = SearchModel(rows, objectives(rows)[:, [1]], COLUMNS, seconds=seconds)
    difference = slow.score(candidates) - fast.score(candidates)
    # The logarithm of the predicted seconds.
    np.testing.assert_allclose(difference, 6.0 * candidates[:, 1], atol=0.6)


@pytest.mark.parametrize("seconds", [np.full(30, np.nan), np.full(30, 2.0)])
def test_times_that_say_nothing_change_nothing(seconds):
    rows, candidates = designs(30), designs(100, seed=1)
    plain = SearchModel(rows, objectives(rows), COLUMNS)
    timed = SearchModel(rows, objectives(rows), COLUMNS, seconds=seconds)
    assert (plain.score(candidates) == timed.score(candidates)).all()


def test_a_learnt_objective_sees_only_its_inputs():
    rows = designs(20)
    costs = np.column_stack([rows[:, 0], np.sin(5 * rows[:, 1])])
    model = SearchModel(rows, costs, COLUMNS, inputs={0: Columns((0,)), 1: Columns((1,))})
    fresh = designs(20, seed=1)
    changed = fresh.copy()
    changed[:, [0, 2]] = designs(20, seed=2)[:, [0, 2]]
    for ours, theirs in zip(model.models[1].predict(fresh), model.models[1].predict(changed), strict=True):
        assert (ours == theirs).all()


@pytest.mark.parametrize("worst", ["no design beats the reference", "every design does"])
def test_a_threshold_anywhere_gives_finite_scores(worst):
    rows = designs(12)
    costs = objectives(rows) + 1.0
    reference = np.array([-1.0, 0.5]) if worst.startswith("no") else np.array([50.0, 50.0])
    values = SearchModel(rows, costs, COLUMNS, reference=reference).score(designs(9, seed=1))
    assert np.isfinite(values).all()


def test_a_threshold_keeps_the_search_within_it():
    rows, candidates = designs(25), designs(300, seed=1)
    model = SearchModel(rows, objectives(rows), COLUMNS, reference=np.array([0.15, np.nan]))
    assert objectives(candidates)[model.pick(candidates, 3), 0].max() < 0.2


def standing_still(n=12):
    """Designs of which the first two are the front."""
    rows = designs(n)
    return rows, np.concatenate([objectives(rows[:2]) - 5.0, objectives(rows[2:])])


def test_where_the_front_stands_still_every_other_design_is_a_single_change_of_it():
    rows, costs = standing_still()
    front = rows[np.flatnonzero(search.non_dominated(costs))]
    assert len(front) <= 2
    rng = np.random.default_rng(4)
    changed = np.repeat(front, 20, axis=0)
    column = rng.integers(0, 2, len(changed))
    changed[np.arange(len(changed)), column] = rng.random(len(changed))
    candidates = np.concatenate([designs(200, seed=1), changed])
    model = SearchModel(rows, costs, COLUMNS)
    assert model.explores
    variance = np.prod([part.predict(candidates)[1] for part in model.models], axis=0)
    first, second, third = model.pick(candidates, 3)
    assert first == 200 + variance[200:].argmax()
    again = SearchModel(rows, costs, COLUMNS, pending_rows=candidates[[first]])
    assert not again.explores
    assert second == again.score(candidates).argmax()
    assert third >= 200


def test_without_single_changes_the_fewest_count():
    rows, costs = standing_still()
    front = rows[:2][search.non_dominated(costs[:2])]
    two = np.concatenate([front[[0]], front[[0]]])
    two[:, :2] = [[0.11, 0.12], [0.97, 0.98]]  # the code is the same
    others = designs(80, seed=1)
    others = others[~np.isin(others[:, 2], front[:, 2])]
    assert len(others) > 10
    model = SearchModel(rows, costs, COLUMNS)
    assert (model.worth(np.concatenate([others, two])).argmax() - len(others)) in (0, 1)


def test_a_feature_is_no_change_of_a_design():
    def with_sum(part):
        return np.column_stack([part, part[:, 0] + part[:, 1]])

    rows, costs = standing_still()
    front = rows[:2][search.non_dominated(costs[:2])][[0]]
    single = np.repeat(front, 20, axis=0)
    single[:, 0] = np.random.default_rng(4).random(20)
    swapped = front[:, [1, 0, 2]]  # two inputs differ, the sum does not
    candidates = with_sum(np.concatenate([swapped, single]))
    columns = Columns((0, 1, 3), (2,))
    informed = SearchModel(with_sum(rows), costs, columns, features=(3,))
    assert informed.explores
    worth = informed.worth(candidates)
    assert worth[0] == -np.inf
    assert np.isfinite(worth[1:]).all()
    assert np.isfinite(SearchModel(with_sum(rows), costs, columns).worth(candidates)).all()


@pytest.mark.parametrize("newest", [8, 9, 11])
def test_a_front_that_has_just_moved_is_improved_further(newest):
    rows = designs(12)
    costs = objectives(rows)
    costs[newest] = costs.min(axis=0) - 1.0
    model = SearchModel(rows, costs, COLUMNS)
    fresh = designs(30, seed=1)
    assert model.explores == (newest == 8)
    assert (model.worth(fresh) == model.score(fresh)).all() == (newest != 8)


def test_what_is_explored_may_be_of_use():
    rows, costs = standing_still(30)
    failed = np.array([[x, y, code] for x, y, code in designs(20, seed=3) * [1.0, 0.5, 1.0]])
    rows[:, 1] = 0.5 + 0.5 * rows[:, 1]
    front = rows[:2][search.non_dominated(costs[:2])]
    changed = np.repeat(front[[0]], 100, axis=0)
    changed[:, 1] = np.linspace(0.0, 1.0, 100)
    model = SearchModel(rows, costs, COLUMNS, failed_rows=failed)
    assert model.explores
    assert changed[model.pick(changed)[0], 1] > 0.4
    # A threshold is kept too, of a known objective as of a learnt one.
    rows[0, 1] = 0.5  # the best of both objectives, but for the next design's second
    exact = np.column_stack([rows, rows[:, 1]])
    candidates = np.column_stack([changed, changed[:, 1]])
    known = SearchModel(
        exact,
        np.column_stack([rows[:, 1], costs[:, 1]]),
        COLUMNS,
        known={0: 3},
        reference=np.array([0.7, np.nan]),
    )
    assert known.explores
    assert candidates[known.pick(candidates)[0], 1] < 0.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"costs": np.full((5, 2), np.nan)}, "costs must be finite"),
        ({"costs": np.zeros((4, 2))}, "costs must be finite and have the shape"),
        ({"constraints": np.zeros((4, 1))}, "constraints must be finite"),
        ({"reference": np.zeros(3)}, r"reference must have the shape \(2,\), got \(3,\)"),
    ],
)
def test_bad_arrays_are_refused(change, message):
    options = {"costs": np.zeros((5, 2)), **change}
    with pytest.raises(ValueError, match=message):
        SearchModel(designs(5), options.pop("costs"), COLUMNS, **options)


def test_too_little_is_a_model_error():
    with pytest.raises(ModelError, match="needs 2 finished designs, got 1"):
        SearchModel(designs(1), np.zeros((1, 2)), COLUMNS)
    same = np.repeat(designs(1), 5, axis=0)
    with pytest.raises(ModelError, match="none of its inputs varies"):
        SearchModel(same, np.random.default_rng(0).random((5, 2)), COLUMNS)
