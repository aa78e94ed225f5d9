"""The page of a finished campaign, its figures, and its tables as Markdown."""

import re
from dataclasses import replace
from itertools import product
from math import inf, log10

import numpy as np
import pytest

from studies.codesign import figures
from studies.codesign.recommend import recommended
from studies.codesign.report import write_report
from studies.codesign.savings import savings_of
from studies.codesign.sensitivity import sensitivity_of


@pytest.fixture(scope="module")
def designs(found):
    return recommended(found)


@pytest.fixture(scope="module")
def pages(found, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    tables = write_report(found, path)
    assert tables == path.with_suffix(".md")
    return path.read_text(), tables.read_text()


def section_of(text, heading):
    return text.split(f"## {heading}\n")[1].split("## ")[0]


def cells_of(text, first):
    """Cells of the row of the designs' table that begins with a cell."""
    text = section_of(text, "Three designs")
    rows = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    assert len(rows) == 1
    return [cell.strip() for cell in rows[0].split("|")[2:-1]]


def test_the_tables_have_every_parameter_of_the_three_designs(found, designs, pages):
    assert len(designs) == 3
    for name in found.space.names:
        assert cells_of(pages[1], f"`{name}`") == [str(design.parameters[name]) for design in designs]


def test_every_table_has_as_many_cells_in_a_row_as_in_its_head(pages):
    tables = [block for block in pages[1].split("\n\n") if block.startswith("|")]
    assert len(tables) == 4  # front, designs, savings, sensitivity
    for table in tables:
        assert len({line.count("|") for line in table.strip().splitlines()}) == 1


def test_the_front_of_the_tables_is_that_of_brute_force(found, pages):
    done = found.done
    costs = list(zip(done["id"], done["training_loss"], done["energy_pj"], strict=True))
    best = {
        trial
        for trial, loss, energy in costs
        if not any(a <= loss and b <= energy and (a, b) != (loss, energy) for _, a, b in costs)
    }
    section = section_of(pages[1], "The front")
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]
    assert {int(row) for row in rows if row.isdigit()} == best


def test_the_saving_of_the_tables_adds_up(pages):
    section = section_of(pages[1], "Where the saving comes from")
    ends = [float(number) for number in re.findall(r"([\d.]+) uJ", section)]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| ") and " to " in line]
    assert len(ends) == 2
    assert len(rows) == 4
    assert sum(float(row[2]) for row in rows) == pytest.approx(ends[0] - ends[1], abs=0.03)
    assert sum(float(row[3]) for row in rows) == pytest.approx(100, abs=0.3)


def test_the_page_says_whether_a_design_is_on_the_front(found, designs, pages):
    on_front = set(found.front["id"])
    for design, cell in zip(designs, cells_of(pages[1], "trial"), strict=True):
        assert (cell == f"{design.row['id']}, on the front") == (design.row["id"] in on_front)
        assert f"{design.row['id']}, " in pages[0]


def test_bars_of_the_saving_hang_together_and_end_at_the_design(found, designs):
    savings = savings_of(found.pricing, designs[0].parameters, found.pricing.full_precision()[0])
    bar = figures.waterfall(savings).data[0]
    assert bar.y[0] == pytest.approx(savings.start_pj / 1e6)
    assert bar.y[-1] == pytest.approx(savings.end_pj / 1e6)
    level = bar.y[0]
    for factor, base, height in zip(bar.x[1:-1], bar.base[1:-1], bar.y[1:-1], strict=True):
        below = level - savings.saved_pj[factor] / 1e6
        assert base == pytest.approx(min(level, below), abs=1e-9)
        assert base + height == pytest.approx(max(level, below))
        level = below
    assert level == pytest.approx(bar.y[-1])


def test_designs_that_are_far_worse_are_drawn_at_the_edge(found):
    losses = 1.0 + 0.01 * np.arange(len(found.done))
    losses[-1] = 1e9
    evaluations = found.evaluations.copy()
    evaluations.loc[evaluations["state"] == "done", "training_loss"] = losses
    broken = replace(found, evaluations=evaluations)
    assert 1.2 < figures.upper_fence(broken, "training_loss") < 2.0
    shown = [
        y
        for trace in figures.front(broken, height="training_loss").data
        if trace.mode == "markers"
        for y in trace.y
    ]
    assert len(shown) == len(losses)
    assert max(shown) == pytest.approx(figures.upper_fence(broken, "training_loss"))


def test_accuracies_have_no_edge(found):
    assert figures.upper_fence(found, "metric") == inf


def test_the_three_designs_have_rings_and_bars(found, designs):
    figure = figures.front(found, rings=designs)
    rings = {trace.name: trace for trace in figure.data if trace.name in {d.title for d in designs}}
    for design in designs:
        assert rings[design.title].x[0] == pytest.approx(design.row["energy_pj"] / 1e6)
    labels = " ".join(figures.breakdown(found, designs).data[0].y)
    assert all(f"(#{design.row['id']})" in labels for design in designs)


def test_labels_that_would_overlap_are_joined():
    assert figures.joined_labels(["a", "b", "c"], [0.0, 0.01, 0.5], 0.01) == [(0.005, "a, b"), (0.5, "c")]
    assert figures.joined_labels(["a", "b"], [0.0, 0.5], 0.01) == [(0.0, "a"), (0.5, "b")]
    # "b, cccccccc" reaches back to "a", which "b" alone did not
    chain = figures.joined_labels(["a", "b", "cccccccc"], [0.0, 0.021, 0.05], 0.01)
    assert chain == [(0.025, "a, b, cccccccc")]


def staircase(points, corner):
    """Area between a corner and the points below it, strip by strip."""
    area, ceiling = 0.0, corner[1]
    for x, y in sorted(points):
        if x < corner[0] and y < ceiling:
            area += (corner[0] - x) * (ceiling - y)
            ceiling = y
    return area


def test_what_pinning_loses_is_what_it_loses_over_the_whole_space(found, loss_of):
    """All designs of the space, with the formula's loss, against the page's two-step neighbours."""
    whole = {}
    for values in product(*(parameter.values() for parameter in found.space.parameters)):
        if found.space.is_feasible(values):
            parameters = found.space.parameters_of(values)
            energy = found.pricing.cost(parameters).total_energy_pj
            whole[values] = (log10(loss_of(parameters)), log10(energy))
    corner = (log10(2.302585), max(energy for _, energy in whole.values()))
    best = staircase(whole.values(), corner)
    shown = sensitivity_of(found)
    for name, lost in shown.lost.items():
        place = found.space.names.index(name)
        for value, share in lost.items():
            pinned = [point for design, point in whole.items() if design[place] == value]
            assert share == pytest.approx(1 - staircase(pinned, corner) / best, abs=0.05), (name, value)
