"""A co-design campaign: search formats, accumulator and accelerator of a network together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd
import tomli_w

from dse import Campaign, Categorical, Event, Fidelity, Objective, Ordinal, Space, StoreMismatch, Trial
from numerics.warm import compile_kernels
from studies.codesign.config import CampaignConfig
from studies.codesign.evaluate import FIDELITY, LEARNT, Evaluator, versions
from studies.codesign.features import (
    Features,
    check_formats,
    features_for,
    fitted_model,
    statistics_of,
)
from studies.codesign.pricing import Pricing, numerics_names
from studies.codesign.quality import Quality
from studies.codesign.transfer import fingerprint
from studies.config import ConfigError
from studies.replicas import ReplicaPool
from studies.tasks import Data, Task, TaskError, build_task
from studies.training import DivergedError, guessing_loss

if TYPE_CHECKING:
    from studies.accuracy.model import AccuracyModel
    from studies.accuracy.statistics import TaskStatistics

_UNITS = {"energy_pj": "pJ", "area_um2": "um2", "cycles": "cycles"}


class Watcher(Protocol):
    """What a run tells while it works."""

    def stage(self, text: str) -> None:
        """A new stage begins."""

    def event(self, event: Event, campaign: Campaign) -> None:
        """A trial was asked, started, done, or failed."""


@dataclass(frozen=True)
class Result:
    """A finished campaign.

    Attributes
    ----------
    evaluations
        One row per trial, and the full-precision twin with state ``"reference"``.
    front
        Rows of the trials that no other dominates.
    trials
        Those at full fidelity; of them are all results.
    brief
        Those that trained for fewer steps, to find out which candidates to train to the end.
    """

    config: CampaignConfig
    task: Task
    pricing: Pricing
    space: Space
    objectives: tuple[Objective, ...]
    evaluations: pd.DataFrame
    front: pd.DataFrame
    trials: tuple[Trial, ...]
    notes: tuple[tuple[int, str], ...]
    brief: tuple[Trial, ...] = ()

    @property
    def quality(self) -> Quality:
        """The task's metric."""
        return Quality(self.task.metric)

    @property
    def done(self) -> pd.DataFrame:
        """Rows of the trials with a result."""
        return self.evaluations[self.evaluations["state"] == "done"]

    @property
    def reference(self) -> pd.Series[Any]:
        """Row of the full-precision twin."""
        return self.evaluations[self.evaluations["state"] == "reference"].iloc[0]

    @property
    def failed(self) -> list[Trial]:
        """Trials without a result."""
        return [trial for trial in (*self.trials, *self.brief) if trial.state == "failed"]

    @property
    def trained(self) -> list[Trial]:
        """Trials that trained the network to the end; the others took over what these had measured."""
        return [trial for trial in self.trials if trial.metrics.get("trained_in") == trial.id]


def space_of(config: CampaignConfig, pricing: Pricing) -> Space:
    """Search space: sizes and widths are ordered, formats, rounding and dataflow are not."""
    table = config.space
    backward = table.backward_format
    return Space(
        [
            Categorical("format", table.format),
            *([] if backward is None else [Categorical("backward_format", backward)]),
            Ordinal("accumulator_exp_bits", sorted(table.accumulator_exp_bits)),
            Ordinal("accumulator_frac_bits", sorted(table.accumulator_frac_bits)),
            Categorical("chunk", table.chunk),
            Categorical("update_rounding", table.update_rounding),
            Ordinal("rows", sorted(table.rows), log=True),
            Ordinal("columns", sorted(table.columns), log=True),
            Categorical("dataflow", table.dataflow),
            Ordinal("scratchpad_bytes", sorted(table.scratchpad_bytes), log=True),
            Ordinal("offchip_bytes_per_cycle", sorted(table.offchip_bytes_per_cycle), log=True),
        ],
        constraints=[pricing.why_infeasible],
    )


def objectives_of(
    config: CampaignConfig, pricing: Pricing, guess: float, features: Features | None = None
) -> list[Objective]:
    """Objectives: the quality of training is learnt, the cost of the chip is known.

    Parameters
    ----------
    guess
        Loss of a network that guesses: nothing worse is of interest, unless the file says otherwise.
    features
        What the learnt objectives read beside the numerics.
    """
    costs: dict[str, Callable[[dict[str, Any]], float]] = {
        "energy_pj": lambda parameters: pricing.cost(parameters).total_energy_pj,
        "cycles": lambda parameters: float(pricing.cost(parameters).cycles),
        "area_um2": lambda parameters: pricing.cost(parameters).total_area_um2,
    }
    thresholds: dict[str, float] = {"training_loss": guess}
    thresholds.update(config.search.thresholds.items())
    return [
        Objective(
            name,
            unit=_UNITS.get(name, ""),
            transform="none" if name in ("test_error", "test_metric") else "log",
            known=costs.get(name),
            inputs=numerics_names(config.space) if name in LEARNT else None,
            features=features if name in LEARNT else None,
            threshold=thresholds.get(name),
        )
        for name in config.search.objectives
    ]


def fidelity_of(config: CampaignConfig) -> Fidelity | None:
    """Steps of training as the search knows them, if it may choose: each costs in proportion.

    Measured seconds would not do: evaluations of numerics that were trained before take none.
    """
    levels = config.training.fidelities
    return None if levels is None else Fidelity(FIDELITY, levels, prices=levels)


