from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel import Operator, Role, Tensor, Workload
from accel.schedule import Run, Schedule, Transfer, schedule
from accel.schedule.events import (
    POLICIES,
    Channel,
    Resources,
    Server,
    Task,
    open_queue,
    run_tasks,
    simulate,
)
from oracles.timeline import replay, run_by_ticks

ONE = (Server(name="cpu"),)
TWO = (Server(name="cpu", count=2),)


def times(trace):
    return {name: (s, e) for name, s, e in zip(trace.tasks, trace.start, trace.end, strict=True)}


# --- tasks and servers ---


def test_tasks_start_in_order_of_readiness():
    tasks = [
        Task(name="a", service={"cpu": 4}),
        Task(name="b", service={"cpu": 1}, arrival=3),
        Task(name="c", service={"cpu": 2}, arrival=1),
    ]
    trace = run_tasks(tasks, ONE)
    assert times(trace) == {"a": (0, 4), "c": (4, 6), "b": (6, 7)}
    assert trace.makespan == 7
    assert trace.mean_waiting == (0 + 3 + 3) / 3
    assert trace.mean_response == (4 + 4 + 5) / 3
    assert trace.utilization == {"cpu": 1.0}


def test_a_task_that_no_idle_server_can_run_holds_up_no_other():
    servers = (Server(name="cpu"), Server(name="fft"))
    tasks = [
        Task(name="a", service={"fft": 5}),
        Task(name="b", service={"fft": 5}),
        Task(name="c", service={"cpu": 2}),
    ]
    assert times(run_tasks(tasks, servers)) == {"a": (0, 5), "b": (5, 10), "c": (0, 2)}


def test_the_longest_path_goes_first():
    # b leads to d: 1 + 6; a and c are single. FIFO: a, b then c, d: ends at 2 + 1 + 6.
    tasks = [
        Task(name="a", service={"cpu": 3}),
        Task(name="c", service={"cpu": 3}),
        Task(name="b", service={"cpu": 1}),
        Task(name="d", service={"cpu": 6}, after=("b",)),
    ]
    assert times(run_tasks(tasks, TWO)) == {"a": (0, 3), "c": (0, 3), "b": (3, 4), "d": (4, 10)}
    best = run_tasks(tasks, TWO, policy="critical-path")
    assert times(best) == {"b": (0, 1), "a": (0, 3), "d": (1, 7), "c": (3, 6)}
    assert best.makespan == best.lower_bound == 7


def test_earliest_finish_waits_for_a_faster_server_only_if_it_ends_sooner():
    servers = (Server(name="slow"), Server(name="fast"))
    tasks = [Task(name=f"t{i}", service={"slow": 10, "fast": 4}) for i in range(3)]
    # fast ends at 4, 8, 12: the third ends sooner on the idle slow one
    assert times(run_tasks(tasks, servers, policy="earliest-finish")) == {
        "t0": (0, 4), "t1": (4, 8), "t2": (0, 10),
    }  # fmt: skip
    assert times(run_tasks(tasks, servers)) == {"t0": (0, 4), "t1": (0, 10), "t2": (4, 8)}


def test_servers_of_one_kind_share_its_service_times():
    servers = (Server(name="near", kind="cpu"), Server(name="far", kind="cpu", count=2))
    trace = run_tasks([Task(name=f"t{i}", service={"cpu": 3}, kind="job") for i in range(4)], servers)
    assert list(trace.table.server) == ["near", "far", "far", "near"]
    assert list(trace.table.unit) == [0, 0, 1, 0]
    assert trace.utilization == {"near": 1.0, "far": 0.5}


def test_stalls_and_queue_lengths_by_hand():
    tasks = [
        Task(name="a", service={"cpu": 4}),
        Task(name="b", service={"cpu": 2}, arrival=1),
        Task(name="c", service={"cpu": 2}, arrival=1, after=("a",)),
    ]
    trace = run_tasks(tasks, ONE)  # a 0-4, b 4-6, c 6-8
    assert trace.stalls == {"dependency": 3, "server": 3 + 2}
    lengths = trace.queue_lengths("cpu")
    assert list(zip(lengths.time, lengths.waiting, strict=True)) == [(1, 1), (4, 1), (6, 0)]
    assert trace.mean_queue_length() == 5 / 8


