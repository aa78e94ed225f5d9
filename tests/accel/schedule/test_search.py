"""The state search against an exhaustive one, with each of its techniques on and off."""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from time import perf_counter, process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.schedule._atomic import search as engine
from accel.schedule._atomic import step_bounds as step_bound_engine
from accel.schedule._atomic.contraction import Contraction
from accel.schedule._atomic.late_operators import late_operators, late_targets
from accel.schedule._atomic.search import Relaxed, optimal_residencies, search
from accel.schedule._atomic.step_bounds import most_within, step_bounds
from accel.schedule._instance import build_instance
from accel.workload import Operator, Role, Tensor, Workload
from numerics.formats import parse_format

INT8 = parse_format("int8")


@st.composite
def instances(draw, max_operators=7, max_size=6):
    """Random graphs on little more than their largest working set, some operators in place.

    Some operators read a parameter alone that nothing else reads, or such a one and the result of another.
    """
    sizes = {f"x{k}": draw(st.integers(1, max_size)) for k in range(draw(st.integers(1, 2)))}
    parameters, operators = {}, []
    inputs = tuple(sizes)
    count = draw(st.integers(1, max_operators))
    for i in range(count):
        if draw(st.sampled_from((True, False))):
            parameters[f"w{i}"] = draw(st.integers(0, max_size))
            made = [operator.outputs[0] for operator in operators if operator.name.startswith("p")]
            read = [f"w{i}", *(made[-1:] if draw(st.booleans()) else ())]
            operators.append(Operator(name=f"p{i}", kind="op", inputs=tuple(read), outputs=(f"p{i}",)))
            sizes[f"p{i}"] = draw(st.integers(0, max_size))
            if i < count - 1:
                continue
        known = list(sizes)
        if draw(st.booleans()):
            read = [draw(st.sampled_from(known[-2:])), *draw(st.lists(st.sampled_from(known), max_size=2))]
        else:
            read = [draw(st.sampled_from(known[:3]))]
        if i == count - 1:
            seen = {name for operator in operators for name in operator.inputs}
            read += [name for name in known if name not in seen]
        written = [f"t{i}{k}" for k in range(draw(st.sampled_from((1, 1, 1, 2))))]
        sizes |= {name: draw(st.integers(0, max_size)) for name in written}
        operators.append(
            Operator(
                name=f"o{i}",
                kind="op",
                inputs=tuple(read),
                outputs=tuple(written),
                in_place=len(written) == 1 and draw(st.sampled_from((True, False, False))),
            )
        )
    outputs = draw(st.sets(st.sampled_from(sorted(sizes)), max_size=2)) | {operators[-1].outputs[0]}
    graph = Workload(
        name="random",
        operators=tuple(operators),
        tensors={
            name: Tensor(name=name, shape=(size,), role=Role.ACTIVATION, format=INT8)
            for name, size in (sizes | parameters).items()
        },
        inputs=(*inputs, *parameters),
        outputs=tuple(sorted(outputs)),
    )
    fixed_order = draw(st.booleans())
    return at_capacity(graph, draw(st.integers(0, 3)), fixed_order=fixed_order)


def at_capacity(graph, slack=0, fixed_order=False):
    """Instance with `slack` bytes more than its largest working set."""
    probe = build_instance(graph, 1, alignment=1, fixed_order=fixed_order)
    least = max(probe.working_set, default=0) * probe.unit_bytes
    return build_instance(graph, max(least, 1) + slack, alignment=1, fixed_order=fixed_order)


