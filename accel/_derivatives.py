"""What the backward pass of each kind of operator reads, and how much arithmetic it does.

One operation is an addition, a multiplication, a division, a comparison, a selection or one elementary
function, as in the forward counts of the importers; what is done once for a row or a channel is not counted.
Errors of an operand that was broadcast are summed besides, one addition per element of the error.
Matrix products are not in the table: their errors are products, see ``accel._backward_products``.

=============================== ================= ============================================================
kind, and the operand if not    reads beside the  operations per element of the error or of the operand,
all are alike                   error             whichever has more
=============================== ================= ============================================================
add; sub, first                 -                 none: the error is handed on as it is
sub, second; neg                -                 1
mul                             the others        1
div, first; second              second; second    1; 3 as ``-e y / b``
                                and output
maximum, minimum                all operands      2: comparison, selection
where, masked_fill              the condition     1
relu                            output            1
relu6, hardtanh, clamp          output            2: two comparisons
leaky_relu; hardsigmoid; elu,   output            2; 3; 3
selu, celu
prelu                           all operands      2: product, selection
sigmoid; tanh                   output            3 as ``e y (1 - y)``, ``e (1 - y y)``
exp; sqrt; rsqrt; reciprocal    output            1; 2; 4; 3
log; abs; square; sin, cos;     the operand       1; 1; 2; 2; 3; 4
pow; erf
gelu; gelu_tanh; silu;          the operand       11; 18; 9; 5; 14; 5; 4: the function's inner part is
softplus; mish; hardswish; glu                    computed again, then its derivative
softmax, log_softmax            output            4: product, sum, difference, product
layer_norm, group_norm,         the operand,      13: statistics and normalised value anew (5), scaled error
instance_norm, batch_norm       the scale         (1), its two sums (3), result (4)
rms_norm                        the operand,      9: the same without the mean
                                the scale
... its scale; its shift        the operand; -    7, for rms_norm 5; 1: the sum over rows
local_response_norm             operand, output   as many as forward
max_pool                        operand, output   as many as forward: the maximum is found again, no index
                                                  is stored
avg_pool                        -                 as many as forward
mean; sum                       -                 1; 0
amax, amin, prod; var, std      operand, output;  2; 4
                                operand
cumsum; cast                    -                 1
cross_entropy                   all operands      6: softmax (4), difference to the label, scale
cat, slice, pad, transpose and  -                 0: data are moved back
other moves
expand, repeat, upsample        -                 as many as forward, and the sum
embedding, gather, index        the indices       0, and the sum: a row may have been picked twice
embedding_bag                   the indices       as many as forward
lstm, gru, rnn (recurrent)      operand, output   as many as forward
any other                       operands, output  as many as forward
=============================== ================= ============================================================

The derivative of ``batch_norm`` is that of training, with statistics of the batch, whichever mode the forward
graph was read in. Comparisons, roundings and functions to whole numbers have no derivative: no error
passes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

#: ``"self"`` is the operand whose error it is, ``"others"`` all but it, ``"fixed"`` those of the others
#: to which no error flows, ``"output"`` the results; a number is a place among the operands.
Read: TypeAlias = str | int


@dataclass(frozen=True, slots=True)
class Derivative:
    """How the error of one operand follows from that of the result.

    Attributes
    ----------
    ops
        Operations per element of the error or of the operand, whichever has more; ``None`` for as
        many as the forward operator does in all.
    reads
        What it reads beside the error.
    sums
        When errors are summed besides: where an operand with fewer elements than the error was
        ``"broadcast"``, ``"always"`` or ``"never"``.
    moves
        Whether it moves data: the error of the result is not that of the operand.
    """

    ops: int | None
    reads: tuple[Read, ...] = ()
    sums: Literal["broadcast", "always", "never"] = "broadcast"
    moves: bool = False

    @property
    def hands_on(self) -> bool:
        """Whether the error of an operand that was not broadcast is that of the result."""
        return self.ops == 0 and not self.moves


#: One entry per operand, the last one for all that follow; ``None`` has no derivative.
Derivatives: TypeAlias = tuple[Derivative | None, ...]

_ANY: Derivatives = (Derivative(None, ("self", "others", "output")),)
_NONE: Derivatives = (None,)
_MOVE: Derivatives = (Derivative(0, sums="never", moves=True),)
_PICK: Derivatives = (Derivative(0, ("fixed",), sums="always", moves=True),)


def _by(*reads: Read, ops: int | None) -> Derivatives:
    return (Derivative(ops, reads),)


def _norm(operand: int, scale: int) -> Derivatives:
    return (Derivative(operand, ("self", 1)), Derivative(scale - 1, (0,)), Derivative(0, ()), None)


_MOVES = """
    cat channel_shuffle chunk constant_pad_nd copy depth_to_space diag_embed flip narrow pad permute
    pixel_shuffle pixel_unshuffle reshape roll rot90 select slice space_to_depth split stack transpose tril
    triu unbind view
