"""Mutants of the kernels: small faults made by script, each of which the fast tests must notice.

    PYTHONPATH=tests .venv/bin/python -m mutants [kernel ...] [--count 40] [--seed 0] [--jobs 1] [--list]

For every module of `numerics._kernels` some places of its syntax tree are drawn, a fair share of each kind
(a constant, a shift, a mask, a comparison, a limit, ...), and at each one thing is replaced. The tests of
that module then run in a copy of the tree until one fails. A mutant that fails none has SURVIVED, and the
exit code is 1: either a test is missing, or the fault changes no result and belongs to `EQUIVALENT`.

A process that has Numba and pytest loaded forks for every mutant. The copy keeps the compiled kernels of
the working tree; only those of the mutated module, and of the ones that import it, are compiled again.
"""

import argparse
import contextlib
import multiprocessing
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from mutants.sites import KERNELS, ROOT, dependents, mutants_of
from mutants.tables import TESTS
from mutants.trees import Tree, load

_tree = None  # of this process


def _begin(template):
    global _tree
    _tree = Tree(template) if multiprocessing.parent_process() is None else None
    if _tree is None:
        folder = tempfile.mkdtemp(prefix="worker-", dir=Path(template).parent)
        shutil.copytree(template, folder, dirs_exist_ok=True)
        _tree = Tree(folder)


def _judge(task):
    return _tree.judge(*task)


def say(text):
    print(text, flush=True)  # noqa: T201


def check(module, mutants, jobs, folder):
    """Judge the mutants of a module and print a line for each; (killed, survived, seconds)."""
    began = time.monotonic()
    tree = Tree.copied(Path(folder) / module)
    for path in tree.compiled(dependents(module)):
        path.unlink()
    limits = []
    for tests in TESTS[module]:
        seconds, failed = tree.run(tests, 900) if tests else (0.0, None)
        if failed:
            say((tree.folder / "log.txt").read_text(encoding="utf-8")[-3000:])
            sys.exit(f"{module}: {failed} fails without any mutant")
        limits.append(20 + 3 * seconds)
    spent = " and ".join(f"{(limit - 20) / 3:.0f}" for limit in limits)
    say(f"{module}: without a mutant its tests take {spent} s")
    tasks = [(mutant, limits) for mutant in mutants]
    survived = 0
    with contextlib.ExitStack() as stack:
        if jobs == 1:
            _begin(tree.folder)
            results = map(_judge, tasks)
        else:
            context = multiprocessing.get_context("fork")
            pool = stack.enter_context(context.Pool(jobs, _begin, (tree.folder,)))
            results = pool.imap(_judge, tasks)
        for mutant, (seconds, killer) in zip(mutants, results, strict=True):
            survived += killer is None
            outcome = f"killed by {killer.removeprefix('tests/numerics/')}" if killer else "SURVIVED"
            say(f"{seconds:5.1f} s  {mutant.name}\n         {outcome}")
    shutil.rmtree(tree.folder)
    return len(mutants) - survived, survived, time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description="Break the kernels in many ways; the tests must notice.")
    parser.add_argument("modules", nargs="*", metavar="kernel", help=f"of {', '.join(TESTS)}")
    parser.add_argument("--count", type=int, default=40, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0, help="of the choice among all places")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time, each in a copy of its own")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--only", default="", help="a regular expression that a mutant's line must contain")
    options = parser.parse_args()
    known = {path.stem for path in (ROOT / KERNELS).glob("*.py")} - {"__init__"}
    if forgotten := known - set(TESTS):
        parser.error(f"TESTS names no tests for {', '.join(sorted(forgotten))}")
    modules = [Path(name).stem for name in options.modules] or [name for name in TESTS if name in known]
    if unknown := set(modules) - known:
        parser.error(f"no such kernel: {', '.join(sorted(unknown))}")
    drawn = {}
    for module in modules:
        mutants, places = mutants_of(module, options.count, options.seed)
        if places < options.count:
            say(f"{module}: only {places} places; all of them are taken")
        drawn[module] = [mutant for mutant in mutants if re.search(options.only, mutant.name)]
    if options.list:
        for mutants in drawn.values():
            say("\n".join(mutant.name for mutant in mutants))
        return 0
    load()
    table = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for module, mutants in drawn.items():
            table[module] = check(module, mutants, options.jobs, folder)
    say(f"\n{'module':<12} mutants killed survived seconds")
    for module, (killed, survived, seconds) in table.items():
        say(f"{module:<12} {killed + survived:7} {killed:6} {survived:8} {seconds:7.0f}")
    return int(any(survived for _, survived, _ in table.values()))


if __name__ == "__main__":
    sys.exit(main())
