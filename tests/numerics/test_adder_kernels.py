"""The kernels of the other adders without their compiler."""

import os
import subprocess
import sys
from pathlib import Path

import numerics

SMALL_CASE = """
import numba
import numpy as np
from numerics import cast, matmul

rng = np.random.default_rng(0)
a = cast(rng.normal(size=(3, 19)).astype(np.float32), "e4m3fn")
b = cast(rng.normal(size=(19, 2)).astype(np.float32), "fp16")
b[3, 1] = np.inf
results, reports = [], []
for text in (
    "e6m5 product=e5m2 chunk=4 outer=e8m7/stochastic lanes=2 rounding=stochastic:5",
    "e5m3 order=pairwise rounding=up",
    "e2m1 chunk=5 order=pairwise rounding=to-odd",
):
    out, report = matmul(a, b, text, seed=3, report=True)
    results.append(out)
    reports.append(str(report).replace(" ", ""))
for text in ("hopper-fp8", "hopper-fp8 promote=32", "ampere", "volta promote=4"):
    results.append(matmul(a, b, text, formats=("e4m3fn", "fp16")))
for text in ("exact output=e8m23 rounding=up", "exact output=e5m2 rounding=stochastic"):
    results.append(matmul(a, b, text, seed=2**40))
print(numba.config.DISABLE_JIT)
print(b"".join(r.tobytes() for r in results).hex())
print(*reports)
"""


def test_the_compiler_changes_no_bit_and_no_count():
    lines = {}
    for disable in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", SMALL_CASE],
            env=os.environ | {"NUMBA_DISABLE_JIT": disable, "PYTHONWARNINGS": "ignore"},
            cwd=Path(numerics.__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        lines[disable] = done.stdout.split()
    assert [lines[key][0] for key in ("0", "1")] == ["0", "1"]
    assert len(lines["0"][1]) == 9 * 6 * 4 * 2
    assert lines["0"][1:] == lines["1"][1:]
