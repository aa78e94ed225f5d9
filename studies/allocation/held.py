"""Tensors of a numerical program that are held in few bits between their uses, and what they move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import frexp

import numpy as np
from jaxtyping import Float, Int

from numerics import FloatFormat, PackedTensor
from numerics.block import parse_any_format
from studies.allocation.groups import Assignment, TensorGroup

_SCALE_BYTES = 1  # the exponent of a power of two


class Held:
    """A store of tensors by name: `put` rounds to the group's format and packs, `get` unpacks to float64.

    Each tensor gets the largest power of two as a scale with which its largest magnitude still fits the
    format, so that a format is judged by its precision and the spread of magnitudes it holds, not by units.

    Parameters
    ----------
    formats
        Format of each group, of at most 16 bits; ``None`` holds float64, the reference.

    Examples
    --------
    >>> held = Held({"x": "e2m1"})
    >>> held.put("x", np.array([100.0, 60.0, 3.0]))
    >>> held.get("x")
    array([96., 64.,  0.])
    >>> held.groups(["x"])
    (TensorGroup(name='x', elements=3, accesses=2.0, fixed_bytes=2.0),)
    """

    def __init__(self, formats: Assignment | None = None) -> None:
        self._formats: dict[str, FloatFormat] | None = None
        if formats is not None:
            self._formats = {name: _float_format(name, fmt) for name, fmt in formats.items()}
        self._packed: dict[str, tuple[PackedTensor, int]] = {}
        self._exact: dict[str, Float[np.ndarray, "..."]] = {}
        self._elements: dict[str, int] = {}
        self._moved: dict[str, int] = {}
        self._transfers: dict[str, int] = {}

    def put(self, name: str, values: Float[np.ndarray, "..."]) -> None:
        """Replace the tensor of a group.

        Infinities saturate; a NaN raises ``FloatingPointError``, for the program is lost.
        """
        self._count(name, values.size, whole=values.size)
        if self._formats is None:
            self._exact[name] = np.array(values, dtype=np.float64)
            return
        if np.isnan(values).any():
            raise FloatingPointError(f"{name} must be numbers, got NaN")
        fmt = self._formats[name]
        exponent = scale_exponent(values, fmt)
        scaled = np.ldexp(np.asarray(values, np.float64), exponent)
        self._packed[name] = PackedTensor.pack(scaled, fmt, overflow="saturate"), exponent
        self._exact.pop(name, None)

    def get(self, name: str) -> Float[np.ndarray, "..."]:
        """Tensor of a group, in the shape it was put in; what comes back is what its bits say."""
        values = self._values(name)
        self._count(name, values.size)
        return values

    def gather(self, name: str, places: Int[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Elements of a group at flat `places`, in their shape; only they are moved."""
        self._count(name, places.size)
        return np.asarray(self._values(name).reshape(-1)[places])

    def _values(self, name: str) -> Float[np.ndarray, "..."]:
        if name not in self._exact:
            packed, exponent = self._packed[name]
            self._exact[name] = np.ldexp(packed.unpack(np.float64), -exponent)
        return self._exact[name].copy()

    def _count(self, name: str, moved: int, *, whole: int = 0) -> None:
        self._elements[name] = max(self._elements.get(name, 0), whole)
        self._moved[name] = self._moved.get(name, 0) + moved
        self._transfers[name] = self._transfers.get(name, 0) + 1

    def groups(self, names: Sequence[str]) -> tuple[TensorGroup, ...]:
        """Sizes of the groups, and accesses as they were counted until now."""
        return tuple(
            TensorGroup(
                name=name,
                elements=self._elements[name],
                accesses=self._moved[name] / self._elements[name],
                fixed_bytes=float(_SCALE_BYTES * self._transfers[name]),
            )
            for name in names
        )

    def packed_bytes(self) -> Mapping[str, int]:
        """Bytes in which each group is stored now."""
        return {name: packed.nbytes for name, (packed, _) in self._packed.items()}


def scale_exponent(values: Float[np.ndarray, "..."], fmt: FloatFormat) -> int:
    """Largest n in -126..126 with ``max |values| * 2**n <= fmt.max``; 0 for zeros."""
    finite = np.abs(values[np.isfinite(values)])
    largest = float(finite.max()) if finite.size else 0.0
    if largest == 0.0:
        return 0
    mantissa, exponent = frexp(largest)
    top, power = frexp(fmt.max)
    return max(-126, min(126, power - exponent - (mantissa > top)))


def _float_format(name: str, text: str) -> FloatFormat:
    fmt = parse_any_format(text)
    if not isinstance(fmt, FloatFormat) or fmt.bits > 16:
        raise ValueError(f"format of {name} must be a float format of at most 16 bits, got {text}")
    return fmt