def exhaustive_optimum(instance):
    """Least units over every order and every set of tensors dropped at every step, needed or not.

    A drop is free and each fetch is paid when it happens, with the store if it is the first.
    """
    n, size = len(instance.operators), instance.size
    best, queue = {}, [(0, frozenset(), frozenset(), frozenset())]
    while queue:
        cost, done, here, fetched = heappop(queue)
        if len(done) == n:
            return cost
        if best.get((done, here, fetched), inf) < cost:
            continue
        for i in set(range(n)) - done:
            if not instance.after[i] <= done:
                continue
            after = done | {i}
            idle = sorted(here - set(instance.touched(i)))
            room = instance.capacity - instance.working_set[i]
            if any(set(instance.consumers[v]) <= after for v in instance.in_place[i]):
                room += size[instance.writes[i][0]]
            absent = [v for v in instance.reads[i] if v not in here and is_known(instance, v, done)]
            price = sum(size[v] * (1 if v in fetched or instance.always_backed[v] else 2) for v in absent)
            for chosen in range(1 << len(idle)):
                kept = [v for k, v in enumerate(idle) if chosen >> k & 1]
                if sum(size[v] for v in kept) > room:
                    continue
                left = frozenset(
                    v for v in (*kept, *instance.touched(i)) if set(instance.consumers[v]) - after
                )
                state = after, left, fetched | set(absent)
                if cost + price < best.get(state, inf):
                    best[state] = cost + price
                    heappush(queue, (cost + price, *state))
    raise AssertionError("no plan, though every working set fits")


def is_known(instance, v, done):
    made_by = instance.producer[v]
    return made_by in done if made_by is not None else bool(done & set(instance.consumers[v]))


def uncontracted(instance):
    """An instance from which nothing is left out."""
    every = tuple(range(len(instance.operators)))
    return Contraction(instance, instance, every, tuple(range(len(instance.size))), tuple(() for _ in every))


def least(instance, upper=1 << 40):
    return search(instance, upper=upper, deadline_s=perf_counter() + 60)


def peak(residency):
    """Most units in use at a step, results in place counted out."""
    instance = residency.instance
    used = [0] * len(residency.order)
    for block in residency.blocks:
        for t in range(block.start, block.end + 1):
            used[t] += instance.size[block.tensor]
    for t, i in enumerate(residency.order):
        done = set(residency.order[: t + 1])
        if any(set(instance.consumers[v]) <= done for v in instance.in_place[i]):
            used[t] -= instance.size[instance.writes[i][0]]
    return max(used, default=0)


@settings(max_examples=60)
@given(instance=instances(max_operators=6))
def test_the_optimum_is_that_of_all_orders_and_drops(instance):
    found = least(instance)
    assert found.bound == exhaustive_optimum(instance)
    assert found.residency.cost == found.bound
    assert peak(found.residency) <= instance.capacity


@settings(max_examples=40)
@given(instance=instances(max_operators=11, max_size=9))
def test_no_technique_changes_a_value(instance):
    expected = least(instance).bound
    for chain_limit, is_bounded, is_late, is_contracted, is_exchanged in (
        (0, False, False, False, False),
        (0, True, False, False, False),
        (1, False, False, False, False),
        (24, False, False, False, False),
        (0, False, True, False, False),
        (24, False, True, False, False),
        (0, False, False, True, False),
        (24, False, False, True, False),
        (0, False, False, False, True),
        (0, True, True, True, False),
        (24, False, True, False, True),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "_CHAIN_LIMIT", chain_limit)
            if not is_bounded:
                patch.setattr(engine.bounds, "step_bounds", lambda *_, **__: ())
            if not is_late:
                patch.setattr(engine, "late_operators", lambda _: frozenset())
            patch.setattr(engine, "_IS_EXCHANGED", is_exchanged)
            if not is_contracted:
                patch.setattr(engine, "contracted", uncontracted)
            found = least(instance)
        assert found.bound == found.residency.cost == expected


@settings(max_examples=40)
@given(instance=instances(max_operators=11, max_size=9))
def test_what_must_be_paid_at_single_steps_adds_up_to_no_more_than_the_optimum(instance):
    steps = step_bounds(instance, deadline_s=inf)
    assert all(step.units > 0 for step in steps)
    assert sum(step.units for step in steps) <= least(instance).bound


