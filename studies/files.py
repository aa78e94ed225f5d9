"""Files written at once or not at all."""

from __future__ import annotations

from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`: what was there stays until all of it is written.

    A device, a pipe or a link, such as ``/dev/stdout``, is written through; only a file can be replaced.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        with path.open("w", encoding="utf-8") as stream:
            stream.write(text)
        return
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
