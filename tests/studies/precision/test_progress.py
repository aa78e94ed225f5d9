"""What a study tells while it works."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from studies.precision.progress import Progress
from studies.precision.run import Active
from studies.precision.study import Study
from studies.precision.trainer import Outcome, Run


def outcome(seed, **changes):
    values = {"policy": "fp8", "seed": seed, "steps": 100, "training_loss": 0.25, "metric": 91.5}
    clock = {"diverged": None, "skipped_steps": 0, "step_seconds": 0.01, "seconds": 1.0}
    return Outcome(**{**values, **clock, **changes})


def runs(count):
    return [
        Run(name="fp8", policy=None, seed=seed, identity={}, folder=Path(f"seed-{seed}"))
        for seed in range(count)
    ]


@pytest.fixture
def terminal(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    progress = Progress(100, "accuracy", console=Console(file=io.StringIO(), force_terminal=True, width=140))
    return progress, clock


def test_the_time_left_is_that_of_the_steps_left(terminal):
    progress, clock = terminal
    progress.begin(runs(4), [outcome(0)])
    progress.active([Active(runs(4)[1], 1, 2.3)])
    clock[0] = 30.0
    progress.active([Active(runs(4)[1], 50, 1.5)])
    # 50 steps in 30 s; 50 and twice 100 are left.
    assert progress.note == "2:30 left"


def test_a_finished_run_is_one_line_with_its_loss_and_metric(capsys):
    progress = Progress(100, "accuracy")
    progress.begin(runs(2), [])
    progress.done(outcome(0, skipped_steps=3))
    progress.done(outcome(1, diverged="step 7: the loss of a batch is nan"))
    first, second = capsys.readouterr().out.splitlines()
    assert " ".join(first.split()) == "1/2 fp8 seed 0 loss 0.25 accuracy 91.5 3 steps skipped 1.0 s"
    assert "2/2  fp8" in second
    assert "diverged: step 7: the loss of a batch is nan" in second


def test_the_shipped_study_is_valid():
    import studies

    shipped = Path(studies.__file__).parent / "configs" / "digits-precision.toml"
    study = Study.from_toml(shipped)
    assert len(study.seeds) == 3
    assert next(values for values in study.swept.values() if values) == {"forward.accumulator.frac_bits": 2}
