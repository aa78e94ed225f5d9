"""The wheel holds the four packages and nothing else, and works where it is installed."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    code = "import sys\nfrom hatchling.build import build_wheel\nprint(build_wheel(sys.argv[1]))\n"
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, check=True, capture_output=True)
    (found,) = folder.glob("bitfront-*.whl")
    return found


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    packages = {top for top in tops if not top.endswith(".dist-info")}
    assert packages == {"numerics", "accel", "dse", "studies"}
    for package in packages:
        assert f"{package}/py.typed" in names
    assert "accel/data/sram.toml" in names
    assert "studies/configs/digits.toml" in names
    assert "studies/templates/base.html.j2" in names
    assert not [name for name in names if name.endswith((".pyc", ".nbi", ".nbc"))]


def test_the_installed_wheel_answers_with_its_version(wheel, tmp_path):
    home = tmp_path / "fresh"
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", str(wheel)],
        check=True,
        capture_output=True,
    )
    # The dependencies come from the environment of the tests: a path file lends them, and comes after
    # the fresh environment's own packages. Path files in there (editable installs) are not followed.
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    Path(purelib, "lent.pth").write_text(sysconfig.get_path("purelib"))
    command = python.parent / "bitfront"
    version = subprocess.run([command, "--version"], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert version.stdout.startswith("bitfront, version 0.")
    where = subprocess.run(
        [python, "-c", "import studies, accel; print(studies.__file__, accel.__file__)"],
        check=True, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert where.stdout.count(str(home)) == 2
