"""The three ways to the bound: a search and two integer programs, which share no code."""

from __future__ import annotations

from random import Random
from time import perf_counter

import pytest

from accel.schedule import resolve, working_set_minimum
from accel.schedule._atomic.greedy import greedy
from accel.schedule._atomic.search import search
from accel.schedule._instance import build_instance

# Values of the reference graphs without addresses, found by another search and by two solvers.
CAPACITY = [
    (name, scratchpad_bytes, order, expected)
    for name, order, curve in (
        ("T1", "free", {7: 4, 8: 0}),
        ("T2", "free", {7: 4, 8: 0}),
        ("T2", "given", {7: 26, 8: 24, 12: 24, 13: 0}),
        ("T3", "free", {13: 12, 14: 8, 15: 2, 16: 0}),
        ("T3", "given", {13: 59, 14: 41, 15: 41, 16: 20}),
        ("T4", "free", {9: 4, 10: 4, 11: 0}),
        ("T5", "free", {10: 9, 11: 0}),
        ("T6", "free", {16: 22, 17: 22, 18: 12, 20: 12, 22: 0}),
        ("T6", "given", {16: 52, 17: 30, 18: 30, 20: 20}),
    )
    for scratchpad_bytes, expected in curve.items()
]


def bounds(graph, scratchpad_bytes, order, *, highs=True):
    """Bound and cost of the residency behind it, by each engine below the same greedy plan."""
    instance = build_instance(graph, scratchpad_bytes, alignment=1, fixed_order=order == "given")
    hint, deadline_s = greedy(instance), perf_counter() + 60
    upper = hint.residency.cost
    engines = ("search", "cp-sat", "highs") if highs else ("search", "cp-sat")
    found = {
        name: resolve(name).solve_capacity(instance, upper=upper, hint=hint, deadline_s=deadline_s, seed=0)
        for name in engines
    }
    for relaxed in found.values():
        # Without a residency the greedy plan is as good as any.
        assert relaxed.bound == (upper if relaxed.residency is None else relaxed.residency.cost)
        if relaxed.residency is not None:
            assert peak(relaxed.residency) <= instance.capacity
    return {engine: relaxed.bound * instance.unit_bytes for engine, relaxed in found.items()}


def peak(residency):
    size = residency.instance.size
    return max(
        sum(size[block.tensor] for block in residency.blocks if block.start <= t <= block.end)
        for t in range(len(residency.order))
    )


def random_graph(make_graph, seed, operators):
    """Each operator reads one to three of the last six tensors, and often one that still waits."""
    random = Random(seed)
    sizes, lines, waiting = {"x": random.randint(1, 8)}, [], {"x"}
    for i in range(operators):
        recent = list(sizes)[-6:]
        read = set(random.sample(recent, min(random.choice((1, 1, 2, 2, 3)), len(recent))))
        if waiting and random.random() < 0.5:
            read.add(random.choice(sorted(waiting)))
        sizes[f"t{i}"] = random.randint(1, 9)
        lines.append(f"o{i}: {','.join(sorted(read))}->t{i}")
        waiting = waiting - read | {f"t{i}"}
    return make_graph(";".join(lines), sizes)


@pytest.mark.parametrize(("name", "scratchpad_bytes", "order", "expected"), CAPACITY)
def test_the_search_finds_the_known_bound_whatever_the_limit(
    reference_graphs, name, scratchpad_bytes, order, expected
):
    graph = reference_graphs[name]
    instance = build_instance(graph, scratchpad_bytes, alignment=1, fixed_order=order == "given")
    found = search(instance, upper=1 << 40, deadline_s=perf_counter() + 60)
    assert found.bound * instance.unit_bytes == expected
    assert found.residency.cost == found.bound
    assert peak(found.residency) <= instance.capacity


@pytest.mark.parametrize(
    ("name", "scratchpad_bytes", "order", "expected"),
    [case for case in CAPACITY if case[:2] in (("T3", 13), ("T3", 14), ("T6", 16), ("T6", 18), ("T6", 17))],
)
def test_every_engine_finds_the_known_bound(reference_graphs, name, scratchpad_bytes, order, expected):
    found = bounds(reference_graphs[name], scratchpad_bytes, order)
    assert found == {"search": expected, "cp-sat": expected, "highs": expected}


@pytest.mark.parametrize("seed", range(40))
def test_the_search_and_the_program_agree_on_larger_graphs(make_graph, seed):
    graph = random_graph(make_graph, seed, 16)
    found = bounds(graph, working_set_minimum(graph) + seed % 3, "free", highs=False)
    assert found["search"] == found["cp-sat"]


@pytest.mark.parametrize("order", ["free", "given"])
@pytest.mark.parametrize("seed", range(100, 106))
def test_all_engines_agree_on_larger_graphs(make_graph, seed, order):
    graph = random_graph(make_graph, seed, 10)
    found = bounds(graph, working_set_minimum(graph), order)
    assert len(set(found.values())) == 1
