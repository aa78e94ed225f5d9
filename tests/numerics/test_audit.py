"""What must hold of the sources themselves, and of the kernels without their compiler."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import numerics

SOURCES = sorted(Path(numerics.__file__).parent.rglob("*.py"))


def calls(path):
    return [
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_kernel_lets_the_compiler_reassociate(path):
    options = {keyword.arg for call in calls(path) for keyword in call.keywords}
    assert not options & {"fastmath", "error_model", "parallel"}


def test_the_audit_sees_the_kernels():
    kernels = [path for path in SOURCES if path.parent.name == "_kernels"]
    compiled = {
        path.stem for path in kernels for call in calls(path) if getattr(call.func, "id", "") == "njit"
    }
    assert compiled == {path.stem for path in kernels} - {"__init__", "roundings", "vectors"}


SMALL_CASE = """
import numpy as np
from numerics import axpy, cast, matmul
import numba

rng = np.random.default_rng(0)
x = rng.normal(size=40).astype(np.float32)
a, b = cast(x[:20].reshape(4, 5), "e4m3fn"), cast(x[20:].reshape(5, 4), "e4m3fn")
results = [
    cast(x * 2.0**k, text, rounding=rounding, seed=7, stream=2**40)
    for k in (-20, 0, 15)
    for text in ("e5m2", "e4m3-flush", "s3.4")
    for rounding in ("nearest-even", "nearest-away", "toward-zero", "down", "up", "to-odd", "stochastic:7")
]
results += [
    matmul(a, b, f"{fmt} chunk=2 rounding={rounding}", seed=7)
    for fmt in ("e6m9", "e8m22", "e2m1", "e8m2")
    for rounding in ("nearest-even", "up", "stochastic")
]
for rounding in ("nearest-away", "down", "stochastic"):
    results.append(axpy(-0.1, x[:20], x[20:], "e6m9", rounding=rounding, seed=1))
print(numba.config.DISABLE_JIT)
print(b"".join(np.ascontiguousarray(r, np.float32).tobytes() for r in results).hex())
"""


def test_the_compiler_changes_no_bit():
    lines = {}
    for disable in ("0", "1"):
        environment = os.environ | {"NUMBA_DISABLE_JIT": disable, "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            [sys.executable, "-c", SMALL_CASE],
            env=environment,
            cwd=Path(numerics.__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        lines[disable] = done.stdout.split()
    assert [lines[key][0] for key in ("0", "1")] == ["0", "1"]
    assert len(lines["0"][1]) > 10_000
    assert lines["0"][1] == lines["1"][1]
