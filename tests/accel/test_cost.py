"""Costs: one design redone by hand, and what must hold for every design."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.cost import COMPONENTS, evaluate
from accel.design import Design
from accel.schedule import schedule
from accel.workload import Gemm, Operator, Role, Tensor, Workload
from numerics.accumulator import Accumulator
from numerics.formats import BINARY16, BINARY32, E4M3, E5M2, FloatFormat


def tensor(name, shape, role=Role.ACTIVATION, fmt=E4M3):
    return Tensor(name=name, shape=shape, role=role, format=fmt)


def single(m=10, n=6, k=7, count=1, vector_ops=60):
    """One matrix product: FP8 operands, FP16 result."""
    tensors = [tensor("x", (m, k)), tensor("w", (k, n), Role.WEIGHT), tensor("y", (m, n), fmt=BINARY16)]
    op = Operator(
        name="fc",
        kind="linear+relu",
        inputs=("x", "w"),
        outputs=("y",),
        gemm=Gemm(m=m, n=n, k=k, count=count),
        vector_ops=vector_ops,
    )
    return Workload(
        name="single",
        operators=(op,),
        tensors={t.name: t for t in tensors},
        inputs=("x", "w"),
        outputs=("y",),
    )


def chain():
    """Two products with an addition of a saved tensor between them, all in FP16."""
    shapes = {"x": (40, 24), "w1": (24, 24), "a": (40, 24), "b": (40, 24), "w2": (24, 16), "y": (40, 16)}
    tensors = {
        name: tensor(name, shape, Role.WEIGHT if name[0] == "w" else Role.ACTIVATION, BINARY16)
        for name, shape in shapes.items()
    }
    operators = (
        Operator(name="one", kind="linear", inputs=("x", "w1"), outputs=("a",), gemm=Gemm(m=40, n=24, k=24)),
        Operator(name="add", kind="add", inputs=("x", "a"), outputs=("b",), vector_ops=960),
        Operator(name="two", kind="linear", inputs=("b", "w2"), outputs=("y",), gemm=Gemm(m=40, n=16, k=24)),
    )
    return Workload(
        name="chain", operators=operators, tensors=tensors, inputs=("x", "w1", "w2"), outputs=("y",)
    )


CHAIN = chain()
PLAN = schedule(CHAIN, 65536)


def design(**change):
    settings = {
        "rows": 4,
        "columns": 4,
        "dataflow": "ws",
        "operand": "e4m3",
        "accumulator": "e6m9",
        "scratchpad_bytes": 65536,
        "accumulator_bytes": 4096,
        "offchip": "LPDDR4",
        "offchip_bytes_per_cycle": 16,
        "clock_mhz": 100,
        "scratchpad_width_bits": 64,
        "scratchpad_banks": 1,
    }
    return Design(**{**settings, **change})


def test_a_small_design_by_hand():
    cost = evaluate(design(), single(vector_ops=59))  # 15 cycles of 4 lanes
    # Array: 2 x 2 folds of 4 + 10 + 4 + 4 - 2 cycles; A enters twice, W once.
    # Off chip: 70 + 42 bytes in, 120 out, 16 per cycle.
    # Ports: 140 + 42 reads of 8 bit, 60 writes of 16, fills of 896 bit, drain of 960: 4272 / 64.
    (fc,) = cost.operators
    assert (fc.array_cycles, fc.vector_cycles, fc.offchip_cycles, fc.scratchpad_cycles) == (80, 15, 15, 67)
    assert (cost.cycles, cost.macs, cost.offchip_bytes) == (80, 420, 232)
    assert cost.seconds == pytest.approx(0.8e-6)
    assert cost.utilization == pytest.approx(420 / (16 * 80))
    # CACTI 7, 45 nm LOP: 64 KB x 64 bit reads 10.789, writes 8.1954 pJ, leaks 2.183494 mW;
    # 1 KB x 16 bit reads 0.57384, writes 0.57488 pJ, leaks 0.057402 mW, one for each of 4 columns.
    energy = dict(cost.energy_pj)
    # Levelling may move the leakage of a point by a few percent.
    assert energy.pop("leakage") == pytest.approx((2.183494 + 4 * 0.057402) * 1e-3 * 0.8e-6 * 1e12, rel=0.03)
    assert energy == pytest.approx(
        {
            # e4m3 into e6m9: W = 14; 0.52 x (0.9 / 1.1)^2 = 0.348099.
            "mac": 420
            * (17.49 * 16 + 6.046 * 14 * 3.807355 + 21.48 * 9 + 40.82 * 4 + 32.97 * 10)
            * 0.348099e-3,
            "registers": 420 * (8 + 8 + 16) * 0.008,
            "accumulator": 120 * 0.57488 + (60 + 60) * 0.57384,
            "scratchpad": (1456 + 960) / 64 * 10.789 + (960 + 896) / 64 * 8.1954,
            "vector": 59 * 0.9,
            "offchip": 232 * 8 * 8.0,
        },
        rel=1e-5,
    )
    # Table: 64 KB x 64 bit is 0.24599 mm2 and 1 KB x 16 bit 0.0033767; levelling may move them 8 %.
    cell = 6.788 * 16 + 6.022 * 14 * 3.807355 + 14.17 * 16 + 9.816 * 4 + 12.72 * 10 + (8 + 8 + 16) * 4.5
    area = cost.area_um2
    assert area["array"] == pytest.approx(16 * cell, rel=1e-5)
    assert area["vector"] == pytest.approx(4 * (1369.6 + 4097.2))
    assert area["scratchpad"] == pytest.approx(0.24599e6, rel=0.08)
    assert area["accumulator"] == pytest.approx(4 * 0.0033767e6, rel=0.08)
    assert area["overhead"] == pytest.approx(
        0.25 * (area["array"] + area["vector"] + area["scratchpad"] + area["accumulator"])
    )


def test_the_three_dataflows_use_the_accumulator_as_they_should():
    def accumulator_pj(dataflow):
        return evaluate(design(dataflow=dataflow), single()).energy_pj["accumulator"]

    # Outputs leave the cells once: 60 written, 60 drained; k = 7 needs two passes of 4 rows otherwise.
    assert accumulator_pj("os") == pytest.approx(60 * 0.57488 + 60 * 0.57384)
    assert accumulator_pj("is") == pytest.approx(accumulator_pj("ws"))


def test_columns_that_share_a_bank_share_the_energy_of_its_wide_word():
    # 4 banks of 1 KB for 8 columns: words of two 32-bit sums; CACTI reads 0.7871, writes 1.4406 pJ.
    shared = design(columns=8, accumulator="e8m23", accumulator_bytes=4096, dataflow="os")
    assert evaluate(shared, single()).energy_pj["accumulator"] == pytest.approx(
        60 * 1.4406 / 2 + 60 * 0.7871 / 2
    )


def test_a_small_accumulator_buffer_fetches_the_weights_again():
    # 4096 bytes for 64 columns of 32 bit hold 16 sums each: m = 40 takes three passes.
    narrow = design(columns=64, accumulator="e8m23", accumulator_bytes=4096)
    assert narrow.sums_per_column == 16
    work = single(m=40, n=64, k=16, vector_ops=0)
    roomy = replace(narrow, accumulator_bytes=65536)
    small, large = evaluate(narrow, work).operators[0], evaluate(roomy, work).operators[0]
    extra_reads = 2 * 16 * 64  # the weights twice more
    words = extra_reads * 8 / 64
    assert small.energy_pj["scratchpad"] - large.energy_pj["scratchpad"] == pytest.approx(words * 10.789)


def test_element_wise_work_runs_on_the_vector_unit_and_the_scratchpad():
    add = evaluate(design(), CHAIN, PLAN).operators[1]
    assert add.energy_pj["vector"] == pytest.approx(960 * 0.9)
    assert add.energy_pj["scratchpad"] == pytest.approx(
        2 * 960 * 16 / 64 * 10.789 + 960 * 16 / 64 * 8.1954, rel=1e-5
    )
    assert add.array_cycles == 0
    assert add.vector_cycles == 240
    assert add.scratchpad_cycles == 3 * 960 * 16 // 64
    assert add.bound == "scratchpad"


def test_groups_repeat_a_product():
    one, three = (evaluate(design(), single(count=count, vector_ops=0)).operators[0] for count in (1, 3))
    assert three.array_cycles == 3 * one.array_cycles
    for part in ("mac", "registers", "accumulator"):
        assert three.energy_pj[part] == pytest.approx(3 * one.energy_pj[part])


def test_off_chip_traffic_is_the_schedules():
    tight = schedule(CHAIN, 6200)
    assert tight.noncompulsory_bytes == 0 or tight.offchip_bytes > PLAN.offchip_bytes
    cost = evaluate(design(scratchpad_bytes=6200), CHAIN, tight)
    assert cost.offchip_bytes == tight.offchip_bytes
    assert tuple(op.offchip_bytes for op in cost.operators) == tight.bytes_by_step
    assert cost.energy_pj["offchip"] == pytest.approx(tight.offchip_bytes * 8 * 8.0)


def test_without_a_schedule_one_is_made():
    assert evaluate(design(), CHAIN) == evaluate(design(), CHAIN, PLAN)


def test_a_schedule_that_is_not_this_workloads_or_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="the schedule is of workload chain"):
        evaluate(design(), CHAIN.with_formats({Role.ACTIVATION: E5M2}), PLAN)
    with pytest.raises(ValueError, match="bytes of scratchpad, the design has 2048"):
        evaluate(design(scratchpad_bytes=2048), CHAIN, PLAN)


def test_a_clock_too_fast_for_the_cell_is_reported():
    assert evaluate(design(clock_mhz=100), CHAIN, PLAN).violations == ()
    (found,) = evaluate(design(clock_mhz=400), CHAIN, PLAN).violations
    assert found.startswith("the single-cycle MAC needs 3.74 ns, a cycle at 400 MHz is 2.50 ns")


def test_what_was_scaled_or_recalled_is_said():
    assert evaluate(design(), CHAIN, PLAN).estimates == ()
    chip = design(node_nm=7, accumulator="e6m9 rounding=stochastic:8", offchip="DDR4")
    assert evaluate(chip, CHAIN, PLAN).estimates == (
        "logic is scaled from 45 to 7 nm",
        "SRAM is scaled to 7 nm",
        "no MAC with stochastic rounding was synthesised",
        "DDR4 energy is recalled: middle of the range 15 to 25 of vendor notes",
    )


def test_the_table_adds_up():
    cost = evaluate(design(), CHAIN, PLAN)
    table = cost.table()
    assert list(table["operator"]) == list(PLAN.order)
    assert table["cycles"].sum() == cost.cycles
    assert table["total_pj"].sum() == pytest.approx(cost.total_energy_pj, rel=1e-12)
    assert table["offchip_bytes"].sum() == cost.offchip_bytes
    assert set(COMPONENTS) == {column.removesuffix("_pj") for column in table if column.endswith("_pj")} - {
        "total"
    }


DESIGNS = st.builds(
    design,
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    dataflow=st.sampled_from(["os", "ws", "is"]),
    operand=st.sampled_from(["e4m3", "e5m2", "e2m1", "bf16"]),
    accumulator=st.sampled_from(["e6m9", "e6m9 chunk=64", "e8m23", "e5m4 rounding=stochastic:6"]),
    scratchpad_bytes=st.integers(65536, 1 << 20),
    accumulator_bytes=st.integers(4096, 1 << 16),
    offchip_bytes_per_cycle=st.floats(0.5, 64),
    clock_mhz=st.floats(50, 1000),
    node_nm=st.sampled_from([45, 32, 28, 22, 16, 7]),
    sram_cells=st.sampled_from(["lop", "hp", "lstp"]),
    fold_overlap=st.sampled_from(["serial", "pipelined"]),
    scratchpad_width_bits=st.none() | st.integers(8, 512),
    scratchpad_banks=st.none() | st.integers(1, 4),
)


@settings(max_examples=60)
@given(DESIGNS)
def test_parts_add_up_to_totals(chip):
    cost = evaluate(chip, CHAIN, PLAN)
    assert cost.total_energy_pj == sum(cost.energy_pj.values())
    assert cost.total_energy_pj == pytest.approx(sum(cost.energy_pj_by_operator.values()), rel=1e-12)
    assert cost.total_area_um2 == sum(cost.area_um2.values())
    assert cost.cycles == sum(op.cycles for op in cost.operators)
    assert cost.macs == CHAIN.macs == 40 * 24 * 24 + 40 * 16 * 24
    assert 0 < cost.utilization <= 1
    assert all(value > 0 for value in (*cost.energy_pj.values(), *cost.area_um2.values()))


@settings(max_examples=60)
@given(DESIGNS, st.integers(0, 1), st.integers(0, 6))
def test_a_wider_accumulator_never_costs_less(chip, more_exp, more_frac):
    old = chip.accumulator
    wide = FloatFormat(
        exp_bits=min(8, old.format.exp_bits + more_exp), frac_bits=min(23, old.format.frac_bits + more_frac)
    )
    wider = replace(chip, accumulator=Accumulator(wide, rounding=old.rounding, chunk=old.chunk))
    narrow, broad = evaluate(chip, CHAIN, PLAN), evaluate(wider, CHAIN, PLAN)
    assert broad.cycles >= narrow.cycles
    for part in COMPONENTS:
        assert broad.energy_pj[part] >= narrow.energy_pj[part] * (1 - 1e-12)
    for part in narrow.area_um2:
        assert broad.area_um2[part] >= narrow.area_um2[part] * (1 - 1e-12)


@settings(max_examples=60)
@given(DESIGNS, st.integers(1, 8), st.integers(1, 10))
def test_a_narrower_operand_never_costs_more_on_the_same_port(chip, exp_bits, frac_bits):
    wide = FloatFormat(
        exp_bits=max(chip.operand.exp_bits, exp_bits), frac_bits=max(chip.operand.frac_bits, frac_bits)
    )
    narrow, broad = evaluate(chip, CHAIN, PLAN), evaluate(replace(chip, operand=wide), CHAIN, PLAN)
    assert narrow.total_energy_pj <= broad.total_energy_pj * (1 + 1e-12)
    assert narrow.total_area_um2 <= broad.total_area_um2 * (1 + 1e-12)
    assert narrow.cycles == broad.cycles


@settings(max_examples=20)
@given(DESIGNS, st.sampled_from([BINARY32, BINARY16, E4M3]))
def test_narrower_tensors_never_cost_more(chip, fmt):
    formats = dict.fromkeys((Role.ACTIVATION, Role.WEIGHT), fmt)
    wide = CHAIN.with_formats(dict.fromkeys(formats, BINARY32))
    narrow, broad = evaluate(chip, CHAIN.with_formats(formats)), evaluate(chip, wide)
    for part in COMPONENTS:
        assert narrow.energy_pj[part] <= broad.energy_pj[part] * (1 + 1e-12)
    assert narrow.cycles <= broad.cycles


@settings(max_examples=60)
@given(DESIGNS, st.floats(1, 8))
def test_more_bandwidth_is_never_slower(chip, factor):
    faster = replace(chip, offchip_bytes_per_cycle=chip.offchip_bytes_per_cycle * factor)
    assert evaluate(faster, CHAIN, PLAN).cycles <= evaluate(chip, CHAIN, PLAN).cycles


@settings(max_examples=60)
@given(
    DESIGNS,
    st.sampled_from(["rows", "columns", "scratchpad_bytes", "accumulator_bytes"]),
    st.integers(1, 4096),
)
def test_a_larger_design_never_has_less_area(chip, name, more):
    step = more if name.endswith("bytes") else 1 + more % 8
    larger = replace(chip, **{name: getattr(chip, name) + step})
    before, after = evaluate(chip, CHAIN, PLAN), evaluate(larger, CHAIN, PLAN)
    assert after.area_um2["array"] >= before.area_um2["array"]
    if name == "scratchpad_bytes":
        assert after.total_area_um2 >= before.total_area_um2 * (1 - 1e-12)


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_one_cell_takes_at_least_a_cycle_per_multiply_accumulate(dataflow):
    cell = design(
        rows=1, columns=1, dataflow=dataflow, offchip_bytes_per_cycle=1e9, scratchpad_width_bits=512
    )
    cost = evaluate(cell, CHAIN, PLAN)
    assert all(op.array_cycles >= op.macs for op in cost.operators)
    assert cost.cycles >= CHAIN.macs


def test_a_workload_dropped_and_replaced_is_costed_anew():
    costs = [evaluate(design(), single(m=m, vector_ops=0)).macs for m in (3, 5, 9)]
    assert costs == [3 * 42, 5 * 42, 9 * 42]
