"""A multiply-accumulate cell: its text, its split, its scaling, and what no law covers."""

from dataclasses import replace

import pytest

from accel.hardware.library import DEFAULT, Library
from accel.hardware.mac import Mac, MacParts, mac_area_scale, mac_cost
from accel.hardware.register import register_cost
from numerics.accumulator import Accumulator
from numerics.fused import FusedAdder
from numerics.integer import IntegerAccumulator
from numerics.kulisch import ExactAccumulator
from numerics.widths import exact_sum_bits

PJ_PER_FJ = 1e-3 * 0.52 * (0.9 / 1.1) ** 2

CELLS = (
    "e4m3 x e4m3 + e6m9",
    "e4m3 x e5m2 + e6m9 product=e5m4 chunk=64 outer=e8m23 lanes=4 rounding=stochastic:8",
    "e5m2 x e5m2 + e6m9 chunk=16 order=pairwise rounding=toward-zero",
    "int4 x fp16 + fp32",
    "nvfp4 x nvfp4 + e8m12",
    "mxfp4 x bf16 + fp32",
    "int8 x int8 + int32",
    "int4 x int8 + int12 chunk=64 outer=int32",
    "e4m3 x e4m3 + s20.10 rounding=nearest-even",
    "e4m3 x e4m3 + exact output=e8m23",
    "e4m3 x e4m3 + hopper-fp8 promote=128",
    "mxfp8 x mxfp8 + fused products=16 align_bits=12 output=fp16 rounding=nearest-even",
)

# Areas in um2 on a 7 nm predictive library (Yosys 0.23, ABC, minimum area).
SEVEN = [
    ("int4 x int4 + int16", 18.735),
    ("int8 x int8 + int24", 58.962),
    ("int8 x int8 + int32", 65.61),
    ("e2m1 x e2m1 + e8m23", 116.057),
    ("e4m3 x e4m3 + e8m23", 126.03),
    ("e4m3 x e4m3 + e8m10", 73.571),
    ("e4m3 x e4m3 + e8m5", 57.722),
    ("e5m2 x e5m2 + e6m9", 62.125),
    ("e8m7-flush x e8m7-flush + e8m23", 167.087),
    ("e8m7-flush x e8m7-flush + e8m12", 123.172),
    ("e5m10-flush x e5m10-flush + e5m10", 163.908),
    ("e8m23-flush x e8m23-flush + e8m23", 557.758),
]


@pytest.mark.parametrize("text", CELLS)
@pytest.mark.parametrize("node_nm", [45, 7])
def test_the_parts_add_up_to_the_totals(text, node_nm):
    cost = mac_cost(text, node_nm=node_nm)
    for parts, total in (
        (cost.area_parts_um2, cost.area_um2),
        (cost.energy_parts_pj, cost.energy_pj),
    ):
        values = [value for _, value in parts.items()]
        assert sum(values) == total > 0
        assert all(value >= 0 for value in values)
    assert sum(stage.delay_ns for stage in cost.stages) == cost.delay_ns > 0


@pytest.mark.parametrize("text", CELLS)
def test_text_and_values_agree(text):
    mac = Mac.parse(text)
    assert Mac.parse(str(mac)) == mac
    assert mac_cost(text) == mac_cost(mac) == mac_cost(*mac) == mac_cost(*mac, 45)


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("e4m3xe4m3+e6m9", "e4m3 x e4m3 + e6m9"),
        ("E4M3XE5M2+E6M9 CHUNK=64", "e4m3 x e5m2 + e6m9 chunk=64"),
        ("mxfp4xmxfp4+fp32", "mxfp4 x mxfp4 + e8m23"),
        ("mxfp4xe4m3+fp32", "mxfp4 x e4m3 + e8m23"),
        ("int8xint8+int32", "s7.0 x s7.0 + int32"),
        ("e2m1 block=16 scale=e4m3xnvfp4+bf16", "nvfp4 x nvfp4 + e8m7"),
        ("bf16  x bf16\n+ hopper-fp16", "e8m7 x e8m7 + hopper-fp16"),
    ],
)
def test_spaces_and_capitals_do_not_matter(short, long):
    assert Mac.parse(short) == Mac.parse(long)


def test_each_kind_of_accumulator_is_read():
    kinds = [Accumulator, Accumulator, Accumulator, Accumulator, Accumulator, Accumulator]
    kinds += [IntegerAccumulator] * 3 + [ExactAccumulator, FusedAdder, FusedAdder]
    assert [type(Mac.parse(text).accumulator) for text in CELLS] == kinds


