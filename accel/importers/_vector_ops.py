"""How many operations an operator leaves to the vector unit, by its kind.

One operation is an addition, a multiplication, a division, a comparison, a selection between two values or
one elementary function (exponential, logarithm, power, root, sine, cosine, tangent, error function). What is
done once for a row, a channel or a window, such as the division of a mean or the root of a variance, is not
counted beside what is done for each of its elements. Moving data is no operation.

============================== ====================================================================
kind                           operations
============================== ====================================================================
a product                      1 per output element for a bias (`bias_ops`)
unary, binary                  `PER_ELEMENT` times output elements
softmax                        5 per element: maximum, difference, exponential, sum, division
log_softmax                    5: maximum, difference, exponential, sum, difference
cross_entropy                  4 per logit: maximum, difference, exponential, sum
layer, group, instance norm    5 per element: sum, difference, square, sum, product; 1 more for a
                               scale and 1 for a shift
batch_norm in evaluation       2 per element: scale and shift; with the statistics of the batch as
                               layer_norm
rms_norm                       3 per element: square, sum, product; 1 more for a scale
local_response_norm            window + 4 per element: square, window - 1 sums, scale, sum, power,
                               division
max_pool                       window - 1 per output element; adaptive or global: 1 per input element
avg_pool                       window per output element; adaptive or global: 1 per input element
sum, mean, amax, amin, prod    1 per input element, as of topk; variances and logsumexp 4, losses of a
                               difference 3, vector norms 2
upsample                       by interpolation over t neighbours 2 t - 1 per output element: linear
                               t = 2 per axis, cubic 4; nearest 0
lstm_recurrent                 22 per hidden element and step: sums of the two products, sigmoids, tanh,
gru_recurrent 17, rnn 2        and the gates; and biases as of any product
fft                            5 log2(n) per element of a transform of length n
movement                       0: `MOVEMENT`
any other                      1 per output element
============================== ====================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log2, prod
from types import MappingProxyType

#: Operations per output element of element-wise kinds, as one would write them.
PER_ELEMENT: Mapping[str, int] = MappingProxyType(
    {
        # unary
        "relu": 1,
        "relu6": 2,  # two comparisons, as of any clamp
        "hardtanh": 2,
        "clamp": 2,
        "leaky_relu": 2,  # product, selection
        "prelu": 2,
        "elu": 4,  # exponential, difference, product, selection
        "selu": 5,
        "celu": 5,
        "gelu": 5,  # x times 1/2 times (1 + erf(x times 1/sqrt 2))
        "gelu_tanh": 9,  # x times 1/2 times (1 + tanh(c (x + a x x x)))
        "sigmoid": 4,  # 1 / (1 + exp(-x))
        "silu": 5,
        "softplus": 3,  # log(1 + exp(x))
        "mish": 5,
        "hardsigmoid": 4,  # clamp(a x + b)
        "hardswish": 5,
        "tanh": 1,
        "exp": 1,
        "log": 1,
        "sqrt": 1,
        "rsqrt": 1,
        "reciprocal": 1,
        "neg": 1,
        "abs": 1,
        "pow": 1,
        "erf": 1,
        "sin": 1,
        "cos": 1,
        "glu": 5,  # sigmoid of one half, product with the other
        # binary
        "add": 1,
        "sub": 1,
        "mul": 1,
        "div": 1,
        "maximum": 1,
        "minimum": 1,
        "where": 1,
        "addcmul": 3,
        "addcdiv": 3,
        "lerp": 3,
        # rows
        "softmax": 5,
        "log_softmax": 5,
        "cumsum": 1,
        "cumprod": 1,
    }
)

#: Kinds that move data and compute nothing.
MOVEMENT = frozenset(
    {
        "as_strided_scatter",
        "cat",
        "channel_shuffle",
        "col2im",
        "constant_pad_nd",
        "copy",
        "depth_to_space",
        "diag_embed",
        "embedding",
        "expand",
        "flip",
        "gather",
        "im2col",
        "index",
        "index_copy",
        "index_put",
        "index_select",
        "pad",
        "permute",
        "pixel_shuffle",
        "pixel_unshuffle",
        "repeat",
        "repeat_interleave",
        "roll",
        "rot90",
        "scatter",
        "select_scatter",
        "slice",
        "slice_scatter",
        "space_to_depth",
        "tile",
        "transpose",
        "tril",
        "triu",
    }
)

#: Kinds whose work is one operation per element that they read.
REDUCTIONS = frozenset({"all", "amax", "amin", "any", "argmax", "argmin", "mean", "prod", "sum"})
#: Operations per element read of kinds that reduce in more than one step.
_PER_SOURCE: Mapping[str, int] = MappingProxyType(
    {
        "var": 4,  # sum, difference, square, sum
        "var_mean": 4,
        "std": 4,
        "std_mean": 4,
        "logsumexp": 4,  # maximum, difference, exponential, sum
        "cross_entropy": 4,
        "norm": 2,  # square, sum
        "linalg_vector_norm": 2,
        "mse_loss": 3,  # difference, square, sum
        "l1_loss": 3,
        "topk": 1,
        **dict.fromkeys(REDUCTIONS, 1),
    }
)
_CENTRED_NORMS = frozenset({"layer_norm", "group_norm", "instance_norm"})

#: Operations per hidden element and step of the recurrent product of a layer, beside its bias.
RECURRENT_OPS: Mapping[str, int] = MappingProxyType(
    {
        "lstm": 22,  # 4 sums, 3 sigmoids, 2 tanh, f c + i g, o tanh(c)
        "gru": 17,  # 2 sums, 2 sigmoids; r times n, sum, tanh; (1 - z) n + z h
        "rnn": 2,  # sum, activation
    }
)

_SQUARE_SUM_SCALE = 3  # of an element under a norm without a mean
_CENTRED = 5  # sum, difference, square, sum, product


def vector_ops(kind: str, *, output: int, source: int = 0, affine: int = 0) -> int:
    """Operations of an operator that is no product, window or transform.

    Parameters
    ----------
    kind
        As in ``Operator.kind``; one that is not in the table does one operation per output element.
    output, source
        Elements that it writes, and those of its first input.
    affine
        How many of scale and shift a norm applies, 0 to 2.
    """
    if kind in MOVEMENT:
        return 0
    if kind in _PER_SOURCE:
        return _PER_SOURCE[kind] * source
    if kind in _CENTRED_NORMS:
        return (_CENTRED + affine) * output
    if kind == "rms_norm":
        return (_SQUARE_SUM_SCALE + affine) * output
    if kind == "batch_norm":
        return 2 * output
    return PER_ELEMENT.get(kind, 1) * output


def bias_ops(output: int, biases: int = 1) -> int:
    """Additions of so many biases to a product of `output` elements."""
    return output * biases


def pool_ops(kind: str, *, output: int, window: int) -> int:
    """Operations of a pool whose `window` elements make one of `output` elements."""
    return output * (window - 1 if kind.startswith("max_pool") else window)


def response_norm_ops(*, output: int, window: int) -> int:
    """Operations of a local response normalisation over `window` channels."""
    return output * (window + 4)


def upsample_ops(mode: str, *, output: int, axes: int) -> int:
    """Operations of an interpolation over `axes` axes, by `mode`: nearest, linear, cubic and the like."""
    taps = 4 if "cubic" in mode else 2 if "linear" in mode else 0
    return output * (2 * taps**axes - 1) if taps else 0


def transform_ops(*, elements: int, lengths: tuple[int, ...]) -> int:
    """Operations of a fast Fourier transform of `elements` values in all over axes of these lengths."""
    return round(5 * elements * log2(max(prod(lengths), 1)))