def _features(config: CampaignConfig, task: Task, data: Data, watcher: Watcher) -> Features | None:
    """What the learnt objectives read of a candidate, if the file asks for it."""
    if not config.search.features:
        return None
    check_formats(config)

    def prepare() -> tuple[TaskStatistics, AccuracyModel]:
        watcher.stage("looking at the tensors of the full-precision twin")
        statistics = statistics_of(config, task, data)
        watcher.stage("fitting the accuracy model to runs of other tasks")
        return statistics, fitted_model(statistics)

    return features_for(config, prepare)


def _wrong_rate(config: CampaignConfig, error: DivergedError) -> ConfigError:
    """Of a twin that diverges."""
    rate = config.training.rule.learning_rate
    where = "learning_rate" if config.training.optimizer is None else "optimizer.learning_rate"
    return ConfigError(f"training.{where}: must let the float32 twin converge, got {rate}: {error}")


def run(
    config: CampaignConfig,
    folder: Path,
    *,
    workers: int,
    watcher: Watcher,
    transfer: Sequence[pd.DataFrame] = (),
) -> Result:
    """Run a campaign in `folder`, or go on with the one that is there.

    Every finished evaluation is on disk before the next begins; a killed run resumes where it was.

    Parameters
    ----------
    workers
        Processes that train replicates in parallel; the result does not depend on it.
    transfer
        Results of earlier campaigns to learn from, see `studies.codesign.transfer`.

    Raises
    ------
    ConfigError
        A configuration that cannot run, or a folder of another configuration.
    dse.CampaignLocked, dse.StoreError
        The campaign is running elsewhere, or its file is damaged.
    """
    watcher.stage("reading the network")
    task, data = _read_task(config)
    pricing = Pricing.of(config, task, data)
    features = _features(config, task, data, watcher)
    watcher.stage("scheduling the training step on every scratchpad")
    pricing.prepare()
    try:
        space = space_of(config, pricing)
    except ValueError as error:
        raise ConfigError(f"space: {error}") from None
    settings = config.model_dump(mode="json", exclude_none=True)
    identity = {key: value for key, value in settings.items() if key != "evaluations"}
    if transfer:
        identity["transfer"] = fingerprint(transfer)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        campaign = Campaign(
            space,
            objectives_of(config, pricing, guessing_loss(task, data), features),
            fidelity=fidelity_of(config),
            seed=config.seed,
            method=config.search.method,
            initial=config.search.initial,
            store=folder / "campaign.sqlite",
            transfer=transfer,
            config=identity,
            versions=versions(),
        )
    except StoreMismatch as error:
        raise ConfigError(f"{folder}: holds a campaign of another configuration: {error}") from None
    with campaign:
        (folder / "config.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
        watcher.stage("compiling the kernels")
        compile_kernels()
        with ReplicaPool(min(workers, config.training.replicates)) as pool:
            evaluator = Evaluator(config, pricing, Quality(task.metric), pool)
            watcher.stage("training the full-precision twin")
            try:
                twin = evaluator.full_precision()
            except DivergedError as error:
                raise _wrong_rate(config, error) from None
            for trial in campaign.trials:
                if trial.state == "done":
                    steps = trial.fidelity or config.training.steps
                    measured = {**trial.metrics, **trial.values}
                    evaluator.recall(trial.id, trial.parameters, int(steps), measured)
            if problem := pricing.schedules.kept.problem:
                watcher.stage(f"schedules are not kept for other campaigns: {problem}")
            watcher.stage("searching")

            def on_event(event: Event) -> None:
                evaluator.trial = event.trial.id
                watcher.event(event, campaign)

            campaign.run(evaluator, budget=config.evaluations, on_event=on_event)
        full = tuple(trial for trial in campaign.trials if trial.fidelity in (None, config.training.steps))
        numbers = {trial.id for trial in full}
        frame = campaign.frame().drop(columns=FIDELITY, errors="ignore")
        evaluations = pd.concat(
            [
                frame[frame["id"].isin(numbers)],
                pd.DataFrame([{"id": -1, "state": "reference", "format": "e8m23", **_scalars(twin)}]),
            ],
            ignore_index=True,
        )
        result = Result(
            config=config,
            task=task,
            pricing=pricing,
            space=space,
            objectives=campaign.objectives,
            evaluations=evaluations,
            front=campaign.pareto().drop(columns=FIDELITY, errors="ignore"),
            trials=full,
            notes=campaign.notes,
            brief=tuple(trial for trial in campaign.trials if trial.id not in numbers),
        )
    _write_parquet(evaluations, folder / "evaluations.parquet")
    return result


def _read_task(config: CampaignConfig) -> tuple[Task, Data]:
    """Task and data of a campaign that they fit.

    Raises
    ------
    ConfigError
        The data are absent or too few, or an objective is none of this task.
    """
    training = config.training
    try:
        task = build_task(training.table)
        data = task.load()
    except TaskError as error:
        lines = [
            line if line.startswith("training.") else f"training.task: {line}"
            for line in str(error).splitlines()
        ]
        raise ConfigError("\n".join(lines)) from None
    if training.batch > (count := len(data.train_labels)):
        raise ConfigError(f"training.batch: must be at most {count}, got {training.batch}")
    if (training.evaluation_samples or 0) > count:
        raise ConfigError(
            f"training.evaluation_samples: must be at most {count}, got {training.evaluation_samples}"
        )
    for index, name in enumerate(config.search.objectives):
        if reason := Quality(task.metric).why_not(name):
            raise ConfigError(f"search.objectives[{index}]: {reason}")
    return task, data


def _scalars(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if isinstance(value, str | int | float)}


def _write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write beside the file, then rename: a reader never sees half a file."""
    part = path.with_suffix(".part")
    frame.to_parquet(part)
    part.replace(path)