def test_tasks_without_time_and_no_tasks():
    tasks = [Task(name="a", service={"cpu": 0}), Task(name="b", service={"cpu": 0}, after=("a",))]
    assert times(run_tasks(tasks, ONE)) == {"a": (0, 0), "b": (0, 0)}
    empty = run_tasks([], ONE)
    assert (empty.makespan, empty.mean_response, empty.lower_bound) == (0, 0, 0)
    assert empty.utilization == {"cpu": 0.0}
    assert empty.table.empty
    assert empty.queue_lengths().empty


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Task(name="a", service={"cpu": -1}), "service on cpu of task a must be at least 0"),
        (lambda: Task(name="a", service={"cpu": float("nan")}), "must be at least 0 and finite, got nan"),
        (lambda: Task(name="a", service={"cpu": 1}, arrival=-2), "arrival of task a .* got -2"),
        (lambda: Task(name="a", service={}), "at least 1 kind of server"),
        (lambda: Server(name="cpu", count=0), "count of server cpu must be at least 1, got 0"),
        (lambda: run_tasks([Task(name="a", service={"gpu": 1})], ONE), "a runs on gpu, .* are cpu"),
        (lambda: run_tasks([Task(name="a", service={"cpu": 1})] * 2, ONE), "got a twice"),
        (lambda: run_tasks([], ()), "servers must be at least 1"),
        (lambda: run_tasks([], ONE * 2), "got cpu twice"),
        (
            lambda: run_tasks([], ONE, policy="lifo"),
            "one of fifo, critical-path, earliest-finish; got 'lifo'",
        ),
        (lambda: run_tasks([], ONE).queue_lengths("gpu"), "server must be one of cpu; got 'gpu'"),
        (lambda: run_tasks([Task(name="a", service={"cpu": 1}, after=("z",))], ONE), "'z', which is no task"),
        (
            lambda: run_tasks(
                [
                    Task(name="s", service={"cpu": 1}, after=("b",)),
                    Task(name="a", service={"cpu": 1}, after=("b",)),
                    Task(name="b", service={"cpu": 1}, after=("a",)),
                ],
                ONE,
            ),
            "cycle: (a after b after a|b after a after b)",
        ),
    ],
)
def test_bad_tasks_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@st.composite
def task_sets(draw):
    server = st.builds(Server, name=st.sampled_from("ABC"), count=st.integers(1, 2))
    servers = draw(st.lists(server, min_size=1, max_size=3, unique_by=lambda server: server.name))
    kinds = st.sampled_from([server.name for server in servers])
    return servers, [
        Task(
            name=f"t{i}",
            service=draw(st.dictionaries(kinds, st.integers(1, 6), min_size=1)),
            after=tuple(draw(st.lists(st.sampled_from([f"t{j}" for j in range(i)]), max_size=2)))
            if i
            else (),
            arrival=draw(st.integers(0, 6)),
        )
        for i in range(draw(st.integers(0, 9)))
    ]


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=30)
@given(given_tasks=task_sets())
def test_agrees_with_a_simulation_by_ticks(policy, given_tasks):
    servers, tasks = given_tasks
    trace = run_tasks(tasks, servers, policy=policy)
    start, end = run_by_ticks(tasks, servers, policy)
    assert times(trace) == {name: (start[name], end[name]) for name in start}
    assert trace.makespan >= trace.lower_bound
    lanes = {}
    for row in trace.table.itertuples():
        assert row.end - row.start == tasks[row.Index].service[row.server]
        lanes.setdefault((row.server, row.unit), []).append((row.start, row.end))
    assert all(a[1] <= b[0] for lane in lanes.values() for a, b in pairwise(sorted(lane)))


@pytest.mark.parametrize("policy", ["fifo", "critical-path"])
@settings(max_examples=12)
@given(given_tasks=task_sets())
def test_no_server_is_idle_while_a_task_that_it_can_run_waits(policy, given_tasks):
    servers, tasks = given_tasks
    trace = run_tasks(tasks, servers, policy=policy)
    for task, ready, start in zip(tasks, trace.ready, trace.start, strict=True):
        for now in np.arange(ready, start):
            for s, server in enumerate(servers):
                running = ((trace.server == s) & (trace.start <= now) & (now < trace.end)).sum()
                assert server.name not in task.service or running == server.count


# --- random arrivals ---


