"""Accuracy of a network under any numerics, predicted before it is trained.

`AccuracyModel` is loaded when it is first asked for; the features need neither PyTorch nor data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.accuracy.features import features_of
    from studies.accuracy.model import AccuracyModel

__all__ = ["AccuracyModel", "features_of"]

_HOMES = {"AccuracyModel": "studies.accuracy.model", "features_of": "studies.accuracy.features"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
