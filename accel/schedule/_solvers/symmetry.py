"""Operators that can change places, as attention heads can, are made to run in their given order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import replace
from itertools import pairwise

from accel.schedule._instance import Instance
from accel.schedule._placement import Placed
from accel.schedule._residency import Gap, Residency


def interchangeable(instance: Instance) -> tuple[tuple[int, ...], ...]:
    """Sets of two or more operators of which any two, results included, can be swapped.

    They read the same tensors, wait for the same operators, and their results, sorted, agree in size,
    in readers and in being graph outputs.
    """
    waiting: list[list[int]] = [[] for _ in instance.operators]
    for i, before in enumerate(instance.after):
        for p in before:
            waiting[p].append(i)
    classes: defaultdict[Hashable, list[int]] = defaultdict(list)
    for i in range(len(instance.operators)):
        results = tuple(sorted(_kind(instance, v) for v in instance.writes[i]))
        classes[
            instance.after[i],
            frozenset(instance.reads[i]),
            frozenset(instance.in_place[i]),
            results,
            tuple(waiting[i]),
        ].append(i)
    return tuple(tuple(members) for members in classes.values() if len(members) > 1)


def _kind(instance: Instance, v: int) -> tuple[int, bool, tuple[int, ...], tuple[int, ...]]:
    readers = instance.consumers[v]
    in_place = tuple(i for i in readers if v in instance.in_place[i])
    return instance.size[v], instance.is_output[v], readers, in_place


def in_given_order(instance: Instance) -> Instance:
    """`instance` in which interchangeable operators wait for each other; some optimum survives."""
    after = list(instance.after)
    for members in interchangeable(instance):
        for first, second in pairwise(members):
            after[second] = after[second] | {first}
    if tuple(after) == instance.after:
        return instance
    # The cached properties belong to the old waits; a new object computes its own.
    return replace(instance, after=tuple(after))


def renamed(placed: Placed) -> Placed:
    """Return the plan with interchangeable operators, and their results, renamed into their given order."""
    residency = placed.residency
    instance = residency.instance
    step = {i: t for t, i in enumerate(residency.order)}
    operator = list(range(len(instance.operators)))
    tensor = list(range(len(instance.tensors)))
    for members in interchangeable(instance):
        for old, new in zip(sorted(members, key=step.__getitem__), members, strict=True):
            operator[old] = new
            results = (sorted(instance.writes[i], key=lambda v: (_kind(instance, v), v)) for i in (old, new))
            for v, w in zip(*results, strict=True):
                tensor[v] = w
    kept: set[Gap] = {(tensor[v], t) for v, t in residency.kept}
    new_residency = Residency(instance, tuple(operator[i] for i in residency.order), frozenset(kept))
    at = {
        (tensor[block.tensor], block.start): address
        for block, address in zip(residency.blocks, placed.addresses, strict=True)
    }
    return Placed(new_residency, tuple(at[block.tensor, block.start] for block in new_residency.blocks))
