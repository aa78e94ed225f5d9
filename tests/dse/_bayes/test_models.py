import numpy as np
import pytest
from scipy.stats import norm

from dse._bayes import gp
from dse._bayes.kernels import Inputs, Kernel, prior
from dse._bayes.models import Columns, ModelError, OutcomeModel, SampledModel, transformed

COLUMNS = Columns((0, 1), (2,))


def mixed(n, seed=0):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.random((n, 2)), rng.integers(0, 3, n)]).astype(float)


def smooth(rows):
    return np.sin(5 * rows[:, 0]) + rows[:, 1] ** 2 + np.array([0.0, 1.0, -0.5])[rows[:, 2].astype(int)]


def some_theta(inputs, seed=0):
    start = prior(inputs).start
    return start + 0.4 * np.random.default_rng(seed).standard_normal(len(start))


# Importing GPyTorch compiles with torch.jit, which recent PyTorch deprecates: not our doing.
@pytest.mark.filterwarnings(r"ignore:.*torch\.jit.*:DeprecationWarning")
def test_posterior_and_likelihood_are_those_of_gpytorch():
    import torch
    from gpytorch.constraints import GreaterThan
    from gpytorch.distributions import MultivariateNormal
    from gpytorch.kernels import ConstantKernel, MaternKernel, ScaleKernel
    from gpytorch.likelihoods import GaussianLikelihood
    from gpytorch.means import ZeroMean
    from gpytorch.mlls import ExactMarginalLogLikelihood
    from gpytorch.models import ExactGP

    rows, fresh = mixed(20)[:, :2], mixed(7, seed=1)[:, :2]
    y = np.sin(5 * rows[:, 0]) + rows[:, 1]
    inputs = Inputs(Kernel("matern52"), Columns((0, 1)))
    theta = np.log([0.4, 0.9, 1.7, 0.01])

    class Theirs(ExactGP):
        def __init__(self):
            super().__init__(
                torch.tensor(rows), torch.tensor(y), GaussianLikelihood(noise_constraint=GreaterThan(1e-9))
            )
            self.mean_module = ZeroMean()
            shape = ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=2))
            shape.base_kernel.lengthscale, shape.outputscale = torch.tensor([0.4, 0.9]), 1.7
            constant = ConstantKernel()
            constant.constant = torch.tensor(1.0)
            self.covar_module = shape + constant
            self.likelihood.noise = 0.01
            self.double()

        def forward(self, x):
            return MultivariateNormal(self.mean_module(x), self.covar_module(x))

    theirs = Theirs()
    with torch.no_grad():
        theirs.train()
        likelihood = ExactMarginalLogLikelihood(theirs.likelihood, theirs)(
            theirs(torch.tensor(rows)), torch.tensor(y)
        )
        theirs.eval()
        posterior = theirs(torch.tensor(fresh))
        wanted_mean, wanted_covariance = posterior.mean.numpy(), posterior.covariance_matrix.numpy()
    ours = gp.GaussianProcess(inputs, rows, y, theta)
    mean, variance = ours.predict(fresh)
    np.testing.assert_allclose(mean, wanted_mean, atol=1e-5)
    np.testing.assert_allclose(variance, np.diag(wanted_covariance), atol=1e-5)
    np.testing.assert_allclose(ours.covariance(fresh, fresh), wanted_covariance, atol=1e-5)
    believed = prior(inputs)
    objective = gp._NegativeLogPosterior(inputs, rows, y, believed)
    penalty = 0.5 * (((theta - believed.mean) / believed.deviation) ** 2).sum()
    ours_likelihood = -(objective(theta)[0] - penalty) - 0.5 * len(y) * np.log(2 * np.pi)
    assert ours_likelihood == pytest.approx(float(likelihood) * len(y), abs=1e-4)


