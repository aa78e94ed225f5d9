"""Why operators cannot run in the order in which they are listed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def find_cycle(reads: Sequence[Iterable[str]], producer: Mapping[str, int], start: int) -> list[int]:
    """Operators on a way from `start` back to it through what they read, in running order.

    Parameters
    ----------
    reads
        Names of the tensors that each operator reads.
    producer
        Place of the operator that makes a tensor; what no operator makes is absent.

    Returns
    -------
    ``start, ..., start``, or nothing if there is no such way.

    Examples
    --------
    >>> find_cycle([["x", "b"], ["a"]], {"a": 0, "b": 1}, 0)
    [0, 1, 0]
    """
    came_from: dict[int, int] = {}
    waiting = [start]
    while waiting:
        reader = waiting.pop()
        for name in reads[reader]:
            source = producer.get(name)
            if source is None:
                continue
            if source == start:
                way = [start, reader]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way
            if source not in came_from:
                came_from[source] = reader
                waiting.append(source)
    return []


def why_too_late(
    names: Sequence[str],
    reads: Sequence[Iterable[str]],
    producer: Mapping[str, int],
    reader: int,
    tensor: str,
) -> str:
    """One line on an operator that reads `tensor`, which no operator before it makes.

    Parameters
    ----------
    names
        Of the operators.
    reads, producer
        As of `find_cycle`.
    reader
        Place of the operator.

    Examples
    --------
    >>> why_too_late(["A", "B"], [["b"], ["x"]], {"a": 0, "b": 1}, 0, "b")
    'operator A reads b, which is made only later, by B'
    """
    what = f"operator {names[reader]} reads {tensor}"
    if tensor not in producer:
        return f"{what}, which nothing makes"
    if cycle := find_cycle(reads, producer, reader):
        return f"{what}, but the operators form a cycle: {' -> '.join(names[place] for place in cycle)}"
    return f"{what}, which is made only later, by {names[producer[tensor]]}"
