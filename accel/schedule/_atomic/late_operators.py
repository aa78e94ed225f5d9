"""Operators that lose nothing by waiting until right before a reader of their result.

Projections of one tensor for many readers, such as keys and values of an encoder's output for every layer of
a decoder, are all ready at once, but to run one early only takes up room.

Let operator i write one tensor t, for which nothing waits but the readers of t. Of what i reads let one
tensor u alone be resident before or after i: u has other readers, is no larger than t, and is never
overwritten. Let what i reads be no more than any reader of t writes, none of which writes in place. And let u
be as cheap to evict as t, at least: with its store, if u has no other copy, where of t only one refetch may
count, or its store as well if t has one reader and no other copy.

Then in any plan i can wait until right before the first reader c of t, at no loss. Where t was kept until c,
u takes its room from its last use before c on. Where t had left, u leaves after that use, or had left anyway.
A gap of u that began or ended at i joins the next one, and what was dropped in it was paid. When i runs, all
that is resident but t and u stays beside c or is read by it, so beside i there is the room that c has for t
and for what c writes, enough for what i reads.

No operator that reads t is itself late. So all that do not wait can be made to, one after the other, and some
optimal plan runs nothing between a late operator and the first reader c of its result but further late
operators whose results c reads.
"""

from __future__ import annotations

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
    for i in reversed(range(len(instance.operators))):
        kept = [v for v in instance.reads[i] if instance.producer[v] is not None or len(readers[v]) > 1]
        if len(instance.writes[i]) != 1 or len(kept) != 1 or instance.in_place[i]:
            continue
        (result,), (operand,) = instance.writes[i], kept
        if not readers[result] or following[i] != set(readers[result]):
            continue
        if operand in taken or len(readers[operand]) < 2 or size[operand] > size[result]:
            continue
        spared = size[result] * (1 if backed[result] or len(readers[result]) > 1 else 2)
        needed = sum(size[v] for v in instance.reads[i])
        if size[operand] * (1 if backed[operand] else 2) <= spared and all(
            c not in found and not instance.in_place[c] and needed <= sum(size[v] for v in instance.writes[c])
            for c in readers[result]
        ):
            found.add(i)
    return frozenset(found)
