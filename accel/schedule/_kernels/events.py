"""Numba kernels of the discrete-event simulation: heaps of events and of waiting tasks.

All heaps lie in one pair of arrays, each from its own `base` on, ordered by key, then by item.
"""

import math

import numpy as np
from numba import njit

FIFO, CRITICAL_PATH, EARLIEST_FINISH = 0, 1, 2


@njit(cache=True)
def push(keys, items, base, size, key, item):
    """Add an entry to a heap of `size` entries."""
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        above = keys[base + parent]
        if above < key or (above == key and items[base + parent] < item):
            break
        keys[base + at], items[base + at] = above, items[base + parent]
        at = parent
    keys[base + at], items[base + at] = key, item


@njit(cache=True)
def drop(keys, items, base, size):
    """Remove the least entry of a heap of `size` entries."""
    last = size - 1
    key, item = keys[base + last], items[base + last]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= last:
            break
        left, right = base + child, base + child + 1
        if child + 1 < last and (
            keys[right] < keys[left] or (keys[right] == keys[left] and items[right] < items[left])
        ):
            child += 1
        below = keys[base + child]
        if key < below or (key == below and item < items[base + child]):
            break
        keys[base + at], items[base + at] = below, items[base + child]
        at = child
    keys[base + at], items[base + at] = key, item


@njit(cache=True)
def release(task, now, missing, group, priority, policy, ready, start, end, keys, items, bases, sizes):
    """Take one of the conditions from a task; without any left it is ready and queues."""
    missing[task] -= 1
    if missing[task] > 0:
        return
    ready[task] = now
    queue, key = group[task], now
    if queue < 0:  # a milestone: over at once, on no server
        start[task] = end[task] = now
        queue = bases.shape[0] - 1
    elif policy == CRITICAL_PATH:
        key = priority[task]
    push(keys, items, bases[queue], sizes[queue], key, task)
    sizes[queue] += 1


@njit(cache=True)
def run(
    arrival,
    by_arrival,
    missing,
    succ_first,
    succ,
    next_start,
    group,
    able,
    service,
    unit_first,
    priority,
    policy,
):
    """Run all tasks; what happens at one time happens before any task starts at that time.

    Parameters
    ----------
    arrival, by_arrival : (n,)
        Times, and tasks in order of them.
    missing : (n,)
        Conditions of each task, overwritten: its predecessors, its arrival, the start of the task it follows.
    succ_first, succ : (n + 1,), (edges,)
        Successors by task.
    next_start : (n,)
        The task that may not start before this one has, or -1.
    group : (n,)
        Row of `able`, or -1 for a milestone.
    able : (groups, servers)
        Whether a task of the group runs on the server.
    service : (n, servers)
        Times; read only where able.
    unit_first : (servers + 1,)
        First unit of each server.
    priority : (n,)
        Least first, for the critical path.

    Returns
    -------
    Ready, start and end times, server and unit (-1 of a milestone), and the number of tasks that ended.
    """
    n, groups, servers = arrival.shape[0], able.shape[0], able.shape[1]
    ready, start, end = np.zeros(n), np.zeros(n), np.zeros(n)
    server, unit = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    bases, sizes = np.zeros(groups + 1, np.int64), np.zeros(groups + 1, np.int64)
    milestones = 0
    for task in range(n):
        if group[task] >= 0:
            bases[group[task] + 1] += 1
        else:
            milestones += 1
    # Room for all tasks in queues, and for ends: of each unit, or of all that wait for one, and their starts.
    pending = 2 * n if policy == EARLIEST_FINISH else unit_first[servers] + milestones
    keys, items = np.empty(n + pending), np.empty(n + pending, np.int64)
    for g in range(groups):
        bases[g + 1] += bases[g]
    events = groups
    idle = np.empty(servers, np.int64)
    for s in range(servers):
        idle[s] = unit_first[s + 1] - unit_first[s]
    free_at = np.zeros(unit_first[servers])
    busy = np.zeros(unit_first[servers], np.bool_)
    arrived = ended = 0
    while arrived < n or sizes[events] > 0:
        now = math.inf
        if sizes[events] > 0:
            now = keys[bases[events]]
        if arrived < n:
            now = min(now, arrival[by_arrival[arrived]])
        while True:
            if sizes[events] > 0 and keys[bases[events]] == now:
                task = items[bases[events]]
                drop(keys, items, bases[events], sizes[events])
                sizes[events] -= 1
                if task >= n:  # a start that was told in advance
                    release(
                        next_start[task - n], now, missing, group, priority, policy, ready, start, end, keys,
                        items, bases, sizes,
                    )  # fmt: skip
                    continue
                ended += 1
                if unit[task] >= 0:
                    busy[unit[task]] = False
                    idle[server[task]] += 1
                for edge in range(succ_first[task], succ_first[task + 1]):
                    release(
                        succ[edge], now, missing, group, priority, policy, ready, start, end, keys, items,
                        bases, sizes,
                    )  # fmt: skip
            elif arrived < n and arrival[by_arrival[arrived]] == now:
                release(
                    by_arrival[arrived], now, missing, group, priority, policy, ready, start, end, keys,
                    items, bases, sizes,
                )  # fmt: skip
                arrived += 1
            else:
                break
        while True:
            first = -1
            for g in range(groups):
                if sizes[g] == 0:
                    continue
                has_idle = policy == EARLIEST_FINISH
                for s in range(servers):
                    has_idle = has_idle or (able[g, s] and idle[s] > 0)
                if has_idle and (
                    first < 0
                    or keys[bases[g]] < keys[bases[first]]
                    or (keys[bases[g]] == keys[bases[first]] and items[bases[g]] < items[bases[first]])
                ):
                    first = g
            if first < 0:
                break
            task = items[bases[first]]
            drop(keys, items, bases[first], sizes[first])
            sizes[first] -= 1
            best_unit, best_server, best_start, best_end = -1, -1, math.inf, math.inf
            for s in range(servers):
                if not able[first, s] or (policy != EARLIEST_FINISH and idle[s] == 0):
                    continue
                for u in range(unit_first[s], unit_first[s + 1]):
                    if policy != EARLIEST_FINISH and busy[u]:
                        continue
                    begin = max(now, free_at[u])
                    finish = begin + service[task, s]
                    if best_unit < 0 or finish < best_end or (finish == best_end and begin < best_start):
                        best_unit, best_server, best_start, best_end = u, s, begin, finish
                    if begin == now:
                        break  # no other unit of this server is sooner
            server[task], unit[task] = best_server, best_unit
            start[task], end[task] = best_start, best_end
            free_at[best_unit] = best_end
            busy[best_unit] = True
            idle[best_server] -= 1
            push(keys, items, bases[events], sizes[events], best_end, task)
            sizes[events] += 1
            if next_start[task] < 0:
                continue
            if best_start > now:
                push(keys, items, bases[events], sizes[events], best_start, n + task)
                sizes[events] += 1
            else:
                release(
                    next_start[task], now, missing, group, priority, policy, ready, start, end, keys, items,
                    bases, sizes,
                )  # fmt: skip
    return ready, start, end, server, unit, ended
