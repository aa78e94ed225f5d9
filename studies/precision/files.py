"""Files that are whole at every moment, whenever the process is killed."""

from __future__ import annotations

import os
from pathlib import Path


class FolderError(Exception):
    """A run folder or a file in it that cannot be used; the message is one line."""


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file in one step that survives a power cut: a reader sees the old one or the new one."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    if os.name == "posix":  # the new name, too, must reach the disk
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
