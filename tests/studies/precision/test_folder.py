"""A run folder is that of one study, of one process at a time, and is never overwritten unasked."""

import subprocess
import sys
import tomllib

import pytest
import tomli_w

from studies.precision.files import FolderError
from studies.precision.folder import StudyFolder

STUDY = {
    "seeds": [0, 1],
    "steps": 10,
    "task": {"name": "digits-mlp"},
    "optimizer": {"kind": "sgd", "learning_rate": 0.1},
    "policies": [{"name": "a", "preset": "wang2018"}, {"name": "b", "preset": "bf16"}],
}


def opened(path, settings=STUDY, **options):
    with StudyFolder(path, settings, **options):
        pass


def content(path):
    return {str(entry.relative_to(path)): entry.read_bytes() for entry in path.rglob("*") if entry.is_file()}


def refuse(path, settings=STUDY, **options):
    before = content(path) if path.is_dir() else None
    with pytest.raises(FolderError) as caught:
        opened(path, settings, **options)
    after = content(path) if path.is_dir() else None
    if before is not None:
        before.pop("study.lock", None)
        after.pop("study.lock", None)
    assert after == before  # nothing is changed
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "runs" / "study"
    opened(path)
    (path / "runs").mkdir()
    (path / "runs" / "outcome.json").write_text("{}")
    (path / "table.csv").write_text("policy\n")
    return path


def test_a_new_folder_gets_the_settings(folder):
    assert tomllib.loads((folder / "config.toml").read_text()) == STUDY


def test_an_empty_folder_may_be_taken(tmp_path):
    opened(tmp_path)
    assert (tmp_path / "config.toml").exists()


def test_the_same_study_goes_on(folder):
    before = content(folder)
    opened(folder)
    assert content(folder) == before


@pytest.mark.parametrize(
    "more",
    [
        {"seeds": [0, 1, 2]},
        {"policies": [*STUDY["policies"], {"name": "c", "preset": "int8"}]},
    ],
)
def test_seeds_and_policies_may_be_added_at_the_end(folder, more):
    opened(folder, {**STUDY, **more})
    assert tomllib.loads((folder / "config.toml").read_text()) == {**STUDY, **more}
    assert (folder / "runs" / "outcome.json").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": 11}, "steps: 10 in the store, 11 now"),
        (
            {"optimizer": {"kind": "sgd", "learning_rate": 0.2}},
            "optimizer.learning_rate: 0.1 in the store, 0.2 now",
        ),
        ({"seeds": [0]}, "seeds[1]: 1 in the store, absent now"),
        ({"seeds": [1, 0]}, "seeds[0]: 0 in the store, 1 now"),
        (
            {"policies": STUDY["policies"][1:]},
            "policies[1]: {'name': 'b', 'preset': 'bf16'} in the store, absent now",
        ),
        ({"policies": STUDY["policies"][::-1]}, "policies[0].name: 'a' in the store, 'b' now"),
        ({"batch": 5}, "batch: absent in the store, 5 now"),
    ],
)
def test_another_study_is_refused_by_the_first_key_that_differs(folder, change, named):
    message = refuse(folder, {**STUDY, **change})
    assert f"holds another study: {named}" in message
    assert "--force" in message


def test_force_replaces_another_study(folder):
    (folder / "notes.txt").write_text("mine")
    opened(folder, {**STUDY, "steps": 11}, force=True)
    assert tomllib.loads((folder / "config.toml").read_text())["steps"] == 11
    assert not (folder / "runs").exists()
    assert not (folder / "table.csv").exists()
    assert (folder / "notes.txt").read_text() == "mine"


def test_force_keeps_what_the_same_study_has_finished(folder):
    opened(folder, force=True)
    assert (folder / "runs" / "outcome.json").exists()


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_something_else_is_never_taken(tmp_path, force):
    path = tmp_path / "other"
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")
    assert refuse(path, force=force).endswith("holds no study but thesis.tex; give another folder")
    (path / "config.toml").write_text(tomli_w.dumps({"seed": 0, "evaluations": 40}))
    assert "config.toml: is not of a study, it has no seeds" in refuse(path, force=force)
    (path / "config.toml").write_text("seeds = = 1")
    assert "config.toml: is no TOML" in refuse(path, force=force)


def test_a_file_is_no_folder(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    assert refuse(path).endswith("is no folder")


def test_a_folder_in_use_says_by_whom(tmp_path):
    path = tmp_path / "study"
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom studies.precision.folder import StudyFolder\n"
        f"with StudyFolder(Path({str(path)!r}), {STUDY!r}):\n"
        "    print('open', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(FolderError, match=f"is in use by process {other.pid}"):
            opened(path)
        other.kill()
    opened(path)  # a killed process leaves no lock
