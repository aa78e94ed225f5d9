"""Schedules equal torch's own, and settings that a kind has not are refused."""

import pytest
import torch
from pydantic import ValidationError
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from studies.precision.optimizer import Optimizer


def rates_of_torch(make, steps, rate=0.3):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=rate)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        ("constant", lambda sgd: LinearLR(sgd, 1.0, 1.0)),
        ("linear", lambda sgd: LinearLR(sgd, 1.0, 0.0, total_iters=7)),
        ("cosine", lambda sgd: CosineAnnealingLR(sgd, T_max=7)),
    ],
)
def test_a_schedule_is_that_of_torch(schedule, make):
    optimizer = Optimizer(learning_rate=0.3, schedule=schedule)
    ours = [optimizer.rate(step, 7) for step in range(7)]
    assert ours == pytest.approx(rates_of_torch(make, 7), rel=1e-9)


def test_warmup_grows_evenly_to_the_rate_and_ends():
    optimizer = Optimizer(learning_rate=0.4, warmup_steps=4)
    assert [optimizer.rate(step, 6) for step in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("sgd", {}, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}),
        ("sgd", {"momentum": 0.0, "weight_decay": 0.5}, {"momentum": 0.0, "weight_decay": 0.5}),
        ("adam", {}, {"betas": (0.9, 0.999), "weight_decay": 0.0}),
        ("adamw", {"beta1": 0.8}, {"betas": (0.8, 0.999)}),
    ],
)
def test_the_optimizer_is_torchs_with_these_settings(kind, settings, expected):
    built = Optimizer(kind=kind, learning_rate=0.1, **settings).build([torch.nn.Parameter(torch.zeros(2))])
    assert type(built).__name__.lower() == kind
    group = built.param_groups[0]
    assert {name: group[name] for name in expected} == expected


def test_a_setting_of_another_kind_is_refused():
    with pytest.raises(ValidationError, match="beta1 is no setting of sgd, which has momentum"):
        Optimizer(learning_rate=0.1, beta1=0.9)
    with pytest.raises(ValidationError, match="momentum is no setting of adam, which has beta1, beta2"):
        Optimizer(kind="adam", learning_rate=0.1, momentum=0.9)


def test_settings_read_back_as_they_are_written():
    for kind in ("sgd", "adam", "adamw"):
        optimizer = Optimizer(kind=kind, learning_rate=0.1)
        assert Optimizer.model_validate(optimizer.model_dump(exclude_none=True)) == optimizer
