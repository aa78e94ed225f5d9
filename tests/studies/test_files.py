"""Output files: whole or as before, and refused before the work where they cannot be written."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from studies.files import check_writable, write_text
from studies.refusal import check_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_keeps_its_permissions(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text("before")
    path.chmod(0o640)
    check_writable(path)
    write_text(path, "after")
    assert path.read_text() == "after"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(tmp_path) == ["plan.json"]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text("before")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "after \ud800")
    assert path.read_text() == "before"
    assert names(tmp_path) == ["plan.json"]


def test_the_part_of_another_writer_is_left_alone(tmp_path):
    part = tmp_path / f"plan.json.{os.getpid()}.part"
    part.write_text("of another")
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "plan.json", "after")
    assert part.read_text() == "of another"


def test_a_check_leaves_no_trace(tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("before")
    for name in ("new", "kept"):
        check_writable(tmp_path / name)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing yet")
    check_writable(tmp_path / "dangling")
    assert names(tmp_path) == ["dangling", "kept"]
    assert kept.read_text() == "before"


def test_the_longest_name_is_written(tmp_path):
    path = tmp_path / ("a" * 255)
    check_writable(path)
    write_text(path, "text")
    assert path.read_text() == "text"


def test_a_link_is_written_through(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    link.symlink_to(real)
    for text in ("first", "second"):
        check_writable(link)
        write_text(link, text)
        assert (link.is_symlink(), real.read_text()) == (True, text)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("a" * 256, errno.ENAMETOOLONG),
        ("file/plan.json", errno.ENOTDIR),
        ("nowhere", errno.ENOENT),  # a link into a folder that is not there
        ("folder", errno.EISDIR),
    ],
)
def test_what_cannot_be_written_is_told_beforehand(tmp_path, name, code):
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent" / "plan.json")
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        check_writable(tmp_path / name)
    assert caught.value.errno == code


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_is_told_beforehand(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        check_writable(tmp_path / "plan.json")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that even root cannot write to")
def test_a_file_system_that_takes_no_files_is_told_in_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        check_folder(Path("/proc/plan.json"))
    assert caught.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: /proc/plan.json: cannot be written: ")
