"""One training run: from the initial weights, or from its last checkpoint, to its outcome."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from numerics.torch import LossScaler, LowPrecision, emulate
from numerics.torch.emulate import emulation_state, load_emulation_state
from numerics.torch.statistics import Statistics
from studies.alone import alone
from studies.evaluation import evaluated_samples, mean_loss, metric_of
from studies.precision import checkpoint
from studies.precision.batches import Batches
from studies.precision.divergence import divergence
from studies.precision.files import FolderError, write_whole
from studies.precision.settings import Settings

if TYPE_CHECKING:
    from numerics.torch import Policy
    from studies.tasks import Data, Task

_TAKEN = ("step", "loss", "learning_rate", "loss_scale", "skipped_steps", "step_seconds")  # of a step
_EVALUATED = ("step", "evaluation_loss", "metric")

#: Columns of a curve. All but the last, a time, are a function of the run alone.
CURVE = (*_TAKEN[:-1], *_EVALUATED[1:], _TAKEN[-1])

_STATISTICS = "statistics"

Tell = Callable[[int, float], bool]


class StoppedError(Exception):
    """The run was asked to stop; its checkpoint is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A policy, or the full-precision twin, with one seed.

    Attributes
    ----------
    name
        Of the policy.
    policy
        ``None``: plain PyTorch in float32.
    identity
        What makes it this run and no other, as JSON values.
    folder
        Where its files are: ``checkpoint.pt`` and the folder ``statistics`` while it is unfinished, then
        ``outcome.json``, ``curve.parquet``, ``weights.pt`` and, of a policy, ``statistics.parquet``.
    """

    name: str
    policy: Policy | None
    seed: int
    identity: Mapping[str, Any]
    folder: Path

    @property
    def checkpoint(self) -> Path:
        """State of the unfinished run."""
        return self.folder / "checkpoint.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a finished run measured.

    Attributes
    ----------
    steps
        Steps done: fewer than asked for if it diverged.
    training_loss
        Mean loss over the whole training set with the final weights, by the run's own arithmetic; NaN if it
        is not finite.
    metric
        The task's, over the whole test set.
    diverged
        Why it counts as diverged (`studies.precision.divergence`), or ``None``.
    skipped_steps
        Steps left out because a scaled gradient overflowed.
    step_seconds
        Median time of a step.
    seconds
        Time of the run, evaluations included, in all processes that worked on it.
    """

    policy: str
    seed: int
    steps: int
    training_loss: float
    metric: float
    diverged: str | None
    skipped_steps: int
    step_seconds: float
    seconds: float


