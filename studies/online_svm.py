"""The fewest bits of a support vector machine that learns online, and what they save, after [Sakr16]_.

Every design, three numbers of bits, is trained bit-true on the breast cancer data [WDBC]_ by stochastic
gradient descent in fixed point: B_X bits of the data, B_F of the weights as the classifier reads them, B_W of
the weights as they are updated. What the bounds of `numerics.theory.svm` allow stands beside what was
measured, and the cheapest design that keeps the accuracy beside the cheapest with one width for all.

References
----------
.. [Sakr16] C. Sakr, A. Patil, S. Zhang, Y. Kim, N. Shanbhag, "Understanding the Energy and Precision
   Requirements for Online Learning", 2016, arXiv 1607.00669.
.. [WDBC] W. Wolberg, O. Mangasarian, N. Street, W. Street, "Breast Cancer Wisconsin (Diagnostic)", UCI
   Machine Learning Repository, 1993, DOI 10.24432/C5DW2B; the 569 samples that scikit-learn ships.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64

from numerics.theory.svm import (
    classification_adders,
    exact_update_bits,
    geometric_bound,
    label_change_bound,
    output_shift,
    safe_update_bits,
    update_adders,
    updates_vanish,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

SPLIT_SEED = 0  # the split is part of the task: the same for every run
DEVIATIONS = 4.0  # of a feature, that become 1
_LEAST_BOUND = 0.01  # percent that are drawn

#: A design: bits of the data, of the weights in the classifier, and of the weights in the update.
Bits = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is swept, and how it is trained.

    Attributes
    ----------
    seed, replicates
        Of the order of the samples: replicate i is trained in an order drawn from (seed, i).
    epochs
        Passes over the 379 samples for training.
    data_bits, classifier_bits, update_bits
        Every combination is a design, 2..24 bits each.
    uniform_bits
        One width for all three.
    step_size, decay
        gamma and lambda, powers of two, so that their products are shifts.
    accuracy_loss
        How far the mean accuracy of a design may be below that of float64.
    """

    seed: int = 0
    replicates: int = 5
    epochs: int = 8
    data_bits: tuple[int, ...] = tuple(range(2, 9))
    classifier_bits: tuple[int, ...] = tuple(range(2, 10))
    update_bits: tuple[int, ...] = tuple(range(5, 15))
    uniform_bits: tuple[int, ...] = tuple(range(2, 17))
    step_size: float = 2.0**-6
    decay: float = 2.0**-6
    accuracy_loss: float = 0.01

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be an integer of at least 0, got {self.seed!r}")
        for name in ("replicates", "epochs"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        for name in ("data_bits", "classifier_bits", "update_bits", "uniform_bits"):
            values = getattr(self, name)
            for value in values:
                if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= 24:
                    raise ValueError(f"{name} must be integers in 2..24, got {value!r}")
            if not values:
                raise ValueError(f"{name} must have at least one number, got none")
        for name in ("step_size", "decay"):
            value = getattr(self, name)
            if not (0.0 < value <= 1.0 and math.frexp(value)[0] == 0.5):
                raise ValueError(f"{name} must be a power of two of at most 1, got {value!r}")
        if not 0.0 <= self.accuracy_loss < 1.0:
            raise ValueError(f"accuracy_loss must be in [0, 1), got {self.accuracy_loss!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Samples in [-1, 1]^D and their labels, -1 (malignant) or 1 (benign)."""

    train: Float[np.ndarray, "n d"]
    train_labels: Float[np.ndarray, " n"]
    test: Float[np.ndarray, "m d"]
    test_labels: Float[np.ndarray, " m"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of a sweep.

    Attributes
    ----------
    table
        A row for each design. ``data_bits``, ``classifier_bits``, ``update_bits``; ``uniform``: all three are
        equal. Of the float64 classifiers, rounded after training: ``rounded_accuracy``,
        ``rounded_disagreement`` (share of test labels that rounding changed), ``geometric_bound`` and
        ``probabilistic_bound`` on it. Trained in fixed point: ``accuracy`` (mean of the replicates),
        ``accuracy_min``, ``disagreement`` (share of test labels other than those of float64 training in the
        same order). ``updates``: what the theory says of B_W, one of ``vanish``, ``coarse``, ``safe`` and
        ``exact``. One-bit full adders of ``classification_adders``, ``update_adders`` (inside the margin) and
        both, ``step_adders``.
    float_accuracy
        Mean test accuracy of float64 training.
    saturated
        Share of test values that are cut off at the end of the range, by bits of the data.
    weight_norm, data_norm
        Of the float64 classifier, mean of the replicates, and the largest of a test sample.
    """

    config: Config
    table: pd.DataFrame
    float_accuracy: float
    saturated: dict[int, float]
    weight_norm: float
    data_norm: float
    features: int

    @property
    def target(self) -> float:
        """Mean accuracy that a design must have."""
        return self.float_accuracy - self.config.accuracy_loss

    @property
    def minimum(self) -> dict[str, Any] | None:
        """Row of the design of least energy that reaches the target."""
        return _cheapest(self.table, self.target)

    @property
    def uniform(self) -> dict[str, Any] | None:
        """The same among designs with one width."""
        return _cheapest(self.table[self.table["uniform"]], self.target)

    def predicted(self, *updates: str) -> dict[str, Any] | None:
        """Row of the design of least energy by theory alone: the probabilistic bound, and such `updates`.

        The bound on changed labels is to be within the loss of accuracy that is allowed.
        """
        bound = self.table["probabilistic_bound"] <= self.config.accuracy_loss
        return _cheapest(self.table[bound & self.table["updates"].isin(updates)], -math.inf)

    @property
    def matching(self) -> dict[str, Any] | None:
        """Row of the design of least energy that is no less accurate than the uniform one."""
        return None if self.uniform is None else _cheapest(self.table, self.uniform["accuracy"])

    @property
    def saving(self) -> float:
        """Energy of the uniform design over that of the minimum-precision one; NaN if none is good enough."""
        return _ratio(self.uniform, self.minimum)

    @property
    def matching_saving(self) -> float:
        """The same over the design that matches the uniform one's accuracy."""
        return _ratio(self.uniform, self.matching)

    def lines(self) -> list[str]:
        """The outcome as printed, one fact a line."""
        within = f"up to {100 * self.config.accuracy_loss:g} % less is allowed"
        facts = [("float64", f"accuracy {100 * self.float_accuracy:.2f} %; {within}")]
        for name, row in _named_designs(self):
            facts.append((name, "none in the sweep" if row is None else _described(row)))
        facts += [
            ("saving", f"{self.saving:.2f} x: energy of the cheapest uniform design over the minimum"),
            ("at equal accuracy", f"{self.matching_saving:.2f} x: over the cheapest that is as accurate"),
        ]
        return [f"{name:<24}{text}" for name, text in facts]


def load() -> Data:
    """The data [WDBC]_: 379 samples to train on, 190 to test; four deviations of a feature become 1."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    values, labels = load_breast_cancer(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        values, np.where(labels == 1, 1.0, -1.0), test_size=190, random_state=SPLIT_SEED, stratify=labels
    )
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    train, test = (np.clip((part - mean) / (DEVIATIONS * deviation), -1.0, 1.0) for part in (train, test))
    return Data(train=train, train_labels=train_labels, test=test, test_labels=test_labels)


def run(config: Config | None = None) -> Result:
    """Sweep the bits.

    Examples
    --------
    >>> few = Config(epochs=1, replicates=1, data_bits=(4,), classifier_bits=(6,), update_bits=(10,))
    >>> result = run(few)
    >>> len(result.table), int(result.table["uniform"].sum())
    (16, 15)
    """
    config = config or Config()
    data = load()
    designs = _designs(config)
    orders = _orders(config, len(data.train))
    exact = train_float(data, orders, config.step_size, config.decay)
    trained = train_fixed(data, orders, designs, config.step_size, config.decay)
    rows = [
        {
            "data_bits": design[0],
            "classifier_bits": design[1],
            "update_bits": design[2],
            "uniform": len(set(design)) == 1,
            **_rounded(data, exact, design),
            **_measured(data, exact, trained[:, index], design),
            "updates": _updates(config, design),
            **_adders(data.test.shape[1], design),
        }
        for index, design in enumerate(designs)
    ]
    accuracies = [np.mean(_labels(data.test, weights) == data.test_labels) for weights in exact]
    return Result(
        config=config,
        table=pd.DataFrame(rows),
        float_accuracy=float(np.mean(accuracies)),
        saturated={
            bits: float(np.mean(data.test > 1.0 - 2.0**-bits)) for bits in sorted({d[0] for d in designs})
        },
        weight_norm=float(np.mean(np.linalg.norm(exact[:, :-1], axis=1))),
        data_norm=float(np.linalg.norm(data.test, axis=1).max()),
        features=data.test.shape[1],
    )


def quantise(
    x: Float[np.ndarray, "..."], steps: float | Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """Round to nearest even on grids in [-1, 1): what `numerics.cast` does for ``s0.<bits - 1>``.

    Here the steps, powers of two, may differ from element to element, so that all designs train at once.
    """
    scaled = np.rint(x / steps)
    np.clip(scaled, -1.0 / steps, 1.0 / steps - 1.0, out=scaled)
    scaled *= steps
    return scaled


def train_float(
    data: Data, orders: Int64[np.ndarray, "r n"], step_size: float, decay: float
) -> Float[np.ndarray, "r d1"]:
    """Train in float64, once for each order of the samples; the last weight is the bias."""
    samples, keep = _with_one(data.train), _kept(data.train.shape[1], step_size, decay)
    weights = np.zeros((len(orders), samples.shape[1]))
    for chosen in orders.T:
        x, y = samples[chosen], data.train_labels[chosen]
        inside = y * (weights * x).sum(axis=1) <= 1.0
        weights = keep * weights + (step_size * inside * y)[:, None] * x
    return weights


def train_fixed(
    data: Data, orders: Int64[np.ndarray, "r n"], designs: list[Bits], step_size: float, decay: float
) -> Float[np.ndarray, "r k d1"]:
    """Train every design bit-true, once for each order; the weights are those of the update, of B_W bits.

    Sums of products are exact, in a register as wide as they need; the update is rounded once. Here all of it
    is float64, whose 53 bits hold every product, sum and update of `Config`'s designs.
    """
    levels = sorted({design[0] for design in designs})
    # One more axis than the samples have, for their bits; the input of the bias is an exact 1.
    samples = np.stack([_with_one(quantise(data.train, _step(bits))) for bits in levels])
    level = np.array([levels.index(design[0]) for design in designs])
    classifier, update = (
        np.array([_step(design[which]) for design in designs])[None, :, None] for which in (1, 2)
    )
    keep = _kept(data.train.shape[1], step_size, decay)
    weights = np.zeros((len(orders), len(designs), samples.shape[2]))
    for chosen in orders.T:
        x, y = samples[level, chosen[:, None]], data.train_labels[chosen][:, None]
        inside = y * (quantise(weights, classifier) * x).sum(axis=2) <= 1.0
        weights = quantise(keep * weights + (step_size * inside * y)[:, :, None] * x, update)
    return weights


def write_report(result: Result, path: Path) -> None:
    """Write the sweep as one HTML page that needs no other file and no network."""
    from studies.page import figure_html, write_page

    plots = {
        "classifier": classifier_figure(result),
        "bounds": bounds_figure(result),
        "updates": updates_figure(result),
        "energy": energy_figure(result),
    }
    context = {
        "result": result,
        "config": result.config,
        "designs": [(name, row) for name, row in _named_designs(result) if row is not None],
        "conventional": _row_of(result, (16, 16, 16)),
        "safe_bits": safe_update_bits(result.config.step_size),
        "bound_bits": [
            (bits, _bound_bits(result, bits)) for bits in sorted(set(result.config.classifier_bits))
        ],
        "plots": {name: figure_html(figure) for name, figure in plots.items()},
    }
    write_page("online_svm.html.j2", context, path)


def classifier_figure(result: Result) -> go.Figure:
    """Accuracy of the rounded classifier against bits of the data, and what the bounds leave of it."""
    import plotly.graph_objects as go

    from studies.page import COLORS

    figure = go.Figure()
    table = result.table[~result.table["uniform"]].drop_duplicates(["data_bits", "classifier_bits"])
    for index, bits in enumerate(_some(result.config.classifier_bits)):
        rows = table[table["classifier_bits"] == bits].sort_values("data_bits")
        for name, heights, dash in (
            ("measured", rows["rounded_accuracy"], "solid"),
            ("probabilistic", result.float_accuracy - rows["probabilistic_bound"], "dash"),
            ("geometric", result.float_accuracy - rows["geometric_bound"], "dot"),
        ):
            figure.add_trace(
                go.Scatter(
                    x=rows["data_bits"],
                    y=100 * heights,
                    mode="lines+markers" if dash == "solid" else "lines",
                    name=f"B_F = {bits}, {name}",
                    legendgroup=str(bits),
                    line={"color": COLORS[index % len(COLORS)], "dash": dash},
                )
            )
    figure.update_xaxes(title="bits of the data, B_X", dtick=1)
    figure.update_yaxes(title="test accuracy, %", range=[40, 101])
    return _styled(figure, 520)


def bounds_figure(result: Result) -> go.Figure:
    """Bound against measured share of changed labels, for every pair of bits of data and weights."""
    import plotly.graph_objects as go

    from studies.page import COLORS

    figure = go.Figure()
    rows = result.table.drop_duplicates(["data_bits", "classifier_bits"])
    for index, (name, column) in enumerate(
        (("geometric", "geometric_bound"), ("probabilistic", "probabilistic_bound"))
    ):
        figure.add_trace(
            go.Scatter(
                x=100 * rows["rounded_disagreement"],
                y=100 * rows[column],
                mode="markers",
                name=name,
                marker={"color": COLORS[index], "size": 8, "opacity": 0.7},
                text=[f"B_X {row.data_bits}, B_F {row.classifier_bits}" for row in rows.itertuples()],
                hovertemplate="%{text}<br>measured %{x:.2f} %, bound %{y:.2f} %<extra></extra>",
            )
        )
    most = 100 * float(rows["rounded_disagreement"].max())
    equal = np.geomspace(_LEAST_BOUND, max(most, 1.0), 60)
    figure.add_trace(
        go.Scatter(
            x=equal,
            y=equal,
            mode="lines",
            name="equal",
            line={"color": "#444444", "dash": "dot"},
            hoverinfo="skip",
        )
    )
    figure.update_xaxes(title="labels changed by rounding, %, measured")
    # A bound of nothing has no place on this axis, and very small ones say no more than that.
    figure.update_yaxes(title="bound, %", type="log", range=[math.log10(_LEAST_BOUND), 2.1])
    return _styled(figure, 460)


def updates_figure(result: Result) -> go.Figure:
    """Accuracy after training against bits of the update, with what the theory says of them."""
    import plotly.graph_objects as go

    from studies.page import COLORS

    figure = go.Figure()
    config, table = result.config, result.table
    most = max(config.classifier_bits)
    for index, bits in enumerate(_some(config.data_bits)):
        rows = table[(table["data_bits"] == bits) & (table["classifier_bits"] == most)].sort_values(
            "update_bits"
        )
        figure.add_trace(
            go.Scatter(
                x=rows["update_bits"],
                y=100 * rows["accuracy"],
                mode="lines+markers",
                name=f"B_X = {bits}, B_F = {most}; exact from {exact_update_bits(config.step_size, bits)} on",
                line={"color": COLORS[index % len(COLORS)]},
            )
        )
    figure.add_vline(
        x=safe_update_bits(config.step_size) - 0.5,
        line={"dash": "dash", "color": "#444444"},
        annotation_text="safe from here on",
    )
    figure.add_hline(
        y=100 * result.float_accuracy, line={"dash": "dot", "color": "#444444"}, annotation_text="float64"
    )
    figure.update_xaxes(title="bits of the update, B_W", dtick=1)
    figure.update_yaxes(title="test accuracy after training, %")
    return _styled(figure, 460)


def energy_figure(result: Result) -> go.Figure:
    """Energy of a training step against accuracy: all designs, the uniform ones joined."""
    import plotly.graph_objects as go

    from studies.page import COLORS

    figure = go.Figure()
    mixed, uniform = (result.table[result.table["uniform"] == which] for which in (False, True))
    uniform = uniform.sort_values("data_bits")
    for rows, name, color, mode in (
        (mixed, "three widths", COLORS[5], "markers"),
        (uniform, "one width", COLORS[1], "lines+markers"),
    ):
        figure.add_trace(
            go.Scatter(
                x=rows["step_adders"],
                y=100 * rows["accuracy"],
                mode=mode,
                name=name,
                marker={"color": color, "size": 6, "opacity": 0.7},
                text=[_described(_cells(row)) for _, row in rows.iterrows()],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    for row, name, color in ((result.minimum, "minimum", COLORS[0]), (result.uniform, "uniform", COLORS[3])):
        if row is not None:
            figure.add_trace(
                go.Scatter(
                    x=[row["step_adders"]],
                    y=[100 * row["accuracy"]],
                    mode="markers",
                    name=f"{name}, {_bits_text(row)}",
                    marker={"color": color, "size": 14, "symbol": "star"},
                )
            )
    figure.add_hline(
        y=100 * result.target, line={"dash": "dot", "color": "#444444"}, annotation_text="accuracy wanted"
    )
    figure.update_xaxes(title="one-bit full adders of a training step", type="log")
    figure.update_yaxes(title="test accuracy after training, %", range=[50, 100])
    return _styled(figure, 520)


def _designs(config: Config) -> list[Bits]:
    every = [
        (data, classifier, update)
        for data in config.data_bits
        for classifier in config.classifier_bits
        for update in config.update_bits
    ]
    return list(dict.fromkeys([*every, *((bits, bits, bits) for bits in config.uniform_bits)]))


def _orders(config: Config, samples: int) -> Int64[np.ndarray, "r n"]:
    """Which sample each replicate sees at each step."""
    return np.array(
        [
            np.concatenate([rng.permutation(samples) for _ in range(config.epochs)])
            for rng in (np.random.default_rng([config.seed, index]) for index in range(config.replicates))
        ]
    )


def _step(bits: int) -> float:
    return math.ldexp(1.0, 1 - bits)


def _with_one(x: np.ndarray) -> np.ndarray:
    """Samples with an input of 1 for the bias."""
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def _kept(features: int, step_size: float, decay: float) -> np.ndarray:
    """What a step leaves of the weights and, all, of the bias."""
    return np.append(np.full(features, 1.0 - step_size * decay), 1.0)


def _labels(samples: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.where(_with_one(samples) @ weights >= 0.0, 1.0, -1.0)


def _classified(data: Data, weights: np.ndarray, design: Bits) -> np.ndarray:
    """Test labels with the data and the weights rounded."""
    return _labels(quantise(data.test, _step(design[0])), quantise(weights, _step(design[1])))


def _rounded(data: Data, exact: np.ndarray, design: Bits) -> dict[str, float]:
    """The float64 classifiers, rounded: means over the replicates, and of the bounds."""
    found = []
    for weights in exact:
        labels = _classified(data, weights, design)
        outputs = _with_one(data.test) @ weights
        shifts = output_shift(
            design[0],
            design[1],
            weight_norm=float(np.linalg.norm(weights[:-1])),
            data_norm=np.linalg.norm(data.test, axis=1),
            dimension=data.test.shape[1],
        )
        bound = label_change_bound(
            weights[:-1],
            float(weights[-1]),
            data.test,
            data_bits=design[0],
            weight_bits=design[1],
            capped=True,
        )
        found.append(
            {
                "rounded_accuracy": float(np.mean(labels == data.test_labels)),
                "rounded_disagreement": float(np.mean(labels != _labels(data.test, weights))),
                "geometric_bound": float(np.mean(abs(outputs) <= shifts)),
                "probabilistic_bound": bound,
            }
        )
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def _measured(data: Data, exact: np.ndarray, trained: np.ndarray, design: Bits) -> dict[str, float]:
    """The classifiers trained in fixed point, and how often they differ from the float64 ones."""
    labels = [_classified(data, weights, design) for weights in trained]
    right = [float(np.mean(found == data.test_labels)) for found in labels]
    others = [np.mean(a != _labels(data.test, b)) for a, b in zip(labels, exact, strict=True)]
    return {
        "accuracy": float(np.mean(right)),
        "accuracy_min": min(right),
        "disagreement": float(np.mean(others)),
    }


def _updates(config: Config, design: Bits) -> str:
    """What the theory says of the update with so many bits."""
    if updates_vanish(config.step_size, design[2], decay=config.decay):
        return "vanish"
    if design[2] >= exact_update_bits(config.step_size, design[0]):
        return "exact"
    return "safe" if design[2] >= safe_update_bits(config.step_size) else "coarse"


def _adders(features: int, design: Bits) -> dict[str, int]:
    classification = classification_adders(features, design[0], design[1])
    update = update_adders(features, design[0], design[2])
    return {
        "classification_adders": classification,
        "update_adders": update,
        "step_adders": classification + update,
    }


def _cheapest(table: pd.DataFrame, target: float) -> dict[str, Any] | None:
    """Row of least energy, of the better accuracy among equals, that reaches a mean accuracy."""
    good = table[table["accuracy"] >= target - 1e-12]  # means of equal counts may differ in their last bit
    if good.empty:
        return None
    first = good.sort_values(["step_adders", "accuracy"], ascending=[True, False], kind="stable").iloc[0]
    return _cells(first)


def _cells(row: pd.Series[Any]) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}


def _ratio(dear: dict[str, Any] | None, cheap: dict[str, Any] | None) -> float:
    return math.nan if dear is None or cheap is None else float(dear["step_adders"] / cheap["step_adders"])


def _row_of(result: Result, design: Bits) -> dict[str, Any] | None:
    bits = result.table[["data_bits", "classifier_bits", "update_bits"]]
    return _cheapest(result.table[(bits == list(design)).all(axis=1)], -math.inf)


def _named_designs(result: Result) -> list[tuple[str, dict[str, Any] | None]]:
    return [
        ("minimum precision", result.minimum),
        ("cheapest uniform", result.uniform),
        ("as accurate as that", result.matching),
        ("theory, exact updates", result.predicted("exact")),
        ("theory, safe updates", result.predicted("safe", "exact")),
        ("16 bits for all", _row_of(result, (16, 16, 16))),
    ]


def _bound_bits(result: Result, classifier_bits: int) -> str:
    bound = geometric_bound(
        classifier_bits,
        weight_norm=result.weight_norm,
        dimension=result.features,
        data_norm=result.data_norm,
        product_term=True,
    )
    return "none" if bound == math.inf else f"{max(1, math.floor(bound) + 1)}"


def _bits_text(row: dict[str, Any]) -> str:
    return f"B_X {row['data_bits']}, B_F {row['classifier_bits']}, B_W {row['update_bits']}"


def _described(row: dict[str, Any]) -> str:
    cost = f"{row['step_adders']} full adders per step"
    return f"{_bits_text(row)}: accuracy {100 * row['accuracy']:.2f} %, {cost}"


def _some(values: tuple[int, ...]) -> list[int]:
    """Up to four of the values, from the least to the largest."""
    ordered = sorted(set(values))
    picks = np.unique(np.rint(np.linspace(0, len(ordered) - 1, 4)).astype(int))
    return [ordered[index] for index in picks]


def _styled(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 70, "r": 20, "t": 110, "b": 60},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        font={"family": "system-ui, sans-serif", "size": 13},
    )
    return figure
