"""Plans of tensors counted by kind, and their layouts, judged by every choice of gaps."""

from __future__ import annotations

from itertools import combinations, product
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.schedule._streaming import layout
from accel.schedule._streaming.plan import streamed_plan
from accel.schedule._streaming.window import Counted, Window
from accel.schedule.streamed import Streaming, keep, streaming_of


@st.composite
def problems(draw):
    """Tensors of few sizes, many of them used at the same steps, so that some are alike."""
    steps = draw(st.integers(2, 7))
    patterns = draw(
        st.lists(st.sets(st.integers(0, steps - 1), min_size=2, max_size=4), min_size=1, max_size=3)
    )
    uses, sizes, made, outputs = [], [], [], []
    for _ in range(draw(st.integers(1, 5))):
        uses.append(sorted(draw(st.sampled_from(patterns))))
        sizes.append(draw(st.integers(1, 3)))
        made.append(draw(st.booleans()))
        outputs.append(draw(st.integers(0, 3)) == 0)
    size = np.array(sizes)
    first = np.cumsum([0, *map(len, uses)])
    return Streaming(
        tensors=tuple(f"t{v}" for v in range(len(sizes))),
        size_bytes=size,
        first=first,
        step=np.array([t for mine in uses for t in mine]),
        streamed_bytes=np.repeat(size, np.diff(first)),
        is_produced=np.array(made),
        is_output=np.array(outputs),
        capacity_bytes=np.full(steps, draw(st.integers(1, 9))),
    )


def least_total(problem: Streaming, may_keep: np.ndarray) -> int:
    """Of every choice of gaps that fits by bytes."""
    gaps = np.flatnonzero(may_keep)
    best = problem.layer_by_layer_bytes
    for choice in product((False, True), repeat=gaps.size):
        kept = np.zeros(problem.step.size, np.bool_)
        kept[gaps] = choice
        if (problem.resident_bytes(kept) <= problem.capacity_bytes).all():
            best = min(best, int(problem.costs(kept).sum()))
    return best


def assert_laid_out(problem: Streaming, address: np.ndarray, capacity: int) -> None:
    """Blocks lie in the capacity, apart, and stay where they are."""
    blocks = []
    for i in np.flatnonzero(address >= 0):
        v = problem.owner[i]
        assert problem.is_gap[i]
        if i > problem.first[v] and address[i - 1] >= 0:
            assert address[i] == address[i - 1]
        low = int(address[i])
        assert low + problem.size_bytes[v] <= capacity
        blocks.append((v, problem.step[i], problem.step[i + 1], low, low + problem.size_bytes[v]))
    for (v, start, end, low, high), (w, other_start, other_end, other_low, other_high) in combinations(
        blocks, 2
    ):
        if v != w and start <= other_end and other_start <= end:
            assert high <= other_low or other_high <= low


@settings(max_examples=100)
@given(problem=problems())
def test_counting_finds_the_least_total_and_layouts_are_plans(problem):
    capacity = int(problem.capacity_bytes[0])
    is_open = problem.is_gap & (problem.size_bytes[problem.owner] <= capacity)
    if not is_open.any() or is_open.sum() > 11:
        return
    window = Window(problem, is_open, np.zeros_like(is_open), deadline_s=inf)
    zero = int(problem.costs(is_open).sum())
    nothing = (problem.layer_by_layer_bytes - zero) // window.unit_bytes
    counted = window.optimum(nothing, deadline_s=inf)
    assert isinstance(counted, Counted)
    kept = window.kept(counted)
    least = least_total(problem, is_open)
    assert zero + counted.best * window.unit_bytes == int(problem.costs(kept).sum()) == least
    assert (problem.resident_bytes(kept) <= problem.capacity_bytes).all()
    if counted.best > 0:
        assert window.count(counted.best - 1, deadline_s=inf) == counted.best
    everything = window.count(nothing, deadline_s=inf)
    assert isinstance(everything, Counted)
    assert everything.best == counted.best
    for most in (counted.best, nothing):
        found = window.lay_out(everything, most, width=20, children=64, deadline_s=inf)
        if found is not None:
            address = found
            cost = int(problem.costs(address >= 0).sum()) - zero
            assert counted.best * window.unit_bytes <= cost <= most * window.unit_bytes
            assert_laid_out(problem, address, capacity)
    # Nothing kept is a layout too, and a beam that may lose everything finds one.
    assert found is not None