def finished(run: Run) -> Outcome | None:
    """Outcome of a run that is finished, ``None`` if it is not.

    Raises
    ------
    FolderError
        The file is damaged, or is one of another run.
    """
    path = run.folder / "outcome.json"
    if not path.exists():
        return None
    from dse.store import first_difference

    try:
        stored = json.loads(path.read_bytes())
        identity, values = stored["identity"], stored["outcome"]
        for key in ("training_loss", "metric"):
            values[key] = math.nan if values[key] is None else values[key]
        outcome = Outcome(**values)
    except (ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{path}: is damaged ({error}); remove it to train this run anew") from None
    if difference := first_difference(identity, dict(run.identity), ""):
        raise FolderError(f"{path}: is the outcome of another run: {difference}")
    return outcome


def curve(run: Run) -> pd.DataFrame:
    """Curve of a finished run: one row per step, the last for the final weights.

    ``loss`` is that of the step's batch, before its update; ``evaluation_loss`` (over fixed training samples)
    and ``metric`` (over the test set) are those of the same weights, and NaN where they were not measured.

    Raises
    ------
    FolderError
        The file is damaged.
    """
    return _table(run.folder / "curve.parquet")


def statistics_of(run: Run) -> pd.DataFrame | None:
    """What rounding did in each layer of a finished run, as `numerics.torch.Statistics` tells it.

    ``None`` for the twin, and where the study asked for none.

    Raises
    ------
    FolderError
        The file is damaged.
    """
    path = run.folder / f"{_STATISTICS}.parquet"
    return _table(path) if path.exists() else None


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise FolderError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None


def train(run: Run, task: Task, data: Data, settings: Settings, tell: Tell) -> Outcome:
    """Train to the end, from the last checkpoint if there is one; the same bits either way.

    Parameters
    ----------
    tell
        Called with the number of steps done and the last loss after each step; false asks to stop.

    Raises
    ------
    StoppedError
        `tell` asked for it.
    FolderError
        The checkpoint is damaged, or is one of another run.
    """
    with alone(), torch.random.fork_rng(devices=[]):
        training = _Training(run, task, data, settings)
        if run.checkpoint.exists():
            training.load_state_dict(checkpoint.load(run.checkpoint, run.identity))
        else:
            training.forget()
        reason = training.go_on(tell)
        outcome = training.outcome(reason)
        _write_results(run, training, outcome)
        return outcome


class _Training:
    """The live state of a run."""

    def __init__(self, run: Run, task: Task, data: Data, settings: Settings) -> None:
        self.run, self.task, self.data, self.settings = run, task, data, settings
        torch.manual_seed(run.seed)
        self.network = task.network()
        self.statistics: Statistics | None = None
        if run.policy is not None and settings.statistics_every:
            self.statistics = Statistics(every=settings.statistics_every, path=run.folder / _STATISTICS)
        self.optimizer, self.scaler = prepare(
            self.network, run.policy, settings, seed=run.seed, statistics=self.statistics
        )
        count = len(data.train_inputs)
        self.batches = Batches(count, settings.batch, run.seed)
        self.samples = evaluated_samples(count, settings.evaluation_samples)
        self.step = 0
        self.taken: dict[str, list[float]] = {name: [] for name in _TAKEN}
        self.evaluated: dict[str, list[float]] = {name: [] for name in _EVALUATED}
        self.seconds = 0.0
        self._since = time.perf_counter()

    def go_on(self, tell: Tell) -> str | None:
        """Train to the end, or to the divergence; say why it diverged if it did."""
        steps = self.settings.steps
        while True:
            if self._is_due() and self.step not in self.evaluated["step"][-1:]:
                self._evaluate()
            if self._ends():
                return self.diverged()
            loss = self._train()
            if self._ends():
                return self.diverged()
            self.step += 1
            wanted = tell(self.step, loss)
            if self.step < steps and (self.step % self.settings.save_every == 0 or not wanted):
                checkpoint.save(self.run.checkpoint, self.run.identity, self.state_dict())
            if not wanted:
                raise StoppedError

    def diverged(self) -> str | None:
        """Why the run counts as diverged by now, if it does."""
        reason = divergence(self.taken["loss"], self.evaluated["evaluation_loss"])
        return f"step {self.step}: {reason}" if reason else None

    def outcome(self, diverged: str | None) -> Outcome:
        """Measure the final weights."""
        loss = self._loss(torch.arange(len(self.data.train_inputs)))
        if diverged is None and not math.isfinite(loss):
            diverged = f"step {self.step}: the training loss is {loss}"
        return Outcome(
            policy=self.run.name,
            seed=self.run.seed,
            steps=self.step,
            training_loss=loss if math.isfinite(loss) else math.nan,
            metric=self._metric(),
            diverged=diverged,
            skipped_steps=self._skipped(),
            step_seconds=statistics.median(self.taken["step_seconds"]),
            seconds=self._time(),
        )

    def curve(self) -> pd.DataFrame:
        """See the function `curve`."""
        taken = pd.DataFrame(self.taken).astype({"step": "int64", "skipped_steps": "int64"})
        evaluated = pd.DataFrame(self.evaluated).astype({"step": "int64"})
        return taken.merge(evaluated, on="step", how="outer").sort_values("step")[list(CURVE)]

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, and what it has measured so far."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "emulation": emulation_state(self.network) if self.run.policy is not None else None,
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "statistics": self.statistics.state_dict() if self.statistics is not None else None,
            "batches": self.batches.state_dict(),
            "random": torch.random.get_rng_state(),  # dropout
            "taken": self.taken,
            "evaluated": self.evaluated,
            "seconds": self._time(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.run.policy is not None:
            load_emulation_state(self.network, state["emulation"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        if self.statistics is not None:
            self.statistics.load_state_dict(state["statistics"])
        self.batches.load_state_dict(state["batches"])
        torch.random.set_rng_state(state["random"])
        self.taken, self.evaluated = state["taken"], state["evaluated"]
        self.seconds = state["seconds"]

    def forget(self) -> None:
        """Begin anew in the folder of a run that was killed before its first checkpoint."""
        if self.statistics is not None:
            self.statistics.load_state_dict({"step": 0})

    def _ends(self) -> bool:
        return self.step == self.settings.steps or (
            self.settings.stop_when_diverged and self.diverged() is not None
        )

    def _is_due(self) -> bool:
        return self.step % self.settings.evaluate_every == 0 or self.step == self.settings.steps

    def _train(self) -> float:
        """One step, unless the loss ends the run."""
        settings = self.settings
        rate = settings.optimizer.rate(self.step, settings.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        begin = time.perf_counter()
        chosen = self.batches.next()
        self.optimizer.zero_grad()
        outputs = self.network(self.data.train_inputs[chosen])
        loss = self.task.loss(outputs, self.data.train_labels[chosen])
        value = float(loss.item())
        scale = self.scaler.scale if self.scaler is not None else 1.0
        if math.isfinite(value) or not settings.stop_when_diverged:
            if self.scaler is not None:
                self.scaler.backward(loss)
                self.scaler.step(self.optimizer)
            else:
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
        if self.statistics is not None:
            self.statistics.step()
        row = (self.step, value, rate, scale, self._skipped(), time.perf_counter() - begin)
        for name, number in zip(_TAKEN, row, strict=True):
            self.taken[name].append(number)
        return value

    def _evaluate(self) -> None:
        row = (self.step, self._loss(self.samples), self._metric())
        for name, number in zip(_EVALUATED, row, strict=True):
            self.evaluated[name].append(number)

    def _skipped(self) -> int:
        return self.scaler.skipped if self.scaler is not None else 0

    def _time(self) -> float:
        return self.seconds + time.perf_counter() - self._since

    def _undisturbed(self) -> contextlib.AbstractContextManager[None]:
        """What is evaluated is no part of the statistics of the training."""
        return self.statistics.paused() if self.statistics is not None else contextlib.nullcontext()

    def _loss(self, samples: torch.Tensor) -> float:
        """Mean loss over training samples."""
        with self._undisturbed():
            return mean_loss(self.network, self.task, self.data, samples, batch=self.settings.batch)

    def _metric(self) -> float:
        """The task's metric over the test set."""
        with self._undisturbed():
            return metric_of(self.network, self.task, self.data, batch=self.settings.batch)


def prepare(
    network: torch.nn.Module,
    policy: Policy | None,
    settings: Settings,
    *,
    seed: int,
    statistics: Statistics | None = None,
) -> tuple[torch.optim.Optimizer, LossScaler | None]:
    """Emulate a network in place; give its optimizer, and the loss scaler if the policy has one.

    Raises
    ------
    ValueError
        The policy does not fit the network or the optimizer.
    """
    optimizer = settings.optimizer.build(network.parameters())
    if policy is None:
        return optimizer, None
    emulate(network, policy, seed=seed, inplace=True, statistics=statistics)
    scaler = None
    if policy.loss_scale == "dynamic":
        scaler = LossScaler.dynamic()
    elif policy.loss_scale is not None:
        scaler = LossScaler(policy.loss_scale)
    update = policy.update
    if update is None:
        return optimizer, scaler
    narrow = LowPrecision(
        optimizer,
        format=update.format,
        rounding=update.rounding,
        seed=seed,
        state_format=update.state_format,
    )
    return narrow, scaler


def _write_results(run: Run, training: _Training, outcome: Outcome) -> None:
    """Weights and curve first: a run is finished once its outcome is there."""
    weights = io.BytesIO()
    torch.save(training.network.state_dict(), weights)
    write_whole(run.folder / "weights.pt", weights.getvalue())
    write_whole(run.folder / "curve.parquet", training.curve().to_parquet(index=False))
    if training.statistics is not None:
        table = training.statistics.frame()
        write_whole(run.folder / f"{_STATISTICS}.parquet", table.to_parquet(index=False))
    # JSON has no NaN.
    values = {key: None if value != value else value for key, value in asdict(outcome).items()}
    text = json.dumps({"identity": dict(run.identity), "outcome": values}, indent=1)
    write_whole(run.folder / "outcome.json", text.encode())
    tidy(run)


def tidy(run: Run) -> None:
    """Remove what only an unfinished run needs."""
    run.checkpoint.unlink(missing_ok=True)
    shutil.rmtree(run.folder / _STATISTICS, ignore_errors=True)