def erlang_c(servers, load):
    """Share of tasks that wait in M/M/c, `load` = arrival rate times mean service time."""
    none = sum(load**k / factorial(k) for k in range(servers))
    all_busy = load**servers / factorial(servers) * servers / (servers - load)
    return all_busy / (none + all_busy)


def assert_erlang(servers, utilization, tasks, seed):
    load = servers * utilization
    trace = open_queue(
        [Server(name="unit", count=servers)],
        arrival_rate=load / 2,
        mean_service={"task": {"unit": 2.0}},
        tasks=tasks,
        seed=seed,
    )
    expected = 2.0 * (1 + erlang_c(servers, load) / (servers - load))
    assert trace.mean_response == pytest.approx(expected, rel=0.02)
    assert (trace.waiting > 0).mean() == pytest.approx(erlang_c(servers, load), rel=0.02)
    assert trace.utilization["unit"] == pytest.approx(utilization, rel=0.01)
    # Little's law
    assert trace.mean_queue_length() == pytest.approx(load / 2 * trace.mean_waiting, rel=0.01)


@pytest.mark.parametrize(("servers", "utilization"), [(1, 0.6), (2, 0.5), (3, 0.8), (8, 0.8)])
def test_mean_response_is_that_of_erlang(servers, utilization):
    assert_erlang(servers, utilization, 400_000, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("servers", "utilization"), [(1, 0.3), (1, 0.9), (2, 0.9), (4, 0.9), (16, 0.9)])
def test_mean_response_is_that_of_erlang_at_high_load(servers, utilization, seed):
    assert_erlang(servers, utilization, 4_000_000, seed=seed)


@pytest.mark.parametrize("policy", POLICIES)
def test_random_tasks_are_the_same_with_a_seed_and_longer_runs_begin_alike(policy):
    def run(tasks, seed):
        return open_queue(
            [Server(name="cpu", count=2), Server(name="fft")],
            arrival_rate=0.5,
            mean_service={"fft": {"cpu": 9.0, "fft": 1.0}, "code": {"cpu": 2.0}},
            shares={"fft": 1, "code": 3},
            tasks=tasks,
            seed=seed,
            policy=policy,
        )

    a, b, longer, other = run(2000, 1), run(2000, 1), run(3000, 1), run(2000, 2)
    assert a.table.equals(b.table)
    assert (a.arrival == longer.arrival[:2000]).all()
    assert list(a.kinds) == list(longer.kinds[:2000])
    assert a.makespan != other.makespan
    assert 0.2 < np.mean(a.kinds == "fft") < 0.3
    assert (a.table[a.table.kind == "code"].server == "cpu").all()
    if policy != "critical-path":  # those of earlier tasks do not depend on later ones
        assert (a.end[:1000] == longer.end[:1000]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arrival_rate": 0.0}, "arrival_rate must be above 0 and finite, got 0.0"),
        ({"mean_service": {"task": {"cpu": -1.0}}}, "mean_service of task on cpu .* got -1.0"),
        ({"mean_service": {"task": {"gpu": 1.0}}}, "mean_service of task must name one of the servers cpu"),
        ({"mean_service": {}}, "at least 1 kind of task"),
        ({"tasks": -1}, "tasks must be at least 0, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"shares": {"job": 1.0}}, "shares must be of the kinds task; got job"),
        ({"shares": {"task": 0.0}}, "shares must be at least 0 and not all 0"),
    ],
)
def test_bad_queues_are_refused(changes, message):
    good = {"arrival_rate": 0.5, "mean_service": {"task": {"cpu": 1.0}}, "tasks": 10, "seed": 0}
    with pytest.raises(ValueError, match=message):
        open_queue(ONE, **(good | changes))


# --- schedules ---


def plan(graph, runs, transfers, **fields):
    """A checked plan in file order; runs are ``tensor start end address``, transfers ``kind tensor step``."""
    size = {name: tensor.bytes for name, tensor in graph.tensors.items()}
    stays = [(name, *map(int, rest)) for name, *rest in map(str.split, filter(None, runs.split(",")))]
    moves = [(kind, name, int(step)) for kind, name, step in map(str.split, transfers.split(","))]
    found = Schedule(
        workload=graph,
        scratchpad_bytes=max((address + size[name] for name, _, _, address in stays), default=0),
        alignment=1,
        order=tuple(op.name for op in graph.operators),
        residency=tuple(
            Run(tensor=name, start=start, end=end, address=address, bytes=size[name])
            for name, start, end, address in stays
        ),
        transfers=tuple(
            Transfer(step=step, tensor=name, bytes=size[name], kind=kind) for kind, name, step in moves
        ),
        bound_bytes=0,
        method="greedy",
        solver="none",
        seconds=0.0,
        **fields,
    )
    found.check()
    return found


