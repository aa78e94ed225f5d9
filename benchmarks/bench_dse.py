"""Search methods compared on tables of really measured designs, and on a synthetic problem.

    python benchmarks/bench_dse.py [PART ...] [--data DIR] [--tables A,B] [--methods A,B] [--seeds N]

Parts: ``search`` (a method proposes rows; 10 random rows are given, 50 evaluations in all), ``free`` (it
proposes any combination; one that the table lacks fails and counts), ``constraint`` (most rows fail; 20
random rows are given, 100 evaluations in all), ``resume`` (the process is killed at evaluation 25 and started
again), ``overhead`` (processor seconds per proposal at 50 and 200 evaluations), ``transfer`` (with an earlier
campaign's results, right and wrong ones; see dse_transfer.py), ``synthetic``. Without a part, all of them.

Every method starts from the same rows, so differences are paired by seed. Regret is the share of the true
front's hypervolume that is missing, ADRS the average distance from the true front: 0 is best for both.
``optuna-gp`` is Optuna's GPSampler, which is no method of ours. A method with ``+estimates`` appended reads a
table's early estimates as features, where it has them: ``--methods auto+estimates,auto``.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy: parallel runs, one thread each

import argparse
import multiprocessing
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import dse_peers
import dse_synthetic
import dse_transfer
import numpy as np
import pandas as pd
from dse_tables import CONSTRAINED, DATA, SEARCHED, Problem, load

import dse

PARTS = ("search", "free", "constraint", "resume", "overhead", "transfer", "synthetic")
METHODS = ("auto", "optuna-gp", "tpe", "nsga2", "sobol", "random")
BUDGETS = {"search": (10, 50), "free": (10, 50), "constraint": (20, 100)}  #: (given, in all)
LOOKS = {"search": (20, 30, 50), "free": (20, 30, 50), "constraint": (50, 100)}
KILLED_AT = 25
WITH_ESTIMATES = "+estimates"


def campaign_of(problem: Problem, part: str, method: str, seed: int, **options: Any) -> Any:
    """Campaign with the given rows attached."""
    space = problem.estimated if method.endswith(WITH_ESTIMATES) and problem.estimates else problem.space
    method = method.removesuffix(WITH_ESTIMATES)
    wanted = [dse.Objective(name) for name in problem.objectives]
    if part == "free":
        space = dse.Space(space.parameters)
    if method == "optuna-gp":
        campaign: Any = dse_peers.PeerCampaign(
            space,
            wanted,
            dse_peers.GaussianProcessSearch(space, wanted, seed=seed, initial=1),
        )
    else:
        campaign = dse.Campaign(space, wanted, seed=seed, method=method, **options)
    return campaign


def attach(campaign: Any, problem: Problem, rows: Sequence[int]) -> None:
    """Give a campaign the results of some rows; those that fail have none."""
    frame = problem.frame.loc[rows, [*problem.columns, *problem.objectives]].astype(
        dict.fromkeys(problem.objectives, float)
    )
    frame.loc[~problem.valid[rows], list(problem.objectives)] = np.nan
    frame["state"] = np.where(problem.valid[rows], "done", "failed")
    campaign.attach(frame)


def step(campaign: Any, problem: Problem) -> int | None:
    """One proposal and its evaluation: the row, -1 for none such, ``None`` where nothing is left."""
    trials = campaign.ask(1)
    if not trials:
        return None
    (trial,) = trials
    design = problem.space.design(trial.parameters)
    row = problem.space.row(design) if problem.space.is_feasible(design) else -1
    if row >= 0 and problem.valid[row]:
        campaign.tell(trial, problem.told(row))
    else:
        campaign.fail(trial, "not in the table" if row < 0 else "not valid")
    return row


def run(job: tuple[str, Path, str, str, int]) -> list[dict[str, Any]]:
    """One search: a line of results per number of evaluations that is looked at."""
    part, data, table, method, seed = job
    problem = load(data, table, failures=part == "constraint")
    assert problem is not None
    given, budget = BUDGETS[part]
    rows = problem.given(seed, given)
    campaign = campaign_of(problem, part, method, seed)
    attach(campaign, problem, rows)
    begin = time.process_time()
    while len(rows) < budget and (row := step(campaign, problem)) is not None:
        rows.append(row)
    seconds = (time.process_time() - begin) / max(1, len(rows) - given)
    found = []
    for look in LOOKS[part]:
        seen = [row for row in rows[:look] if row >= 0]
        found.append(
            {
                "part": part,
                "table": table,
                "method": method,
                "seed": seed,
                "evaluations": look,
                "regret": problem.regret(seen),
                "adrs": problem.adrs(seen),
                "valid": int(problem.valid[seen].sum()),
                "cpu_s": seconds,
            }
        )
    return found


def overhead(data: Path, table: str, method: str, seeds: int) -> list[dict[str, Any]]:
    """Processor seconds of one proposal after some evaluations, the first one's imports left out."""
    problem = load(data, table)
    assert problem is not None
    found = []
    for seed, count in product(range(seeds), (50, 200)):
        campaign = campaign_of(problem, "search", method, seed)
        attach(campaign, problem, problem.given(seed, count))
        step(campaign, problem)
        begin, wall = time.process_time(), time.perf_counter()
        campaign.ask(1)
        found.append(
            {
                "part": "overhead",
                "table": table,
                "method": method,
                "seed": seed,
                "evaluations": count,
                "cpu_s": time.process_time() - begin,
                "wall_s": time.perf_counter() - wall,
            }
        )
    return found


