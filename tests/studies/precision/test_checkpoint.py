"""A checkpoint reads back as it was, or says in one line what is wrong with it."""

import pickle
import re

import pytest
import torch

from studies.precision import checkpoint
from studies.precision.files import FolderError

IDENTITY = {"seed": 3, "steps": 10, "optimizer": {"kind": "sgd", "learning_rate": 0.1}}
STATE = {
    "step": 4,
    "network": {"weight": torch.arange(6.0).reshape(2, 3)},
    "emulation": {"fc": {"training": 7, "history": {"weight": [1.5, 2.5]}}},
    "taken": {"loss": [2.5, float("nan")]},
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, IDENTITY, STATE)
    return path


def refuse(path, identity=IDENTITY):
    with pytest.raises(FolderError) as caught:
        checkpoint.load(path, identity)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_what_was_saved_is_loaded(path):
    state = checkpoint.load(path, IDENTITY)
    assert state["step"] == 4
    assert torch.equal(state["network"]["weight"], STATE["network"]["weight"])
    assert state["emulation"] == STATE["emulation"]
    assert repr(state["taken"]) == repr(STATE["taken"])


def test_saving_leaves_one_file(path):
    checkpoint.save(path, IDENTITY, STATE)
    assert [entry.name for entry in path.parent.iterdir()] == ["checkpoint.pt"]


def test_a_kill_while_it_is_written_leaves_the_old_one(path, monkeypatch):
    import os

    def killed(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, IDENTITY, {**STATE, "step": 5})
    monkeypatch.undo()
    assert checkpoint.load(path, IDENTITY)["step"] == 4
    checkpoint.save(path, IDENTITY, {**STATE, "step": 6})  # what was left of the other is no obstacle
    assert checkpoint.load(path, IDENTITY)["step"] == 6


def test_any_byte_that_changed_is_noticed(path):
    whole = path.read_bytes()
    for place in range(0, len(whole), 37):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        assert re.search("is damaged|is no checkpoint", refuse(path))


@pytest.mark.parametrize("keep", [0, 10, 200, -1])
def test_a_file_that_was_cut_off_is_noticed(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    assert re.search("is damaged|is no checkpoint", refuse(path))


def test_another_run_is_named_by_what_differs(path):
    assert refuse(path, {**IDENTITY, "seed": 4}).endswith(
        "is a checkpoint of another run: seed: 3 in the store, 4 now"
    )
    other = {**IDENTITY, "optimizer": {"kind": "sgd", "learning_rate": 0.2}}
    assert "optimizer.learning_rate: 0.1 in the store, 0.2 now" in refuse(path, other)


def test_a_file_of_torch_is_no_checkpoint(path):
    torch.save(STATE, path)
    assert "is no checkpoint" in refuse(path)


def test_code_in_a_checkpoint_is_not_executed(path, tmp_path):
    import hashlib
    import io

    mark = tmp_path / "executed"

    class Trap:
        def __reduce__(self):
            return (open, (str(mark), "w"))

    buffer = io.BytesIO()
    torch.save({"identity": IDENTITY, "state": Trap()}, buffer)
    content = buffer.getvalue()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(io.BytesIO(content), weights_only=True)
    header = path.read_bytes().split(b"sha256=")[0]
    path.write_bytes(header + b"sha256=" + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    assert "is no checkpoint of a run" in refuse(path)
    assert not mark.exists()