def dma(**changes):
    return Channel(**({"bytes_per_cycle": 1} | changes))


def starts(simulation):
    return {(row.kind, row.name): (row.start, row.end) for row in simulation.events.itertuples()}


def lost(simulation):
    """Stalls that there are."""
    return {cause: cycles for cause, cycles in simulation.stalls.items() if cycles}


@pytest.fixture(scope="module")
def weighted(make_graph):
    """Two layers whose weights are streamed: two bytes of data each, 4 and 6 bytes of weights."""
    graph = make_graph("A: x,v->a; B: a,w->b", {"x": 2, "v": 4, "w": 6, "a": 2, "b": 2})
    tensors = {
        name: replace(tensor, role=Role.WEIGHT) if name in "vw" else tensor
        for name, tensor in graph.tensors.items()
    }
    return plan(
        replace(graph, tensors=tensors),
        "x 0 0 0, a 0 1 2, b 1 1 0",
        "load x 0, load v 0, load w 1, store b 1",
        weights="streamed",
    )


def test_without_double_buffering_a_fetch_follows_the_operator_before(weighted):
    run = simulate(
        weighted, Resources(channels=(dma(),), double_buffering=False), compute_cycles={"A": 5, "B": 5}
    )
    assert starts(run) == {
        ("load", "x"): (0, 2), ("load", "v"): (2, 6), ("compute", "A"): (6, 11),
        ("load", "w"): (11, 17), ("compute", "B"): (17, 22), ("store", "b"): (22, 24),
    }  # fmt: skip
    assert lost(run) == {"dma": 6 + 6, "end": 2}
    assert run.utilization == {"compute": 10 / 24, "dma": 14 / 24}


def test_with_double_buffering_a_fetch_runs_beside_the_operator_before(weighted):
    run = simulate(weighted, Resources(channels=(dma(),)), compute_cycles=lambda op: 5)
    assert starts(run) == {
        ("load", "x"): (0, 2), ("load", "v"): (2, 6), ("compute", "A"): (6, 11),
        ("load", "w"): (6, 12), ("compute", "B"): (12, 17), ("store", "b"): (17, 19),
    }  # fmt: skip
    assert run.makespan_cycles == 19
    assert run.stalls["dma"] == 6 + 1
    # bytes 2 + 4 + 6 in and 2 out; the last operand in, then B and its store; x, A, B, store
    assert run.bounds == {"compute": 10, "dma": 14, "dma_in": 12, "dma_out": 2, "path": 6 + 5 + 2 + 4 - 1}


def test_a_fetch_waits_for_the_block_it_fills(make_graph):
    # y takes the block of a, which B reads until 10; without that it would be there at 11: C waits 1, not 4
    graph = make_graph("A: x->a; B: a->b; C: b,y->c", {"x": 4, "y": 4, "a": 4, "b": 4, "c": 4})
    found = plan(
        graph, "x 0 0 0, a 0 1 4, b 1 2 0, y 2 2 4, c 2 2 8", "load x 0, load y 2, store c 2"
    )  # fmt: skip
    run = simulate(found, Resources(channels=(dma(),)), compute_cycles=lambda op: 3)
    assert starts(run) == {
        ("load", "x"): (0, 4), ("compute", "A"): (4, 7), ("compute", "B"): (7, 10),
        ("load", "y"): (10, 14), ("compute", "C"): (14, 17), ("store", "c"): (17, 21),
    }  # fmt: skip
    assert lost(run) == {"memory": 3, "dma": 4 + 1, "end": 4}
    elsewhere = plan(
        graph, "x 0 0 0, a 0 1 4, b 1 2 0, y 2 2 8, c 2 2 12", "load x 0, load y 2, store c 2"
    )  # fmt: skip
    run = simulate(elsewhere, Resources(channels=(dma(),)), compute_cycles=lambda op: 3)
    assert starts(run)["load", "y"] == (7, 11)
    assert run.stalls["memory"] == 0
    deeper = Resources(channels=(dma(),), double_buffering=2)
    assert starts(simulate(elsewhere, deeper, compute_cycles=lambda op: 3))["load", "y"] == (4, 8)


