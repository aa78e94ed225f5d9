"""Loop nests over memory levels: how often each memory is read, filled and updated.

A :class:`~accel.mapping.problem.Problem` is a perfect loop nest around one multiply-accumulate. A
:class:`Nest` splits each of its loops over storage levels, outermost first; a level keeps some of the
tensors, then runs its temporal loops and fans out over its spatial ones:

``DRAM[WIO] K8 Q28 - Scratchpad[WI] N1 K4X - Accumulator[O] K2 S7 C3X - Register[W] P16``

A tensor is fetched from the next outer level that keeps it. Of the temporal loops outside a tile, the
innermost one that has more than one turn sets the pace: a step equal to its step brings only the part
of the tile that is new (nothing if the tensor does not use the loop, the new rows of a sliding window
if it does), any other step brings the whole tile. A spatial loop that a tensor does not use serves
several units by one read (multicast), or adds up their partial sums on the way out (reduction).

The rules are those of [Timeloop]_, with one exception: it measures the step of an outer loop from the
second turn of the inner ones, this module from their last.

References
----------
.. [Timeloop] A. Parashar et al., "Timeloop: A Systematic Approach to DNN Accelerator Evaluation",
   ISPASS 2019.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from operator import sub
from typing import Literal, TypeAlias, get_args

from accel.mapping.problem import NAME, Access, Problem

Halo: TypeAlias = Literal["kept", "refetched"]

HALOS: tuple[Halo, ...] = get_args(Halo)

_LOOP = re.compile(r"([A-Z][a-z_]*)([0-9]+)(X?)")
_HEAD = re.compile(r"([^\s\[\]]+)\[((?:[A-Z][a-z_]*)*)\]")


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a nest.

    Attributes
    ----------
    name
        Without spaces and brackets; of its own in a nest.
    keeps
        Names of the tensors that it stores; the others pass by.
    temporal, spatial
        ``(loop, turns)``, outermost first. The spatial loops run inside the temporal ones: each of
        their turns is a unit of the next level.
    """

    name: str
    keeps: tuple[str, ...]
    temporal: tuple[tuple[str, int], ...] = ()
    spatial: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        for loop, turns in (*self.temporal, *self.spatial):
            if turns < 1:
                raise ValueError(f"loop {loop} of level {self.name} must have at least 1 turn, got {turns}")

    def __str__(self) -> str:
        loops = [f"{loop}{turns}" for loop, turns in self.temporal]
        fanout = [f"{loop}{turns}X" for loop, turns in self.spatial]
        return " ".join([f"{self.name}[{''.join(self.keeps)}]", *loops, *fanout])

    @classmethod
    def parse(cls, text: str) -> Level:
        """Level of a text such as ``L1[O] K2 S7 C3X``.

        Raises
        ------
        ValueError
            Not of this form, or a temporal loop after a spatial one.
        """
        head, *loops = text.split() or [""]
        if not (match := _HEAD.fullmatch(head)):
            raise ValueError(f"a level must begin with NAME[TENSORS], got {text.strip()!r}")
        parts: dict[str, list[tuple[str, int]]] = {"": [], "X": []}
        for loop in loops:
            if not (found := _LOOP.fullmatch(loop)):
                raise ValueError(
                    f"a loop of level {match[1]} must be NAME COUNT and X if spatial, got {loop!r}"
                )
            if not found[3] and parts["X"]:
                raise ValueError(f"temporal loop {loop} of level {match[1]} must precede its spatial loops")
            parts[found[3]].append((found[1], int(found[2])))
        return cls(match[1], tuple(NAME.findall(match[2])), tuple(parts[""]), tuple(parts["X"]))