@pytest.mark.parametrize("text", ["e4m3 + e6m9", "e4m3 x e4m3", "e4m3*e4m3+e6m9", "", "mxfp5xmxfp5+e8m23"])
def test_text_of_another_shape_is_refused_with_the_shape(text):
    with pytest.raises(ValueError, match="a MAC is written '<format> x <format> \\+ <accumulator>'"):
        mac_cost(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("e4m3 x e9m3 + e6m9", r"exp_bits must be in 1\.\.8, got 9"),
        ("e4m3 x e4m3 + e6m9 chunk=0", "chunk must be at least 1, got 0"),
        ("fp8 x e4m3 + e6m9", "format must be .*got 'fp8'"),
        ("mxfp4 x mxfp4 + int32", "block formats are summed by a float accumulator or a fused adder"),
        ("nvfp4 x e4m3 + exact output=e8m23", "block formats are summed by"),
        ("int8 x int8 + hopper-fp8", r"a fused adder takes float operands.*got s7\.0 x s7\.0"),
        ("mxint8 x mxint8 + hopper-fp8", "a fused adder takes float operands"),
        ("e4m3 x e4m3 + e6m9 order=pairwise", "order=pairwise needs chunk=<n>"),
    ],
)
def test_what_cannot_be_costed_is_refused_in_one_line(text, says):
    with pytest.raises(ValueError, match=says) as caught:
        mac_cost(text)
    assert "\n" not in str(caught.value)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="a cell is a Mac, its text, or two formats and an accumulator"):
        mac_cost("e4m3", "e4m3")
    with pytest.raises(ValueError, match="cells_per_generator must be a whole number of at least 1, got 0"):
        mac_cost("e4m3 x e4m3 + e6m9", cells_per_generator=0)
    with pytest.raises(ValueError, match="terms must be a whole number of at least 1, got 0"):
        mac_cost("e4m3 x e4m3 + exact output=e8m23", terms=0)
    with pytest.raises(ValueError, match=r"node_nm must be in 7\.\.130"):
        mac_cost("e4m3 x e4m3 + e6m9", node_nm=5)


def test_bits_of_operands_and_of_partial_sums():
    mac = Mac.parse("mxfp4 x nvfp4 + e8m23 chunk=32")
    assert (mac.a_bits, mac.w_bits, mac.accumulator_bits) == (4.25, 4.5, 32)
    assert Mac.parse("int4 x int8 + int20").accumulator_bits == 20
    assert Mac.parse("e4m3 x e4m3 + hopper-fp8").accumulator_bits == 1 + 8 + 13


@pytest.mark.parametrize(("a", "w"), [("e4m3", "e4m3"), ("e5m2", "e5m2"), ("e2m1", "e4m3"), ("e8m7", "e2m3")])
def test_an_exact_accumulator_is_as_wide_as_its_sums_need(a, w):
    mac = Mac.parse(f"{a} x {w} + exact output=e8m23")
    assert mac.accumulator_bits == exact_sum_bits(a, w, 1024)
    assert mac.accumulator_bits_for(4608) == exact_sum_bits(a, w, 4608)
    fixed = mac_cost(f"{a} x {w} + exact output=e8m23", terms=7)
    assert fixed.area_parts_um2.register == pytest.approx(4.522 * exact_sum_bits(a, w, 7))


def test_integers_are_exact_in_the_bits_of_their_products():
    # 1024 products of -128 * -128 = 2**14: up to 2**24, and a sign.
    assert Mac.parse("int8 x int8 + exact output=fp32").accumulator_bits == 8 + 8 + 10 + 1


@pytest.mark.parametrize(("text", "area_um2"), SEVEN)
def test_a_cell_synthesised_at_seven_nanometres_is_predicted(text, area_um2):
    cost = mac_cost(text, node_nm=7)
    assert cost.area_um2 == pytest.approx(area_um2, rel=0.08)
    assert cost.estimated


def test_nodes_scale_area_energy_and_delay():
    at45, at7 = mac_cost("e4m3", "e4m3", "e6m9"), mac_cost("e4m3", "e4m3", "e6m9", 7)
    for part, um2 in at45.area_parts_um2.items():
        factor = 0.0645 if part == "register" else 0.0847
        assert getattr(at7.area_parts_um2, part) == pytest.approx(factor * um2)
    assert at7.energy_pj / at45.energy_pj == pytest.approx(0.1024, rel=1e-3)
    assert at7.delay_ns / at45.delay_ns == pytest.approx(0.493, rel=0.01)
    assert (at45.estimates, at7.estimates) == ((), ("scaled from 45 nm to 7 nm",))


