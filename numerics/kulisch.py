"""The exact accumulator: a register as wide as the range of the sum, and one rounding at the end.

References
----------
.. [Kulisch] U. Kulisch, "Computer Arithmetic and Validity", 2nd ed., de Gruyter, 2013, chapter 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp

import numpy as np

from numerics._kernels import facts, kulisch, ordered
from numerics._ordered import Report
from numerics._target import Target
from numerics.accumulator import Accumulator, read_options
from numerics.certificate import Certificate
from numerics.formats import FloatFormat
from numerics.rounding import Rounding

_OPTIONS = ("output", "rounding")


@dataclass(frozen=True, slots=True)
class ExactAccumulator:
    """All products are added exactly; the sum is rounded once [Kulisch]_.

    No order of the additions matters. The rounding of a stochastic one takes word 0 of its output
    element. Infinities and NaNs follow IEEE 754.

    Attributes
    ----------
    output, rounding
        Format and rounding of the result; text is parsed.

    Examples
    --------
    >>> str(ExactAccumulator.parse("exact output=e6m9 rounding=up"))
    'exact output=e6m9 rounding=up'
    """

    output: FloatFormat
    rounding: Rounding = Rounding.NEAREST_EVEN

    def __init__(
        self, output: FloatFormat | str, *, rounding: Rounding | str = Rounding.NEAREST_EVEN
    ) -> None:
        fmt = FloatFormat.parse(output) if isinstance(output, str) else output
        if not isinstance(fmt, FloatFormat):
            raise TypeError(f"output must be a FloatFormat or its text, got {output!r}")
        if not fmt.signed:
            raise ValueError(f"output must be signed, got {fmt}")
        object.__setattr__(self, "output", fmt)
        object.__setattr__(self, "rounding", Rounding.parse(rounding))

    @classmethod
    def parse(cls, text: str | ExactAccumulator) -> ExactAccumulator:
        """Read ``exact output=e8m23 rounding=up``; an accumulator passes through.

        Raises
        ------
        ValueError
            An unknown option, a missing output, a bad value.
        """
        if isinstance(text, ExactAccumulator):
            return text
        head, *words = text.split() or [""]
        options = read_options(words, _OPTIONS, "exact accumulator")
        if head != "exact" or "output" not in options:
            raise ValueError(f"exact accumulator must be exact output=<format>, got {text!r}")
        return cls(options["output"], rounding=options.get("rounding", Rounding.NEAREST_EVEN))

    def __str__(self) -> str:
        rounding = "" if self.rounding == Rounding.NEAREST_EVEN else f" rounding={self.rounding}"
        return f"exact output={self.output}{rounding}"


def exact(
    a: np.ndarray,
    b: np.ndarray,
    accumulator: ExactAccumulator,
    key: tuple[int, int, int],
    *,
    counting: bool = False,
) -> tuple[np.ndarray, Report]:
    """``a @ b`` for checked operands, neither of them empty: (m, n) float32, and what was counted.

    `key` is seed, stream and the number of the first output element. No addition is rounded, so only
    the range of the results is reported.
    """
    Certificate.of(a, b, Accumulator(accumulator.output))  # raises unless products are exact in float64
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    a_max, a_unit = facts.operand_facts(a.reshape(-1))[:2]
    b_max, b_unit = facts.operand_facts(b.reshape(-1))[:2]
    out = np.empty((a.shape[0], b.shape[1]), np.float32)
    zero = a_max == 0.0 or b_max == 0.0
    # Two empty limbs and 53 places below the last bit of any product; sums of 2**30 products above.
    base = 0 if zero else int(a_unit + b_unit) - 117
    top = 0 if zero else frexp(a_max)[1] + frexp(b_max)[1] + 32
    target = Target.of(accumulator.output, accumulator.rounding).scalars()
    limbs = (top - base) // 32 + 4
    counts = np.zeros(ordered.COUNTERS, np.int64)
    kulisch.gemm_kulisch(a, b, out, base, limbs, target, *key, counting, counts)
    return out, Report.of(counts)