@dataclass(frozen=True, slots=True)
class Nest:
    """The loops of a problem, split over levels.

    Attributes
    ----------
    levels
        Outermost first.
    """

    levels: tuple[Level, ...]

    def __post_init__(self) -> None:
        names = Counter(level.name for level in self.levels)
        if repeated := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"levels must have different names, {repeated[0]} occurs more than once")

    def __str__(self) -> str:
        return " - ".join(map(str, self.levels))

    @classmethod
    def parse(cls, text: str) -> Nest:
        """Nest of a text such as ``L3[WIO] K8 Q28 - L2[WI] N1 K4X - L1[O] K2 C3X - L0[W] P16``.

        Raises
        ------
        ValueError
            Names the part that is wrong.
        """
        return cls(tuple(Level.parse(part) for part in text.split(" - ")))

    def check(self, problem: Problem) -> None:
        """Raise a ValueError if the nest is not one of `problem`.

        Its loops must multiply to the sizes of the problem, and its first level keep every tensor.
        """
        turns = dict.fromkeys(problem.sizes, 1)
        for level in self.levels:
            for loop, count in (*level.temporal, *level.spatial):
                if loop not in turns:
                    raise ValueError(f"unknown loop {loop}; the loops are {', '.join(turns)}")
                turns[loop] *= count
        for loop, size in problem.sizes.items():
            if turns[loop] != size:
                raise ValueError(
                    f"the turns of loop {loop} multiply to {turns[loop]}, the problem has {size}"
                )
        names = [tensor.name for tensor in problem.tensors]
        for level in self.levels:
            for name in level.keeps:
                if name not in names:
                    raise ValueError(f"level {level.name} keeps {name}; the tensors are {', '.join(names)}")
        for name in names:
            if not self.levels or name not in self.levels[0].keeps:
                raise ValueError(f"the first level must keep every tensor, {name} is missing")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorCounts:
    """What one level does for one tensor that it keeps. Words are scalars; counts are of all instances.

    Attributes
    ----------
    tile_words
        Words that an instance holds at a time.
    instances
        Instances that are in use.
    reads
        Words read: operands for the level inside or the multipliers; of the output, partial sums that
        are continued. A multicast is one read.
    fills
        Words that arrive from the level outside; of the output, partial sums that come back.
    updates
        Partial sums that arrive from inside, after spatial reduction. Zero for inputs.
    drains
        Words that leave for the level outside. Zero for inputs and in the outermost level.
    """

    tile_words: int
    instances: int
    reads: int
    fills: int
    updates: int
    drains: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a nest does.

    Attributes
    ----------
    macs
        Multiply-accumulates.
    cycles
        Turns of all temporal loops: cycles if no memory holds up the multipliers.
    units
        Multipliers in use.
    levels
        Per level and tensor that it keeps, by name.
    """

    macs: int
    cycles: int
    units: int
    levels: Mapping[str, Mapping[str, TensorCounts]]


def analyse(problem: Problem, nest: Nest, *, halo: Halo = "kept") -> Counts:
    """Count reads, fills and updates of every level.

    Parameters
    ----------
    halo
        ``"kept"``: a window that slides keeps what it has. ``"refetched"``: a tile that moves is
        fetched whole.

    Raises
    ------
    ValueError
        `nest` is none of `problem`, or `halo` is unknown.

    Examples
    --------
    A one-dimensional convolution of 16 outputs and 3 weights, one output at a time. The window of 3
    inputs slides, so 3 + 15 arrive:

    >>> counts = analyse(
    ...     Problem.convolution(p=16, r=3), Nest.parse("Memory[WIO] P16 - Buffer[WIO] R3")
    ... )
    >>> counts.levels["Buffer"]["I"].fills, counts.levels["Buffer"]["W"].fills
    (18, 3)
    """
    if halo not in HALOS:
        raise ValueError(f"halo must be one of {', '.join(HALOS)}; got {halo!r}")
    nest.check(problem)
    levels = nest.levels
    tiles = list(_tiles(problem, levels))
    table: dict[str, dict[str, TensorCounts]] = {level.name: {} for level in levels}
    for tensor in problem.tensors:
        summed = tensor is problem.output
        keepers = [i for i, level in enumerate(levels) if tensor.name in level.keeps]
        # Words that one keeper or, last, one multiplier receives; a multiplier takes a word each time,
        # even if it is the one that it had.
        received = [_received(tensor, tiles[i], levels[:i], halo) for i in keepers]
        received.append(problem.macs // _fanout(levels))
        for i, inner, mine, theirs in zip(
            keepers, [*keepers[1:], len(levels)], received, received[1:], strict=False
        ):
            instances = _fanout(levels[:i])
            sent = theirs * _places(tensor, levels[i:inner], tiles[i + 1 :]) * instances
            arrived = 0 if i == keepers[0] else mine * instances
            # A sum begins at zero, once in each instance that sees it: nothing is read for that.
            begun = tensor.words(_seen(problem, levels[:i])) * instances if summed else 0
            table[levels[i].name][tensor.name] = TensorCounts(
                tile_words=tensor.words(tiles[i]),
                instances=instances,
                reads=sent - begun,
                fills=arrived and arrived - begun,
                updates=sent if summed else 0,
                drains=arrived if summed else 0,
            )
    return Counts(
        macs=problem.macs,
        cycles=prod(turns for level in levels for _, turns in level.temporal),
        units=_fanout(levels),
        levels=table,
    )


def _tiles(problem: Problem, levels: tuple[Level, ...]) -> Iterator[dict[str, int]]:
    """Turns per loop at and inside each level: what one instance works on."""
    tile = dict(problem.sizes)
    for level in levels:
        yield dict(tile)
        for loop, turns in (*level.temporal, *level.spatial):
            tile[loop] //= turns
    yield tile


def _seen(problem: Problem, levels: Iterable[Level]) -> dict[str, int]:
    """Turns per loop that one instance under `levels` sees over the whole run."""
    seen = dict(problem.sizes)
    for level in levels:
        for loop, turns in level.spatial:
            seen[loop] //= turns
    return seen


def _fanout(levels: Iterable[Level]) -> int:
    return prod(turns for level in levels for _, turns in level.spatial)


def _received(tensor: Access, tile: Mapping[str, int], outer: tuple[Level, ...], halo: Halo) -> int:
    """Words that one instance receives, over the temporal loops of the levels outside."""
    extents = tensor.extents(tile)
    whole = prod(extents)
    reach = dict(tile)
    loops: list[tuple[int, tuple[int, ...]]] = []  # turns, and how far a turn moves the tile; innermost first
    back = [0] * len(extents)  # how far the inner loops go back when they start over
    for level in reversed(outer):
        for loop, turns in reversed(level.spatial):
            reach[loop] *= turns
        for loop, turns in reversed(level.temporal):
            if turns == 1:
                continue
            moves = [dict(rank).get(loop, 0) * reach[loop] for rank in tensor.ranks]
            loops.append((turns, tuple(map(sub, moves, back))))
            back = [past + move * (turns - 1) for past, move in zip(back, moves, strict=True)]
            reach[loop] *= turns
    if not loops:
        return whole
    pace = loops[0][1]
    overlap = prod(max(0, extent - move) for extent, move in zip(extents, pace, strict=True))
    new = 0 if not any(pace) else whole - (overlap if halo == "kept" else 0)
    total = whole
    outside = prod(turns for turns, _ in loops)
    for turns, step in loops:
        outside //= turns
        total += outside * (turns - 1) * (new if step == pace else whole)
    return total


def _places(tensor: Access, levels: Iterable[Level], inside: Iterable[Mapping[str, int]]) -> int:
    """Units that need words of their own: those below `levels` less those that share every word.

    Units that need the same words, in one level, get them by one multicast; words that two units
    merely have in common are sent to each.
    """
    places = 1
    for level, tile in zip(levels, inside, strict=False):
        reach = dict(tile)
        offsets = [{0} for _ in tensor.ranks]
        for loop, turns in reversed(level.spatial):
            for rank, seen in zip(tensor.ranks, offsets, strict=True):
                step = dict(rank).get(loop, 0) * reach[loop]
                seen |= {offset + step * turn for offset in seen for turn in range(turns)}
            reach[loop] *= turns
        places *= prod(map(len, offsets))
    return places
