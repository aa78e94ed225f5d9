"""The page and its figures: numbers in them are those of the cost."""

import re
from math import log2

import pytest

from accel import COMPONENTS
from studies.cost import figures
from studies.cost.report import write_report
from studies.cost.run import Request, answer
from studies.cost.tables import bounds
from studies.model import Model


@pytest.fixture
def found(design, changed, layers):
    other = changed("other", operand="int8", accumulator="int32", offchip_bytes_per_cycle=1)
    return answer(Request(designs=(design, other), model=Model(text=str(layers), training=True, batch=1)))


def test_the_page_is_whole_and_needs_no_other_file(found, tmp_path):
    path = tmp_path / "cost.html"
    write_report(found, path)
    text = path.read_text()
    assert "What does a training step of two layers cost on chip?" in text
    script = re.compile(r"<script.*?</script>", re.DOTALL)
    body = script.sub("", text)
    assert "src=" not in body
    assert "http" not in body
    for title in (
        "Side by side",
        "Roofline",
        "What the memories move",
        "What each parameter does",
        "All layers",
    ):
        assert title in body
    for operator in found.first.cost.operators:
        assert f">{operator.name}</td>" in body
    assert body.count("<td") > 100
    assert "nan" not in body.lower().replace("nan ", "")


def test_bars_of_layers_and_designs_add_up_to_the_cost(found):
    energies = [priced.cost.total_energy_pj for priced in found.designs]
    for figure in (figures.by_design(found.designs), figures.energy_by_layer(found.designs)):
        axis = "xaxis" if figure.data[0].orientation == "h" else "yaxis"
        joules = 0.0
        for trace in figure.data:
            if trace.hovertemplate.endswith("J<extra></extra>"):
                joules += sum(trace.x if trace.orientation == "h" else trace.y)
        prefix = {"u": 1e-6, "m": 1e-3, "n": 1e-9}[figure.layout[axis].title.text[0]]
        assert joules * prefix == pytest.approx(sum(energies) * 1e-12)


def test_times_of_layers_add_up(found):
    figure = figures.time_by_layer(found.designs)
    prefix = {"u": 1e-6, "m": 1e-3}[figure.layout.yaxis.title.text[0]]
    seconds = sum(sum(trace.y) for trace in figure.data) * prefix
    assert seconds == pytest.approx(sum(priced.cost.seconds for priced in found.designs))


def test_marks_lie_under_their_roof(found):
    figure = figures.roofline(found.designs)
    for priced, (roof, marks) in zip(
        found.designs, zip(figure.data[::2], figure.data[1::2], strict=True), strict=True
    ):
        assert len(marks.x) == sum(bool(operator.macs) for operator in priced.cost.operators)
        for x, y in zip(marks.x, marks.y, strict=True):
            assert y <= min(priced.cost.cells, x * priced.cost.offchip_bytes_per_cycle) * (1 + 1e-9)
        assert max(roof.y) == priced.cost.cells


def test_the_tornado_shows_ratios(found):
    figure = figures.tornado(found.sensitivity)
    clock = [trace for trace in figure.data if trace.name == "half, or one bit fewer"][1]
    assert not any(abs(x) > figures._MOST_RATIO for trace in figure.data for x in trace.x)
    place = [label.startswith("clock_mhz") for label in clock.y].index(True)
    assert clock.x[place] == pytest.approx(log2(2.0))


def test_traffic_is_that_of_the_cost(found):
    figure = figures.traffic(found.designs[:1])
    offchip = [trace for trace in figure.data if trace.xaxis == "x"]
    prefix = {"k": 1e3, "M": 1e6}[figure.layout.yaxis.title.text[0]]
    moved = sum(sum(trace.y) for trace in offchip) * prefix
    assert moved == pytest.approx(found.first.cost.offchip_bytes)


def test_bounds_cover_every_operator_once(found):
    for priced in found.designs:
        rows = bounds(priced.cost)
        assert sum(row.operators for row in rows) == len(priced.cost.operators)
        assert sum(row.macs for row in rows) == priced.cost.macs
        assert sum(row.cycles for row in rows) == priced.cost.cycles
        assert all(row.efficiency is None or 0 < row.efficiency <= 1 + 1e-9 for row in rows)
    # Per off-chip byte, fc1 does at most 73 products; 16 bytes per cycle keep 256 cells busy, 1 does not.
    first, other = ({row.part: row.macs for row in bounds(priced.cost)} for priced in found.designs)
    assert first["array"] >= 256 * 128 * 512
    assert other["offchip"] > 0.9 * found.first.cost.macs


def test_every_component_has_a_colour():
    assert len({figures.COLORS[index] for index in range(len(COMPONENTS))}) == len(COMPONENTS)
