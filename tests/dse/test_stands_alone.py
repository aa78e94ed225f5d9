"""The package works where no other one of the project is installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import dse

PROGRAM = """
import sys
import dse
assert dse.__file__.startswith(sys.argv[1]), dse.__file__
for name in ("numerics", "accel", "studies"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(name)
space = dse.Space([dse.Ordinal("x", range(12)), dse.Real("y", 0.0, 1.0)])
wanted = [dse.Objective("loss"), dse.Objective("size", known=lambda p: p["x"])]
with dse.Campaign(space, wanted, seed=0, initial=4, store=sys.argv[1] + "/c.sqlite") as campaign:
    campaign.run(lambda p: {"loss": (p["y"] - 0.5) ** 2 + 1 / (1 + p["x"])}, budget=7)
    print(len(campaign.pareto()), len(campaign.predict(campaign.frame())[0]))
"""

# Finds everything but the project itself, however and wherever that is installed.
WITHOUT = """
import os, sys
def is_project(finder):
    return "__editable__" in repr(finder)
sys.meta_path = [finder for finder in sys.meta_path if not is_project(finder)]
sys.path = [path for path in sys.path if not os.path.isdir(os.path.join(path, "numerics"))]
sys.path.insert(0, sys.argv[1])
"""


def test_a_campaign_runs_from_a_folder_that_holds_this_package_alone(tmp_path):
    package = Path(dse.__file__).parent
    shutil.copytree(package, tmp_path / "dse", ignore=shutil.ignore_patterns("__pycache__"))
    program = WITHOUT + PROGRAM
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    front, predicted = map(int, done.stdout.split())
    assert 1 <= front <= predicted == 7
