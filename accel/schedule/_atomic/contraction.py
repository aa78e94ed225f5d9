"""Operators that need nothing that is kept, made one with the reader of their result.

Tables of position biases and standardised weights are made of parameters alone. When they are made matters
only for the room that the result takes until it is read.

Let operator s write one tensor t, which operator c alone reads, and let nothing else wait for s. Let s read
graph inputs alone that nothing else reads, or results of operators that were contracted into s. Then in any
plan s can wait until right before c, at no loss, if there is room for it: until c neither t nor what s reads
is there, a gap of t is gone with what was dropped in it, and of no other tensor s opens or closes a gap.
There is room if one of two things holds.

- What s reads is no more than what is there beside c but not before it: what c writes, if that takes no block
  over, and graph inputs that c alone reads. For all that is resident before c stays beside c, as do results
  of other operators that are contracted into c, and so does t.
- What s touches fits beside all that may be live while c runs, in any order, and what else c reads. Results
  of operators that wait right before other readers are not live then. Of other operators that could wait,
  each with one reader of its result, two results are resident at once only if one of them was made beside
  the other. Such an s is contracted into an operator that stays one itself, so that nothing else is there.

So all such operators can be made to wait, and the graph in which t is a graph input, and s is left out, has
the same optimum and the same minimal peak, if that is no less than the capacity given. What was contracted
into s runs right before s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from accel.schedule._atomic.late_operators import is_momentary, units_beginning
from accel.schedule._instance import Instance
from accel.schedule._residency import Residency, all_gaps


@dataclass(frozen=True)
class Contraction:
    """An instance without the operators that run right before others.

    Attributes
    ----------
    original
        The whole instance.
    instance
        The smaller one.
    operators, tensors
        By operator and tensor of the smaller instance: index in the whole one.
    members
        By operator of the whole instance: operators that run right before it, in order.
    """

    original: Instance
    instance: Instance
    operators: tuple[int, ...]
    tensors: tuple[int, ...]
    members: tuple[tuple[int, ...], ...]

    def expand(self, residency: Residency) -> Residency:
        """Residency of the whole instance, of the same cost."""
        order = self.expand_order(residency.order)
        step = {i: t for t, i in enumerate(order)}
        dropped = {
            (self.tensors[v], step[self.operators[residency.order[t]]])
            for v, t in all_gaps(self.instance, residency.order) - residency.kept
        }
        return Residency(self.original, order, all_gaps(self.original, order) - dropped)

    def contract(self, residency: Residency) -> Residency:
        """Residency of the smaller instance, of the same cost or less."""
        place = {i: k for k, i in enumerate(self.operators)}
        index = {v: k for k, v in enumerate(self.tensors)}
        order = self.contract_order(residency.order)
        step = {k: t for t, k in enumerate(order)}
        dropped = {
            (index[v], step[place[residency.order[t]]])
            for v, t in all_gaps(self.original, residency.order) - residency.kept
            if v in index and residency.order[t] in place
        }
        return Residency(self.instance, order, all_gaps(self.instance, order) - dropped)

    def expand_order(self, order: Sequence[int]) -> tuple[int, ...]:
        """Order of the whole instance."""
        whole = (self.operators[k] for k in order)
        return tuple(i for last in whole for i in (*self.members[last], last))

    def contract_order(self, order: Sequence[int]) -> tuple[int, ...]:
        """Order of the smaller instance."""
        place = {i: k for k, i in enumerate(self.operators)}
        return tuple(place[i] for i in order if i in place)


def contracted(instance: Instance) -> Contraction:
    """Leave out the operators that run right before the one reader of their result in some optimal plan."""
    size = instance.size
    found = _Found(instance)
    left_out = found.left_out
    if not left_out:
        every = tuple(range(len(instance.operators)))
        return Contraction(instance, instance, every, tuple(range(len(size))), tuple(found.members))
    operators = tuple(i for i in range(len(instance.operators)) if i not in left_out)
    place = {i: k for k, i in enumerate(operators)}
    touched = {v for i in operators for v in instance.touched(i)}
    tensors = tuple(v for v in range(len(size)) if v in touched)
    index = {v: k for k, v in enumerate(tensors)}
    smaller = replace(
        instance,
        operators=tuple(instance.operators[i] for i in operators),
        tensors=tuple(instance.tensors[v] for v in tensors),
        reads=tuple(tuple(index[v] for v in instance.reads[i]) for i in operators),
        writes=tuple(tuple(index[v] for v in instance.writes[i]) for i in operators),
        after=tuple(frozenset(place[p] for p in found.after[i]) for i in operators),
        size=tuple(size[v] for v in tensors),
        is_input=tuple(v in found.given for v in tensors),
        is_output=tuple(instance.is_output[v] for v in tensors),
        in_place=tuple(tuple(index[v] for v in instance.in_place[i]) for i in operators),
    )
    return Contraction(instance, smaller, operators, tensors, tuple(found.members))


class _Found:
    """Which operators are left out, and what becomes of those that they are contracted into."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._following: list[set[int]] = [set() for _ in instance.operators]
        for i, before in enumerate(instance.after):
            for p in before:
                self._following[p].add(i)
        self.members: list[tuple[int, ...]] = [() for _ in instance.operators]
        self.after = [set(before) for before in instance.after]
        self.left_out: set[int] = set()
        # Tensors that are graph inputs, or made right before their reader.
        self.given = {v for v, made in enumerate(instance.producer) if made is None}
        for i in range(len(instance.operators)):
            reader = self._reader(i)
            if reader is not None and self._read(i) <= units_beginning(instance, reader):
                self._contract(i, reader)
        for i, reader in self._with_room().items():
            self._contract(i, reader)

    def _reader(self, i: int) -> int | None:
        """Operator before which `i` may wait, if there is room for it."""
        instance, readers = self._instance, self._instance.consumers
        writes = instance.writes[i]
        if len(writes) != 1 or len(readers[writes[0]]) != 1 or len(self._following[i]) != 1:
            return None
        if not all(v in self.given and len(readers[v]) == 1 for v in instance.reads[i]):
            return None
        return readers[writes[0]][0]

    def _read(self, i: int) -> int:
        return sum(self._instance.size[v] for v in self._instance.reads[i])

    def _contract(self, i: int, reader: int) -> None:
        self.members[reader] += (*self.members[i], i)
        self.after[reader] = self.after[reader] - {i} | self.after[i]
        self.left_out.add(i)
        self.given.update(self._instance.writes[i])

    def _with_room(self) -> dict[int, int]:
        """Operators for which there is room beside all that may be live, and their readers."""
        instance = self._instance
        sources = {
            i: c
            for i in range(len(instance.operators))
            if i not in self.left_out
            and instance.working_set[i] <= instance.capacity
            and (c := self._reader(i)) is not None
        }
        if not sources:
            return sources
        masks = [sum(1 << c for c in readers) for readers in instance.consumers]
        gone = {v for i in self.left_out for v in instance.touched(i)}
        live = {c: [v for v in self._live(c, masks) if v not in gone] for c in set(sources.values())}
        found = sources
        more = True
        while more:
            waiting = {v for i in found for v in instance.touched(i)}
            groups = self._apart(sorted(sources.keys() - found.keys()))
            beside = {
                c: sum(instance.size[v] for v in instance.reads[c] if not is_momentary(instance, v))
                + self._most_held([v for v in held if v not in waiting], groups)
                for c, held in live.items()
            }
            fitting = {
                i: c
                for i, c in found.items()
                if beside[c] + self._read(i) <= instance.capacity and c not in found
            }
            more = len(fitting) < len(found)
            found = fitting
        return found

    def _apart(self, sources: Sequence[int]) -> dict[int, int]:
        """Number of a group by result of `sources`; no two of a group are resident at once."""
        used, size, room = self._instance.working_set, self._instance.size, self._instance.capacity
        result = {i: self._instance.writes[i][0] for i in sources}
        groups: list[list[int]] = []
        for i in sorted(sources, key=lambda i: (-size[result[i]], i)):
            for group in groups:
                if all(min(used[i] + size[result[j]], used[j] + size[result[i]]) > room for j in group):
                    group.append(i)
                    break
            else:
                groups.append([i])
        return {result[i]: k for k, group in enumerate(groups) for i in group}

    def _most_held(self, tensors: Sequence[int], groups: Mapping[int, int]) -> int:
        """Most units of `tensors` that are resident at once."""
        size = self._instance.size
        largest: dict[int, int] = {}
        for v in tensors:
            if v in groups:
                largest[groups[v]] = max(largest.get(groups[v], 0), size[v])
        return sum(largest.values()) + sum(size[v] for v in tensors if v not in groups)

    def _live(self, c: int, masks: Sequence[int]) -> list[int]:
        """Tensors that `c` does not touch and that may be live while it runs, in some order."""
        instance = self._instance
        before = instance.ancestors[c]
        after = 1 << c
        for j, mask in enumerate(instance.ancestors):
            after |= (mask >> c & 1) << j
        touched = instance.touched(c)
        return [
            v
            for v, (made, readers) in enumerate(zip(instance.producer, masks, strict=True))
            if v not in touched
            and not is_momentary(instance, v)
            and readers & ~before
            and (readers if made is None else 1 << made) & ~after
        ]
