"""The sum that stands still: long sums in a short register, in chunks, and with stochastic rounding.

The sum of n terms of mean 1 and standard deviation 1 grows like n, while the terms stay what they are. Once
half a unit in the last place of the sum is more than any term, nearest rounding gives the sum back: it is
swamped. In (1,6,9) that happens at 4096, where neighbours are 8 apart and no term is above
``1 + sqrt(3) = 2.73``; sums in chunks of 32 add some 32 at a time and stand still at 65536, where neighbours
are 128 apart [Wang18]_. Stochastic rounding rounds up as often as the terms are worth, and follows.

How sums are made. Every run draws its own terms, float32 numbers that enter the sum unrounded. A running sum
is one sum that is looked at on its way: what goes on begins with the value so far as its first term (for
chunks, in a chunk of its own), which no accumulator rounds again. To nearest it therefore equals, to the bit,
`numerics.sum` of all terms so far. Stochastic roundings take other random numbers in every piece. Points of
the error by chunk are whole sums.

References
----------
.. [Wang18] N. Wang et al., "Training Deep Neural Networks with 8-bit Floating Point Numbers",
   NeurIPS 2018, arXiv 1812.08011.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float

import numerics
from numerics import Accumulator, FloatFormat

if TYPE_CHECKING:
    import plotly.graph_objects as go

Terms: TypeAlias = Literal["mean 1", "mean 0"]

#: Columns of the table, see `run`.
COLUMNS = ("part", "terms", "accumulator", "chunk", "count", "runs", "mean_sum", "least_sum", "largest_sum",
           "exact_mean", "relative_error")  # fmt: skip

_PARTS_OF_AN_OCTAVE = 4
_SHORTEST = 128  # terms of the first point of a running sum
_RUNNING = 0  # streams of random numbers
_BY_CHUNK = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is summed.

    Attributes
    ----------
    format
        Text of the register's.
    chunk
        Of the running sum in chunks; divides `count`, and 128.
    count
        Terms of the running sums, a power of two of at least 128.
    running
        Running sums, with terms of their own.
    chunks
        Of the error by chunk; 1 and `chunk_count` are plain sums.
    chunk_count, runs
        Terms and number of sums of the error by chunk.
    seed
        Of the terms and of stochastic rounding.
    """

    format: str = "e6m9"
    chunk: int = 32
    count: int = 2**17
    running: int = 32
    chunks: tuple[int, ...] = tuple(2**i for i in range(15))
    chunk_count: int = 2**14
    runs: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", str(FloatFormat.parse(self.format)))
        for name in (field.name for field in fields(self) if field.name not in ("format", "chunks")):
            value, least = getattr(self, name), 0 if name == "seed" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        if self.count < _SHORTEST or self.count.bit_count() != 1:
            raise ValueError(f"count must be a power of two of at least {_SHORTEST}, got {self.count}")
        if _SHORTEST // _PARTS_OF_AN_OCTAVE % self.chunk:
            raise ValueError(f"chunk must divide {_SHORTEST // _PARTS_OF_AN_OCTAVE}, got {self.chunk}")
        for chunk in self.chunks:
            if not 1 <= chunk <= self.chunk_count:
                raise ValueError(f"chunks must be in 1..{self.chunk_count}, got {chunk}")
        if not self.chunks:
            raise ValueError("chunks must have at least one number, got none")

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of terms at which running sums are looked at: four in an octave, from 128 on."""
        octaves = range(_SHORTEST.bit_length() - 1, self.count.bit_length() - 1)
        steps = [2**octave // _PARTS_OF_AN_OCTAVE * (4 + part) for octave in octaves for part in range(4)]
        return (*steps, self.count)


def run(config: Config) -> pd.DataFrame:
    """Sum, and compare with exact sums; a function of `config` alone.

    Returns
    -------
    One row per point. ``part`` is ``running`` or ``by chunk``; ``terms`` are ``mean 1`` (uniform in
    1 - sqrt(3) .. 1 + sqrt(3)) or ``mean 0`` (normal with standard deviation 1); ``accumulator`` is its text
    and ``chunk`` the products in a chunk, 0 for a plain sum; ``count`` is the number of terms and ``runs``
    that of sums. ``mean_sum``, ``least_sum``, ``largest_sum`` are of the sums, ``exact_mean`` is the mean of
    the exact ones, and ``relative_error`` the root of the mean squared error over that of the mean square
    of the exact sums.
    """
    rows = [*_running(config), *_by_chunk(config)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def running_sums(
    terms: Float[np.ndarray, "n runs"], accumulator: Accumulator, counts: tuple[int, ...], seed: int
) -> Iterator[Float[np.ndarray, " runs"]]:
    """Sums of the first ``counts`` terms, of which each goes on from the one before.

    Parameters
    ----------
    counts
        Ascending, and all but the last multiples of the chunk.
    """
    width = accumulator.chunk or 1
    so_far = np.zeros((0, terms.shape[1]), np.float32)
    begin = 0
    for piece, end in enumerate(counts):
        # +0 behind the value fills its chunk and changes nothing.
        rows = np.concatenate([so_far, terms[begin:end]])
        total = _sums(rows, accumulator, seed, stream=(_RUNNING << 32) + piece)
        yield total
        so_far = np.zeros((width, len(total)), np.float32)
        so_far[0], begin = total, end


def _sums(
    terms: Float[np.ndarray, "n runs"], accumulator: Accumulator, seed: int, stream: int
) -> Float[np.ndarray, " runs"]:
    stochastic = accumulator.rounding.is_stochastic
    return numerics.sum(
        terms, accumulator, axis=0, seed=seed if stochastic else None, stream=stream if stochastic else 0
    )


def draw(terms: Terms, count: int, runs: int, seed: int) -> Float[np.ndarray, "count runs"]:
    """Terms of standard deviation 1, float32."""
    rng = np.random.default_rng([seed, count, runs, terms == "mean 1"])
    if terms == "mean 0":
        return rng.standard_normal((count, runs)).astype(np.float32)
    return (1.0 + math.sqrt(3.0) * rng.uniform(-1.0, 1.0, (count, runs))).astype(np.float32)


def _running(config: Config) -> Iterator[tuple[object, ...]]:
    terms = draw("mean 1", config.count, config.running, config.seed)
    exact = np.cumsum(terms, axis=0, dtype=np.float64)
    accumulators = (
        Accumulator(config.format),
        Accumulator(config.format, chunk=config.chunk),
        Accumulator(config.format, rounding="stochastic"),
        Accumulator("fp32"),
    )
    for accumulator in accumulators:
        sums = running_sums(terms, accumulator, config.counts, config.seed)
        for count, found in zip(config.counts, sums, strict=True):
            yield "running", "mean 1", *_row(accumulator, count, found, exact[count - 1])


def _by_chunk(config: Config) -> Iterator[tuple[object, ...]]:
    kinds: tuple[Terms, ...] = ("mean 1", "mean 0")
    for kind in kinds:
        terms = draw(kind, config.chunk_count, config.runs, config.seed)
        exact = terms.sum(axis=0, dtype=np.float64)
        for rounding in ("nearest-even", "stochastic"):
            for number, chunk in enumerate(config.chunks):
                accumulator = Accumulator(config.format, rounding=rounding, chunk=chunk)
                found = _sums(terms, accumulator, config.seed, stream=(_BY_CHUNK << 32) + number)
                yield "by chunk", kind, *_row(accumulator, config.chunk_count, found, exact)


def _row(
    accumulator: Accumulator, count: int, found: Float[np.ndarray, " runs"], exact: Float[np.ndarray, " runs"]
) -> tuple[object, ...]:
    sums = found.astype(np.float64)
    error = math.sqrt(float(np.mean((sums - exact) ** 2) / np.mean(exact**2)))
    return (
        str(accumulator), accumulator.chunk or 0, count, len(sums), float(sums.mean()), float(sums.min()),
        float(sums.max()), float(exact.mean()), error,
    )  # fmt: skip


def lines(table: pd.DataFrame) -> list[str]:
    """What the command prints: where running sums end, and the error by chunk."""
    running = table[table["part"] == "running"]
    count = int(running["count"].max())
    ends = running[running["count"] == count]
    width = max(map(len, ends["accumulator"]))
    text = [
        f"sums of {count} terms of mean 1 and standard deviation 1, {ends['runs'].iloc[0]} of them",
        f"{'accumulator':<{width}}  {'mean':>10}  {'least':>9}  {'largest':>9}  relative error",
    ]
    for _, row in ends.iterrows():
        text.append(
            f"{row['accumulator']:<{width}}  {row['mean_sum']:10.1f}  {row['least_sum']:9.1f}  "
            f"{row['largest_sum']:9.1f}  {row['relative_error']:14.2g}"
        )
    text.append(f"{'exact':<{width}}  {ends['exact_mean'].iloc[0]:10.1f}")
    wide = _wide(table)
    some = table[table["part"] == "by chunk"].iloc[0]
    text += [
        "",
        f"relative error of sums of {some['count']} terms by chunk, {some['runs']} sums each",
        "chunk   " + "".join(f"{', '.join(column):>22}" for column in wide.columns),
    ]
    for chunk, row in wide.iterrows():
        text.append(f"{chunk!s:<8}" + "".join(f"{value:22.2g}" for value in row))
    return text


def _wide(table: pd.DataFrame) -> pd.DataFrame:
    """Relative errors: a row for each chunk, a column for each kind of terms and rounding."""
    points = table[table["part"] == "by chunk"]
    roundings = [str(Accumulator.parse(text).rounding) for text in points["accumulator"]]
    wide = points.assign(rounding=roundings).pivot_table(
        index="chunk", columns=["terms", "rounding"], values="relative_error"
    )
    order = [(terms, rounding) for terms in ("mean 1", "mean 0") for rounding in dict.fromkeys(roundings)]
    return wide[order]


def write_report(table: pd.DataFrame, config: Config, path: Path) -> None:
    """Write the page; it needs no other file and no network."""
    from studies.page import figure_html, write_page

    running = table[(table["part"] == "running") & (table["count"] == config.count)]
    wide = _wide(table)
    plots = {"running": _running_figure(table), "chunks": _chunk_figure(table)}
    context = {
        "config": config,
        "running": running.to_dict("records"),
        "exact": float(running["exact_mean"].iloc[0]),
        "columns": list(wide.columns),
        "errors": [(chunk, list(row)) for chunk, row in wide.iterrows()],
        "plots": {name: figure_html(figure) for name, figure in plots.items()},
    }
    write_page("swamping.html.j2", context, path)


def _running_figure(table: pd.DataFrame) -> go.Figure:
    """Running sums against the number of terms, mean over the runs."""
    import plotly.graph_objects as go

    from studies.page import COLORS

    figure = go.Figure()
    rows = table[table["part"] == "running"]
    exact = rows.drop_duplicates("count")
    figure.add_trace(
        go.Scatter(
            x=exact["count"], y=exact["exact_mean"], name="exact", line={"color": "#D5D5D5", "width": 9}
        )
    )
    for color, (name, points) in zip(COLORS, rows.groupby("accumulator", sort=False), strict=False):
        figure.add_trace(
            go.Scatter(
                x=points["count"],
                y=points["mean_sum"],
                name=str(name),
                mode="lines+markers",
                line={"color": color, "width": 1.5},
                marker={"size": 5},
            )
        )
    figure.update_xaxes(type="log", title="terms", dtick=1)
    figure.update_yaxes(type="log", title="sum, mean of the runs", dtick=1)
    return _styled(figure)


def _chunk_figure(table: pd.DataFrame) -> go.Figure:
    """Relative error against the size of a chunk."""
    import plotly.graph_objects as go

    from studies.page import COLORS

    figure = go.Figure()
    wide = _wide(table)
    for column in wide.columns:
        terms, rounding = map(str, tuple(column))
        figure.add_trace(
            go.Scatter(
                x=wide.index,
                y=wide[column],
                name=f"{terms}, {rounding}",
                mode="lines+markers",
                line={
                    "color": COLORS[0 if terms == "mean 1" else 1],
                    "dash": "solid" if rounding == "nearest-even" else "dot",
                },
            )
        )
    ticks = [chunk for chunk in wide.index if chunk.bit_length() % 2]
    figure.update_xaxes(type="log", title="terms in a chunk", tickvals=ticks, ticktext=list(map(str, ticks)))
    figure.update_yaxes(type="log", title="relative error of the sum", exponentformat="power", dtick=1)
    return _styled(figure)


def _styled(figure: go.Figure) -> go.Figure:
    return figure.update_layout(
        template="plotly_white",
        height=460,
        margin={"l": 70, "r": 20, "t": 50, "b": 60},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        font={"family": "system-ui, sans-serif", "size": 13},
    )
