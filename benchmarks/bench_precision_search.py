"""Searches of formats and of bits, against the best that is known.

    python benchmarks/bench_precision_search.py network   # digits CNN: the optimum is proven
    python benchmarks/bench_precision_search.py robot     # robot arm: best of a long run and of all methods
    python benchmarks/bench_precision_search.py bits      # bits per layer of the digits CNN

Each line is a method's search with a budget of 200 questions; `over` is its traffic above the best known
one, and `asked` after how many questions an assignment within 2 % of the best known one was found.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np

from studies.allocation.groups import traffic_bytes
from studies.allocation.layer_bits import digits_layers
from studies.allocation.network import FORMATS, HeldNetwork, digits_network, trained
from studies.allocation.robot import robot_arm
from studies.allocation.search import Found
from studies.allocation.subject import Subject
from studies.tasks import digits, digits_cnn

METHODS = ("random", "by-size", "additive", "bayesian", "learned")


def searches(
    subject: Subject, methods: Sequence[str], seed: int, budget: int
) -> dict[str, tuple[Found, float]]:
    found = {}
    for method in methods:
        began = time.process_time()
        result = subject.search(method=method, seed=seed, budget=budget)
        found[method] = result, time.process_time() - began
    return found


def table(seed: int, subject: Subject, found: dict[str, tuple[Found, float]], best: float, how: str) -> None:
    wide = traffic_bytes(subject.groups, "binary32")
    print(
        f"\nseed {seed}: {subject.title}; {subject.size:,} assignments; {subject.quality} "
        f"{'>=' if subject.higher_is_better else '<='} {subject.threshold:.4g}; "
        f"float32 {wide:.0f} bytes; best known {best:.1f} bytes ({how})"
    )
    heads = ("bytes", "over", "of FP32", "of FP16", "quality", "asked", "CPU s")
    widths = (10, 7, 8, 8, 8, 6, 6)
    print(f"{'method':10}", *(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True)))
    for method, (result, seconds) in found.items():
        print(
            f"{method:10} {result.traffic_bytes:10.1f} {100 * (result.traffic_bytes / best - 1):6.1f}% "
            f"{100 * result.saved('binary32'):7.1f}% {100 * result.saved('binary16'):7.1f}% "
            f"{result.quality:8.3f} {result.within(best) or '-':>6} {seconds:6.1f}",
            flush=True,
        )


def network(seeds: Sequence[int], methods: Sequence[str], budget: int) -> None:
    data = digits()
    over: dict[str, list[float]] = {method: [] for method in methods}
    for seed in seeds:
        subject = digits_network(seed)
        found = searches(subject, methods, seed, budget)
        least = min(result.traffic_bytes for result, _ in found.values())
        held = HeldNetwork(trained(digits_cnn, data, seed=seed), data)
        optimum = held.cheapest(FORMATS, at_least=subject.threshold, below=least)
        best = least if optimum is None else optimum[1]
        table(seed, subject, found, best, "proven by enumeration with shared prefixes")
        for method, (result, _) in found.items():
            over[method].append(result.traffic_bytes / best - 1)
    medians(over)


def robot(seeds: Sequence[int], methods: Sequence[str], budget: int, long: int) -> None:
    over: dict[str, list[float]] = {method: [] for method in methods}
    for seed in seeds:
        subject = robot_arm(seed)
        found = searches(subject, methods, seed, budget)
        best = min(result.traffic_bytes for result, _ in found.values())
        how = "least of all methods"
        if long:
            # Another seed, so that its first part is not the run that is judged.
            best = min(best, subject.search(method="learned", seed=seed + 1000, budget=long).traffic_bytes)
            how += f" and of a run of {long} questions"
        table(seed, subject, found, best, how)
        for method, (result, _) in found.items():
            over[method].append(result.traffic_bytes / best - 1)
    medians(over)


def medians(over: dict[str, list[float]]) -> None:
    for method, values in over.items():
        shares = " ".join(f"{100 * value:.1f}" for value in values)
        print(f"{method:10} median {100 * np.median(values):.1f} % over the best known; by seed: {shares}")


def bits(seeds: Sequence[int], mean_bits: Sequence[float], lost: float) -> None:
    for seed in seeds:
        layers = digits_layers(seed)
        exact = layers.accuracy((16,) * len(layers.names))
        sizes = ", ".join(f"{size:.0f}" for size in layers.sizes)
        print(f"\nseed {seed}: accuracy {exact:.2f} %; {sizes} weights")
        for name, trace in layers.traces.items():
            print(f"  trace of {name}: {trace.mean:.2f} +- {trace.error:.2f}")
        for target in mean_bits:
            print(f"at most {target} bits per weight\n{layers.under(target).to_string(index=False)}")
        print(
            f"accuracy at least {exact - lost:.2f} %\n{layers.reaching(exact - lost).to_string(index=False)}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["network", "robot", "bits"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--long", type=int, default=600, help="Questions of the long run; 0 for none.")
    parser.add_argument("--mean-bits", type=float, nargs="+", default=[3.5, 4.5])
    parser.add_argument("--lost", type=float, default=1.0, help="Accuracy that may be lost, in percent.")
    given = parser.parse_args()
    if given.part == "network":
        network(given.seeds, given.methods, given.budget)
    elif given.part == "robot":
        robot(given.seeds, given.methods, given.budget, given.long)
    else:
        bits(given.seeds, given.mean_bits, given.lost)


if __name__ == "__main__":
    main()
