"""The checker: it accepts other legal plans, and each kind of damage is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from accel.schedule import ScheduleError, Transfer, schedule


@pytest.fixture(scope="module")
def plan(reference_graphs):
    """T5 on 10 bytes: x a b c d e f, a spilled after step 0 and fetched before steps 3 and 5."""
    return schedule(reference_graphs["T5"], 10)


def edit_run(plan, tensor, start, /, **changes):
    assert any((run.tensor, run.start) == (tensor, start) for run in plan.residency)
    return replace(
        plan,
        residency=tuple(
            replace(run, **changes) if (run.tensor, run.start) == (tensor, start) else run
            for run in plan.residency
        ),
    )


def edit_transfer(plan, kind, tensor, /, **changes):
    assert any((move.kind, move.tensor) == (kind, tensor) for move in plan.transfers)
    return replace(
        plan,
        transfers=tuple(
            replace(move, **changes) if (move.kind, move.tensor) == (kind, tensor) else move
            for move in plan.transfers
        ),
    )


def without(plan, kind, tensor):
    assert any((move.kind, move.tensor) == (kind, tensor) for move in plan.transfers)
    kept = tuple(move for move in plan.transfers if (move.kind, move.tensor) != (kind, tensor))
    return replace(plan, transfers=kept, bound_bytes=0)


def address_of(plan, tensor, start):
    return next(run.address for run in plan.residency if (run.tensor, run.start) == (tensor, start))


def test_a_spill_may_be_made_at_any_step_of_the_first_stay(plan):
    edit_transfer(plan, "spill", "a", step=1).check()


def test_a_tensor_may_return_to_another_address(plan):
    edit_run(replace(plan, scratchpad_bytes=13), "a", 5, address=10).check()


def test_overlapping_blocks(plan):
    damaged = edit_run(plan, "b", 1, address=address_of(plan, "a", 0))
    with pytest.raises(ScheduleError, match=r"(a and b|b and a) overlap at step 1: \["):
        damaged.check()


@pytest.mark.parametrize("address", [-1, 7])
def test_a_block_outside_the_scratchpad(plan, address):
    with pytest.raises(ScheduleError, match=r"b at steps 1\.\.2 takes \[.*\) of a scratchpad of 10 bytes"):
        edit_run(plan, "b", 1, address=address).check()


def test_a_misaligned_block(make_graph):
    plan = schedule(make_graph("A: x->y", {"x": 4, "y": 4}), 16, alignment=4)
    with pytest.raises(ScheduleError, match=r"y at steps 0\.\.0 has address 9, no multiple of 4"):
        edit_run(plan, "y", 0, address=9).check()


def test_a_block_of_the_wrong_size(plan):
    with pytest.raises(ScheduleError, match=r"b at steps 1\.\.2 must take 4 bytes, takes 3"):
        edit_run(plan, "b", 1, bytes=3).check()


def test_a_block_of_an_unknown_tensor(plan):
    with pytest.raises(ScheduleError, match=r"ghost at steps .* is no tensor of the workload"):
        edit_run(plan, "b", 1, tensor="ghost").check()


def test_a_stay_beyond_the_last_step(plan):
    with pytest.raises(ScheduleError, match=r"f at steps 5\.\.6 leaves the steps 0\.\.5"):
        edit_run(plan, "f", 5, end=6).check()


def test_an_operand_that_left_too_early(plan):
    with pytest.raises(ScheduleError, match="operator C at step 2 needs b, which is not resident"):
        edit_run(plan, "b", 1, end=1).check()


def test_a_tensor_in_two_places_at_once(make_graph):
    plan = schedule(make_graph("A: x->y", {"x": 2, "y": 2}), 8)
    second = replace(plan.residency[0], address=6)
    with pytest.raises(ScheduleError, match=r"x is in the scratchpad twice at step 0"):
        replace(plan, residency=(*plan.residency, second)).check()


def test_an_order_that_reads_before_it_writes(plan):
    with pytest.raises(ScheduleError, match="operator C at step 1 reads b, which B produces at step 2"):
        replace(plan, order=("A", "C", "B", "D", "E", "F")).check()


@pytest.mark.parametrize("order", [("A", "B", "C", "D", "E"), ("A", "B", "C", "D", "E", "E")])
def test_an_operator_missing_or_repeated(plan, order):
    with pytest.raises(ScheduleError, match=r"operator [EF] must run \d times, runs \d times"):
        replace(plan, order=order).check()


def test_a_refetch_without_a_spill(plan):
    with pytest.raises(ScheduleError, match="a must be spilled 1 times, has 0"):
        without(plan, "spill", "a").check()


def test_a_spill_after_the_refetch_that_needs_it(plan):
    with pytest.raises(
        ScheduleError, match="a is fetched before step 3, but written off chip only after step 3"
    ):
        edit_transfer(plan, "spill", "a", step=3).check()


def test_a_spill_while_the_tensor_is_away(plan):
    with pytest.raises(ScheduleError, match="a is written off chip after step 2, where it is not resident"):
        edit_transfer(plan, "spill", "a", step=2).check()


def test_a_spill_nobody_needs(reference_graphs):
    plan = schedule(reference_graphs["T5"], 11)
    extra = Transfer(step=0, tensor="a", bytes=3, kind="spill")
    with pytest.raises(ScheduleError, match="a must be spilled 0 times, has 1"):
        replace(plan, transfers=(*plan.transfers, extra)).check()


def test_a_stay_without_a_fetch(plan):
    with pytest.raises(ScheduleError, match=r"a needs a refetch at steps \[3, 5\], .* and has \[\]"):
        without(plan, "refetch", "a").check()


def test_a_missing_first_load(plan):
    with pytest.raises(ScheduleError, match=r"x needs a load at steps \[0\], .* and has \[\]"):
        without(plan, "load", "x").check()


def test_a_missing_store_of_a_graph_output(plan):
    with pytest.raises(ScheduleError, match="f must be stored 1 times, has 0"):
        without(plan, "store", "f").check()


def test_compulsory_traffic_passed_off_as_avoidable(plan):
    with pytest.raises(ScheduleError, match=r"x needs a load at steps \[0\]"):
        edit_transfer(plan, "load", "x", kind="refetch").check()


def test_avoidable_traffic_passed_off_as_compulsory(plan):
    with pytest.raises(ScheduleError, match=r"a needs a load at steps \[\]"):
        edit_transfer(plan, "refetch", "a", kind="load").check()


def test_a_transfer_of_the_wrong_bytes(plan):
    with pytest.raises(ScheduleError, match="spill of a at step 0 must move 3 bytes, moves 2"):
        edit_transfer(plan, "spill", "a", bytes=2).check()


def test_a_transfer_listed_twice(plan):
    with pytest.raises(ScheduleError, match="load of x at step 0 is listed twice"):
        replace(plan, transfers=(plan.transfers[0], *plan.transfers)).check()


def test_a_transfer_beyond_the_last_step(plan):
    with pytest.raises(ScheduleError, match=r"store of f at step 6 leaves the steps 0\.\.5"):
        edit_transfer(plan, "store", "f", step=6).check()


@pytest.mark.parametrize("bound_bytes", [-1, 10])
def test_a_bound_no_plan_of_this_value_can_have(plan, bound_bytes):
    with pytest.raises(ScheduleError, match=rf"bound_bytes must be in 0\.\.9, .*, got {bound_bytes}"):
        replace(plan, bound_bytes=bound_bytes).check()


def test_a_production_without_a_place(plan):
    damaged = replace(plan, residency=tuple(run for run in plan.residency if run.tensor != "f"))
    with pytest.raises(ScheduleError, match="operator F at step 5 needs f, which is not resident"):
        damaged.check()


def test_residency_before_production(plan):
    early = edit_run(replace(plan, scratchpad_bytes=13), "d", 3, start=0, address=10)
    with pytest.raises(ScheduleError, match="d must be resident first at step 3, where it is produced"):
        early.check()
