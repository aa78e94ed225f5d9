"""A run equals the loop that a reader would write, and goes on after a stop as if there had been none."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from numerics import threads
from numerics.torch import LayerPolicy, LossScaler, LowPrecision, Policy, emulate
from numerics.torch.policy import UpdatePolicy
from studies.precision.files import FolderError
from studies.precision.settings import Settings
from studies.precision.trainer import CURVE, Run, StoppedError, curve, finished, statistics_of, train

SGD = {"kind": "sgd", "learning_rate": 0.2, "momentum": 0.9}
ADAM = {"kind": "adam", "learning_rate": 0.01, "weight_decay": 0.01, "schedule": "cosine", "warmup_steps": 3}
LAYERS = LayerPolicy(
    weight="e5m2",
    activation="e5m2",
    error="e5m2",
    forward="e6m5 rounding=stochastic:8",
    backward="e6m5 chunk=4",
    gradient="e6m5 chunk=4",
    rounding="stochastic",
)
STOCHASTIC = Policy(LAYERS, update=UpdatePolicy(format="e6m9", rounding="stochastic"), loss_scale="dynamic")


def settings(steps=12, optimizer=SGD, **others):
    values = {"evaluate_every": 4, "evaluation_samples": 20, "save_every": 5, "statistics_every": 5, **others}
    return Settings(seeds=[0], steps=steps, batch=16, optimizer=optimizer, **values)


def run_in(folder, policy=None, seed=3):
    folder.mkdir(parents=True, exist_ok=True)
    return Run(name="p", policy=policy, seed=seed, identity={"seed": seed}, folder=folder)


def go(*_):
    return True


def until(step):
    return lambda done, loss: done < step


def weights(folder):
    return (folder / "weights.pt").read_bytes()


def by_hand(task, optimizer, policy, steps, seed, batch=16):
    """The training loop without anything around it."""
    data = task.load()
    torch.manual_seed(seed)
    network = task.network()
    step = optimizer(network.parameters())
    scaler = LossScaler(1.0)
    if policy is not None:
        emulate(network, policy, seed=seed, inplace=True)
        step = LowPrecision(step, format=policy.update.format, rounding=policy.update.rounding, seed=seed)
        scaler = LossScaler.dynamic() if policy.loss_scale == "dynamic" else LossScaler(policy.loss_scale)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    while len(losses) < steps:
        order = torch.randperm(len(data.train_inputs), generator=generator)
        for chosen in order.split(batch)[: steps - len(losses)]:
            step.zero_grad()
            loss = cross_entropy(network(data.train_inputs[chosen]), data.train_labels[chosen])
            scaler.backward(loss)
            scaler.step(step)
            losses.append(loss.item())
    network.eval()
    with torch.no_grad():
        final = cross_entropy(network(data.train_inputs), data.train_labels).item()
        right = network(data.test_inputs).argmax(1) == data.test_labels
    return network.state_dict(), losses, final, 100.0 * right.double().mean().item()


@pytest.mark.parametrize("policy", [None, STOCHASTIC], ids=["twin", "stochastic"])
def test_a_run_is_the_loop_that_one_would_write(tmp_path, points, policy):
    with torch.random.fork_rng(devices=[]):
        expected, losses, final, accuracy = by_hand(
            points, lambda p: torch.optim.SGD(p, lr=0.2, momentum=0.9), policy, steps=12, seed=3
        )
    outcome = train(run_in(tmp_path, policy), points, points.load(), settings(), go)
    found = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    frame = pd.read_parquet(tmp_path / "curve.parquet")
    assert frame["loss"].dropna().tolist() == losses
    if policy is None:  # the final evaluation of the other draws other random numbers here
        assert outcome.training_loss == pytest.approx(final, rel=1e-6)
        assert outcome.metric == accuracy


@pytest.mark.parametrize("optimizer", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("policy", [None, STOCHASTIC], ids=["twin", "stochastic"])
@pytest.mark.parametrize("stops", [(1,), (4, 5, 11)])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, points, policy, optimizer, stops):
    """Dropout, momenta, stochastic rounding, a dynamic loss scale and the order of the data included."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    wanted = train(run_in(whole, policy), points, points.load(), settings(optimizer=optimizer), go)
    run = run_in(parts, policy)
    for stop in stops:
        with pytest.raises(StoppedError):
            train(run, points, points.load(), settings(optimizer=optimizer), until(stop))
        assert run.checkpoint.exists()
        torch.rand(stop)  # the process that goes on has drawn other random numbers
    found = train(run, points, points.load(), settings(optimizer=optimizer), go)
    assert weights(parts) == weights(whole)
    lost = [statistics_of(run_in(folder)) for folder in (parts, whole)]
    if policy is not None:
        assert sorted(set(lost[0]["step"])) == [0, 5, 10]
        pd.testing.assert_frame_equal(*lost, check_exact=True)
    else:
        assert lost == [None, None]
    clock = {"seconds": 0.0, "step_seconds": 0.0}
    assert replace(found, **clock) == replace(wanted, **clock)
    pd.testing.assert_frame_equal(
        curve(run)[list(CURVE[:-1])], curve(run_in(whole))[list(CURVE[:-1])], check_exact=True
    )
    assert not run.checkpoint.exists()
    assert finished(run) == found