@settings(max_examples=60)
@given(problem=problems(), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_neither_prices_nor_kinds_change_the_least_total(problem, seed, data):
    is_open = problem.is_gap & (problem.size_bytes[problem.owner] <= problem.capacity_bytes[0])
    if not is_open.any() or is_open.sum() > 9:
        return
    rng = np.random.default_rng(seed)
    steps = problem.capacity_bytes.size
    least = least_total(problem, is_open) - int(problem.costs(is_open).sum())
    with pytest.MonkeyPatch.context() as patch:
        if data.draw(st.booleans(), label="any prices"):
            patch.setattr(Window, "_prices", lambda self, _: rng.integers(0, 2**18, steps))
        else:
            patch.setattr(Window, "_prices", lambda self, _: np.zeros(steps, np.int64))
        if data.draw(st.booleans(), label="nobody is alike"):
            patch.setattr(Window, "_kinds", lambda self, _: np.arange(self._step.size))
        if data.draw(st.booleans(), label="byte-steps are free"):
            scales = Window._scales
            patch.setattr(Window, "_scales", lambda self: (scales(self)[0], 0))
        window = Window(problem, is_open, np.zeros_like(is_open), deadline_s=inf)
        counted = window.optimum(least // window.unit_bytes, deadline_s=inf)
    assert window.bound * window.unit_bytes <= least
    assert isinstance(counted, Counted)
    assert counted.best * window.unit_bytes == least
    kept = window.kept(counted)
    assert int(problem.costs(kept).sum()) == least + int(problem.costs(is_open).sum())
    assert (problem.resident_bytes(kept) <= problem.capacity_bytes).all()


@settings(max_examples=60)
@given(problem=problems())
def test_of_plans_of_least_total_that_of_fewest_byte_steps_is_found(problem):
    is_open = problem.is_gap & (problem.size_bytes[problem.owner] <= problem.capacity_bytes[0])
    if not is_open.any() or is_open.sum() > 9:
        return
    gaps = np.flatnonzero(is_open)
    best = None
    for choice in product((False, True), repeat=gaps.size):
        kept = np.zeros(problem.step.size, np.bool_)
        kept[gaps] = choice
        resident = problem.resident_bytes(kept)
        if (resident <= problem.capacity_bytes).all():
            rank = int(problem.costs(kept).sum()), int(resident.sum())
            best = rank if best is None else min(best, rank)
    window = Window(problem, is_open, np.zeros_like(is_open), deadline_s=inf)
    upper = (best[0] - int(problem.costs(is_open).sum())) // window.unit_bytes
    found = window.kept(window.optimum(upper, deadline_s=inf))
    assert (int(problem.costs(found).sum()), int(problem.resident_bytes(found).sum())) == best


def test_where_time_or_states_run_out_a_bound_is_left(make_graph):
    text = "; ".join(f"A{i}: {','.join(f't{j}' for j in range(i + 1))} -> t{i + 1}" for i in range(8))
    graph = make_graph(text, {f"t{i}": 1 + i % 3 for i in range(9)})
    problem = streaming_of(graph, capacity_bytes=7)
    fits = problem.is_gap
    least = least_of(problem) - int(problem.costs(fits).sum())
    window = Window(problem, fits, np.zeros_like(fits), deadline_s=0.0)  # too late for prices
    upper = least + 5
    assert window.count(upper, deadline_s=0.0) is None
    assert 0 <= window.optimum(upper, deadline_s=0.0) <= least
    window = Window(problem, fits, np.zeros_like(fits), deadline_s=inf)
    assert window.count(upper, states=20, deadline_s=inf) is None
    assert isinstance(window.count(upper, deadline_s=inf), Counted)


def least_of(problem: Streaming) -> int:
    return keep(problem, backend="integer-program").total_bytes


@pytest.mark.parametrize("states", [10, 300, 3000])
def test_a_plan_has_a_bound_whatever_number_of_states_is_counted(make_graph, monkeypatch, states):
    monkeypatch.setattr(layout, "_MOST_WORK", 0)
    monkeypatch.setattr(Window.count, "__kwdefaults__", {"states": states})
    graph = make_graph(*densely_connected(8))
    for capacity in (10, 13):
        problem = streaming_of(graph, capacity_bytes=capacity)
        plan = streamed_plan(graph, capacity)
        least = least_of(problem) - problem.compulsory_bytes
        assert least <= plan.bound_bytes <= plan.noncompulsory_bytes


def test_too_many_states_are_told(make_graph):
    problem = streaming_of(
        make_graph("A: x->a; B: a->b; C: a,b->c", {"x": 1, "a": 1, "b": 1, "c": 1}), capacity_bytes=1
    )
    window = Window(problem, problem.is_gap, np.zeros(problem.step.size, np.bool_), deadline_s=inf)
    assert window.count(9, states=2, deadline_s=inf) is None


def densely_connected(n: int) -> tuple[str, dict[str, int]]:
    """As in DenseNet: every layer joins all results before it, and its own is a unit."""
    text, sizes, features = [], {"x": 4}, ["x"]
    for i in range(n):
        text += [f"J{i}: {','.join(features)} -> j{i}", f"A{i}: j{i} -> a{i}", f"G{i}: a{i} -> g{i}"]
        sizes |= {f"j{i}": 4 + i, f"a{i}": 4, f"g{i}": 1}
        features.append(f"g{i}")
    text.append(f"E: {','.join(features)} -> e")
    return "; ".join(text), sizes | {"e": 1}


@pytest.mark.parametrize("capacity", [10, 14, 18, 22])
def test_a_densely_connected_block_is_proved(make_graph, capacity):
    graph = make_graph(*densely_connected(12))
    plan = streamed_plan(graph, capacity)
    least = least_of(streaming_of(graph, capacity_bytes=capacity))
    least -= streaming_of(graph, capacity_bytes=capacity).compulsory_bytes
    assert least <= plan.bound_bytes == plan.noncompulsory_bytes
    assert streamed_plan(graph, capacity) == plan