"""
_PICKS = "col2im embedding gather im2col index index_select take"
_WITHOUT = """
    all any arange argmax argmin bitwise_and bitwise_not bitwise_or ceil detach eq equal floor floor_divide
    full ge greater greater_equal gt isinf isnan le less less_equal logical_and logical_not logical_or
    logical_xor lt ne nonzero not_equal one_hot ones round shape sign trunc zeros
"""

_TABLE: Mapping[str, Derivatives] = MappingProxyType(
    {
        "add": _by(ops=0),
        "sub": (Derivative(0), Derivative(1)),
        "mul": _by("others", ops=1),
        "div": (Derivative(1, ("others",)), Derivative(3, ("self", "output"))),
        "maximum": _by("self", "others", ops=2),
        "minimum": _by("self", "others", ops=2),
        "where": (None, *_by(0, ops=1)),
        "masked_fill": (*_by(1, ops=1), None),
        "relu": _by("output", ops=1),
        "relu6": _by("output", ops=2),
        "hardtanh": _by("output", ops=2),
        "clamp": (*_by("output", ops=2), None),
        "leaky_relu": _by("output", ops=2),
        "hardsigmoid": _by("output", ops=3),
        "elu": _by("output", ops=3),
        "selu": _by("output", ops=3),
        "celu": _by("output", ops=3),
        "prelu": _by("self", "others", ops=2),
        "sigmoid": _by("output", ops=3),
        "tanh": _by("output", ops=3),
        "exp": _by("output", ops=1),
        "sqrt": _by("output", ops=2),
        "rsqrt": _by("output", ops=4),
        "reciprocal": _by("output", ops=3),
        "neg": _by(ops=1),
        "log": _by("self", ops=1),
        "abs": _by("self", ops=1),
        "square": _by("self", ops=2),
        "sin": _by("self", ops=2),
        "cos": _by("self", ops=2),
        "pow": (*_by("self", "others", ops=3), *_ANY),
        "erf": _by("self", ops=4),
        "gelu": _by("self", ops=11),
        "gelu_tanh": _by("self", ops=18),
        "silu": _by("self", ops=9),
        "softplus": _by("self", ops=5),
        "mish": _by("self", ops=14),
        "hardswish": _by("self", ops=5),
        "glu": _by("self", ops=4),
        "softmax": _by("output", ops=4),
        "log_softmax": _by("output", ops=4),
        "layer_norm": _norm(13, 7),
        "group_norm": _norm(13, 7),
        "instance_norm": _norm(13, 7),
        "batch_norm": _norm(13, 7),
        "rms_norm": _norm(9, 5),
        "local_response_norm": _by("self", "output", ops=None),
        "max_pool": (Derivative(None, ("self", "output"), sums="never"),),
        "avg_pool": (Derivative(None, sums="never"),),
        "mean": _by(ops=1),
        "sum": _MOVE,
        "amax": _by("self", "output", ops=2),
        "amin": _by("self", "output", ops=2),
        "prod": _by("self", "output", ops=2),
        "var": _by("self", ops=4),
        "std": _by("self", "output", ops=4),
        "cumsum": _by(ops=1),
        "cast": _by(ops=1),
        "embedding_bag": (Derivative(None, ("fixed",), sums="never"),),
        "cross_entropy": (*_by("self", "others", ops=6), None),
        "upsample": (Derivative(None),),
    }
    | dict.fromkeys(("expand", "repeat", "tile", "repeat_interleave"), (Derivative(0, moves=True),))
    | dict.fromkeys(_MOVES.split(), _MOVE)
    | dict.fromkeys(_PICKS.split(), _PICK)
    | dict.fromkeys(_WITHOUT.split(), _NONE)
)

# A name in place has a trailing underscore, pools and upsampling tell their axes and their mode.
_VARIANT = re.compile(
    r"(?:adaptive_|global_)?((?:max|avg)_pool|upsample)(?:[_a-z]*\d?d?)?|(batch|instance)_norm\dd"
)


def base_kind(kind: str) -> str:
    """Kind without what does not bear on its derivative: ``max_pool`` of ``adaptive_max_pool2d``."""
    plain = kind.rstrip("_")
    if (match := _VARIANT.fullmatch(plain)) is None:
        return plain
    return match[1] or f"{match[2]}_norm"


def derivative(kind: str, place: int) -> Derivative | None:
    """Derivative by the operand in `place` of an operator that is no product; ``None`` has none."""
    entries = _TABLE.get(base_kind(kind), _ANY)
    return entries[min(place, len(entries) - 1)]


def fused_derivative(kind: str) -> Derivative:
    """Derivative of a function that a producer applies to its result before it is stored.

    A folded normalisation multiplies. Others must follow from the result, for the operand is not stored.

    Raises
    ------
    ValueError
        The derivative needs the operand.
    """
    base = base_kind(kind)
    if base == "batch_norm":
        return Derivative(1)
    found = _TABLE.get(base, _ANY)[0]
    if found is None or found.reads != ("output",):
        by_output = [name for name, (first, *_) in _TABLE.items() if first and first.reads == ("output",)]
        raise ValueError(
            f"a fused {kind!r} has no derivative, for what it was applied to is not stored; "
            f"fused may be batch_norm, {', '.join(by_output)}"
        )
    return found
