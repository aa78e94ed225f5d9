"""The doctor tells what is installed and warns of packages in the way."""

import subprocess
import sys
import time
from pathlib import Path

from click.testing import CliRunner

from studies import doctor
from studies.cli import main


def test_doctor_prints_versions_cores_vectors_and_threading():
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0
    for name in ("bitfront", "torch", "numba", "cores", "SIMD", "threading layer"):
        assert name in result.output
    assert "bit (" in doctor.simd_width()


def test_another_owner_of_an_import_name_is_named():
    home = Path("site")
    lines = doctor.warnings(
        owners={"accel": ["bitfront", "accel-py"], "studies": ["bitfront"]},
        locations=dict.fromkeys(doctor.NAMES, home),
    )
    assert len(lines) == 1
    assert "'accel' also belongs to accel-py" in lines[0]


def test_a_name_imported_from_elsewhere_is_named():
    locations = dict.fromkeys(doctor.NAMES, Path("ours")) | {"dse": Path("theirs")}
    assert doctor.warnings(owners={}, locations=locations) == [
        "'dse' is imported from theirs, not from ours like the rest"
    ]


def test_this_installation_has_nothing_in_the_way():
    assert doctor.warnings() == []


def test_help_answers_in_under_a_second_without_heavy_imports():
    code = (
        "import sys, studies.cli\n"
        "heavy = {'torch', 'numba', 'pandas', 'numpy', 'pydantic', 'rich', 'botorch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "studies.cli", "--help"], check=True, capture_output=True, text=True
        )
        times.append(time.perf_counter() - begin)
    assert min(times) < 1.0
