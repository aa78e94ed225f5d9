"""Results of outside programs as files: complete, or not there."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from dse.space import Value
from dse.trial import Json


@dataclass(frozen=True, slots=True)
class Result:
    """What a program measured for one design, and how it was called."""

    key: str
    command: list[str]
    versions: Json
    parameters: dict[str, Value]
    measured: dict[str, Json]
    seconds: float


def find(path: Path, key: str) -> Result | None:
    """Result in a file, or ``None`` where there is none; a damaged file is none."""
    try:
        result = Result(**json.loads(path.read_bytes()))
        usable = result.key == key and isinstance(result.measured, dict) and result.seconds >= 0
    except (OSError, TypeError, ValueError):
        return None
    return result if usable else None


def keep(result: Result, path: Path) -> None:
    """Write beside the file, then rename: whoever reads finds all of it or nothing."""
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(result), file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(part).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(part).unlink()
        raise
