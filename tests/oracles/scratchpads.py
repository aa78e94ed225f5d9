"""Least avoidable traffic of a small graph by brute force: operator order, kept gaps and addresses.

Every legal order, every choice of gaps to stay through and every address is tried, cheapest choices first:
the least traffic still to come, addresses left out, is worked out for each situation once, and only
choices that attain the total under trial are followed. Totals rise until one has a placement.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, product

from hypothesis import strategies as st

from accel.workload import Operator, Role, Tensor, Workload
from numerics.formats import parse_format

INT8 = parse_format("int8")


@st.composite
def graphs(draw, min_operators, max_operators, max_size=5, in_place=False):
    """Graphs with repeated operands, dead and empty tensors, and inputs or results that are outputs.

    Each operator reads a recent tensor, so that older ones wait; the last one may read all that wait.
    Half of the operators of one output are in place where `in_place` asks for that.
    """
    sizes = {f"x{k}": draw(st.integers(1, max_size)) for k in range(draw(st.integers(1, 2)))}
    inputs, operators = tuple(sizes), []
    count = draw(st.integers(min_operators, max_operators))
    for i in range(count):
        known = list(sizes)
        read = [draw(st.sampled_from(known[-2:]))]
        read += draw(st.lists(st.sampled_from(known), max_size=2))
        if i == count - 1 and draw(st.booleans()):
            seen = {name for op in operators for name in op.inputs}
            read += [name for name in known if name not in seen]
        written = tuple(f"t{i}{k}" for k in range(draw(st.sampled_from((1, 1, 1, 2)))))
        sizes |= {name: draw(st.sampled_from((0, *range(1, max_size + 1), max_size))) for name in written}
        is_in_place = in_place and len(written) == 1 and draw(st.booleans())
        operators.append(
            Operator(name=f"o{i}", kind="op", inputs=tuple(read), outputs=written, in_place=is_in_place)
        )
    outputs = draw(st.sets(st.sampled_from(sorted(sizes)), max_size=2)) | {operators[-1].outputs[0]}
    return Workload(
        name="random",
        operators=tuple(operators),
        tensors={
            name: Tensor(name=name, shape=(size,), role=Role.ACTIVATION, format=INT8)
            for name, size in sizes.items()
        },
        inputs=inputs,
        outputs=tuple(sorted(outputs)),
    )


def joint_optimum(graph, capacity, *, order="free"):
    """Bytes; `graph` has integer sizes, and its weights count as any graph input."""
    return _Graph(graph, capacity, order).optimum()


class _Graph:
    def __init__(self, graph, capacity, order):
        self.capacity = capacity
        self.size = {name: tensor.bytes for name, tensor in graph.tensors.items() if tensor.bytes}
        self.operators = graph.operators
        self.outputs = set(graph.outputs)
        self.free_copy = set(graph.inputs) | self.outputs
        made = {name: k for k, op in enumerate(graph.operators) for name in op.outputs}
        self.before = [{made[name] for name in op.inputs if name in made} for op in graph.operators]
        if order == "given":
            for k in range(1, len(self.before)):
                self.before[k].add(k - 1)
        self.used = [
            tuple(name for name in dict.fromkeys((*op.inputs, *op.outputs)) if name in self.size)
            for op in graph.operators
        ]
        self.readers = {
            name: frozenset(k for k, op in enumerate(graph.operators) if name in op.inputs)
            for name in self.size
        }
        self.least = cache(self._least)

    def dying(self, k, done):
        """Inputs of operator `k`, run after `done`, whose block its output may take."""
        op = self.operators[k]
        if not op.in_place or op.outputs[0] not in self.size:
            return []
        return [
            name
            for name in dict.fromkeys(op.inputs)
            if name in self.size
            and name not in self.outputs
            and self.size[name] >= self.size[op.outputs[0]]
            and self.readers[name] <= done | {k}
        ]

    def moves(self, done, resident, copied):
        """Each operator that may run now, with what is dropped after it, and the price of that."""
        for k in range(len(self.operators)):
            if k in done or not self.before[k] <= done:
                continue
            here = resident | set(self.used[k])
            room = sum(self.size[name] for name in here)
            if self.dying(k, done):
                room -= self.size[self.operators[k].outputs[0]]
            if room > self.capacity:
                continue
            after = done | {k}
            wanted = {name for name in here if not self.readers[name] <= after}
            choice = [name for name in self.used[k] if name in wanted]
            for count in range(len(choice) + 1):
                for dropped in combinations(choice, count):
                    unpaid = set(dropped) - copied - self.free_copy
                    price = sum(self.size[name] for name in dropped) + sum(self.size[name] for name in unpaid)
                    yield k, dropped, price, (after, frozenset(wanted - set(dropped)), copied | unpaid)

    def _least(self, done, resident, copied):
        """Least traffic still to be paid, addresses left out; infinity at a dead end."""
        if len(done) == len(self.operators):
            return 0
        found = (price + self.least(*after) for _, _, price, after in self.moves(done, resident, copied))
        return min(found, default=float("inf"))

    def optimum(self):
        start = (frozenset(), frozenset(), frozenset())
        total = self.least(*start)
        self.refuted = set()
        while total < float("inf"):
            self.next_total = float("inf")
            if self.attains(total, start, []):
                return total
            total = self.next_total
        raise AssertionError("no plan, though every working set fits")

    def attains(self, left, state, path):
        if len(state[0]) == len(self.operators):
            return self.has_addresses(path)
        for k, dropped, price, after in self.moves(*state):
            least = price + self.least(*after)
            if least > left:
                spent = sum(cost for _, _, cost in path)
                self.next_total = min(self.next_total, spent + least)
            elif self.attains(left - price, after, [*path, (k, dropped, price)]):
                return True
        return False

    def has_addresses(self, path):
        """Whether the blocks of a path have addresses, some in the place of an input that dies there."""
        runs, open_at, done, overs = [], {}, set(), []
        for t, (k, dropped, _) in enumerate(path):
            for name in self.used[k]:
                open_at.setdefault(name, t)
            if dying := self.dying(k, done):
                overs.append((t, self.operators[k].outputs[0], dying))
            done.add(k)
            ended = [name for name in open_at if name in dropped or self.readers[name] <= done]
            runs += [(open_at.pop(name), t, self.size[name], name) for name in ended]
        index = {(name, end): r for r, (_, end, _, name) in enumerate(runs)}
        first = {(name, start): r for r, (start, _, _, name) in enumerate(runs)}
        for chosen in product(*([None, *dying] for _, _, dying in overs)):
            below = {
                first[output, t]: index[name, t]
                for (t, output, _), name in zip(overs, chosen, strict=True)
                if name is not None
            }
            key = (tuple(run[:3] for run in runs), tuple(below.items()))
            if key in self.refuted:
                continue
            if self.stack(runs, below):
                return True
            self.refuted.add(key)
        return False

    def stack(self, runs, below):
        """Whether `runs` (start, end, height) fit; ``below[r]`` is the run in which run `r` begins."""
        steps = max((end for _, end, _, _ in runs), default=-1) + 1
        for t in range(steps):  # a quick no
            here = [h for r, (s, e, h, _) in enumerate(runs) if s <= t <= e and not (r in below and s == t)]
            if sum(here) > self.capacity:
                return False
        queue = sorted(range(len(runs)), key=lambda r: (-runs[r][2], r))
        placed = {}

        def clash(r, q):
            (s, e, h, _), (S, E, H, _) = runs[r], runs[q]
            low, high = max(s, S), min(e, E)
            if low > high or placed[r] + h <= placed[q] or placed[q] + H <= placed[r]:
                return False
            # Only at its first step may a run lie over the one below it, and then within it.
            for upper, lower in ((r, q), (q, r)):
                if below.get(upper) == lower:
                    return low != high or low != runs[upper][0]
            return True

        def within(r, q):
            return placed[q] <= placed[r] and placed[r] + runs[r][2] <= placed[q] + runs[q][2]

        def fits(r):
            for q in placed:
                if q != r and clash(r, q):
                    return False
                if (below.get(r) == q and not within(r, q)) or (below.get(q) == r and not within(q, r)):
                    return False
            return True

        def fill(k):
            if k == len(queue):
                return True
            r = queue[k]
            for at in range(self.capacity - runs[r][2] + 1):
                placed[r] = at
                if fits(r) and fill(k + 1):
                    return True
                del placed[r]
            return False

        return fill(0)
