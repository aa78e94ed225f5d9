"""Plain tables on the terminal and in log files."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

_WIDE = 160  # of a log file, which does not wrap


def new_console() -> Console:
    """Standard output, wide enough where it is a file."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console


def section(out: Console, title: str, table: Table) -> None:
    """Print a table under its title, if that is not empty."""
    out.print()
    if title:
        out.print(title, style="bold")
    out.print(table)


def plain_table(*columns: str, text: Iterable[int] = (0,)) -> Table:
    """Table without lines; columns of numbers, all but those at the places `text`, are on the right."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    left = set(text)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place in left else "right", overflow="fold")
    return table


def count(number: int, noun: str) -> str:
    """Number and noun, with an s where there are several.

    Examples
    --------
    >>> count(1, "operator"), count(2, "operator")
    ('1 operator', '2 operators')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
