"""Which runs a study has, and what can be known to be wrong before any of them begins."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from studies.config import ConfigError
from studies.precision import checkpoint
from studies.precision.study import Study
from studies.precision.table import TWIN
from studies.precision.trainer import Run, prepare
from studies.tasks import TaskError

if TYPE_CHECKING:
    from numerics.torch import Policy
    from studies.tasks import Data

_DATA = ("train_inputs", "train_labels", "test_inputs", "test_labels")
_REHEARSED = 4  # samples
_NAME_LENGTH = 60  # of a folder


@dataclass(frozen=True, slots=True)
class Point:
    """One policy of a study; ``None`` is the twin.

    Attributes
    ----------
    swept
        The values that a sweep gave to it, by path.
    """

    name: str
    policy: Policy | None
    swept: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """A study that can be trained.

    Attributes
    ----------
    points
        The twin, then every policy.
    """

    study: Study
    points: tuple[Point, ...]
    data: Data
    _fingerprint: Mapping[str, Any]

    @classmethod
    def of(cls, study: Study) -> Plan:
        """Read the data and check everything that does not need training.

        Raises
        ------
        ConfigError
            One line per error.
        """
        try:
            data = study.task.load()
        except (TaskError, OSError) as error:
            raise ConfigError("\n".join(f"task: {line}" for line in str(error).splitlines())) from None
        count = len(data.train_inputs)
        if study.batch > count:
            raise ConfigError(
                f"batch: must be at most {count}, the size of the training set, got {study.batch}"
            )
        points = [Point(TWIN, None, {})]
        points += [Point(name, policy, study.swept.get(name, {})) for name, policy in study.policies.items()]
        plan = cls(study, tuple(points), data, _fingerprint(study, data))
        plan._check_policies()
        return plan

    @property
    def resolution(self) -> float:
        """Least difference of the metric of two runs, one test sample; 0 if it may be any number."""
        return self.study.task.metric.step / len(self.data.test_inputs)

    def runs(self, folder: Path) -> list[Run]:
        """All runs; of every seed first the twin's, so that the first comparison comes early."""
        settings = self.study.settings.model_dump(mode="json", exclude_none=True, exclude={"seeds"})
        runs = []
        for seed in self.study.seeds:
            for index, point in enumerate(self.points):
                policy = {} if point.policy is None else {"policy": point.policy.to_toml()}
                runs.append(
                    Run(
                        name=point.name,
                        policy=point.policy,
                        seed=seed,
                        identity={"seed": seed, **policy, **settings, **self._fingerprint},
                        folder=folder / "runs" / _folder_name(index, point.name) / f"seed-{seed}",
                    )
                )
        return runs

    def check_checkpoints(self, runs: Sequence[Run]) -> None:
        """Refuse checkpoints that a run could not go on from.

        Raises
        ------
        FolderError
            One line that names the file.
        """
        for run in runs:
            if run.checkpoint.exists():
                checkpoint.load(run.checkpoint, run.identity)

    def rehearse(self, names: Collection[str]) -> None:
        """Take one step of a few samples with each of the policies named.

        It finds what only running tells, such as a fused adder whose operands have no format, and compiles
        the kernels in this process, before others read them from the cache.

        Raises
        ------
        ConfigError
            One line that names the policy.
        """
        chosen = slice(0, min(_REHEARSED, len(self.data.train_inputs)))
        inputs, labels = self.data.train_inputs[chosen], self.data.train_labels[chosen]
        for point in self.points:
            if point.name not in names:
                continue
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                network = self.study.task.network()
                try:
                    optimizer, scaler = prepare(network, point.policy, self.study.settings, seed=0)
                    loss = self.study.task.loss(network(inputs), labels)
                    if scaler is not None:
                        scaler.backward(loss)
                        scaler.step(optimizer)
                    else:
                        loss.backward()  # type: ignore[no-untyped-call]
                        optimizer.step()
                except ValueError as error:
                    raise ConfigError(f"policy {point.name!r}: {_one_line(error)}") from None

    def _check_policies(self) -> None:
        lines = []
        for point in self.points:
            if point.policy is None:
                continue
            with torch.random.fork_rng(devices=[]):
                network = self.study.task.network()
            try:
                prepare(network, point.policy, self.study.settings, seed=0)
            except ValueError as error:
                lines.append(f"policy {point.name!r}: {_one_line(error)}")
        if lines:
            raise ConfigError("\n".join(lines))


def _fingerprint(study: Study, data: Data) -> dict[str, str]:
    """Digests of data and network, for the settings do not tell what a file or a function holds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = study.task.network()
    modules = hashlib.sha256(str(network).encode())
    _digest(modules, network.state_dict())
    samples = hashlib.sha256()
    _digest(samples, {name: getattr(data, name) for name in _DATA})
    return {"data": samples.hexdigest(), "network": modules.hexdigest()}


def _digest(digest: hashlib._Hash, tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())


def _folder_name(index: int, name: str) -> str:
    """A folder that no other policy of the study has, whatever its name."""
    if name == TWIN:
        return TWIN
    plain = re.sub(r"[^A-Za-z0-9._=-]+", "-", name)[:_NAME_LENGTH].strip("-.")
    return f"{index:02d}-{plain}"


def _one_line(error: Exception) -> str:
    """The first line of an error that may have one for each layer."""
    first, *others = str(error).splitlines() or [type(error).__name__]
    return f"{first} (and {len(others)} more like it)" if others else first
