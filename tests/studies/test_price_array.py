"""The shipped campaign of an outside program: its file is legal, and the program prices a design."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import studies
from studies.campaigns.problem import load_problem_file, problem_of

CONFIG = Path(studies.__file__).parent / "configs" / "gemm-array.toml"


def test_the_program_answers_what_the_campaign_asks(tmp_path):
    design = {"rows": 16, "columns": 16, "dataflow": "ws", "scratchpad_kib": 64}
    (tmp_path / "design.json").write_text(json.dumps(design))
    files = [str(tmp_path / "design.json"), str(tmp_path / "metrics.json")]
    subprocess.run([sys.executable, "-m", "studies.price_array", *files], check=True)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    config = load_problem_file(CONFIG)
    assert sorted(metrics) == sorted(objective.name for objective in config.objectives)
    # 4.1e9 multiply-accumulates on 256 cells at 500 MHz take 32 ms at least.
    assert 32 < metrics["time_ms"] < 100
    assert set(design) == {parameter.name for parameter in config.parameters}


def test_the_command_runs_in_this_interpreter(tmp_path):
    problem = problem_of(load_problem_file(CONFIG), CONFIG, tmp_path)
    assert problem.evaluator.command[0] == sys.executable
    assert problem.space.why_infeasible({"rows": 128, "columns": 64, "dataflow": "os", "scratchpad_kib": 64})
