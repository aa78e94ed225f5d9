"""Gaps of a problem of streamed operands: which are open to choice, what a choice costs, greedy plans.

A tensor ``v`` has the uses ``first[v] .. first[v + 1] - 1``, in order of their steps; a gap goes by the
use that it follows.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: Fate of a gap that is not open: there is none or it never fits, and it always fits.
NEVER, ALWAYS = -2, -1


@njit(cache=True)
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True)
def _join(parent, i, j):
    # The smaller index leads, so that parts are numbered in order of their first gap.
    i, j = _root(parent, i), _root(parent, j)
    parent[max(i, j)] = min(i, j)


@njit(cache=True)
def sort_gaps(size, first, step, is_produced, is_output, capacity):
    """Fate of every gap, and the number of parts that share neither a full step nor a charge.

    An open gap has the number of its part. A gap that meets no step at which all candidates together
    exceed the capacity is kept always: it costs nothing, and the uses at its ends are cheaper for it.
    """
    fate = np.full(step.size, NEVER)
    load = np.zeros(capacity.size, np.int64)
    for v in range(size.size):
        for i in range(first[v], first[v + 1] - 1):
            fits = True
            for t in range(step[i], step[i + 1] + 1):
                if capacity[t] < size[v]:
                    fits = False
                    break
            if fits:
                fate[i] = ALWAYS
                continues = i > first[v] and fate[i - 1] == ALWAYS
                for t in range(step[i] + continues, step[i + 1] + 1):
                    load[t] += size[v]
    parent = np.arange(step.size)
    is_open = np.zeros(step.size, np.bool_)
    at_step = np.full(capacity.size, -1)
    for v in range(size.size):
        for i in range(first[v], first[v + 1] - 1):
            if fate[i] == ALWAYS:
                for t in range(step[i], step[i + 1] + 1):
                    if load[t] > capacity[t]:
                        is_open[i] = True
                        if at_step[t] < 0:
                            at_step[t] = i
                        _join(parent, i, at_step[t])
    for v in range(size.size):
        last = first[v + 1] - 1
        # A store that only an open gap decides ties all open gaps of its tensor together.
        is_tied = is_produced[v] and not is_output[v]
        for i in range(first[v], last):
            is_tied = is_tied and fate[i] != NEVER
        before = -1
        for i in range(first[v], last):
            if is_open[i]:
                if before >= 0 and (is_tied or before == i - 1):
                    _join(parent, before, i)
                before = i
    parts = 0
    for i in range(step.size):
        if is_open[i]:
            root = _root(parent, i)
            if root == i:
                fate[i] = parts
                parts += 1
            else:
                fate[i] = fate[root]
    return fate, parts


@njit(cache=True)
def use_costs(
    size,
    first,
    streamed,
    is_produced,
    is_output,
    kept,
):
    """Bytes that each use moves off chip or on chip, given the kept gaps."""
    cost = np.zeros(streamed.size, np.int64)
    for v in range(size.size):
        start, stop = first[v], first[v + 1]
        for i in range(start, stop):
            if i > start and kept[i - 1]:
                continue
            if i == start and is_produced[v]:
                is_stored = is_output[v]
                for j in range(start, stop - 1):
                    is_stored = is_stored or not kept[j]
                if not is_stored:
                    continue
            cost[i] = size[v] if kept[i] else streamed[i]
    return cost


@njit(cache=True)
def shed(
    size,
    first,
    step,
    streamed,
    is_produced,
    is_output,
    capacity,
    kept,
):
    """Drop gaps from `kept` until it fits, each time the one that costs least per share of what is over."""
    over = -capacity
    tensor = np.zeros(step.size, np.int64)
    for v in range(size.size):
        for i in range(first[v], first[v + 1]):
            tensor[i] = v
            if kept[i]:
                continues = i > first[v] and kept[i - 1]
                for t in range(step[i] + continues, step[i + 1] + 1):
                    over[t] += size[v]
    while True:
        most = 0.0
        dropped = -1
        for v in range(size.size):
            start, last = first[v], first[v + 1] - 1
            is_unstored = is_produced[v] and not is_output[v]
            for i in range(start, last):
                is_unstored = is_unstored and kept[i]
            for i in range(start, last):
                if not kept[i]:
                    continue
                continues = i > start and kept[i - 1]
                goes_on = i + 1 < last and kept[i + 1]
                relief = 0.0
                for t in range(step[i], step[i + 1] + 1):
                    if over[t] > 0:
                        # A step between two kept gaps is left only once both are dropped.
                        is_shared = (continues and t == step[i]) or (goes_on and t == step[i + 1])
                        share = 0.5 if is_shared else 1.0
                        relief += share * min(size[v], over[t]) / max(1, capacity[t])
                if relief == 0.0:
                    continue
                loss = size[v] if goes_on else streamed[i + 1]
                if is_unstored:
                    loss += streamed[i] if i == start else size[v]
                elif not continues:
                    loss += streamed[i] - size[v]
                if relief / loss > most:
                    most = relief / loss
                    dropped = i
        if dropped < 0:
            break
        v = tensor[dropped]
        continues = dropped > first[v] and kept[dropped - 1]
        goes_on = dropped + 2 < first[v + 1] and kept[dropped + 1]
        for t in range(step[dropped] + continues, step[dropped + 1] + 1 - goes_on):
            over[t] -= size[v]
        kept[dropped] = False


@njit(cache=True)
def fill(size, first, step, capacity, is_allowed, ranked, kept):
    """Keep, in the order `ranked`, every allowed gap that fits beside those in `kept`, which it extends."""
    room = capacity.copy()
    tensor = np.zeros(step.size, np.int64)
    for v in range(size.size):
        for i in range(first[v], first[v + 1]):
            tensor[i] = v
            if kept[i]:
                continues = i > first[v] and kept[i - 1]
                for t in range(step[i] + continues, step[i + 1] + 1):
                    room[t] -= size[v]
    for i in ranked:
        if not is_allowed[i] or kept[i]:
            continue
        v = tensor[i]
        start, stop = step[i], step[i + 1] + 1
        if i > first[v] and kept[i - 1]:
            start += 1
        if i + 2 < first[v + 1] and kept[i + 1]:
            stop -= 1
        fits = True
        for t in range(start, stop):
            if room[t] < size[v]:
                fits = False
                break
        if fits:
            kept[i] = True
            for t in range(start, stop):
                room[t] -= size[v]
