"""Studies: where numerics, accelerators and search meet; training, campaigns, reports, the command line.

`Task`, `Study` and `train` are loaded when they are first asked for, since they need PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.precision.api import train
    from studies.precision.study import Study
    from studies.tasks import Task

__all__ = ["Study", "Task", "train"]

_HOMES = {"Study": "studies.precision.study", "Task": "studies.tasks", "train": "studies.precision.api"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