def test_evaluating_more_often_changes_no_bit_of_the_training(tmp_path, points):
    train(run_in(tmp_path / "a", STOCHASTIC), points, points.load(), settings(evaluate_every=1), go)
    train(run_in(tmp_path / "b", STOCHASTIC), points, points.load(), settings(evaluate_every=12), go)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_a_curve_has_a_row_per_step_and_one_for_the_final_weights(tmp_path, points):
    run = run_in(tmp_path)
    outcome = train(run, points, points.load(), settings(steps=10, optimizer=ADAM), go)
    frame = curve(run)
    assert tuple(frame.columns) == CURVE
    assert frame["step"].tolist() == list(range(11))
    assert frame.index[frame["metric"].notna()].tolist() == [0, 4, 8, 10]
    assert frame.index[frame["loss"].isna()].tolist() == [10]
    assert frame["metric"].iloc[-1] == outcome.metric
    assert frame["learning_rate"].iloc[:3].tolist() == pytest.approx(
        [0.01 / 3, 0.02 / 3 * 0.9755, 0.01 * 0.9045], rel=1e-3
    )


def test_runs_of_one_seed_start_alike_and_of_another_do_not(tmp_path, points):
    starts = {}
    for name, policy, seed in (("twin", None, 3), ("policy", STOCHASTIC, 3), ("other", None, 4)):
        run = run_in(tmp_path / name, policy, seed)
        train(run, points, points.load(), settings(steps=1), go)
        starts[name] = curve(run)["loss"].iloc[0]
    assert starts["policy"] == pytest.approx(starts["twin"], rel=0.2)
    assert starts["policy"] != starts["twin"]
    assert starts["other"] != starts["twin"]


def test_training_touches_neither_the_global_random_state_nor_the_threads(tmp_path, points):
    torch.manual_seed(5)
    before, count = torch.random.get_rng_state(), (torch.get_num_threads(), threads.number())
    train(run_in(tmp_path), points, points.load(), settings(), go)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (torch.get_num_threads(), threads.number()) == count


WILD = {"kind": "sgd", "learning_rate": 1e30, "momentum": 0.0}


def test_a_run_whose_loss_is_no_number_stops_and_says_when(tmp_path, points):
    outcome = train(run_in(tmp_path), points, points.load(), settings(optimizer=WILD, steps=50), go)
    assert outcome.diverged.startswith(f"step {outcome.steps}: the loss of a batch is ")
    assert outcome.steps < 5
    assert len(curve(run_in(tmp_path))) == outcome.steps + 1
    assert finished(run_in(tmp_path)).diverged == outcome.diverged


def test_a_run_far_above_its_start_stops_after_three_evaluations(tmp_path, points):
    high = {"kind": "sgd", "learning_rate": 2e3, "momentum": 0.0}
    outcome = train(run_in(tmp_path), points, points.load(), settings(optimizer=high, steps=50), go)
    assert outcome.steps == 12
    assert "step 12: the loss of 3 evaluations in a row is above 3 times its start" in outcome.diverged


def test_a_run_that_may_not_stop_is_judged_at_its_end(tmp_path, points):
    free = settings(optimizer=WILD, steps=8, stop_when_diverged=False)
    outcome = train(run_in(tmp_path), points, points.load(), free, go)
    assert outcome.steps == 8
    assert outcome.diverged.startswith("step 8: ")


def test_steps_that_a_loss_scaler_skips_are_counted(tmp_path, points):
    # Errors near 2**15 / 16 times inputs near 500: a weight gradient is beyond 65504, and so infinite.
    policy = Policy(LayerPolicy.uniform("e5m10", "e5m10"), loss_scale=2.0**15)
    data = points.load()
    large = replace(data, train_inputs=1000 * data.train_inputs, test_inputs=1000 * data.test_inputs)
    outcome = train(run_in(tmp_path, policy), points, large, settings(), go)
    assert outcome.skipped_steps == 12
    assert curve(run_in(tmp_path))["skipped_steps"].dropna().tolist() == list(range(1, 13))


def test_a_damaged_outcome_is_named(tmp_path, points):
    run = run_in(tmp_path)
    train(run, points, points.load(), settings(), go)
    with pytest.raises(FolderError, match=r"outcome.json: is the outcome of another run: seed: 3 in"):
        finished(replace(run, identity={"seed": 4}))
    (tmp_path / "outcome.json").write_text("{")
    with pytest.raises(FolderError, match=r"outcome.json: is damaged \(.*\); remove it"):
        finished(run)
    (tmp_path / "curve.parquet").write_bytes(b"PAR1")
    with pytest.raises(FolderError, match=r"curve.parquet: cannot be read"):
        curve(run)
