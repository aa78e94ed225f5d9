"""Tables and texts on terminals of any width: no word and no number is split."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from studies.console import paragraph, plain_table, section

NAMES = ("features.denseblock4.denselayer16.norm1", "features.denseblock4.denselayer15.norm1")


def printed(show, width, *, is_terminal=True):
    stream = io.StringIO()
    show(Console(file=stream, width=width, force_terminal=is_terminal, color_system=None))
    return stream.getvalue().splitlines()


def table(names=("conv", "add")):
    found = plain_table("tensor", "non-compulsory bytes", "", "fetched again before", text=(0, 3))
    for name in names:
        found.add_row(name, "44,746,496", "44.7 MB", "add_3, add_4, add_5")
    return found


@pytest.mark.parametrize("width", [20, 40, 55, 80, 160])
def test_a_table_splits_neither_words_nor_numbers(width):
    lines = printed(lambda out: section(out, "traffic", table()), width)
    words = {word for line in lines for word in line.split()}
    assert words == {
        "traffic", "tensor", "bytes", "fetched", "again", "before", "conv", "add", "MB",
        "non-compulsory", "44,746,496", "44.7", "add_3,", "add_4,", "add_5",
    }  # fmt: skip
    assert sum("44,746,496  44.7 MB" in line for line in lines) == 2
    if width >= 55:
        assert max(map(len, lines)) <= width


def test_a_table_takes_no_more_room_than_it_needs():
    lines = printed(lambda out: section(out, "", table()), 160)
    assert max(map(len, lines)) == 6 + 2 + 20 + 2 + 7 + 2 + 20


def test_long_names_lose_their_middle_and_stay_different():
    lines = printed(lambda out: section(out, "", table(NAMES)), 60)
    assert max(map(len, lines)) <= 60
    names = [line.split()[0] for line in lines if "44,746,496" in line]
    assert len(set(names)) == 2
    for name, whole in zip(names, NAMES, strict=True):
        head, _, tail = name.partition("…")
        assert min(len(head), len(tail)) >= 5
        assert whole.startswith(head)
        assert whole.endswith(tail)


def test_a_file_has_whole_names():
    lines = printed(lambda out: section(out, "", table(NAMES)), 60, is_terminal=False)
    assert [line.split()[0] for line in lines if "44,746,496" in line] == list(NAMES)


def test_the_style_of_a_row_stays():
    found = table()
    found.add_row("all", "1", "1 B", "", style="bold")
    stream = io.StringIO()
    section(Console(file=stream, width=60, force_terminal=True, color_system="standard"), "", found)
    assert "\x1b[1mall" in stream.getvalue()


def test_a_text_breaks_between_words_and_not_in_a_file():
    text = "working-set minimum M_R 1,605,632 bytes, of features.denseblock4.cat_6; peak minimum"
    assert printed(lambda out: paragraph(out, text), 30) == [
        "working-set minimum M_R",
        "1,605,632 bytes, of",
        "features.denseblock4.cat_6;",
        "peak minimum",
    ]
    assert "features.denseblock4.cat_6;" in printed(lambda out: paragraph(out, text), 10)
    assert printed(lambda out: paragraph(out, text), 30, is_terminal=False) == [text]
