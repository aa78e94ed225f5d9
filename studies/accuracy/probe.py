"""Measure the statistics of a task: its float32 twin trains, and every tensor and product is looked at.

The command for the tasks of the run table, with the same `FOLDER` as `studies.accuracy.collect`::

    python -m studies.accuracy.probe --data FOLDER [--out FILE]
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from numerics.torch import LayerPolicy, emulate
from studies.accuracy.statistics import (
    HIGH,
    LOW,
    STATISTICS,
    UNIFORM,
    Binades,
    Changes,
    Product,
    TaskStatistics,
    write_statistics,
)
from studies.accuracy.subjects import SUBJECTS, Subject
from studies.accuracy.training import guess_accuracy, measure_run
from studies.alone import alone
from studies.precision.batches import Batches
from studies.training import DivergedError

if TYPE_CHECKING:
    from numerics.accumulate import AnyAccumulator
    from numerics.torch import TensorPolicy
    from numerics.torch.emulation import Rounded, Sample
    from studies.precision.optimizer import Optimizer
    from studies.tasks import Data, Task

TWINS = 3  #: seeds of the twin's curve
LOOKS = 8  #: steps that are looked at, evenly spread over a run
_SAMPLED = 32  # rows and columns of a product that are looked at
_FLOAT32 = "e8m23"  # emulated, so that an observer hears of it, and exact


class _Tally:
    """Binades of a tensor over several looks."""

    def __init__(self) -> None:
        self.shares, self.energy = np.zeros(HIGH - LOW), np.zeros(HIGH - LOW)
        self.counts, self.squares = np.zeros(HIGH - LOW), np.zeros(HIGH - LOW)
        self.looks, self.square, self.largest = 0, 0.0, 0.0

    def add(self, x: np.ndarray) -> None:
        values = np.abs(x[x != 0.0].astype(np.float64))
        self.looks += 1
        if not len(values):
            return
        places = _places(values)
        squares = values**2
        self.shares += np.bincount(places, minlength=HIGH - LOW) / x.size
        self.energy += np.bincount(places, squares, HIGH - LOW) / squares.sum()
        self.counts += np.bincount(places, minlength=HIGH - LOW)
        self.squares += np.bincount(places, squares / 4.0 ** (places + LOW), HIGH - LOW)
        self.square += squares.sum() / x.size
        self.largest = max(self.largest, float(values.max()))

    def found(self) -> Binades:
        total = self.energy.sum() or 1.0
        return Binades(
            shares=self.shares / self.looks,
            energy=self.energy / total,
            squares=np.where(self.counts > 0, self.squares / np.maximum(self.counts, 1), UNIFORM),
            log2_rms=_log2(np.sqrt(self.square / self.looks)),
            log2_max=_log2(self.largest),
        )


class _Probe:
    """An observer of emulated layers."""

    def __init__(self) -> None:
        self.active = False
        self.tensors: dict[tuple[str, str], _Tally] = defaultdict(_Tally)
        self.sums: dict[tuple[str, str], list[tuple[tuple[int, int, int], Float[np.ndarray, "4"]]]] = (
            defaultdict(list)
        )
        self._rng = np.random.default_rng(0)

    def tensor(self, layer: str, role: str, x: np.ndarray, rounded: Rounded, policy: TensorPolicy) -> None:
        """A tensor was rounded."""
        del rounded, policy
        if self.active:
            self.tensors[layer, role].add(x)

    def product(self, layer: str, role: str, accumulator: AnyAccumulator, sample: Sample) -> None:
        """A product was summed."""
        del accumulator
        if not self.active:
            return
        rows, _, columns = sample.shape
        chosen = [np.sort(self._rng.permutation(n)[:_SAMPLED]) for n in (rows, columns)]
        a, b = (operand.astype(np.float64) for operand in sample.operands(*chosen))
        result = sample.result(*chosen).astype(np.float64)
        present = (a != 0.0).astype(np.float64) @ (b != 0.0).astype(np.float64)
        measures = [present.mean(), (a**2 @ b**2).mean(), (result**2).mean(), np.abs(result).max()]
        self.sums[layer, role].append((sample.shape, np.array(measures)))

    def products(self) -> tuple[Product, ...]:
        """Products in the order of their first use; that of a bias beside its weights is left out."""
        found = []
        for (layer, role), seen in self.sums.items():
            largest = max(int(np.prod(shape)) for shape, _ in seen)
            kept = [(shape, measures) for shape, measures in seen if np.prod(shape) == largest]
            rows, length, columns = kept[0][0]
            present, square, total, _ = np.mean([measures for _, measures in kept], axis=0)
            density = present / length
            found.append(
                Product(
                    layer=layer,
                    role=role,
                    rows=rows,
                    length=length,
                    columns=columns,
                    density=float(np.clip(density, 1.0 / length, 1.0)),
                    log2_term=_log2(np.sqrt(square / max(present, 1e-300))),
                    log2_sum=_log2(np.sqrt(total)),
                    log2_max=_log2(max(measures[3] for _, measures in kept)),
                )
            )
        return tuple(found)


class _Pairs:
    """Changes beside what they change, over several looks."""

    def __init__(self) -> None:
        self.energy = np.zeros((HIGH - LOW, HIGH - LOW))
        self.looks, self.square = 0, 0.0

    def add(self, before: np.ndarray, change: np.ndarray) -> None:
        self.looks += 1
        self.square += float(np.mean(change.astype(np.float64) ** 2))
        moved = change != 0.0
        squares = change[moved].astype(np.float64) ** 2
        if not len(squares):
            return
        index = _places(np.abs(before[moved].astype(np.float64))) * (HIGH - LOW)
        index += _places(np.abs(change[moved].astype(np.float64)))
        size = (HIGH - LOW) ** 2
        self.energy += (np.bincount(index, squares, size) / squares.sum()).reshape(self.energy.shape)

    def found(self) -> Changes:
        return Changes(
            energy=self.energy / self.energy.sum(), log2_rms=_log2(np.sqrt(self.square / self.looks))
        )


def measure_statistics(subject: Subject, task: Task, data: Data, *, seed: int = 0) -> TaskStatistics:
    """Train the twin of a subject and look at `LOOKS` steps; then its curve, as the mean of several twins."""
    settings = subject.settings()
    found = tensor_statistics(
        subject.name,
        task,
        data,
        optimizer=settings.optimizer,
        steps=settings.steps,
        batch=settings.batch,
        seed=seed,
    )
    twins = [measure_run(subject, task, data, None, seed=seed + other) for other in range(TWINS)]
    curve = [
        (measured[0].fidelity, float(np.mean([one.test_accuracy for one in measured])))
        for measured in zip(*twins, strict=True)
    ]
    return replace(found, twin_curve=tuple(curve), guess_accuracy=guess_accuracy(data))


def tensor_statistics(
    name: str,
    task: Task,
    data: Data,
    *,
    optimizer: Optimizer,
    steps: int,
    batch: int,
    seed: int = 0,
) -> TaskStatistics:
    """Train the float32 twin of any task once, and look at `LOOKS` steps, evenly spread over the run.

    The accuracies are those of shares that are kept: 1 for the twin, 0 for a guess.

    Parameters
    ----------
    optimizer
        Whose rate follows its schedule. The momenta are the first moments of Adam; an optimizer that keeps
        none has the changes of the weights in their place.

    Raises
    ------
    DivergedError
        The twin's training diverges.
    """
    probe, weights, updates, momenta = _Probe(), _Tally(), _Pairs(), _Pairs()
    layer = LayerPolicy.uniform(_FLOAT32, _FLOAT32)
    looked = set(np.linspace(1, steps - 1, LOOKS).round().astype(int).tolist())
    with alone(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = task.network()
        rule = optimizer.build(network.parameters())
        emulate(network, layer, seed=seed, inplace=True, statistics=probe)
        batches = Batches(len(data.train_inputs), batch, seed)
        for step in range(steps):
            for group in rule.param_groups:
                group["lr"] = optimizer.rate(step, steps)
            chosen = batches.next()
            rule.zero_grad()
            probe.active = step in looked
            loss = task.loss(network(data.train_inputs[chosen]), data.train_labels[chosen])
            if not math.isfinite(loss.item()):
                raise DivergedError(f"the training loss is {loss.item()} after {step} steps")
            loss.backward()  # type: ignore[no-untyped-call]
            before = _state(network, rule) if probe.active else None
            rule.step()
            if before is not None:
                after = _state(network, rule)
                weights.add(after[0])
                updates.add(before[0], after[0] - before[0])
                momenta.add(before[1], after[1] - before[1])
    return TaskStatistics(
        task=name,
        twin_curve=((1.0, 1.0),),
        guess_accuracy=0.0,
        steps=steps,
        tensors={key: tally.found() for key, tally in probe.tensors.items()},
        products=probe.products(),
        weights=weights.found(),
        updates=updates.found(),
        momenta=momenta.found(),
    )


def _state(network: torch.nn.Module, rule: torch.optim.Optimizer) -> tuple[np.ndarray, np.ndarray]:
    """All parameters and all momenta in a row, (n,) each."""
    parameters, momenta = [], []
    for parameter in network.parameters():
        kept = rule.state.get(parameter, {})
        momentum = kept.get("momentum_buffer", kept.get("exp_avg"))
        parameters.append(parameter.detach().numpy().copy().ravel())
        # Before the first step an optimizer keeps nothing yet, and some never do.
        momenta.append(parameters[-1] if momentum is None else momentum.numpy().copy().ravel())
    return np.concatenate(parameters), np.concatenate(momenta)


def _places(magnitudes: np.ndarray) -> np.ndarray:
    """Numbers of the binades of magnitudes; zero is in the first."""
    places: np.ndarray = np.clip(np.frexp(magnitudes)[1] - 1 - LOW, 0, HIGH - LOW - 1)
    places[magnitudes == 0.0] = 0
    return places


def _log2(value: float) -> float:
    """Binary logarithm, no less than that of the lowest binade."""
    return float(np.log2(max(value, 2.0**LOW)))


def main() -> None:
    """Measure the statistics of all subjects, and write them."""
    parser = argparse.ArgumentParser(description="Measure the tensors of every subject.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=STATISTICS)
    options = parser.parse_args()
    found = {}
    for name, subject in SUBJECTS.items():
        task = subject.build(options.data)
        found[name] = measure_statistics(subject, task, task.load())
    write_statistics(found, options.out)


if __name__ == "__main__":
    main()