def resume_worker(data: Path, table: str, method: str, seed: int, store: Path) -> None:
    """Search with a store, a line per evaluation on standard output."""
    problem = load(data, table)
    assert problem is not None
    given, budget = BUDGETS["search"]
    with campaign_of(problem, "search", method, seed, store=store) as campaign:
        if not campaign.trials:
            attach(campaign, problem, problem.given(seed, given))
        while sum(trial.state in ("done", "failed") for trial in campaign.trials) < budget:
            print(step(campaign, problem), flush=True)


def resume(data: Path, table: str, method: str, seed: int) -> dict[str, Any]:
    """Kill a search at evaluation 25, go on, and compare with one that was left alone."""
    given, budget = BUDGETS["search"]

    def rows_of(store: Path, kill_after: int | None) -> list[int]:
        command = [sys.executable, __file__, "resume-worker", str(data), table, method, str(seed), str(store)]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        rows = []
        for line in worker.stdout:
            rows.append(int(line))
            if len(rows) == kill_after:
                worker.send_signal(signal.SIGKILL)
                break
        worker.stdout.close()
        status = worker.wait()
        if kill_after is None and status != 0:
            raise SystemExit(f"resume: the search of {table} by {method} ended with status {status}")
        return rows

    with tempfile.TemporaryDirectory() as folder:
        whole = rows_of(Path(folder) / "whole.sqlite", None)
        # What was told before the kill is in the store; a line may have been written that we never read.
        before = rows_of(Path(folder) / "killed.sqlite", KILLED_AT - given)
        after = rows_of(Path(folder) / "killed.sqlite", None)
    done = budget - given - len(after)
    equal = len(before) <= done and [*whole[:done], *after] == whole and before == whole[: len(before)]
    return {"part": "resume", "table": table, "method": method, "seed": seed, "equal": equal}


def summary(results: pd.DataFrame, ours: str) -> Iterator[str]:
    """Medians with quartiles by table and method, then the paired comparison with the other methods."""
    for (part, table), group in results.groupby(["part", "table"], sort=False):
        yield f"\n{part}: {table} ({group['seed'].nunique()} seeds)"
        heads = [f"regret at {look}" for look in sorted(group["evaluations"].unique())]
        last = group["evaluations"].max()
        yield (
            f"  {'method':<12}"
            + "".join(f"{head:>24}" for head in heads)
            + (f"{f'ADRS at {last}':>24}{'valid':>8}{'CPU s':>8}")
        )
        for method, lines in group.groupby("method", sort=False):
            cells = [
                quartiles(lines.loc[lines["evaluations"] == look, "regret"])
                for look in sorted(group["evaluations"].unique())
            ]
            end = lines[lines["evaluations"] == last]
            cells.append(quartiles(end["adrs"]))
            yield (
                f"  {method:<12}"
                + "".join(f"{cell:>24}" for cell in cells)
                + f"{end['valid'].median():>8.0f}{end['cpu_s'].median():>8.2f}"
            )
        yield from comparison(group[group["evaluations"] == last], ours)