@settings(max_examples=40)
@given(instance=instances(max_operators=11, max_size=9))
def test_only_what_is_cheaper_than_the_limit_is_found(instance):
    optimum = least(instance)
    assert least(instance, upper=optimum.bound) == Relaxed(optimum.bound, None)
    assert least(instance, upper=optimum.bound + 1) == optimum


@settings(max_examples=40)
@given(instance=instances(max_operators=11, max_size=9))
def test_out_of_time_the_bound_is_a_bound(instance):
    optimum = least(instance).bound
    found = search(instance, upper=optimum + 1, deadline_s=0.0)
    assert found.residency is None
    assert found.bound <= optimum


@settings(max_examples=25)
@given(instance=instances(max_operators=9), seed=st.integers(0, 9))
def test_other_optimal_residencies_differ_and_are_optimal(instance, seed):
    optimum = least(instance)
    many = [
        list(optimal_residencies(instance, optimum.bound, tries=5, seed=seed, deadline_s=inf))
        for _ in range(2)
    ]
    assert many[0] == many[1]
    assert many[0][0] == optimum.residency
    assert len({(found.order, found.kept) for found in many[0]}) == len(many[0])
    for found in many[0]:
        assert found.cost == optimum.bound
        assert peak(found) <= instance.capacity


def test_two_independent_branches_give_two_optimal_orders(make_graph):
    graph = make_graph("A: x->a; B: x->b; C: a,b->c", {"x": 2, "a": 1, "b": 1, "c": 1})
    instance = at_capacity(graph, slack=1)
    found = optimal_residencies(instance, 0, tries=20, seed=0, deadline_s=inf)
    assert {residency.order for residency in found} == {(0, 1, 2), (1, 0, 2)}


def test_the_steps_that_cannot_hold_what_is_live_are_known_beforehand(make_graph):
    """While b becomes c, 7 of 7 units, a must be out: it costs 2 units to store and 2 to fetch."""
    graph = make_graph("A: x->a; B: a->b; C: b->c; D: a,c->d", {"x": 1, "a": 2, "b": 3, "c": 4, "d": 1})
    (step,) = step_bounds(at_capacity(graph), deadline_s=inf)
    assert (step.operator, step.units, step.share) == (2, 4, {1: 4})


def test_a_tensor_leaves_whole_however_little_is_over(make_graph):
    """While b becomes c, 19 of 18 units, a must be out: 18 units, though one would make the room."""
    graph = make_graph("A: x->a; B: a->b; C: b->c; D: a,c->d", {"x": 1, "a": 9, "b": 4, "c": 6, "d": 1})
    instance = build_instance(graph, 18, alignment=1, fixed_order=False)
    (step,) = step_bounds(instance, deadline_s=inf)
    assert (step.operator, step.units, step.share) == (2, 18, {1: 18})


@given(
    items=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 20)), max_size=7), room=st.integers(-3, 40)
)
def test_the_best_choice_that_has_room(items, room):
    choices = [[item for k, item in enumerate(items) if chosen >> k & 1] for chosen in range(1 << len(items))]
    best = max(sum(value for _, value in c) for c in choices if sum(u for u, _ in c) <= max(room, 0))
    assert most_within(items, room) == best
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_bound_engine, "_MOST_CHOICES", 1)
        assert best <= most_within(items, room) <= sum(value for _, value in items)


def test_operators_wait_that_only_take_up_room(make_graph):
    """K, L: one reader each. M: its result may be fetched twice. S shrinks x. N, for a small result."""
    sizes = {"y": 3, "x": 3, "k": 3, "l": 4, "m": 4, "s": 2, "n": 4, "p": 3, "q": 3, "r": 3, "u": 3, "t": 2}
    graph = make_graph(
        "X: y->x; K: x->k; L: x->l; M: x->m; S: x->s; N: x->n; P: k,l->p; Q: m->q; R: m->r; U: s->u; T: n->t",
        sizes,
    )
    late = late_operators(at_capacity(graph))
    assert {graph.operators[i].name for i in late} == {"K", "L"}


