"""Tasks on servers one tick at a time, and what a simulated schedule must obey: no queue, no heap."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, pairwise


def run_by_ticks(tasks, servers, policy):
    """Start and end of each task; all times are whole numbers, service times at least 1."""
    units = [server.kind for server in servers for _ in range(server.count)]
    until, lines = [0] * len(units), [[] for _ in units]
    after = {task.name: set(task.after) for task in tasks}
    start, end, ready = {}, {}, {}

    def remaining(task):
        followers = [remaining(other) for other in tasks if task.name in after[other.name]]
        return min(time for kind, time in task.service.items() if kind in units) + max(followers, default=0)

    def begin(task, u, now):
        start[task.name], end[task.name] = now, now + task.service[units[u]]
        until[u] = end[task.name]

    now = -1
    while len(end) < len(tasks):
        now += 1
        over = {name for name, time in end.items() if time <= now}
        new = [
            task
            for task in tasks
            if task.name not in ready and task.arrival <= now and after[task.name] <= over
        ]
        ready |= {task.name: now for task in new}
        if policy == "earliest-finish":
            for task in new:
                backlog = [
                    max(until[u] - now, 0) + sum(waiting.service[units[u]] for waiting in lines[u])
                    for u in range(len(units))
                ]
                able = [u for u in range(len(units)) if units[u] in task.service]
                best = min(able, key=lambda u: (backlog[u] + task.service[units[u]], backlog[u], u))
                lines[best].append(task)
            for u, line in enumerate(lines):
                if line and until[u] <= now:
                    begin(line.pop(0), u, now)
            continue
        waiting = [task for task in tasks if task.name in ready and task.name not in start]
        waiting.sort(key=lambda task: -remaining(task) if policy == "critical-path" else ready[task.name])
        for task in waiting:
            idle = [u for u in range(len(units)) if until[u] <= now and units[u] in task.service]
            if idle:
                begin(task, min(idle, key=lambda u: (task.service[units[u]], u)), now)
    return start, end


def replay(simulation, cycles):
    """Assert that every operator and transfer of a schedule ran once, and only when it could."""
    schedule, resources = simulation.schedule, simulation.resources
    graph, depth = schedule.workload, int(resources.double_buffering)
    when = {(row.kind, row.name, row.step): row for row in simulation.events.itertuples()}
    operators = {op.name: op for op in graph.operators}
    step = {name: t for t, name in enumerate(schedule.order)}
    made = {name: step[op.name] for op in graph.operators for name in op.outputs}
    assert len(when) == len(simulation.events) == len(schedule.order) + len(schedule.transfers)

    channels = {channel.name: channel for channel in resources.channels}
    fetch, sent = {}, {}
    for move in schedule.transfers:
        row = when[move.kind, move.tensor, move.step]
        channel = channels[row.resource]
        out = move.kind in ("spill", "store")
        assert channel.direction in ("both", "out" if out else "in")
        moved, rate = row.end - row.start - channel.latency_cycles, Fraction(str(channel.bytes_per_cycle))
        assert move.bytes <= moved * rate < move.bytes + rate
        (sent if out else fetch)[move.tensor, move.step] = row
    ran = [when["compute", name, t] for t, name in enumerate(schedule.order)]
    assert all(row.end - row.start == cycles[row.name] for row in ran)

    counts = {server.name: server.count for server in resources.servers}
    lanes = {}
    for row in simulation.events.itertuples():
        assert 0 <= row.unit < counts[row.resource]
        assert row.ready <= row.start
        lanes.setdefault((row.resource, row.unit), []).append((row.start, row.end))
    for lane in lanes.values():
        assert all(end <= start for (_, end), (start, _) in pairwise(sorted(lane)))

    def origin(run):
        return fetch.get((run.tensor, run.start)) or ran[run.start]

    for t, name in enumerate(schedule.order):
        for tensor in operators[name].inputs:
            stays = [run for run in schedule.residency if run.tensor == tensor and run.start <= t <= run.end]
            source = fetch.get((tensor, t)) or (origin(stays[0]) if stays else None)
            assert source is None or source.end <= ran[t].start
    for (tensor, t), row in sent.items():
        assert ran[max(t, made[tensor])].end <= row.start
    for (tensor, t), row in fetch.items():
        assert all(before.end <= row.start for before in ran[: max(t - depth, 0)])
        if tensor in made:
            copies = [out.end for (name, at), out in sent.items() if name == tensor and at < t]
            assert min(copies) <= row.start

    def life(run):
        ends = [origin(run).end]
        for t in range(run.start, run.end + 1):
            op = operators[schedule.order[t]]
            if run.tensor in (*op.inputs, *op.outputs):
                ends.append(ran[t].end)
            if (run.tensor, t) in sent:
                ends.append(sent[run.tensor, t].end)
        return origin(run).start, max(ends)

    for a, b in combinations(sorted(schedule.residency, key=lambda run: (run.start, run.end)), 2):
        if a.address < b.address + b.bytes and b.address < a.address + a.bytes and a.end < b.start:
            assert life(a)[1] <= life(b)[0]

    assert all(bound <= simulation.makespan_cycles for bound in simulation.bounds.values())
    assert simulation.makespan_cycles == max((row.end for row in when.values()), default=0)
    idle = sum(simulation.stalls[cause] for cause in ("data", "memory", "issue", "dma", "order", "end"))
    units = sum(server.count for server in resources.compute_units)
    assert idle + sum(cycles.values()) == units * simulation.makespan_cycles
    assert all(value >= 0 for value in simulation.stalls.values())
