"""Files written at once or not at all, and known beforehand to be writable."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import copymode
from tempfile import TemporaryFile

_LONGEST_NAME_BYTES = 200  # of a part file's name, before what makes it unlike others


def check_writable(path: Path) -> None:
    """Raise the error that `write_text` would, as far as one can know without writing.

    Leaves no trace: a file that is not there is made and taken away again.

    Raises
    ------
    OSError
        There is no such folder, or no right to write, or the name is too long.
    """
    if path.is_symlink() and not path.exists():
        path = path.resolve()  # what a dangling link names is made
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(13, "Permission denied", str(path))
    if _is_written_through(path):
        if path.is_dir():
            raise IsADirectoryError(21, "Is a directory", str(path))
        return
    if path.exists():
        with TemporaryFile(dir=path.parent):  # where its successor will be made
            return
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`: what was there stays until all of it is written.

    A device, a pipe or a link, such as ``/dev/stdout``, is written through; only a file can be replaced.
    The new one has the permissions of the old.

    Raises
    ------
    OSError
        It cannot be written; a file that was there is as before.
    """
    if _is_written_through(path):
        with path.open("w", encoding="utf-8") as stream:
            stream.write(text)
        return
    name = os.fsencode(path.name)[:_LONGEST_NAME_BYTES]
    part = path.with_name(f"{os.fsdecode(name)}.{os.getpid()}.part")
    stream = part.open("x", encoding="utf-8")
    try:
        with stream:
            stream.write(text)
        if path.exists():
            copymode(path, part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _is_written_through(path: Path) -> bool:
    return path.is_symlink() or (path.exists() and not path.is_file())
