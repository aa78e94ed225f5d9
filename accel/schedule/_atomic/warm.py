"""Compiled kernels loaded before a clock starts: the first use compiles them, later ones find them on disk.

What a time limit bounds is the search for a schedule, not the ten seconds or more that compiling takes once
after an installation.
"""

from __future__ import annotations

from functools import cache
from math import inf

from accel.schedule._atomic.beam import EXACT, Options, Part
from accel.schedule._atomic.gap_model import replace_optimally
from accel.schedule._atomic.search import search
from accel.schedule._atomic.windows import lower_bound
from accel.schedule._instance import Instance
from accel.schedule._packer.search import load_kernels as load_placer


@cache
def load_search() -> None:
    """Load the kernels of the placer, of replacement in an order and of the exact search."""
    load_placer()
    instance = _skip()
    replace_optimally(instance, range(len(instance.operators)), deadline_s=inf)
    search(instance, upper=1 << 40, deadline_s=inf)


@cache
def load_windows() -> None:
    """Load the kernels that improve large graphs."""
    instance = _skip()
    part = Part(instance, range(len(instance.operators)))
    for options in (Options(width=2), EXACT):
        part.search(options)
    lower_bound(instance, tuple(range(len(instance.operators))), upper=1 << 40, deadline_s=inf)


def _skip() -> Instance:
    """Four operators in a row and one tensor that skips two of them and does not fit beside the others."""
    return Instance(
        operators=("A", "B", "C", "D"),
        tensors=("x", "a", "b", "c", "d"),
        reads=((0,), (1,), (2,), (1, 3)),
        writes=((1,), (2,), (3,), (4,)),
        after=(frozenset(), frozenset({0}), frozenset({1}), frozenset({0, 2})),
        size=(1, 2, 3, 3, 2),
        is_input=(True, False, False, False, False),
        is_output=(False, False, False, False, True),
        in_place=((), (), (), ()),
        unit_bytes=1,
        capacity=7,
    )