def test_a_refetch_waits_for_its_spill_and_a_result_for_the_spill_of_what_lay_there(make_graph):
    # B's result takes the block of a as soon as that is off chip
    graph = make_graph("A: x->a; B: x->b; C: a,b->c", {"x": 2, "a": 4, "b": 4, "c": 1})
    found = plan(
        graph,
        "x 0 1 0, a 0 0 2, b 1 2 2, a 2 2 6, c 2 2 0",
        "load x 0, spill a 0, refetch a 2, store c 2",
    )
    both = simulate(found, Resources(channels=(dma(),)), compute_cycles=lambda op: 3)
    assert starts(both) == {
        ("load", "x"): (0, 2), ("compute", "A"): (2, 5), ("spill", "a"): (5, 9), ("compute", "B"): (9, 12),
        ("refetch", "a"): (9, 13), ("compute", "C"): (13, 16), ("store", "c"): (16, 17),
    }  # fmt: skip
    assert lost(both) == {"memory": 4, "dma": 2 + 1, "end": 1}


def test_channels_of_two_directions_work_side_by_side(make_graph):
    graph = make_graph("A: x->a; B: y->b", {"x": 4, "y": 6, "a": 6, "b": 2})
    found = plan(graph, "x 0 0 0, a 0 0 4, y 1 1 10, b 1 1 16", "load x 0, store a 0, load y 1, store b 1")
    ways = Resources(
        channels=(
            dma(name="in", direction="in", latency_cycles=1),
            dma(name="out", direction="out", bytes_per_cycle=4),
        )
    )
    run = simulate(found, ways, compute_cycles={"A": 2, "B": 9})
    assert starts(run) == {
        ("load", "x"): (0, 5), ("load", "y"): (5, 12), ("compute", "A"): (5, 7), ("store", "a"): (7, 9),
        ("compute", "B"): (12, 21), ("store", "b"): (21, 22),
    }  # fmt: skip
    assert run.bounds["dma_in"] == 12
    assert run.bounds["dma_out"] == 3  # of 2 and 1 cycles
    assert list(run.events.resource) == ["in", "compute", "in", "out", "compute", "out"]


@pytest.fixture(scope="module")
def branches(make_graph):
    return make_graph(
        "A: x->a; B: a->b; P: b->p; C: a->c; Q: c->q; D: p,q->d",
        {"x": 1, "a": 1, "b": 6, "p": 1, "c": 6, "q": 1, "d": 1},
    )


BRANCHES = "x 0 0 0, a 0 3 1, p 2 5 2, q 4 5 3, d 5 5 4, b 1 2 8, c 3 4 "


def test_two_units_run_independent_operators_at_once_where_memory_allows(branches):
    resources = Resources(compute_units=2, channels=(dma(),))
    apart = plan(branches, BRANCHES + "14", "load x 0, store d 5")
    run = simulate(apart, resources, compute_cycles=lambda op: 2)
    assert [starts(run)["compute", op] for op in "ABCPQD"] == [(1, 3), (3, 5), (3, 5), (5, 7), (5, 7), (7, 9)]
    assert run.makespan_cycles == 10
    # the second unit waits 3 for A and 3 at the end, the first 1 for x and 1 for the store
    assert lost(run) == {"data": 3, "dma": 1, "end": 3 + 1}
    reused = plan(branches, BRANCHES + "8", "load x 0, store d 5")  # C may start when P has read b
    run = simulate(reused, resources, compute_cycles=lambda op: 2)
    assert [starts(run)["compute", op] for op in "ABPCQD"] == [
        (1, 3), (3, 5), (5, 7), (7, 9), (9, 11), (11, 13),
    ]  # fmt: skip