def test_general_scaling_holds_above_45_nm_and_the_correction_grows_below():
    assert mac_area_scale(65) == (1.5, 1.5)
    assert mac_area_scale(45) == (1.0, 1.0)
    logic = [mac_area_scale(node)[0] for node in (7, 10, 14, 16, 20, 32, 45, 65)]
    assert logic == sorted(logic)
    general = dict(zip((10, 16, 32), (0.1, 0.19, 0.46), strict=True))
    excess = [mac_area_scale(node)[0] / factor for node, factor in general.items()]
    assert 0.0847 / 0.059 > excess[0] > excess[1] > excess[2] > 1


def test_pipelining_adds_registers_and_shortens_the_path():
    cell = mac_cost("e4m3 x e4m3 + e6m9")
    assert cell.pipelined(1) == cell
    steps = [stage.delay_ns for stage in cell.stages]
    # Two stages by hand: the cut with the shorter longer half is behind the adder, 22 bits.
    two = cell.pipelined(2)
    assert two.delay_ns == min(max(sum(steps[:cut]), sum(steps[cut:])) for cut in (1, 2, 3))
    assert sum(steps[:3]) == pytest.approx(two.delay_ns)
    window, exp_bits = 14, 6
    bits = window + exp_bits + 2
    assert cell.stages[2].cut_bits == bits == 22
    assert two.area_um2 - cell.area_um2 == pytest.approx(4.522 * bits)
    assert two.energy_pj - cell.energy_pj == pytest.approx(11.35 * bits * PJ_PER_FJ)
    costs = [cell.pipelined(n) for n in (1, 2, 3, 4)]
    assert [c.delay_ns for c in costs] == sorted((c.delay_ns for c in costs), reverse=True)
    assert costs[3].delay_ns == max(steps)
    assert costs[3].estimated
    assert sum(v for _, v in costs[3].area_parts_um2.items()) == costs[3].area_um2


def test_stages_beyond_the_steps_of_a_cell_are_refused():
    with pytest.raises(ValueError, match=r"stages must be in 1\.\.2 for this cell, got 3"):
        mac_cost("int8 x int8 + int32").pipelined(3)
    with pytest.raises(ValueError, match=r"stages must be in 1\.\.4 for this cell, got 0"):
        mac_cost("e4m3 x e4m3 + e6m9").pipelined(0)


def test_a_register_bit_is_that_of_the_cells():
    cell = mac_cost("e4m3 x e4m3 + e6m9")
    assert cell.area_parts_um2.register == pytest.approx(16 * cell.pipeline_register.area_um2)
    assert cell.pipeline_register.area_um2 == pytest.approx(register_cost().area_um2, rel=0.01)


def library(tmp_path, text: str) -> Library:
    path = tmp_path / "ours.toml"
    path.write_text(text, encoding="utf-8")
    return Library.from_toml(path)


def test_a_users_coefficients_replace_ours_and_the_result_says_so(tmp_path):
    user = library(tmp_path, 'name = "x"\n[mac.float.area_um2]\nexponent_bit = 0.0\n')
    ours, theirs = (mac_cost("e4m3 x e4m3 + e6m9", library=lib) for lib in (DEFAULT, user))
    assert theirs.area_parts_um2 == replace(ours.area_parts_um2, exponent=0.0)
    assert theirs.energy_parts_pj == ours.energy_parts_pj
    assert ours.replaced == ()
    assert theirs.replaced == user.replaced != ()


def test_a_users_measured_cell_stands_in_for_the_laws(tmp_path):
    user = library(
        tmp_path,
        'name = "x"\n[[cell]]\ncell = "e4m3 x e4m3 + e6m9"\nnode_nm = 12\narea_um2 = 61.0\n'
        "energy_pj = 0.09\ndelay_ns = 0.8\n",
    )
    cost = mac_cost("e4m3xe4m3+e6m9", node_nm=12, library=user)
    assert cost.area_um2 == pytest.approx(61.0)
    assert cost.energy_pj == pytest.approx(0.09)
    assert cost.delay_ns == 0.8
    law = mac_cost("e4m3xe4m3+e6m9", node_nm=12)
    assert cost.area_parts_um2.adder / cost.area_um2 == pytest.approx(law.area_parts_um2.adder / law.area_um2)
    assert (
        mac_cost("e4m3xe4m3+e6m9", node_nm=45, library=user).area_um2 == mac_cost("e4m3xe4m3+e6m9").area_um2
    )


def test_parts_add_and_scale_by_name():
    parts = (MacParts(adder=1.0, scale=2.0) + MacParts(adder=3.0, register=1.0)) * 2.0
    assert parts == MacParts(adder=8.0, scale=4.0, register=2.0)
    assert parts.total == 14.0


def test_a_cost_prints_as_one_line():
    assert str(mac_cost("e4m3 x e4m3 + e6m9")) == "828.9 um2, 0.462 pJ, 3.55 ns"
    assert str(mac_cost("e4m3 x e4m3 + e6m9", node_nm=7)).endswith(" ns (estimated)")