def test_a_chain_waits_whole_until_its_result_is_read(make_graph):
    """x is there for J as well, so K, L and M have time until N. Q shrinks p, which only P makes."""
    sizes = {"y": 3, "x": 3, "k": 3, "l": 3, "m": 4, "n": 6, "j": 3, "o": 3, "p": 3, "q": 2, "r": 2}
    graph = make_graph(
        "X: y,y2->x; K: x->k; L: k->l; M: l->m; J: x->j; N: j,m->n; O: n->o; P: n->p; Q: p->q; R: o,q,y2->r",
        sizes | {"y2": 5, "j": 2},
    )
    instance = at_capacity(graph)
    late = late_operators(instance)
    targets = late_targets(instance, late)
    assert {graph.operators[i].name: [graph.operators[c].name for c in targets[i]] for i in late} == {
        "K": ["N"],
        "L": ["N"],
        "M": ["N"],
    }


def test_a_table_of_several_readers_waits_for_the_first(make_graph):
    sizes = {"y": 3, "w": 2, "t": 3, "a": 3, "b": 3}
    graph = make_graph("T: w->t; A: y,t->a; B: a,t->b", sizes)
    assert late_operators(at_capacity(graph)) == {0}
    graph = make_graph("T: w->t; A: y,t->a; B: a,t->b", sizes | {"w": 4})
    assert late_operators(at_capacity(graph)) == frozenset()
    graph = make_graph("T: w->t; A: y,t->a; B: a,t,z->b", sizes | {"w": 4, "z": 1})
    assert late_operators(at_capacity(graph)) == {0}  # z is there beside B alone


def test_two_streams_with_steps_between_them_do_not_multiply(make_graph):
    """Each of twelve blocks of one stream hands on to the other in four steps: 5^12 sets can be done."""
    text, sizes = "A: x->a0; B: x->b0", {"x": 4, "a0": 4, "b0": 4}
    for k in range(12):
        text += f"; N{k}: a{k}->n{k}; M{k}: n{k}->m{k}; A{k}: a{k},m{k}->a{k + 1}"
        text += f"; C{k}: a{k + 1}->c{k}; D{k}: c{k}->d{k}; E{k}: d{k}->e{k}; F{k}: e{k}->f{k}"
        text += f"; G{k}: b{k},f{k}->g{k}; H{k}: g{k}->h{k}; I{k}: h{k}->i{k}; B{k}: g{k},i{k}->b{k + 1}"
        sizes |= {f"n{k}": 4, f"m{k}": 9, f"a{k + 1}": 4, f"c{k}": 4, f"d{k}": 4, f"e{k}": 4, f"f{k}": 4}
        sizes |= {f"g{k}": 4, f"h{k}": 16, f"i{k}": 4, f"b{k + 1}": 4}
    instance = at_capacity(make_graph(text + "; Z: a12,b12->z", sizes | {"z": 1}), slack=2)
    least(at_capacity(make_graph("A: x->a", {"x": 1, "a": 1})))  # compiled before the clock starts
    started_s = process_time()
    found = least(instance)
    assert found.bound == found.residency.cost > 0
    assert process_time() - started_s < 10


def test_of_tensors_of_one_size_those_stay_that_are_read_first(make_graph):
    """Beside C two of p, q and r must leave, and p is read first."""
    graph = make_graph(
        "A: x->p; B: x->q; D: x->r; C: p,q,r,x->c; E: c->e; P: e,p->s; Q: s,q->t; R: t,r->u",
        {"x": 1, "p": 4, "q": 4, "r": 4, "c": 3, "e": 13, "s": 1, "t": 1, "u": 1},
    )
    instance = build_instance(graph, 20, alignment=1, fixed_order=False)
    found = least(instance)
    assert found.bound == found.residency.cost == 16
    kept = {instance.tensors[block.tensor] for block in found.residency.blocks if block.start < 4 < block.end}
    assert kept & {"p", "q", "r"} == {"p"}


