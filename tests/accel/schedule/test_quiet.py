"""What a command writes comes out, and in its order, whatever the solver writes between."""

from __future__ import annotations

import os

from accel.schedule._solvers.quiet import without_stray_lines


def test_standard_output_keeps_all_but_the_line_of_the_solver(capfd):
    stray = b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();\n"
    with without_stray_lines():
        os.write(1, b"one\n" + stray + b"two\n" + stray)
    os.write(1, b"three\n")
    assert capfd.readouterr().out == "one\ntwo\nthree\n"