def test_a_unit_is_idle_while_a_fetch_may_not_be_issued(make_graph):
    # The input of B comes only once A has ended, though a unit and a channel are free
    graph = make_graph("A: x->a; B: y->b", {"x": 1, "y": 1, "a": 1, "b": 1})
    found = plan(graph, "x 0 0 0, a 0 0 1, y 1 1 2, b 1 1 3", "load x 0, store a 0, load y 1, store b 1")
    resources = Resources(compute_units=2, channels=(dma(count=2),), double_buffering=False)
    run = simulate(found, resources, compute_cycles={"A": 4, "B": 1})
    assert starts(run)["compute", "B"] == (6, 7)  # A 1-5 on the first unit, which is idle and takes B as well
    assert lost(run) == {"dma": 1 + 1, "end": 1 + 8}
    graph = make_graph("A: x->a; C: x->c; B: y->b", {"x": 1, "y": 1, "a": 1, "c": 1, "b": 1})
    moves = "load x 0, store a 0, store c 1, load y 2, store b 2"
    found = plan(graph, "x 0 1 0, a 0 0 1, c 1 1 2, y 2 2 3, b 2 2 4", moves)
    run = simulate(found, resources, compute_cycles={"A": 2, "C": 6, "B": 1})
    # A 1-3, C 1-7, y 7-8, B 8-9 on the first unit, idle from 3 on; the second 1 before C, 3 at the end
    assert lost(run) == {"dma": 1 + 1 + 1, "issue": 4, "end": 1 + 3}


def test_policies_choose_among_operators_that_could_start(branches):
    apart = plan(branches, BRANCHES + "14", "load x 0, store d 5")
    cycles = {"A": 2, "B": 1, "P": 1, "C": 4, "Q": 4, "D": 1}
    one = Resources(channels=(dma(),))

    def order(**options):
        run = simulate(apart, one, compute_cycles=cycles, **options)
        replay(run, cycles)
        return "".join(run.events[run.events.kind == "compute"].name)

    assert order() == "ABCPQD"  # B and C become ready together, then P
    assert order(policy="critical-path") == "ACQBPD"
    assert order(in_order=True) == order(in_order=True, policy="critical-path") == "ABPCQD"
    mixed = Resources(compute_units=(Server(name="big"), Server(name="small")), channels=(dma(),))
    by_kind = {name: {"big": time, "small": 2 * time} for name, time in cycles.items()}
    run = simulate(apart, mixed, compute_cycles=by_kind, policy="earliest-finish")
    # A 1-3, B 3-4 on big; C by 8 on big, by 11 on small; P by 6 on small; Q 8-12 and D 12-13 on big
    assert list(run.stalls_by_step.compute_unit) == ["big[0]"] * 2 + ["small[0]"] + ["big[0]"] * 3
    assert run.makespan_cycles == 14


def test_weights_that_operators_share_arrive_once_and_resident_ones_not_at_all(make_graph):
    graph = make_graph("A: x,w->a; B: a,w->b", {"x": 2, "w": 3, "a": 2, "b": 2})
    graph = replace(graph, tensors=graph.tensors | {"w": replace(graph.tensors["w"], role=Role.WEIGHT)})
    shared = schedule(graph, 4, weights="streamed")
    run = simulate(shared, Resources(channels=(dma(),)), compute_cycles=lambda op: 1)
    assert starts(run)["load", "w"][1] <= starts(run)["compute", "A"][0]
    replay(run, {"A": 1, "B": 1})
    resident = simulate(
        schedule(graph, 7, weights="resident"), Resources(channels=(dma(),)), compute_cycles=lambda op: 1
    )
    assert [(row.kind, row.end) for row in resident.events.itertuples()] == [
        ("load", 2), ("compute", 3), ("compute", 4), ("store", 6),
    ]  # fmt: skip


def test_streamed_operands_need_no_block(reference_graphs):
    graph = reference_graphs["T1"]  # nothing fits: A x->a, B a->b, C b->c, D a,c->d
    moves = "load x 0, spill a 0, refetch a 1, spill b 1, refetch b 2, spill c 2, refetch a 3, refetch c 3"
    found = plan(graph, "", moves + ", store d 3", mode="streamed")
    cycles = {"A": 1, "B": 1, "C": 1, "D": 1}
    run = simulate(found, Resources(channels=(dma(),)), compute_cycles=cycles)
    replay(run, cycles)
    # one after another: x 1, A, a out 2, a in 2 for B; b out 3 and in 3; c out 3 and in 3; a in 2 for D
    assert run.bounds["dma"] == 1 + 2 + 2 + 3 + 3 + 3 + 3 + 2 + 2
    assert run.makespan_cycles == run.bounds["dma"] + 4  # the channel is idle while an operator runs
    assert repr(run) == "Simulation(test: 25 cycles, compute 16 % busy, dma 84 % busy, fifo)"


