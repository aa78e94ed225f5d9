"""Reading the constants in ``accel/data``."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def load(name: str) -> dict[str, Any]:
    """Read ``accel/data/<name>.toml`` once; callers must not change it."""
    return tomllib.loads((files("accel") / "data" / f"{name}.toml").read_text(encoding="utf-8"))
