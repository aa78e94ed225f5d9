"""PEPPP measured on the shipped run table, leaving one data set out at a time.

    python benchmarks/bench_peppp.py [--seeds N] [--shares 0.2,1] [--budgets 0.03,0.06,0.12,0.25]
                                     [--ranks held-out,5] [--centred] [--rows N]

Prints the table's spectrum, the error of the completion, and convergence and hypervolume difference of the
estimated frontiers (0 is best for both) by choice of the measurements: D-optimal (relaxed and rounded, or
greedy), pivoted QR, random under the same budget of memory, and random without a model. Measuring all
configurations gives 0 by definition. The advantage over the random choice is the mean over data sets of the
paired differences, with a 95 % interval by the bootstrap over data sets, and the sign test over data sets (of
the means over seeds).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy

import argparse
import time

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from studies.accuracy.peppp import rank_of_energy, spectrum
from studies.accuracy.peppp.table import run_table
from studies.accuracy.peppp.validation import METHODS, UNMODELLED, leave_one_out

METRICS = ("convergence", "hypervolume_difference", "relative_error")
RESAMPLES = 10_000


def advantage(results: pd.DataFrame, metric: str, method: str, against: str) -> str:
    """Mean gain over another choice, its interval, and how many data sets gain."""
    means = results.pivot_table(index="data_set", columns="method", values=metric, aggfunc="mean")
    gains = (means[against] - means[method]).to_numpy()
    draws = np.random.default_rng(0).integers(0, len(gains), size=(RESAMPLES, len(gains)))
    low, high = np.quantile(gains[draws].mean(axis=1), [0.025, 0.975])
    better, worse = int((gains > 1e-12).sum()), int((gains < -1e-12).sum())
    chance = binomtest(better, better + worse, alternative="greater").pvalue if better + worse else 1.0
    return f"{gains.mean():+.4f} [{low:+.4f}, {high:+.4f}]  {better:2d}:{worse:<2d} p={chance:.1e}"


def describe() -> None:
    table = run_table()
    errors = table.errors
    print(f"{errors.shape[0]} data sets x {errors.shape[1]} configurations, {errors.size} runs")
    quantiles = np.quantile(errors, [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1]).round(3).tolist()
    print(f"errors, quantiles 0 10 25 50 75 90 100 %: {quantiles}; float32 {table.float32.mean():.3f}")
    print(f"share of the squared errors by singular value: {spectrum(errors)[:8].round(4).tolist()}")
    centred = errors - errors.mean(axis=0)
    print(f"  without the mean of each configuration:     {spectrum(centred)[:8].round(4).tolist()}")
    print(f"rank for 95, 99, 99.9 %: {[rank_of_energy(errors, share) for share in (0.95, 0.99, 0.999)]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--shares", default="0.2,1")
    parser.add_argument("--budgets", default="0.03,0.06,0.12,0.25")
    parser.add_argument(
        "--ranks", default="held-out,5", help="of the embeddings; held-out entries may choose"
    )
    parser.add_argument("--centred", action="store_true", help="take the means of the columns off first")
    parser.add_argument("--rows", type=int, default=None, help="only the first data sets")
    chosen = parser.parse_args()
    describe()
    table = run_table()
    budgets = [float(text) for text in chosen.budgets.split(",")]
    runs = [(float(share), rank) for share in chosen.shares.split(",") for rank in chosen.ranks.split(",")]
    for share, rank in runs:
        begin = time.process_time()
        results = leave_one_out(
            table.errors[: chosen.rows],
            table.memory_bytes[: chosen.rows],
            budgets=budgets,
            share=share,
            seeds=range(chosen.seeds),
            rank=None if rank == "held-out" else int(rank),
            centred=chosen.centred,
        )
        seconds = time.process_time() - begin
        print(
            f"\n{share:.0%} of the other data sets' entries observed, {chosen.seeds} seeds, {seconds:.0f} s; "
            f"completion error {results['completion_error'].mean():.3f}, "
            f"rank {rank}, {results['rank'].mean():.1f} on average",
            flush=True,
        )
        print("budget  measured  method              convergence  hypervolume diff.  error  log det (bound)")
        for budget, part in results.groupby("budget"):
            for method in (*METHODS, UNMODELLED):
                own = part[part["method"] == method]
                bound = f" ({own['bound'].mean():.2f})" if own["bound"].notna().any() else ""
                print(
                    f"{budget:6.0%}  {own['measured'].mean():8.1f}  {method:18}"
                    f"  {own['convergence'].mean():11.4f}"
                    f"  {own['hypervolume_difference'].mean():17.4f}  {own['relative_error'].mean():5.3f}"
                    f"  {own['log_det'].mean():7.2f}{bound}"
                )
        print("\nadvantage over random: mean [95 %]  data sets better:worse, sign test")
        for budget, part in results.groupby("budget"):
            for method in ("relaxed", "greedy", "pivots"):
                texts = [f"{metric} {advantage(part, metric, method, 'random')}" for metric in METRICS]
                print(f"{budget:6.0%}  {method:8} {'   '.join(texts)}", flush=True)


if __name__ == "__main__":
    main()
