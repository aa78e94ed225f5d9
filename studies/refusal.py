"""How a command refuses: one line per error on standard error, exit code 2, no traceback."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click


def refuse(message: str) -> NoReturn:
    """End with one line per error and exit code 2, as for a wrong option."""
    for line in message.splitlines():
        click.echo(f"error: {line}", err=True)
    sys.exit(2)


def check_folder(path: Path | None) -> None:
    """Refuse a file that cannot be written, before long work."""
    if path is None:
        return
    if not path.parent.is_dir():
        refuse(f"{path}: there is no folder {path.parent}")
    target = path if path.exists() and not path.is_file() else path.parent
    if path.is_dir() or not os.access(target, os.W_OK):
        refuse(f"{path}: cannot be written")
