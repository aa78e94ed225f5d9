"""How many products are summed in the three matrix products that train each layer of a network.

For a layer ``O[m, n] = sum_k A[m, k] W[k, n]`` the forward sum has k terms, that of the error of A
has n (backward), that of the gradient of W has m. A convolution with a window of k x k [Sakr19]_
sums k k C_in / groups terms forward, k k C_out / groups backward and batch H_out W_out for the
gradient. The readers in ``accel.importers`` find these numbers; here is the arithmetic they share.

References
----------
.. [Sakr19] C. Sakr et al., "Accumulation Bit-Width Scaling For Ultra-Low Precision Training Of Deep
   Networks", ICLR 2019, arXiv 1901.06588.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import Literal

Sizes = Sequence[int]

_STRIDE = "its stride leaves"


class NetworkError(ValueError):
    """A network that cannot be read; the message is one line that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingProducts:
    """The forward product of one layer, and the lengths of the three sums that train it.

    Attributes
    ----------
    layer
        The name a person would look for: a module's path, or that of an ONNX node.
    operator
        ``conv``, ``grouped conv``, ``depthwise conv``, ``transposed conv``, ``linear``, ``matmul``,
        ``einsum``, ``attention``, ``lstm``, ``gru`` or ``rnn``.
    forward
        Terms of the sum that makes one output.
    backward, gradient
        Terms of the sum that makes one error of the layer's input, and one gradient of its weight;
        ``None`` where nothing needs it: the error of the data, the gradient of a constant. In a
        product of two activations they belong to the first and to the second operand.
    m, n, k, count
        The forward product as ``count`` independent products (m, k) x (k, n): `count` is the number
        of groups, or of samples and heads. In a transposed convolution the windows that overlap are
        summed afterwards, so `forward` is longer than `k`.
    notes
        What the numbers do not say.
    """

    layer: str
    operator: str
    forward: int
    backward: int | None
    gradient: int | None
    m: int
    n: int
    k: int
    count: int = 1
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("forward", "backward", "gradient", "m", "n", "k", "count"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise NetworkError(f"{self.layer}: {name} must be at least 1, got {value}")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the forward product."""
        return self.m * self.n * self.k * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The matrix products of a network in the order in which they run.

    Attributes
    ----------
    batch
        Samples per training step, for which all lengths are.
    notes
        What was skipped or assumed, one line each.
    """

    name: str
    batch: int
    products: tuple[TrainingProducts, ...]
    notes: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all forward products."""
        return sum(products.macs for products in self.products)


def contraction(
    layer: str,
    operator: str,
    equation: str,
    first: Sizes,
    second: Sizes,
    *,
    weight: Literal[0, 1] | None = None,
) -> TrainingProducts:
    """Products of two tensors that are multiplied and summed as an einsum `equation` says.

    Parameters
    ----------
    first, second
        Shapes of the operands. An axis of size 1 broadcasts.
    weight
        Place of the operand that is a weight; ``None`` if both are activations.

    Raises
    ------
    ValueError
        The equation is no product of two matrices per index that both share, or does not fit.

    Examples
    --------
    >>> row = contraction("fc", "linear", "...k,nk->...n", (32, 10, 64), (256, 64), weight=1)
    >>> row.forward, row.backward, row.gradient
    (64, 256, 320)
    """
    terms, arrow, output = equation.replace(" ", "").partition("->")
    left, right = _operands(terms)
    a, b = _axes(left, first), _axes(right, second)
    kept = set(output.replace("...", ""))
    if not arrow:
        kept = {label for label in left + right if label != "." and (left + right).count(label) == 1}
    if not arrow or "..." in output:
        kept |= {label for label in a | b if label.startswith("...")}
    # An axis of size 1 makes one result serve every index of the other operand.
    a, b = ({label: size for label, size in axes.items() if size != 1} for axes in (a, b))
    shared = a.keys() & b.keys()
    if odd := [label for label in sorted(shared) if a[label] != b[label]]:
        raise ValueError(f"axis {odd[0]} is {a[odd[0]]} in one operand and {b[odd[0]]} in the other")
    if alone := sorted((a.keys() ^ b.keys()) - kept):
        raise ValueError(f"it sums over axis {alone[0]} of one operand alone")
    m = prod(size for label, size in a.items() if label not in shared)
    n = prod(size for label, size in b.items() if label not in shared)
    if weight == 0:
        m, n = n, m
    k = prod(a[label] for label in shared - kept)
    return TrainingProducts(
        layer=layer,
        operator=operator,
        forward=k,
        backward=n,
        gradient=m,
        m=m,
        n=n,
        k=k,
        count=prod(a[label] for label in shared & kept),
    )


def matmul_equation(first: Sizes, second: Sizes) -> str:
    """Einsum equation of ``first @ second`` for these shapes."""
    m, n = ("" if len(sizes) == 1 else label for sizes, label in ((first, "m"), (second, "n")))
    left, right = f"...{m}k" if m else "k", f"...k{n}" if n else "k"
    return f"{left},{right}->{'...' if m or n else ''}{m}{n}"


def einsum(
    layer: str, equation: str, shapes: Sequence[Sizes], *, weight: Literal[0, 1] | None = None
) -> TrainingProducts | None:
    """`contraction` of an einsum with any number of operands; ``None`` if nothing is summed."""
    if len(shapes) == 1:
        return None
    if len(shapes) > 2:
        raise ValueError(f"it has {len(shapes)} operands")
    row = contraction(layer, "einsum", equation, *shapes, weight=weight)
    return None if row.k == 1 and min(row.m, row.n) == 1 else row


def convolution(
    layer: str, weight: Sizes, *, positions: int, groups: int = 1, stride: Sizes = (), dilation: Sizes = ()
) -> TrainingProducts:
    """Products of a convolution over one axis or more.

    Parameters
    ----------
    weight
        Shape ``(C_out, C_in / groups, *window)``.
    positions
        Batch times output pixels.
    stride, dilation
        Per axis, or one number for all; 1 if empty.
    """
    out_channels, in_channels, *window = weight
    per_group = _divided(layer, out_channels, groups)
    backward = prod(window) * per_group
    met = per_group * prod(_overlaps(window, stride, dilation))
    kind = "conv" if groups == 1 else "depthwise conv" if in_channels == 1 else "grouped conv"
    return TrainingProducts(
        layer=layer,
        operator=kind,
        forward=prod(window) * in_channels,
        backward=backward,
        gradient=positions,
        m=positions,
        n=per_group,
        k=prod(window) * in_channels,
        count=groups,
        notes=(f"{_STRIDE} at most {met} products of a backward sum that are not 0",)
        if met < backward
        else (),
    )


def transposed_convolution(
    layer: str, weight: Sizes, *, positions: int, groups: int = 1, stride: Sizes = (), dilation: Sizes = ()
) -> TrainingProducts:
    """Products of a transposed convolution over one axis or more.

    Parameters
    ----------
    weight
        Shape ``(C_in, C_out / groups, *window)``.
    positions
        Batch times input pixels.
    stride, dilation
        As of `convolution`; a stride of s leaves an output pixel every s-th tap of the window.
    """
    in_channels, per_group, *window = weight
    k = _divided(layer, in_channels, groups)
    n = prod(window) * per_group
    return TrainingProducts(
        layer=layer,
        operator="transposed conv",
        forward=prod(_overlaps(window, stride, dilation)) * k,
        backward=n,
        gradient=positions,
        m=positions,
        n=n,
        k=k,
        count=groups,
    )


def attention(
    layer: str, query: Sizes, key: Sizes, value: Sizes, *, causal: bool = False
) -> tuple[TrainingProducts, TrainingProducts]:
    """Scores and weighted sum of attention, for shapes (..., heads, positions, features).

    Several heads of the query may share one of key and value: their gradient then sums over all.
    """
    heads, shared = (sizes[-3] if len(sizes) > 2 else 1 for sizes in (query, key))
    group = _divided(layer, heads, shared)
    leading = (*query[:-3], shared) if len(query) > 2 else ()
    grouped = (*leading, group, *query[-2:])
    scores = contraction(f"{layer} QK^T", "attention", "...gse,...te->...gst", grouped, key)
    weights = (*leading, group, query[-2], key[-2])
    context = contraction(f"{layer} PV", "attention", "...gst,...te->...gse", weights, value)
    notes = (f"causal mask: a sum over positions has 1 to {key[-2]} terms, the longest counts",)
    if not causal:
        return scores, context
    return replace(scores, notes=notes), replace(context, notes=notes)


class NetworkBuilder:
    """Collects rows while a reader walks a graph, then joins those that share a weight.

    Parameters
    ----------
    batch
        Samples per training step.
    traced
        Samples in the graph that is read. Should they differ, what holds the batch is rescaled: the
        rows of a product with a weight, the number of products of two activations.
    """

    def __init__(self, name: str, *, batch: int, traced: int) -> None:
        if batch < 1:
            raise NetworkError(f"batch must be at least 1, got {batch}")
        self.name = name
        self.batch = batch
        self.traced = traced
        self._rows: list[tuple[TrainingProducts, str | None]] = []
        self._lookups: list[tuple[str, str, int]] = []
        self._notes: dict[str, None] = {}

    def note(self, text: str) -> None:
        """Add one line; a second equal one is the same."""
        self._notes[text] = None

    def add(
        self,
        row: TrainingProducts,
        *,
        weight: str | None = None,
        batched: bool = True,
        backward: bool = True,
        gradient: bool = True,
    ) -> None:
        """Add a row.

        Parameters
        ----------
        weight
            Identity of the weight; ``None`` for a product of two activations.
        batched
            Whether its activations depend on the network's input, and so hold the batch.
        backward, gradient
            Whether that sum is needed.
        """
        if batched and self.traced != self.batch:
            row = self._rescaled(row, by_rows=weight is not None)
        row = replace(
            row,
            backward=row.backward if backward else None,
            gradient=row.gradient if gradient else None,
            notes=tuple(note for note in row.notes if backward or not note.startswith(_STRIDE)),
        )
        self._rows.append((row, weight))

    def look_up(self, layer: str, table: str, rows: int) -> None:
        """Note an embedding that reads `rows` rows of the weight `table`."""
        if self.traced != self.batch and rows % self.traced == 0:
            rows = rows // self.traced * self.batch
        self._lookups.append((layer, table, rows))

    def network(self) -> Network:
        """What was collected."""
        if not self._rows:
            self.note("no matrix product was found")
        tables = {weight for _, weight in self._rows}
        for layer, table, rows in self._lookups:
            if table not in tables:
                self.note(
                    f"embedding {layer} is no product: a gradient sums over the lookups of its row, of {rows}"
                )
        return Network(
            name=self.name,
            batch=self.batch,
            products=tuple(self._joined(place) for place in range(len(self._rows))),
            notes=tuple(self._notes),
        )

    def _rescaled(self, row: TrainingProducts, *, by_rows: bool) -> TrainingProducts:
        held = row.m if by_rows else row.count
        if held % self.traced:
            what = "m" if by_rows else "count"
            text = (
                f"{what} is {held}, no multiple of the batch of {self.traced}: not rescaled to {self.batch}"
            )
            return replace(row, notes=(*row.notes, text))
        scaled = held // self.traced * self.batch
        return replace(row, m=scaled, gradient=scaled) if by_rows else replace(row, count=scaled)

    def _joined(self, place: int) -> TrainingProducts:
        """Row with the uses of its weight by others."""
        row, weight = self._rows[place]
        if weight is None or row.gradient is None:
            return row
        notes = list(row.notes)
        uses = [other for other, key in self._rows if key == weight and other.gradient is not None]
        if len(uses) > 1:
            others = [use.layer for use in uses if use is not row]
            named = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
            notes.append(f"weight shared with {named}: its gradient sums over all {len(uses)} uses")
        notes += [
            f"embedding {layer} reads the same table: {rows} lookups add to its gradient by scatter-add"
            for layer, table, rows in self._lookups
            if table == weight
        ]
        return replace(row, gradient=sum(use.gradient or 0 for use in uses), notes=tuple(notes))


def _operands(terms: str) -> tuple[str, str]:
    operands = terms.split(",")
    if len(operands) != 2:
        raise ValueError(f"it has {len(operands)} operands")
    return operands[0], operands[1]


def _axes(term: str, shape: Sizes) -> dict[str, int]:
    """Size by label of the axes of one operand; those of an ellipsis are counted from the last."""
    before, dots, after = term.partition("...")
    spare = len(shape) - len(before) - len(after)
    if spare < 0 or (spare and not dots):
        raise ValueError(f"operand {term} does not fit the shape {tuple(shape)}")
    labels = [*before, *(f"...{place}" for place in reversed(range(spare))), *after]
    if len(set(labels)) < len(labels):
        raise ValueError(f"operand {term} takes a diagonal")
    return dict(zip(labels, shape, strict=True))


def _divided(layer: str, whole: int, parts: int) -> int:
    if parts < 1 or whole % parts:
        raise NetworkError(f"{layer}: {whole} channels or heads do not fall into {parts} groups")
    return whole // parts


def _overlaps(window: Sizes, stride: Sizes, dilation: Sizes) -> list[int]:
    """Windows per axis that cover one pixel: taps whose distance is a multiple of the stride."""
    steps, spreads = (_per_axis(sizes, len(window)) for sizes in (stride, dilation))
    periods = (step // gcd(step, spread) for step, spread in zip(steps, spreads, strict=True))
    return [-(-taps // period) for taps, period in zip(window, periods, strict=True)]


def _per_axis(sizes: Sizes, axes: int) -> list[int]:
    return list(sizes) if len(sizes) == axes else [*(sizes or (1,))] * axes