def test_an_operator_in_place_does_not_wait_for_itself():
    shape = {"x": 4, "a": 4, "b": 4, "c": 4}
    graph = Workload(
        name="in place",
        operators=(
            Operator(name="A", kind="op", inputs=("x",), outputs=("a",)),
            Operator(name="B", kind="op", inputs=("a",), outputs=("b",), in_place=True),
            Operator(name="C", kind="op", inputs=("b",), outputs=("c",)),
        ),
        tensors={n: Tensor(name=n, shape=(s,), role="activation", format="int8") for n, s in shape.items()},
        inputs=("x",),
        outputs=("c",),
    )
    found = plan(graph, "x 0 0 0, a 0 1 4, b 1 2 4, c 2 2 0", "load x 0, store c 2")
    run = simulate(found, Resources(channels=(dma(),)), compute_cycles=lambda op: 3)
    assert run.makespan_cycles == 4 + 9 + 4


def test_an_empty_schedule_takes_no_time(make_graph):
    run = simulate(schedule(make_graph("", {}), 8), Resources(channels=(dma(),)), compute_cycles={})
    assert run.makespan_cycles == 0
    assert run.events.empty
    assert set(run.stalls.values()) == {0}
    assert run.utilization == {"compute": 0.0, "dma": 0.0}


@st.composite
def random_plans(draw):
    """A random graph in file order; each tensor stays or leaves between two uses; first-fit addresses."""
    size, text = {"x0": draw(st.integers(1, 4)), "x1": draw(st.integers(1, 4))}, []
    for i in range(draw(st.integers(1, 7))):
        read = draw(st.lists(st.sampled_from(sorted(size)), min_size=1, max_size=3, unique=True))
        size[f"t{i}"] = draw(st.integers(1, 4))
        text.append((f"o{i}", read, f"t{i}"))
    used = {name for _, read, _ in text for name in read}
    size = {name: bytes_ for name, bytes_ in size.items() if name[0] == "t" or name in used}
    uses = {
        name: [step for step, (_, read, made) in enumerate(text) if name in (*read, made)] for name in size
    }
    runs, moves = [], []
    for name, steps in uses.items():
        stays = [[steps[0], steps[0]]]
        for step in steps[1:]:
            if draw(st.booleans()):
                stays[-1][1] = step
            else:
                stays.append([step, step])
        runs += [(start, end, name) for start, end in stays]
        moves += [(start, "load", name) for start, _ in stays[:1] if name[0] == "x"]
        moves += [(start, "refetch", name) for start, _ in stays[1:]]
        if name[0] == "t" and (len(stays) > 1 or name not in used):
            moves.append((steps[0], "spill" if name in used else "store", name))
    placed = []
    for start, end, name in sorted(runs):
        here = sorted((a, b) for s, e, a, b in placed if s <= end and start <= e)
        address = 0
        for low, high in here:
            address = high if low < address + size[name] else address
        placed.append((start, end, address, address + size[name]))
    return (
        "; ".join(f"{op}: {','.join(read)}->{made}" for op, read, made in text),
        size,
        ", ".join(
            f"{name} {start} {end} {low}"
            for (start, end, name), (_, _, low, _) in zip(sorted(runs), placed, strict=True)
        ),
        ", ".join(f"{kind} {name} {step}" for step, kind, name in sorted(moves)),
    )


channels = st.lists(
    st.builds(
        Channel,
        name=st.sampled_from(["d0", "d1"]),
        bytes_per_cycle=st.sampled_from([0.3, 1, 2.5]),
        latency_cycles=st.integers(0, 2),
        count=st.integers(1, 2),
    ),
    min_size=1,
    max_size=2,
    unique_by=lambda channel: channel.name,
)


@st.composite
def random_runs(draw):
    """A plan, resources, cycles and options."""
    plan_ = draw(random_plans())
    extra = draw(st.sampled_from([(), (Channel(name="out", direction="out", bytes_per_cycle=1),)]))
    resources = Resources(
        compute_units=draw(st.integers(1, 3)),
        channels=(*draw(channels), *extra),
        double_buffering=draw(st.sampled_from([False, True, 2, 9])),
    )
    steps = plan_[0].count(":")
    cycles = {f"o{i}": draw(st.integers(0, 5)) for i in range(steps)}
    return plan_, resources, cycles, draw(st.sampled_from(POLICIES)), draw(st.booleans())


