"""Design spaces drawn at random, and all their designs by brute force."""

from __future__ import annotations

import itertools
import math
import zlib

from hypothesis import strategies as st

from dse.space import Categorical, Integer, Ordinal, Permutation, PowerOfTwo, Real, Space

TEXTS = ("a", "b", "c", "d")


@st.composite
def parameters(draw, name, *, kinds, active_if=None):
    """One parameter of any of the kinds, with at most six values unless it is real."""
    kind = draw(st.sampled_from(kinds))
    if kind is Ordinal:
        log = draw(st.booleans())
        if not log and draw(st.booleans()):
            return Ordinal(name, TEXTS[: draw(st.integers(1, 4))], active_if=active_if)
        low = 0 if log else -20
        numbers = draw(st.lists(st.integers(low, 20), min_size=1, max_size=4, unique=True))
        return Ordinal(name, sorted(numbers), log=log, active_if=active_if)
    if kind is PowerOfTwo:
        low, high = sorted(draw(st.tuples(st.integers(0, 3), st.integers(0, 3))))
        return PowerOfTwo(name, 1 << low, 1 << high, active_if=active_if)
    if kind is Categorical:
        choices = draw(
            st.lists(st.sampled_from((*TEXTS, 7, 0.5, False)), min_size=1, max_size=4, unique=True)
        )
        return Categorical(name, choices, active_if=active_if)
    if kind is Permutation:
        return Permutation(name, TEXTS[: draw(st.integers(1, 3))], active_if=active_if)
    log = draw(st.booleans())
    if kind is Integer:
        low = draw(st.integers(0 if log else -9, 9))
        return Integer(name, low, low + draw(st.integers(0, 4)), log=log, active_if=active_if)
    low = draw(st.floats(0.125 if log else -8, 8))
    return Real(name, low, low + draw(st.sampled_from((0, 0.5, 8))), log=log, active_if=active_if)


FINITE = (Ordinal, PowerOfTwo, Categorical, Permutation, Integer)
PARENTS = (Ordinal, PowerOfTwo, Categorical, Integer)


@st.composite
def spaces(draw, *, kinds=FINITE, most=4, constrained=True):
    """A space of up to `most` parameters with conditions, nested ones too, and perhaps a constraint."""
    found = []
    for index in range(draw(st.integers(1, most))):
        parents = [p for p in found if isinstance(p, PARENTS)]
        active_if = None
        if parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            values = st.lists(st.sampled_from(legal(parent)), min_size=1, max_size=3, unique=True)
            active_if = (parent.name, draw(values))
        found.append(draw(parameters(f"p{index}", kinds=kinds, active_if=active_if)))
    found = draw(st.permutations(found))  # children may come before their parents
    modulus = draw(st.integers(2, 5))
    if constrained and draw(st.booleans()):
        try:
            return Space(found, [lambda p: None if scrambled(p) % modulus else f"multiple of {modulus}"])
        except ValueError:  # nothing is left
            pass
    return Space(found)


def scrambled(parameters_by_name):
    """A number that depends on every value."""
    return zlib.crc32(repr(sorted(parameters_by_name.items())).encode())


def legal(parameter):
    """Values of a finite parameter, without asking it."""
    if isinstance(parameter, PowerOfTwo):
        return [2**k for k in range(63) if parameter.low <= 2**k <= parameter.high]
    if isinstance(parameter, Ordinal | Categorical):
        return list(parameter.choices)
    if isinstance(parameter, Permutation):
        return [
            order
            for order in itertools.product(parameter.items, repeat=len(parameter.items))
            if len(set(order)) == len(order)
        ]
    if isinstance(parameter, Real):
        assert parameter.low == parameter.high
        return [parameter.low]
    return [value for value in range(-100, 100) if parameter.low <= value <= parameter.high]


def is_consistent(space, design):
    """Whether exactly the parameters that exist have a value."""
    values = dict(zip((p.name for p in space.parameters), design, strict=True))

    def exists(parameter):
        if parameter.active_if is None:
            return True
        name, when = parameter.active_if
        parent = next(p for p in space.parameters if p.name == name)
        return exists(parent) and values[name] in when

    return all((values[p.name] is not None) == exists(p) for p in space.parameters)


def every_design(space):
    """All feasible designs of a finite space, as a set."""
    options = [legal(p) + [None] * (p.active_if is not None) for p in space.parameters]
    names = [p.name for p in space.parameters]
    return {
        design
        for design in itertools.product(*options)
        if is_consistent(space, design)
        and all(rule(dict(zip(names, design, strict=True))) is None for rule in space.constraints)
    }


def is_legal(space, design):
    """Whether a design of any space is consistent, within its values and feasible."""
    values = dict(zip((p.name for p in space.parameters), design, strict=True))
    for parameter in space.parameters:
        value = values[parameter.name]
        if value is None and parameter.active_if is not None:
            continue
        if isinstance(parameter, Real):
            good = type(value) is float and math.isfinite(value) and parameter.low <= value <= parameter.high
        else:
            good = value in legal(parameter)
        if not good:
            return False
    return is_consistent(space, design) and all(rule(values) is None for rule in space.constraints)