def test_leave_one_out_is_that_of_leaving_out():
    inputs = Inputs(Kernel("matern52", linear=True), COLUMNS)
    rows, theta = mixed(15), some_theta(inputs)
    y = smooth(rows)
    found = gp.GaussianProcess(inputs, rows, y, theta).leave_one_out()
    for i in range(15):
        kept = np.arange(15) != i
        other = gp.GaussianProcess(inputs, rows[kept], y[kept], theta)
        mean, variance = (value[0] for value in other.predict(rows[[i]]))
        assert found.mean[i] == pytest.approx(mean, abs=1e-6)
        assert found.variance[i] == pytest.approx(variance + other.noise, rel=1e-5)
        assert found.standardised[i] == pytest.approx(
            (y[i] - mean) / np.sqrt(variance + other.noise), rel=1e-4
        )
    assert found.rmse == pytest.approx(np.sqrt(np.mean((y - found.mean) ** 2)))
    density = norm.logpdf(y, found.mean, np.sqrt(found.variance)).mean()
    assert found.log_density == pytest.approx(density)


def test_a_committee_predicts_a_smooth_function_of_mixed_inputs():
    rows, fresh = mixed(60), mixed(200, seed=1)
    model = OutcomeModel(rows, smooth(rows), COLUMNS)
    mean, variance = model.predict(fresh)
    error = model.centre + model.scale * mean - smooth(fresh)
    assert np.sqrt(np.mean(error**2)) < 0.1
    assert model.weights.sum() == pytest.approx(1.0)
    assert (variance > 0).all()


def test_the_noise_is_learnt():
    rng = np.random.default_rng(2)
    rows = rng.random((80, 1))
    y = np.sin(6 * rows[:, 0]) + 0.3 * rng.standard_normal(80)
    model = OutcomeModel(rows, y, Columns((0,)))
    best = model.members[int(model.weights.argmax())]
    assert best.noise * model.scale**2 == pytest.approx(0.09, rel=0.5)


def test_logarithms_are_taken_where_they_predict_better():
    rows = np.random.default_rng(3).random((40, 2))
    exponent = 6 * rows[:, 0] - 3 * rows[:, 1]
    columns = Columns((0, 1))
    assert OutcomeModel(rows, np.exp(exponent), columns).transform == "log"
    assert OutcomeModel(rows, -np.exp(exponent), columns).transform == "neglog"
    assert OutcomeModel(rows, exponent + 10, columns).transform == "none"
    assert OutcomeModel(rows, exponent, columns).transform == "none"


@pytest.mark.parametrize("transform", ["none", "log", "neglog"])
def test_transforms_keep_the_order_and_are_nan_outside_their_domain(transform):
    y = np.array([-4.0, -1.0, -0.5, 0.0, 0.5, 1.0, 4.0])
    scaled = transformed(transform, y)
    inside = {"none": np.ones(7, dtype=bool), "log": y > 0, "neglog": y < 0}[transform]
    assert (np.isfinite(scaled) == inside).all()
    assert (np.diff(scaled[inside]) > 0).all()


def test_an_outcome_that_leaves_the_domain_of_its_transform_is_modelled_as_it_is():
    rows = np.random.default_rng(4).random((25, 2))
    y = np.exp(5 * rows[:, 0])
    assert OutcomeModel(rows, y, Columns((0, 1))).transform == "log"
    y[24] = -1.0
    model = OutcomeModel(rows, y, Columns((0, 1)))
    assert model.transform == "none"
    assert np.isfinite(model.predict(rows)[0]).all()


def test_a_model_is_a_function_of_the_data_whatever_was_fitted_before():
    rows = mixed(47)
    y = smooth(rows)
    cache = {}
    for n in range(2, 47, 5):
        OutcomeModel(rows[:n], y[:n], COLUMNS, cache=cache)
    after, alone = OutcomeModel(rows, y, COLUMNS, cache=cache), OutcomeModel(rows, y, COLUMNS)
    for one, other in zip(after.members, alone.members, strict=True):
        assert (one.theta == other.theta).all()
    assert (after.weights == alone.weights).all()


def test_columns_that_have_not_varied_yet_are_left_out_of_a_fit():
    rows = np.column_stack([np.random.default_rng(5).random(12), np.full(12, 0.5), np.ones(12)])
    model = OutcomeModel(rows, rows[:, 0], COLUMNS)
    assert model.members[0].inputs.ordered == (0,)
    assert model.members[0].inputs.compared == ()
    with pytest.raises(ModelError, match="none of its inputs varies"):
        OutcomeModel(rows, rows[:, 0], Columns((1,), (2,)))


