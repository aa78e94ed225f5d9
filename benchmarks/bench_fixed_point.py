"""What the fixed-point assignment is worth on digits: its widths, its accuracy, and the bits to spare.

    python benchmarks/bench_fixed_point.py [--steps 600] [--seeds 3]

For a perceptron with one hidden layer and the CNN of `studies.tasks`, trained by plain SGD: the table of
formats, the full adders of a step beside those of 16-bit operands, the accuracy of the float32 twin (same
seeds), of the assignment and of every width one, two, ... bits less; then the slack of each kind of tensor
alone. Accuracies are means over the seeds; the target is one point below float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from numerics.theory.assignment import TENSORS, FixedPointAssignment, slack
from numerics.theory.fixed_point import full_adders
from numerics.torch.fixed_point import assign_fixed_point
from numerics.torch.fixed_point_training import FixedPointSGD, fixed_point_twin
from studies.tasks import digits, digits_cnn

DATA = digits()
RATE, BATCH = 0.1, 32


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def batches(seed: int, steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    while len(found) < steps:
        order = torch.randperm(len(DATA.train_labels), generator=generator)
        found += [(DATA.train_inputs[c], DATA.train_labels[c]) for c in order.split(BATCH) if len(c) == BATCH]
    return found[:steps]


def accuracy(
    build: Callable[[], nn.Module], steps: int, seeds: int, assignment: FixedPointAssignment | None
) -> float:
    found = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = build()
        optimizer: FixedPointSGD | torch.optim.SGD
        if assignment is None:
            optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        else:
            model = fixed_point_twin(model, assignment)
            optimizer = FixedPointSGD(torch.optim.SGD(model.parameters(), lr=RATE), model)
        for x, y in batches(seed, steps):
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
        with torch.no_grad():
            right = model(DATA.test_inputs).argmax(1) == DATA.test_labels
        found.append(right.double().mean().item())
    return float(np.mean(found))


def report(build: Callable[[], nn.Module], steps: int, seeds: int) -> None:
    torch.manual_seed(0)
    model = build()
    found = assign_fixed_point(model, cross_entropy, batches(0, steps), learning_rate=RATE, steps=steps)
    print(f"\n{build.__name__}, {steps} steps\n")
    print(found.table().to_string(index=False))
    products = found.complexity()
    sixteen = sum(row.dots * full_adders(row.length, 16, 16) for row in products.itertuples())
    print(
        f"\nfull adders of a step: {products['full_adders'].sum() / sixteen:.3f} of those of 16-bit operands"
    )
    full = accuracy(build, steps, seeds, None)
    target = full - 0.01
    print(f"\n{'float32':24}{full:8.4f}")
    spare = slack(found, lambda a: accuracy(build, steps, seeds, a), target)
    for bits, value in enumerate(spare.accuracies):
        bound = found.narrower(bits).mismatch()
        print(f"{f'{bits} bits less':24}{value:8.4f}   mismatch bound {bound:.4f}")
    print(f"bits to spare: {spare.spare_bits}\n")
    for tensor in TENSORS:
        alone = slack(found, lambda a: accuracy(build, steps, seeds, a), target, tensors=[tensor])
        print(f"{tensor:24}{alone.spare_bits:3d}   " + " ".join(f"{a:.4f}" for a in alone.accuracies))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for network in (perceptron, digits_cnn):
        report(network, options.steps, options.seeds)
