"""Results that are worth keeping beyond a run: small JSON files by the hash of what they follow from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from studies.files import write_text

#: Environment variable that names another folder; empty keeps nothing.
VARIABLE = "BITFRONT_CACHE"


def cache_folder() -> Path | None:
    """Folder of kept results: that of the variable, or the user's cache; ``None`` keeps nothing."""
    if (named := os.environ.get(VARIABLE)) is not None:
        return Path(named).expanduser() if named else None
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "bitfront"


class Kept:
    """One kind of result on disk.

    Parameters
    ----------
    folder
        ``None`` keeps nothing.
    kind
        Name of the subfolder.

    Attributes
    ----------
    problem
        Why a result could not be written; the results are right without.
    """

    def __init__(self, folder: Path | None, kind: str) -> None:
        self._folder = None if folder is None else folder / kind
        self.problem: str | None = None

    def read(self, key: Mapping[str, Any]) -> Any:
        """What was written for a key, JSON values; ``None`` if nothing was, or it is damaged."""
        if (path := self._path(key)) is None:
            return None
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            return stored["value"] if stored["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # is made anew, and overwritten

    def write(self, key: Mapping[str, Any], value: Any) -> None:
        """Keep a value; where that is impossible, `problem` says why."""
        if (path := self._path(key)) is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps({"key": dict(key), "value": value}))
        except OSError as error:
            self.problem = f"{path}: {error.strerror or error}"

    def _path(self, key: Mapping[str, Any]) -> Path | None:
        if self._folder is None:
            return None
        name = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.json"
