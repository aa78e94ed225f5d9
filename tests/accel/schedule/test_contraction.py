"""Operators that are left out because they run right before the reader of their result."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from time import perf_counter, process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.schedule._atomic.contraction import contracted
from accel.schedule._instance import build_instance
from accel.schedule._residency import Residency, all_gaps
from accel.schedule.peak import minimal_peak_order

# T makes a table that C alone reads. The input is read at the end too, so that B does not wait as well.
TABLE = {"x": 1, "w": 3, "t": 2, "b": 4, "c": 4, "z": 1}


def left_out(graph, scratchpad_bytes, **options):
    options = {"alignment": 1, "fixed_order": False} | options
    instance = build_instance(graph, scratchpad_bytes, **options)
    found = contracted(instance)
    kept = {instance.operators[i] for i in found.operators}
    return [name for name in instance.operators if name not in kept]


def test_a_table_is_made_right_before_its_reader(make_graph):
    graph = make_graph("T: w->t; B: x->b; C: b,t->c; Z: c,x->z", TABLE)
    found = contracted(build_instance(graph, 11, alignment=1, fixed_order=False))
    assert found.members == ((), (), (0,), ())
    assert found.instance.operators == ("B", "C", "Z")
    assert found.instance.tensors == ("t", "x", "b", "c", "z")
    assert found.instance.is_input == (True, True, False, False, False)
    assert found.instance.after == (frozenset(), frozenset({0}), frozenset({1}))
    assert found.expand_order((0, 1, 2)) == (1, 0, 2, 3)
    assert found.contract_order((0, 1, 2, 3)) == (0, 1, 2)


@pytest.mark.parametrize(
    ("text", "sizes", "expected"),
    [
        ("T: w->t; B: x->b; C: b,t->c; Z: c,x->z", {}, ["T"]),
        ("T: w->t; B: x->b; C: b,t->c; Z: c,x->z", {"w": 5}, []),  # more than c, beside x, b and t too much
        ("T: w->t; B: x->b; C: b,t,v->c; Z: c,x->z", {"w": 7, "v": 3}, ["T"]),  # v is there beside C alone
        ("T: w->t; U: t->u; B: x->b; C: b,u->c; Z: c,x->z", {"w": 2, "u": 3}, ["T", "U"]),
        ("T: w->t; B: x->b; C: b,t->c; Z: c,t,x->z", {}, []),  # two readers
        ("T: w->t; B: x,w->b; C: b,t->c; Z: c,x->z", {}, []),  # w has another reader
    ],
)
def test_there_must_be_room_beside_the_reader(make_graph, text, sizes, expected):
    graph = make_graph(text, {name: size for name, size in (TABLE | sizes).items() if name in text})
    assert left_out(graph, 11) == expected


def test_what_is_large_waits_where_all_that_may_be_live_leaves_room(make_graph):
    graph = make_graph("T: w->t; B: x->b; C: b,t->c; Z: c,x->z", TABLE | {"w": 9})
    assert left_out(graph, 15) == []
    assert left_out(graph, 16) == ["T"]  # w, t, b and x


def test_of_two_results_that_cannot_be_made_beside_each_other_one_is_live(make_graph):
    """Beside T are p, t, b and x, together 10, and either v or w, if neither can be made beside the other."""
    text = "T: p->t; B: x->b; C: b,t->c; V: q->v; D: c,v->d; W: r->w; E: d,w->e; Z: e,x->z"
    sizes = {"p": 4, "t": 1, "b": 4, "x": 1, "v": 6, "w": 6, "c": 1, "d": 1, "e": 1, "z": 1}
    apart, together = {"q": 9, "r": 9}, {"q": 3, "r": 9}
    assert left_out(make_graph(text, sizes | apart), 16) == ["T"]
    assert left_out(make_graph(text, sizes | apart), 15) == []
    assert left_out(make_graph(text, sizes | together), 15) == []
    assert left_out(make_graph(text, sizes | together | {"t": 2, "q": 9}), 16) == []


def test_in_a_given_order_too(make_graph):
    graph = make_graph("B: x->b; T: w->t; C: b,t->c; Z: c,x->z", TABLE)
    assert left_out(graph, 11, fixed_order=True) == ["T"]
    graph = make_graph("T: w->t; B: x->b; C: b,t->c; Z: c,x->z", TABLE)
    assert left_out(graph, 11, fixed_order=True) == []  # B waits for T


@st.composite
def tables(draw):
    """Graphs of a chain that reads tables, and of tables that read tables."""
    sizes, lines, tables = {"x": draw(st.integers(1, 6))}, [], []
    last = "x"
    for k in range(draw(st.integers(1, 3))):
        for _ in range(draw(st.integers(0, 2))):
            name = f"{k}{len(tables)}"
            read = [f"w{name}", *(tables[-1:] if draw(st.booleans()) else ())]
            sizes |= {f"w{name}": draw(st.integers(1, 9)), f"t{name}": draw(st.integers(1, 6))}
            lines.append(f"T{name}: {','.join(read)}->t{name}")
            tables.append(f"t{name}")
        read = [last, *(t for t in tables if draw(st.booleans()))]
        last = f"y{k}"
        sizes[last] = draw(st.integers(1, 6))
        lines.append(f"Y{k}: {','.join(read)}->{last}")
    return "; ".join(lines), sizes


def peaks(instance):
    """Most units live under every order that can run, by order."""
    n = len(instance.operators)
    for order in permutations(range(n)):
        if any(not instance.after[i] <= set(order[:t]) for t, i in enumerate(order)):
            continue
        uses = instance.uses(order)
        yield max(
            sum(instance.size[v] for v, at in enumerate(uses) if at and at[0] <= t <= at[-1])
            for t in range(n)
        )


@given(found=tables(), slack=st.integers(0, 6))
def test_a_residency_keeps_its_cost_and_its_order_of_all_else(make_graph, found, slack):
    graph = make_graph(*found)
    probe = build_instance(graph, 1, alignment=1, fixed_order=False)
    instance = replace(probe, capacity=max(probe.working_set) + slack)
    smaller = contracted(instance)
    order = tuple(range(len(smaller.operators)))
    nothing = Residency(smaller.instance, order, frozenset())
    whole = smaller.expand(nothing)
    assert sorted(whole.order) == list(range(len(instance.operators)))
    assert whole.cost == nothing.cost
    assert smaller.contract(whole) == nothing
    for i, before in enumerate(instance.after):
        assert all(whole.order.index(p) < whole.order.index(i) for p in before)
    everything = Residency(smaller.instance, order, all_gaps(smaller.instance, order))
    assert smaller.expand(everything).cost == 0


@given(found=tables())
def test_the_minimal_peak_is_that_of_all_orders(make_graph, found):
    graph = make_graph(*found)
    instance = build_instance(graph, 1, alignment=1, fixed_order=False)
    if len(instance.operators) > 6:
        return
    peak = minimal_peak_order(instance, deadline_s=perf_counter() + 60)
    assert peak.peak == peak.bound == min(peaks(instance))


def test_tables_do_not_multiply(make_graph):
    """Sixty layers with a table of two steps each, which can be made at any time before."""
    text, sizes = [], {"y0": 6}
    for k in range(60):
        text += [f"S{k}: v{k}->s{k}", f"T{k}: s{k},w{k}->t{k}", f"Y{k}: y{k},t{k}->y{k + 1}"]
        sizes |= {f"v{k}": 1, f"s{k}": 1, f"w{k}": 5, f"t{k}": 5, f"y{k + 1}": 6}
    instance = build_instance(make_graph("; ".join(text), sizes), 17, alignment=1, fixed_order=False)
    started_s = process_time()
    assert len(contracted(instance).operators) <= 60
    assert minimal_peak_order(instance, deadline_s=perf_counter() + 60).peak == 17
    assert process_time() - started_s < 5
