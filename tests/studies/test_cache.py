"""Results by content: read back as they were written, and never in the way."""

import pytest

from studies.cache import VARIABLE, Kept, cache_folder

KEY = {"version": 1, "of": "something"}


def test_what_is_written_is_read_by_the_same_key_alone(tmp_path):
    kept = Kept(tmp_path, "things")
    assert kept.read(KEY) is None
    kept.write(KEY, {"a": [1, 2.5, "x"]})
    assert Kept(tmp_path, "things").read(dict(reversed(KEY.items()))) == {"a": [1, 2.5, "x"]}
    assert kept.read({**KEY, "version": 2}) is None
    assert Kept(tmp_path, "others").read(KEY) is None


def test_without_a_folder_nothing_is_kept():
    kept = Kept(None, "things")
    kept.write(KEY, 1)
    assert kept.read(KEY) is None
    assert kept.problem is None


def test_where_nothing_can_be_written_the_reason_is_told(tmp_path):
    (tmp_path / "things").write_text("a file where a folder should be")
    kept = Kept(tmp_path, "things")
    kept.write(KEY, 1)
    assert str(tmp_path / "things") in kept.problem
    assert kept.read(KEY) is None


@pytest.mark.parametrize(
    ("variable", "xdg", "expected"),
    [
        ("/a/b", None, "/a/b"),
        (None, "/c", "/c/bitfront"),
        (None, None, "~/.cache/bitfront"),
        ("", "/c", None),
    ],
)
def test_the_folder_is_that_of_the_variable_or_of_the_user(monkeypatch, variable, xdg, expected):
    for name, value in ((VARIABLE, variable), ("XDG_CACHE_HOME", xdg)):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", "/home/someone")
    folder = cache_folder()
    assert (None if folder is None else str(folder)) == (expected and expected.replace("~", "/home/someone"))
