"""Campaign files become spaces, objectives and evaluators."""

import pytest

from studies.campaigns.problem import load_problem_file, problem_of
from studies.config import ConfigError


def test_a_file_of_a_program_becomes_a_problem(program_file, tmp_path):
    text = program_file.read_text() + (
        '\n[[outcome_constraints]]\nname = "heat"\nat_most = 20\n\n'
        '[[objectives]]\nname = "speed"\ngoal = "max"\nthreshold = 3\ntransform = "log"\n'
    )
    program_file.write_text(text)
    problem = problem_of(load_problem_file(program_file), program_file, tmp_path / "run")
    assert problem.space.names == ("rows", "columns", "flow", "depth", "rate", "loops")
    time, area, speed = problem.objectives
    assert (time.minimize, time.unit, time.known) == (True, "s", None)
    assert area.known({"rows": 4, "columns": 8}) == 64.0
    assert (speed.minimize, speed.threshold, speed.transform) == (False, 3.0, "log")
    assert [(each.name, each.at_most) for each in problem.outcomes] == [("heat", 20.0)]
    # What the program must write: neither known objectives nor anything twice.
    assert list(problem.evaluator.outputs) == ["time", "speed", "heat"]
    assert problem.evaluator.command[1] == str(program_file.parent / "simulate.py")
    design = {"rows": 32, "columns": 32, "flow": "os", "rate": 0.5, "loops": ("m", "k")}
    assert (
        problem.space.why_infeasible(design) == "rows * columns <= 512 is broken by columns = 32, rows = 32"
    )
    assert problem.space.why_infeasible(design | {"rows": 16}) is None
    assert "budget" not in problem.identity


def test_the_program_is_called_with_the_design(program_file, tmp_path):
    problem = problem_of(load_problem_file(program_file), program_file, tmp_path / "run")
    design = {"rows": 4, "columns": 8, "flow": "ws", "depth": 5, "rate": 0.5, "loops": ("k", "m")}
    found = problem.evaluator(design)
    assert found.values == {"time": pytest.approx(1e4 / 32 * 1.5)}
    assert found.metrics["note"] == "measured"


def test_a_file_of_a_table_becomes_a_problem(table_file, tmp_path):
    path = tmp_path / "table.toml"
    path.write_text(
        'constraints = ["knob_size <= 8"]\n[table]\nfile = "designs.csv"\nfeatures = ["estimate"]\n'
        'valid = "valid"\n[[objectives]]\nname = "time"\n[[objectives]]\nname = "area"\n'
    )
    problem = problem_of(load_problem_file(path), path, tmp_path / "run")
    assert problem.space.is_table
    assert len(list(problem.space.designs())) == 48  # of 60 rows, those of four sizes in five
    assert problem.space.encode(list(problem.space.designs())[:1]).names[-1] == "estimate"
    assert problem.evaluator({"knob_size": 4, "knob_depth": 2, "knob_mode": "NA"}) == {
        "time": 30.0,
        "area": 70.0,
    }
    assert str(table_file) not in str(problem.identity)
    path.write_text(path.read_text().replace("knob_size <= 8", "knob_size < 0"))
    with pytest.raises(ConfigError, match=r"table\.toml: the constraints must leave a feasible design"):
        problem_of(load_problem_file(path), path, tmp_path / "run")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ('[[outcome_constraints]]\nname = "heat"\n', "heat must have at_most or at_least, got neither"),
        ('[[outcome_constraints]]\nname = "heat"\nat_most = 1\nat_least = 0\n', "got both"),
        ('[[objectives]]\nname = "rows"\n', "names must be distinct, got 'rows' twice"),
    ],
)
def test_what_does_not_go_together_is_named(program_file, extra, message):
    program_file.write_text(program_file.read_text() + "\n" + extra)
    with pytest.raises(ConfigError, match=message):
        load_problem_file(program_file)
