"""What the run folder of a study holds, read back without its task.

``study.json`` has what the files of the runs do not tell: the policies in order with their folders, what a
sweep gave to each, the metric, and the versions of the last session. All else comes from the files of the
finished runs, so that an interrupted study can be looked at as well.
"""

from __future__ import annotations

import json
import platform
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from studies.precision.files import FolderError, write_whole
from studies.precision.sweeps import base_name
from studies.precision.table import TWIN, summary

if TYPE_CHECKING:
    from studies.precision.plan import Plan

RECORD = "study.json"
_PACKAGES = ("bitfront", "numpy", "torch", "numba")


def write_record(plan: Plan, folder: Path) -> None:
    """Write ``study.json``."""
    study = plan.study
    policies: list[dict[str, Any]] = []
    for run in plan.runs(folder)[: len(plan.points)]:  # of one seed: one for each policy
        swept = study.swept.get(run.name, {})
        policies.append(
            {
                "name": run.name,
                "base": base_name(run.name, swept),
                "swept": dict(swept),
                "folder": run.folder.parent.relative_to(folder).as_posix(),
                "toml": "" if run.policy is None else run.policy.to_toml(),
            }
        )
    metric = study.task.metric
    record = {
        "task": study.task.title,
        "metric": {
            "name": metric.name,
            "unit": metric.unit,
            "higher_is_better": metric.higher_is_better,
            "resolution": plan.resolution,
        },
        "seeds": study.seeds,
        "policies": policies,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "machine": platform.machine(),
    }
    write_whole(folder / RECORD, json.dumps(record, indent=1, default=str).encode())


@dataclass(frozen=True)
class Results:
    """A study, finished or not, as its folder has it.

    Attributes
    ----------
    folder
        Where it was read.
    config
        The study's settings, defaults included.
    record
        What ``study.json`` holds.
    runs
        One row per finished run: the fields of `studies.precision.trainer.Outcome`.
    """

    folder: Path
    config: Mapping[str, Any]
    record: Mapping[str, Any]
    runs: pd.DataFrame

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return str(self.record["metric"]["name"])

    @property
    def wanted(self) -> int:
        """Number of runs of the whole study."""
        return len(self.record["policies"]) * len(self.record["seeds"])

    @property
    def swept(self) -> dict[str, dict[str, Any]]:
        """What a sweep gave to each policy, by path."""
        return {policy["name"]: policy["swept"] for policy in self.record["policies"]}

    @property
    def bases(self) -> dict[str, str]:
        """Name that a policy had before it was swept."""
        return {policy["name"]: policy["base"] for policy in self.record["policies"]}

    @cached_property
    def compared(self) -> pd.DataFrame:
        """The runs whose twin of the same seed is finished, in the order of the policies and seeds."""
        twins = self.runs.loc[self.runs["policy"] == TWIN, "seed"]
        return self.runs[self.runs["seed"].isin(twins)]

    @cached_property
    def table(self) -> pd.DataFrame:
        """The verdicts, see `studies.precision.table.summary`; of an unfinished study, those so far."""
        return summary(
            self.compared,
            metric=self.metric,
            larger_is_better=bool(self.record["metric"]["higher_is_better"]),
            resolution=float(self.record["metric"]["resolution"]),
        )

    @cached_property
    def curves(self) -> pd.DataFrame:
        """All curves: ``policy``, ``seed`` and the columns of `studies.precision.trainer.CURVE`."""
        return self._joined("curve.parquet")

    @cached_property
    def statistics(self) -> pd.DataFrame:
        """What rounding did: ``policy``, ``seed`` and the columns of `numerics.torch.Statistics`, if any."""
        return self._joined("statistics.parquet")

    @cached_property
    def bits(self) -> pd.DataFrame:
        """Used and predicted bits of accumulators (`studies.precision.predicted.bits_table`), if any."""
        path = self.folder / "bits.parquet"
        return _read(path) if path.exists() else pd.DataFrame()

    def _joined(self, name: str) -> pd.DataFrame:
        tables = []
        for policy in self.record["policies"]:
            for seed in self.record["seeds"]:
                path = _run_folder(self.folder, policy, seed) / name
                if (path.parent / "outcome.json").exists() and path.exists():
                    tables.append(_read(path).assign(policy=policy["name"], seed=seed))
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def load_results(folder: Path) -> Results:
    """Read a run folder.

    Raises
    ------
    FolderError
        It is not one of a study, a file in it is damaged, or no run of the twin is finished.
    """
    try:
        config = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
        record = json.loads((folder / RECORD).read_bytes())
    except OSError as error:
        raise FolderError(
            f"{error.filename}: {error.strerror}; the run folder of a study is wanted"
        ) from None
    except ValueError as error:
        raise FolderError(f"{folder}: config.toml or {RECORD} is damaged: {error}") from None
    outcomes = []
    for policy in record["policies"]:
        for seed in record["seeds"]:
            path = _run_folder(folder, policy, seed) / "outcome.json"
            if path.exists():
                outcomes.append(_outcome(path))
    if not any(outcome["policy"] == TWIN for outcome in outcomes):
        raise FolderError(f"{folder}: no run of the full-precision twin is finished")
    return Results(folder, config, record, pd.DataFrame(outcomes))


def _run_folder(folder: Path, policy: Mapping[str, Any], seed: int) -> Path:
    return folder / str(policy["folder"]) / f"seed-{seed}"


def _outcome(path: Path) -> dict[str, Any]:
    try:
        outcome: dict[str, Any] = json.loads(path.read_bytes())["outcome"]
        for key in ("training_loss", "metric"):
            outcome[key] = float("nan") if outcome[key] is None else float(outcome[key])
    except (ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{path}: is damaged ({error})") from None
    return outcome


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise FolderError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