def assert_obeys(make_graph, given_run):
    (text, size, runs, moves), resources, cycles, policy, in_order = given_run
    found = plan(make_graph(text, size), runs, moves)
    run = simulate(found, resources, compute_cycles=cycles, policy=policy, in_order=in_order)
    replay(run, cycles)
    events = run.events
    began = list(events[events.kind == "compute"].sort_values("step").start)
    if in_order:
        assert began == sorted(began)
    else:
        assert run.stalls["order"] == 0
    if resources.units[0].count == 1:  # what ran before has ended
        assert run.stalls["data"] == run.stalls["issue"] == 0
    longest = [max(channel.cycles(move) for channel in resources.channels) for move in found.transfers]
    assert run.makespan_cycles <= sum(cycles.values()) + sum(longest)  # something always runs
    return run


@settings(max_examples=35)
@given(given_run=random_runs())
def test_every_run_obeys_data_memory_and_resources(make_graph, given_run):
    assert_obeys(make_graph, given_run)


@pytest.mark.slow
@settings(max_examples=400)
@given(given_run=random_runs())
def test_every_run_obeys_data_memory_and_resources_twice_alike(make_graph, given_run):
    first, second = assert_obeys(make_graph, given_run), assert_obeys(make_graph, given_run)
    assert first.events.equals(second.events)
    assert first.stalls == second.stalls


def test_bandwidth_counts_as_it_is_written():
    # the binary number next to 0.3 is below it: 3 bytes would take 11 cycles
    move = Transfer(step=0, tensor="x", bytes=3, kind="load")
    assert dma(bytes_per_cycle=0.3).cycles(move) == 10
    assert dma(bytes_per_cycle=2, latency_cycles=7).cycles(move) == 9


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Channel(bytes_per_cycle=0), ValueError, "bytes_per_cycle of channel dma .* got 0"),
        (lambda: dma(latency_cycles=-1), ValueError, "latency_cycles of channel dma must be at least 0"),
        (lambda: dma(direction="up"), ValueError, "one of in, out, both; got 'up'"),
        (lambda: dma(count=0), ValueError, "count of channel dma must be at least 1"),
        (lambda: Resources(compute_units=0, channels=()), ValueError, "compute_units must be at least 1"),
        (lambda: Resources(compute_units=(), channels=()), ValueError, "compute_units must be at least 1"),
        (lambda: Resources(channels=(dma(), dma())), ValueError, "got dma twice"),
        (lambda: Resources(channels=(dma(),), double_buffering=-1), ValueError, "double_buffering .* got -1"),
    ],
)
def test_bad_resources_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"compute_cycles": {"A": 1}}, ValueError, "compute_cycles must have every operator, has none for B"),
        ({"compute_cycles": {"A": 1, "B": -1}}, ValueError, "compute_cycles of B must be at least 0, got -1"),
        ({"compute_cycles": {"A": 1, "B": 1.5}}, TypeError, "compute_cycles of B must be a whole number"),
        ({"compute_cycles": {"A": 1, "B": {"gpu": 1}}}, ValueError, "on the kinds compute; got 'gpu'"),
        ({"compute_cycles": {"A": 1, "B": {}}}, ValueError, "at least 1 of the kinds compute, got none"),
        ({"compute_cycles": {"A": 2**53, "B": 1}}, ValueError, "less than 2.*53"),
        ({"policy": "lifo"}, ValueError, "policy must be one of fifo"),
        (
            {"resources": Resources(channels=(dma(direction="in"),))},
            ValueError,
            "direction out .* store of b",
        ),
    ],
)
def test_bad_simulations_are_refused(weighted, options, error, message):
    good = {"resources": Resources(channels=(dma(),)), "compute_cycles": {"A": 1, "B": 1}}
    with pytest.raises(error, match=message):
        simulate(weighted, **(good | options))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transfers": ()}, "x at steps 0..0 begins with neither a production nor a fetch"),
        ({"residency": ()}, "B at step 1 reads a, which is neither"),
    ],
)
def test_a_schedule_that_cannot_run_is_refused(weighted, changes, message):
    with pytest.raises(ValueError, match=message):
        simulate(replace(weighted, **changes), Resources(channels=(dma(),)), compute_cycles={"A": 1, "B": 1})