def test_levels_without_an_order_are_learnt_where_a_column_has_few_values():
    rng = np.random.default_rng(10)
    rows = np.column_stack([rng.random(60), rng.integers(0, 6, 60) / 5])
    jagged = np.array([0.0, 3.0, -2.0, 2.5, -1.0, 4.0])
    model = OutcomeModel(rows, jagged[(5 * rows[:, 1]).round().astype(int)] + rows[:, 0], Columns((0, 1)))
    assert model.members[-1].inputs.compared == (1,)
    assert model.loo.rmse < 0.3


def test_a_prediction_that_the_outcome_follows_is_built_on_and_one_that_it_does_not_is_left():
    rng = np.random.default_rng(11)

    def jagged(rows):
        return np.sin(40 * rows[:, 0]) * np.cos(30 * rows[:, 1])

    def error(prediction):
        rows, fresh = rng.random((25, 2)), rng.random((200, 2))
        with_trend = np.column_stack([rows, prediction(rows)])
        model = OutcomeModel(with_trend, 2 * jagged(rows) + rows[:, 0], Columns((0, 1), trend=(2,)))
        mean, _ = model.predict(np.column_stack([fresh, prediction(fresh)]))
        wanted = model.standardised(2 * jagged(fresh) + fresh[:, 0])
        return model.weights[-1], np.sqrt(np.mean((mean - wanted) ** 2))

    weight, good = error(jagged)
    assert weight > 0.9
    assert good < 0.3
    weight, bad = error(lambda rows: rng.standard_normal(len(rows)))
    assert weight < 0.6
    assert bad < 1.4


@pytest.mark.parametrize("n", [2, 3, 9, 10, 11])
def test_few_and_equal_outcomes_can_be_modelled(n):
    rows = mixed(n, seed=6)
    for y in (np.zeros(n), np.full(n, 7.0), smooth(rows)):
        mean, variance = OutcomeModel(rows, y, COLUMNS).predict(mixed(20))
        assert np.isfinite(mean).all()
        assert (variance > 0).all()


def test_draws_have_the_moments_of_the_posterior_and_condition_to_it():
    rows = mixed(12)
    y = smooth(rows) + 0.3 * np.random.default_rng(7).standard_normal(12)
    model = OutcomeModel(rows, y, COLUMNS, kernels=(Kernel("matern52"),))
    member, fresh = model.members[0], mixed(6, seed=8)
    count = 4000
    normals = np.random.default_rng(9).standard_normal((12, count))
    drawn = SampledModel(model, rows, normals, np.zeros(count, dtype=int))
    mean, variance = member.predict(rows)
    np.testing.assert_allclose(drawn.values.mean(axis=0), mean, atol=0.05)
    np.testing.assert_allclose(drawn.values.var(axis=0), variance, rtol=0.15)
    drawn.condition(np.array([1, 4, 7]))
    conditional_mean, conditional_deviation = drawn.predict(fresh, count)
    plain_mean, plain_variance = member.predict(fresh)
    # The law of total variance.
    total = conditional_mean.var(axis=0) + (conditional_deviation**2).mean(axis=0)
    np.testing.assert_allclose(conditional_mean.mean(axis=0), plain_mean, atol=0.05)
    np.testing.assert_allclose(total, plain_variance, rtol=0.1)


def test_given_a_draw_its_own_rows_are_certain():
    rows = mixed(10)
    model = OutcomeModel(rows, smooth(rows), COLUMNS)
    normals = np.random.default_rng(0).standard_normal((10, 4))
    drawn = SampledModel(model, rows, normals, np.arange(4) % len(model.members))
    drawn.condition(np.arange(10))
    mean, deviation = drawn.predict(rows, 4)
    np.testing.assert_allclose(mean, drawn.values, atol=1e-3)
    assert deviation.max() < 1e-2