def test_projections_of_one_tensor_for_many_layers_do_not_multiply(make_graph):
    """Keys and values of an encoder's output for ten layers: 2^20 sets of them can be there at the start."""
    text, sizes = "E: x->e; Y: x->y0", {"x": 4, "e": 4, "y0": 6}
    for k in range(10):
        text += f"; K{k}: e->k{k}; V{k}: e->v{k}; Q{k}: y{k}->q{k}"
        text += f"; S{k}: q{k},k{k}->s{k}; O{k}: s{k},v{k}->o{k}; Y{k}: o{k},y{k}->y{k + 1}"
        sizes |= {f"k{k}": 4, f"v{k}": 4, f"q{k}": 6, f"s{k}": 8, f"o{k}": 6, f"y{k + 1}": 6}
    instance = at_capacity(make_graph(text, sizes), slack=4)
    least(at_capacity(make_graph("A: x->a", {"x": 1, "a": 1})))  # compiled before the clock starts
    started_s = process_time()
    found = least(instance)
    assert found.bound == found.residency.cost > 0
    assert process_time() - started_s < 10


def test_branches_do_not_multiply(make_graph):
    """Forty residual branches of three operators each: 4^40 sets of operators can be done."""
    text, sizes = "S: x->s", {"x": 4, "s": 4}
    for k in range(40):
        text += f"; A{k}: s->a{k}; B{k}: a{k}->b{k}; C{k}: a{k},b{k}->c{k}"
        sizes |= {f"a{k}": 4, f"b{k}": 4, f"c{k}": 1}
    text += "; Z: s," + ",".join(f"c{k}" for k in range(40)) + "->z"
    instance = at_capacity(make_graph(text, sizes | {"z": 1}), slack=8)
    started_s = process_time()
    assert least(instance).bound == 0
    assert process_time() - started_s < 30


def test_tensors_with_the_same_readers_are_evicted_in_one_order(make_graph):
    """Thirty alike tensors, fifteen of which must leave: 155 million choices, one of them needed."""
    text, sizes = "", {"x": 1}
    for k in range(30):
        text += f"P{k}: x->p{k}; "
        sizes[f"p{k}"] = 2
    names = ",".join(f"p{k}" for k in range(30))
    text += f"B: {names}->b; C: b->c; D: {names},c->d"
    instance = at_capacity(make_graph(text, sizes | {"b": 1, "c": 30, "d": 1}), slack=0)
    started_s = process_time()
    found = least(instance)
    assert found.bound == found.residency.cost
    assert process_time() - started_s < 30


def test_a_state_of_very_many_choices_does_not_outlast_the_deadline(make_graph):
    """Each of 40 tensors has readers of its own, so every half of them is another choice."""
    text, sizes = "", {"x": 1}
    for k in range(40):
        text += f"P{k}: x->p{k}; "
        sizes[f"p{k}"] = 100 + k
    text += "B: " + ",".join(f"p{k}" for k in range(40)) + "->b; C: b->c; "
    text += "; ".join(f"Q{k}: p{k},c->q{k}" for k in range(40))
    sizes |= {"b": 1, "c": 2400} | {f"q{k}": 1 for k in range(40)}
    instance = at_capacity(make_graph(text, sizes))
    least(at_capacity(make_graph("A: x->a", {"x": 1, "a": 1})))  # compiled before the clock starts
    started_s = perf_counter()
    found = search(instance, upper=1 << 40, deadline_s=started_s + 0.3)
    assert perf_counter() - started_s < 10
    assert found.bound >= sum(step.units for step in step_bounds(instance, deadline_s=inf)) > 0