def quartiles(values: pd.Series) -> str:
    if values.isna().all():
        return "-"
    low, middle, high = np.percentile(values.to_numpy(dtype=float), (25, 50, 75), method="nearest")
    return f"{np.median(values):.3f} ({low:.3f}-{high:.3f})" if np.isfinite(middle) else "inf"


def comparison(end: pd.DataFrame, ours: str) -> Iterator[str]:
    """Ratio of median regrets, wins by seed, and a two-sided Wilcoxon test of the paired differences."""
    from scipy.stats import binomtest, wilcoxon

    table = end.pivot(index="seed", columns="method", values="regret")
    if ours not in table:
        return
    for method in table:
        if method == ours:
            continue
        gain = (table[method] - table[ours]).dropna()
        wins, losses = int((gain > 1e-12).sum()), int((gain < -1e-12).sum())
        base, own = table[method].median(), table[ours].median()
        ratio = f"{own / base:.2f}" if base > 0 else ("1.00" if own == 0 else "inf")
        signed = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
        ranked = wilcoxon(gain).pvalue if wins + losses else 1.0
        yield (
            f"    {ours} / {method}: regret x {ratio}; better in {wins}, worse in {losses} of {len(gain)} "
            f"seeds, p = {signed:.3f} (sign), {ranked:.3f} (Wilcoxon)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="folder of the tables")
    parser.add_argument("--tables", help="comma-separated; those of each part by default")
    parser.add_argument(
        "--methods", default=",".join(METHODS), help="the first one is compared with the others"
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="searches at a time")
    parser.add_argument("--csv", type=Path, help="write every result")
    options = parser.parse_args()
    parts = options.parts or list(PARTS)
    if wrong := [part for part in parts if part not in PARTS]:
        parser.error(f"part must be one of {', '.join(PARTS)}, got {wrong[0]!r}")
    methods = options.methods.split(",")
    seeds = range(options.first_seed, options.first_seed + options.seeds)

    def tables(default: Sequence[str]) -> list[str]:
        wanted = options.tables.split(",") if options.tables else list(default)
        there = [table for table in wanted if load(options.data, table) is not None]
        for table in wanted:
            if table not in there:
                print(f"skipped: no table {table} in {options.data} (--data DIR)")
        return there

    found: list[dict[str, Any]] = []
    jobs = [
        (part, options.data, table, method, seed)
        for part in parts
        if part in BUDGETS
        for table in tables(CONSTRAINED if part == "constraint" else SEARCHED)
        for method, seed in product(methods, seeds)
    ]
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for number, lines in enumerate(pool.imap(run, jobs), start=1):
            found += lines
            end = lines[-1]
            print(
                f"[{number}/{len(jobs)}] {end['part']} {end['table']} {end['method']} seed {end['seed']}: "
                f"regret {end['regret']:.3f}, {end['cpu_s']:.2f} s",
                file=sys.stderr,
                flush=True,
            )
    if found:
        print("\n".join(summary(pd.DataFrame(found), methods[0])))
    ours = [method for method in methods if method != "optuna-gp"]
    if "resume" in parts:
        for table, method in product(tables(SEARCHED[:1]), ours):
            line = resume(options.data, table, method, seeds[0])
            found.append(line)
            verdict = "equal" if line["equal"] else "DIFFERENT"
            print(f"resume: {table} {method}: {verdict} after a kill at evaluation {KILLED_AT}")
    if "overhead" in parts:
        for table, method in product(tables(SEARCHED[:1]), methods):
            lines = overhead(options.data, table, method, min(options.seeds, 5))
            found += lines
            for count, group in pd.DataFrame(lines).groupby("evaluations"):
                print(
                    f"overhead: {table} {method} at {count}: {group['cpu_s'].median():.2f} CPU s per proposal"
                )
    if "transfer" in parts:
        wanted = options.tables.split(",") if options.tables else None
        pairs = [pair for pair in dse_transfer.PAIRS if wanted is None or pair[1] in wanted]
        found += dse_transfer.report(options.data, seeds, pairs)
    if "synthetic" in parts:
        found += dse_synthetic.report(ours, min(options.seeds, 5))
    if options.csv is not None:
        pd.DataFrame(found).to_csv(options.csv, index=False)


if __name__ == "__main__":
    if sys.argv[1:2] == ["resume-worker"]:
        _, _, data, table, method, seed, store = sys.argv
        resume_worker(Path(data), table, method, int(seed), Path(store))
    else:
        main()
