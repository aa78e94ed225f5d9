"""A problem: loops around one multiply-accumulate, and the tensors that they index."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import TypeAlias

Term: TypeAlias = tuple[str, int]

NAME = re.compile(r"[A-Z][a-z_]*")  #: of a loop or tensor


@dataclass(frozen=True, slots=True)
class Access:
    """How a tensor is indexed by the loops of a problem.

    Attributes
    ----------
    name
        Of the tensor: ``"W"``, or ``"Weights"``.
    ranks
        One sum of ``(loop, coefficient)`` terms per axis: an input row of a convolution with stride 2
        is ``(("P", 2), ("R", 1))``. A loop appears in at most one axis.
    """

    name: str
    ranks: tuple[tuple[Term, ...], ...]

    def __post_init__(self) -> None:
        loops = Counter(loop for rank in self.ranks for loop, _ in rank)
        if repeated := sorted(loop for loop, count in loops.items() if count > 1):
            raise ValueError(f"loop {repeated[0]} indexes tensor {self.name} more than once")
        for name in (self.name, *loops):
            _check_name(name)
        for rank in self.ranks:
            for loop, coefficient in rank:
                if coefficient < 1:
                    raise ValueError(
                        f"the coefficient of {loop} in {self.name} must be at least 1, got {coefficient}"
                    )

    def extents(self, tile: Mapping[str, int]) -> tuple[int, ...]:
        """Lengths of the smallest box that holds what loops of `tile` turns touch."""
        return tuple(1 + sum(step * (tile[loop] - 1) for loop, step in rank) for rank in self.ranks)

    def words(self, tile: Mapping[str, int]) -> int:
        """Words of that box."""
        return prod(self.extents(tile))


@dataclass(frozen=True, slots=True)
class Problem:
    """Loops around one multiply-accumulate, and the tensors that they index.

    Attributes
    ----------
    sizes
        Turns of each loop.
    inputs
        Tensors that are read.
    output
        The tensor that is added to; each of its axes follows one loop.
    """

    sizes: Mapping[str, int]
    inputs: tuple[Access, ...]
    output: Access

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", MappingProxyType(dict(self.sizes)))
        for loop, size in self.sizes.items():
            _check_name(loop)
            if size < 1:
                raise ValueError(f"loop {loop} must have at least 1 turn, got {size}")
        for tensor in self.tensors:
            for loop in (loop for rank in tensor.ranks for loop, _ in rank):
                if loop not in self.sizes:
                    raise ValueError(
                        f"tensor {tensor.name} is indexed by {loop}; the loops are {', '.join(self.sizes)}"
                    )
        if any(len(rank) != 1 or rank[0][1] != 1 for rank in self.output.ranks):
            raise ValueError(f"each axis of the output {self.output.name} must follow one loop, step 1")
        names = [tensor.name for tensor in self.tensors]
        if len(set(names)) < len(names):
            raise ValueError(f"tensors must have different names, got {', '.join(names)}")

    @property
    def tensors(self) -> tuple[Access, ...]:
        """The inputs, then the output."""
        return (*self.inputs, self.output)

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return prod(self.sizes.values())

    @classmethod
    def convolution(
        cls,
        *,
        n: int = 1,
        k: int = 1,
        c: int = 1,
        p: int = 1,
        q: int = 1,
        r: int = 1,
        s: int = 1,
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
    ) -> Problem:
        """``O[N,K,P,Q] += W[K,C,R,S] I[N, C, P stride + R dilation, Q stride + S dilation]``."""
        rows = (("P", stride[0]), ("R", dilation[0]))
        columns = (("Q", stride[1]), ("S", dilation[1]))
        return cls(
            sizes={"N": n, "K": k, "C": c, "P": p, "Q": q, "R": r, "S": s},
            inputs=(_plain("W", "KCRS"), Access("I", ((("N", 1),), (("C", 1),), rows, columns))),
            output=_plain("O", "NKPQ"),
        )

    @classmethod
    def gemm(cls, *, m: int, n: int, k: int) -> Problem:
        """``O[M,N] += A[M,K] W[K,N]``."""
        return cls(
            sizes={"M": m, "N": n, "K": k},
            inputs=(_plain("A", "MK"), _plain("W", "KN")),
            output=_plain("O", "MN"),
        )


def _check_name(name: str) -> None:
    # So that `WIO` and `K8` can be read in one way only.
    if not NAME.fullmatch(name):
        raise ValueError(f"a tensor or loop must be named by a capital and small letters, got {name!r}")


def _plain(name: str, loops: str) -> Access:
    return Access(name, tuple(((loop, 1),) for loop in loops))
