"""The minimal peak of live bytes, against known values and an oracle that tries every order."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.schedule import peak
from accel.schedule._instance import build_instance
from accel.schedule.peak import minimal_peak_order, peak_minimum
from accel.workload import Role, Workload
from oracles.scratchpads import graphs


def live_bytes(graph, order):
    """Bytes live at each step, from the life of each tensor; in place an output lies on its input."""
    size = {name: tensor.bytes for name, tensor in graph.tensors.items()}
    uses = {}
    for t, op in enumerate(order):
        for name in (*op.inputs, *op.outputs):
            uses.setdefault(name, []).append(t)
    found = []
    for t, op in enumerate(order):
        used = sum(size[name] for name, steps in uses.items() if min(steps) <= t <= max(steps))
        if op.in_place and any(
            max(uses[name]) == t and name not in graph.outputs and size[name] >= size[op.outputs[0]] > 0
            for name in op.inputs
        ):
            used -= size[op.outputs[0]]
        found.append(used)
    return found


def orders(graph):
    """Every order in which the operators can run."""

    def extend(done, available):
        if len(done) == len(graph.operators):
            yield done
        for op in graph.operators:
            if op not in done and available.issuperset(op.inputs):
                yield from extend((*done, op), available.union(op.outputs))

    return extend((), frozenset(graph.inputs))


def exhaustive_minimum(graph):
    return min(max(live_bytes(graph, order), default=0) for order in orders(graph))


def instance_of(graph):
    return build_instance(graph, 0, alignment=1, fixed_order=False)


def fork(make_graph, branches):
    """Branches of a large and a small tensor each; every set of finished branches is as good as another."""
    pairs = "".join(f"B{k}: x->b{k}; P{k}: b{k}->p{k};" for k in range(branches))
    joined = ",".join(f"p{k}" for k in range(branches))
    sizes = (
        {"x": 1} | {f"b{k}": 6 for k in range(branches)} | {f"p{k}": 1 for k in range(branches)} | {"d": 1}
    )
    return make_graph(f"{pairs} D: {joined}->d", sizes)


@pytest.mark.parametrize(
    ("name", "expected"), [("T1", 8), ("T2", 8), ("T3", 16), ("T4", 11), ("T5", 11), ("T6", 22)]
)
def test_known_minima_of_small_graphs(reference_graphs, name, expected):
    assert peak_minimum(reference_graphs[name]) == expected


def test_known_minimum_of_a_network():
    graph = Workload.named("zoo:shufflenet", fuse="elementwise").with_formats("int8")
    assert peak_minimum(graph) == 721280


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fuse", "expected"),
    [
        ("bvlc_alexnet", "elementwise", 559872),
        ("densenet121", "elementwise", 1806336),
        ("densenet121", "none", 2107392),
        ("inception_v1", "elementwise", 1161600),
        ("inception_v2", "elementwise", 1003520),
        ("resnet50", "elementwise", 2408448),
        ("squeezenet", "elementwise", 982144),
        ("vgg19", "elementwise", 6422528),
        ("zfnet512", "elementwise", 2281152),
    ],
)
def test_known_minima_of_more_networks(name, fuse, expected):
    graph = Workload.named(f"zoo:{name}", fuse=fuse).with_formats("int8")
    assert peak_minimum(graph) == expected


@settings(max_examples=40)
@given(graph=graphs(1, 6, in_place=True))
def test_the_minimum_is_that_of_all_orders(graph):
    instance = instance_of(graph)
    found = minimal_peak_order(instance, deadline_s=perf_counter() + 60)
    order = [graph.operators[i] for i in found.order]
    assert order in [list(each) for each in orders(graph)]
    assert max(live_bytes(graph, order)) == found.peak * instance.unit_bytes
    assert found.bound == found.peak
    assert found.peak * instance.unit_bytes == exhaustive_minimum(graph)


@settings(max_examples=40)
@given(graph=graphs(2, 5), backward=st.booleans())
def test_the_search_alone_is_exact_from_either_end(graph, backward):
    instance = instance_of(graph)
    moves = peak._Moves(instance, backward=backward)
    minimum, order = peak._search(moves, 0, 1 << 40, 1 << 40, perf_counter() + 60)
    assert minimum * instance.unit_bytes == exhaustive_minimum(graph)
    assert max(live_bytes(graph, [graph.operators[i] for i in order])) == minimum * instance.unit_bytes
    assert peak._search(moves, 0, minimum, 1 << 40, perf_counter() + 60) == (minimum, None)


@settings(max_examples=40)
@given(graph=graphs(2, 5, in_place=True))
def test_the_least_context_of_an_operator_is_that_of_all_orders(graph):
    instance = instance_of(graph)
    moves = peak._Moves(instance)
    least = {}
    for order in orders(graph):
        # In place counts wherever it may be, so that the bound holds for every order.
        for op, used in zip(
            order, live_bytes(replace(graph, operators=plain(order)), plain(order)), strict=True
        ):
            least[op.name] = min(used, least.get(op.name, used))
    for i, op in enumerate(graph.operators):
        descendants = sum(1 << j for j in range(len(graph.operators)) if moves.ancestors[j] >> i & 1)
        saved = graph.tensors[op.outputs[0]].bytes if instance.in_place[i] else 0
        context = peak._least_context(moves, i, descendants) * instance.unit_bytes
        assert context == least[op.name] - saved


def plain(order):
    return tuple(replace(op, in_place=False) for op in order)


def test_many_equal_branches_are_soon_decided(make_graph):
    found = minimal_peak_order(instance_of(fork(make_graph, 20)), deadline_s=perf_counter() + 60)
    assert (found.peak, found.bound) == (1 + 19 + 6, 1 + 19 + 6)  # the last b beside x and the other p


def test_the_same_order_every_time(make_graph):
    instance = instance_of(fork(make_graph, 10))
    first, second = (minimal_peak_order(instance, deadline_s=perf_counter() + 60) for _ in range(2))
    assert first == second


def test_a_limit_of_time_leaves_an_order_and_a_bound(reference_graphs):
    found = minimal_peak_order(instance_of(reference_graphs["T2"]), deadline_s=perf_counter())
    assert sorted(found.order) == list(range(6))
    assert (found.peak, found.bound) == (13, 7)  # file order, and the largest working set
    with pytest.warns(RuntimeWarning, match=r"minimal peak of test is in 7\.\.13 bytes"):
        assert peak_minimum(reference_graphs["T2"], time_limit_s=1e-9) == 13


def test_weights_count_as_they_are_kept(make_graph):
    graph = make_graph("A: x,v->a; B: a,w->b", {"x": 2, "v": 30, "a": 5, "w": 40, "b": 3})
    tensors = dict(graph.tensors)
    for name in ("v", "w"):
        tensors[name] = replace(tensors[name], role=Role.WEIGHT)
    graph = replace(graph, tensors=tensors)
    assert peak_minimum(graph) == 5 + 3
    assert peak_minimum(graph, weights="tracked") == 5 + 40 + 3
    assert peak_minimum(graph, weights="resident") == 30 + 40 + 5 + 3
    assert peak_minimum(graph, weights="resident", resident=["v"]) == 30 + 5 + 3
    assert peak_minimum(graph, alignment=4) == 8 + 4


def test_an_output_in_place_takes_no_room_of_its_own(make_graph):
    graph = make_graph("A: x->a; B: a->b", {"x": 1, "a": 5, "b": 4})
    operators = (graph.operators[0], replace(graph.operators[1], in_place=True))
    assert peak_minimum(graph) == 9
    assert peak_minimum(replace(graph, operators=operators)) == 6


def test_graphs_of_nothing_and_of_one_operator(make_graph):
    assert peak_minimum(make_graph("", {})) == 0
    assert peak_minimum(make_graph("A: x->a", {"x": 2, "a": 3})) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_limit_s": 0}, "time_limit_s must be positive, got 0"),
        ({"weights": "lost"}, "weights must be one of streamed, tracked, resident; got 'lost'"),
        ({"alignment": 0}, "alignment must be at least 1, got 0"),
    ],
)
def test_bad_options(reference_graphs, options, message):
    with pytest.raises(ValueError, match=message):
        peak_minimum(reference_graphs["T1"], **options)
