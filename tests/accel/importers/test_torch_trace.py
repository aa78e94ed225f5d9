"""What an export lets through to the terminal."""

from __future__ import annotations

import sys

import pytest
import torch

from accel.accumulations import NetworkError
from accel.importers.torch_export import from_torch


class BranchOnData(torch.nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


class Talks(torch.nn.Module):
    def forward(self, x):
        sys.stderr.write("traced\n")
        return x * 2


def test_an_export_that_fails_writes_nothing(capfd):
    with pytest.raises(NetworkError, match="cannot be exported"):
        from_torch(BranchOnData(), torch.ones(1, 8), name="branch")
    assert capfd.readouterr() == ("", "")


def test_what_a_module_writes_itself_comes_out(capfd):
    from_torch(Talks(), torch.ones(1, 8), name="talks")
    assert "traced" in capfd.readouterr().err
