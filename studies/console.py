"""Plain tables on the terminal and in log files."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import fill

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

_WIDE = 160  # of a log file, which does not wrap
_GAP = 2  # blanks between columns
_SHORTEST_NAME = 12  # that a name too long for a terminal is cut to


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
        paragraph(out, title, style="bold")
    out.print(_fitted(table, out.width, may_cut=out.is_terminal), crop=False)


def paragraph(out: Console, text: str, *, style: str | None = None) -> None:
    """Print a text, on a terminal with line breaks between words only; as one line in a file."""
    if out.is_terminal:
        text = fill(text, out.width, break_long_words=False, break_on_hyphens=False)
    out.print(text, style=style, soft_wrap=True)


def plain_table(*columns: str, text: Iterable[int] = (0,)) -> Table:
    """Table without lines; columns of numbers, all but those at the places `text`, are on the right."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    left = set(text)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place in left else "right")
    return table


def _fitted(table: Table, width: int, *, may_cut: bool) -> Table:
    """`table` with columns as wide as their contents, less where that is too wide: never a part of a word.

    Headers and texts break between words; numbers do not, nor from their unit. Where that is not enough,
    long names lose their middle if `may_cut`; the rest is wider than `width`.
    """
    cells = [[str(cell) for cell in (column.header, *column.cells)] for column in table.columns]
    widths = [max(map(cell_len, column)) for column in cells]
    least = [max([0, *(cell_len(word) for cell in column for word in cell.split())]) for column in cells]
    texts = [place for place, column in enumerate(table.columns) if column.justify == "left"]
    for place, column in enumerate(cells):
        if place not in texts:
            least[place] = max([least[place], *map(cell_len, column[1:])])
    room = width - _GAP * (len(widths) - 1)
    _shrink(widths, least, room)
    if may_cut and sum(widths) > room:
        for place in texts:
            least[place] = min(least[place], _SHORTEST_NAME)
        _shrink(widths, least, room)
        for place in texts:
            cells[place] = [_cut(cell, widths[place]) for cell in cells[place]]
    found = plain_table(*(column[0] for column in cells), text=texts)
    for row, *values in zip(table.rows, *(column[1:] for column in cells), strict=True):
        found.add_row(*values, style=row.style)
    for place, at_most in enumerate(widths):
        found.columns[place].width = at_most
    found.width = sum(widths) + _GAP * (len(widths) - 1)
    return found


def _cut(text: str, width: int) -> str:
    """`text` with an ellipsis in the middle of each word that is longer than `width`."""
    words = (
        word if cell_len(word) <= width else f"{word[: (width - 1) // 2]}…{word[len(word) - width // 2 :]}"
        for word in text.split()
    )
    return " ".join(words)


def _shrink(widths: list[int], least: list[int], room: int) -> None:
    """Take from the widest column that is above its least until the sum is `room`."""
    while sum(widths) > room:
        above = [place for place, found in enumerate(widths) if found > least[place]]
        if not above:
            return
        widths[max(above, key=widths.__getitem__)] -= 1


def count(number: int, noun: str) -> str:
    """Number and noun, with an s where there are several.

    Examples
    --------
    >>> count(1, "operator"), count(2, "operator")
    ('1 operator', '2 operators')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
