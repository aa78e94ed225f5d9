"""What a command writes comes out, and in its order, whatever the solver writes between."""

from __future__ import annotations

import os
import subprocess
import sys

from accel.schedule._solvers import quiet

# What HiGHS does is C's printf and puts, so that is what these programs do inside of calls of a solver.
PRINTED = """
import ctypes, os, sys, threading
c = ctypes.CDLL(None)
def stray(*_, **__):
    c.printf(b"HiGHS says %d\\n", 7)
    c.puts(b"WARNING: of no interest")
    c.putchar(33)
"""

# The module by its file: the package around it takes long to import.
CALLED = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("quiet", {quiet.__file__!r})
alone = importlib.util.module_from_spec(spec)
spec.loader.exec_module(alone)
without_stray_lines = alone.without_stray_lines
c.puts(b"C before")
print("one", flush=True)
with without_stray_lines():
    stray()
    print("two", flush=True)
    with without_stray_lines():
        thread = threading.Thread(target=print, args=("three",), kwargs=dict(flush=True))
        thread.start()
        thread.join()
        stray()
        os.write(1, b"four\\n")
    stray()
print("five", flush=True)
c.puts(b"C after")
c.fflush(None)
"""

# Every way of the scheduler to HiGHS, whose log is turned on.
ASKED = """
import scipy.optimize
solve, asked = scipy.optimize.milp, set()
def loud(*arguments, options, **others):
    asked.add(sys._getframe(1).f_globals["__name__"].rpartition(".")[2])
    return solve(*arguments, options=options | {"disp": True}, **others)
scipy.optimize.milp = loud
from accel.schedule import keep, schedule, streaming_of
from accel.schedule._atomic.gap_model import replace_optimally
from accel.schedule._instance import build_instance
from accel.schedule._streaming.orders import free_bound_bytes
from accel.workload import Operator, Role, Tensor, Workload
from numerics.formats import parse_format
steps = (
    (("x",), "a"), (("a",), "b"), (("b",), "c"),
    (("a", "b", "c"), "d"), (("c", "d"), "e"), (("a", "b", "e"), "f"),
)
skip = Workload(
    name="skip",
    operators=tuple(Operator(name=made, kind="op", inputs=read, outputs=(made,)) for read, made in steps),
    tensors={
        t: Tensor(name=t, shape=(n,), role=Role.ACTIVATION, format=parse_format("int8"))
        for t, n in {"x": 1, "a": 3, "b": 4, "c": 4, "d": 3, "e": 5, "f": 1}.items()
    },
    inputs=("x",),
    outputs=("f",),
)
schedule(skip, 16, backend="highs")
instance = build_instance(skip, 16, alignment=1, fixed_order=True)
replace_optimally(instance, range(6), deadline_s=float("1e9"), most_work=0)
keep(streaming_of(skip, capacity_bytes=16), backend="integer-program")
free_bound_bytes(streaming_of(skip, capacity_bytes=16), time_limit_s=9.0)
print(*sorted(asked))
"""


def output_of(program):
    """Both streams of a process of its own, whose standard output is a pipe."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_what_a_solver_prints_goes_nowhere_and_the_rest_comes_out():
    stdout, stderr = output_of(PRINTED + CALLED)
    assert sorted(stdout.splitlines()) == ["C after", "C before", "five", "four", "one", "three", "two"]
    assert [line for line in stdout.splitlines() if not line.startswith("C ")] == [
        "one", "two", "three", "four", "five",
    ]  # fmt: skip
    assert stderr == ""


def test_no_call_of_the_scheduler_lets_a_solver_print():
    stdout, stderr = output_of("import sys" + ASKED)
    assert stdout.splitlines() == ["gap_model gap_program integer_program orders"]
    assert stderr == ""


def test_where_c_cannot_be_told_to_write_elsewhere_the_known_line_is_left_out(capfd):
    stray = b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();\n"
    with quiet._held_back():
        os.write(1, b"one\n" + stray + b"two\n" + stray)
    os.write(1, b"three\n")
    assert capfd.readouterr().out == "one\ntwo\nthree\n"
