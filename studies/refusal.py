"""How a command refuses: one line per error on standard error, exit code 2, no traceback."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from studies.files import check_writable


def refuse(message: str) -> NoReturn:
    """End with one line per error and exit code 2, as for a wrong option."""
    for line in message.splitlines():
        click.echo(f"error: {line}", err=True)
    sys.exit(2)


def check_folder(path: Path | None) -> None:
    """Refuse a file that cannot be written, before long work."""
    if path is None:
        return
    try:
        if not path.parent.is_dir():
            refuse(f"{path}: there is no folder {path.parent}")
        check_writable(path)
    except OSError as error:
        refuse(f"{path}: cannot be written: {error.strerror or error}")
