"""Operators that lose nothing by waiting until right before a reader of their result.

Projections of one tensor for many readers, such as keys and values of an encoder's output for every layer of
a decoder, are all ready at once, but to run one early only takes up room.

Let operator i write one tensor t, for which nothing waits but the readers of t. Of what i reads let at most
one tensor u be resident before or after i: u has other readers, or a late operator makes it; it is no larger
than t, and is never overwritten. Let what i reads be no more than what is there beside any reader of t and
not before it: what it writes, never in place, and graph inputs that it alone reads. And let u be as cheap to
evict as t, at least: with its store, if u has no other copy, where of t only one refetch may count, or its
store as well if t has one reader and no other copy. Where i reads graph inputs alone that nothing else reads,
there is no u: then nothing takes the place of t.

Then in any plan i can wait until right before the first reader c of t, at no loss. Where t was kept until c,
u takes its room from its last use before c on. Where t had left, u leaves after that use, or had left anyway.
A gap of u that began or ended at i joins the next one, and what was dropped in it was paid. When i runs, all
that is resident but t and u stays beside c or is read by it, so beside i there is the room that c has for t
and for what is there beside c alone, enough for what i reads.

Of what c does nothing changes, whether it is late itself or not. So all that do not wait can be made to, one
after the other, those that run last first, and some optimal plan runs nothing between a late operator and the
first reader c of its result but further late operators whose results c reads, and those that lead to them. So
from the first of them on nothing else runs until an operator that is not late reads the last results: all
else that it depends on has run before.
"""

from __future__ import annotations

from collections.abc import Collection

from accel.schedule._instance import Instance


def late_operators(instance: Instance) -> frozenset[int]:
    """Operators that wait until right before a reader of their result in some optimal plan."""
    size, backed, readers = instance.size, instance.always_backed, instance.consumers
    following: list[set[int]] = [set() for _ in instance.operators]
    for i, before in enumerate(instance.after):
        for p in before:
            following[p].add(i)
    taken = {v for over in instance.in_place for v in over}
    found: set[int] = set()
    for i in range(len(instance.operators)):
        kept = [v for v in instance.reads[i] if not is_momentary(instance, v)]
        if len(instance.writes[i]) != 1 or len(kept) > 1 or instance.in_place[i]:
            continue
        (result,) = instance.writes[i]
        if not readers[result] or following[i] != set(readers[result]):
            continue
        spared = size[result] * (1 if backed[result] or len(readers[result]) > 1 else 2)
        if any(
            v in taken
            or (len(readers[v]) < 2 and instance.producer[v] not in found)
            or size[v] > size[result]
            or size[v] * (1 if backed[v] else 2) > spared
            for v in kept
        ):
            continue
        needed = sum(size[v] for v in instance.reads[i])
        if all(not instance.in_place[c] and needed <= units_beginning(instance, c) for c in readers[result]):
            found.add(i)
    return frozenset(found)


def late_targets(instance: Instance, late: Collection[int]) -> tuple[tuple[int, ...], ...]:
    """By late operator, the readers that are not late to which its result leads through late ones."""
    found: list[tuple[int, ...]] = [() for _ in instance.operators]
    for i in reversed(range(len(instance.operators))):
        if i in late:
            (result,) = instance.writes[i]
            ways = ((c,) if c not in late else found[c] for c in instance.consumers[result])
            found[i] = tuple(dict.fromkeys(c for way in ways for c in way))
    return tuple(found)


def is_momentary(instance: Instance, v: int) -> bool:
    """Whether tensor `v` is a graph input that one operator alone reads."""
    return instance.producer[v] is None and len(instance.consumers[v]) == 1


def units_beginning(instance: Instance, c: int) -> int:
    """Units that are there beside operator `c` and not before it."""
    written = () if instance.in_place[c] else instance.writes[c]
    given = (v for v in instance.reads[c] if is_momentary(instance, v))
    return sum(instance.size[v] for v in (*written, *given))
