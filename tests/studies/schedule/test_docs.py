"""What the guide to schedules shows works as written."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from studies.cli import main

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "schedule.md").read_text()
COMMANDS = [line for line in TEXT.splitlines() if line.startswith("bitfront schedule")]


def test_the_python_example_runs():
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    names = {}
    exec(compile(block, "docs/schedule.md", "exec"), names)
    assert names["least"] == 982144
    assert names["plan"].status == "OPTIMAL"
    assert names["curve"] == sorted(names["curve"], reverse=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output
    assert "OPTIMAL" in result.stdout


def test_every_option_of_the_guide_exists():
    shown = set(re.findall(r"(--[a-z][a-z-]*)", TEXT))
    helped = set(re.findall(r"(--[a-z][a-z-]*)", CliRunner().invoke(main, ["schedule", "--help"]).stdout))
    assert shown <= helped
