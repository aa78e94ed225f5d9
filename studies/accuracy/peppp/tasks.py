"""Small data sets for the run table: the tables that scikit-learn ships, and variants of them.

References
----------
.. [digits] E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
   Repository, 1998, DOI 10.24432/C50P49.
.. [wdbc] W. Wolberg, O. Mangasarian, N. Street, W. Street, "Breast Cancer Wisconsin (Diagnostic)", UCI
   Machine Learning Repository, 1995, DOI 10.24432/C5DW2B.
.. [wine] S. Aeberhard, M. Forina, "Wine", UCI Machine Learning Repository, 1992, DOI 10.24432/C5PC7J.
.. [iris] R. A. Fisher, "Iris", UCI Machine Learning Repository, 1936, DOI 10.24432/C56C76.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from torch import nn

Source = Literal["digits", "breast_cancer", "wine", "iris"]
TEST_SHARE = 1 / 3
SEED = 0  # of the split and of every perturbation: they are part of the data set, the same for every run


@dataclass(frozen=True, slots=True)
class Split:
    """Samples to train on and to test on.

    Attributes
    ----------
    train_inputs, test_inputs : (n, ...)
        Float32; images of digits have the shape (n, 1, 8, 8), tables (n, features).
    train_labels, test_labels : (n,)
        Classes 0, 1, ...
    """

    train_inputs: Float[np.ndarray, "n ..."]
    train_labels: Int[np.ndarray, " n"]
    test_inputs: Float[np.ndarray, "m ..."]
    test_labels: Int[np.ndarray, " m"]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.train_labels.max()) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A data set of the run table, and the network that learns it.

    Attributes
    ----------
    name
        Of the row.
    source
        Table of scikit-learn: pixels of digits [digits]_ in [0, 1]; features of tumours [wdbc]_, wines
        [wine]_ and flowers [iris]_ with mean 0 and standard deviation 1.
    hidden
        Sizes of the hidden layers of a perceptron, or channels of the 3 x 3 convolutions of a CNN.
    convolutional
        Whether it is a CNN (digits only).
    classes
        Those that are kept, renumbered; all if empty.
    groups
        If not 0, the label is the class modulo this number: 2 tells even from odd digits.
    noise
        Standard deviation of Gaussian noise that is added to every input.
    label_noise
        Share of the training labels that are drawn anew, from all classes.
    shift
        Images are moved by up to so many pixels along each axis.
    gain
        By what inputs are multiplied.
    samples
        If not 0, only so many samples are trained on.
    """

    name: str
    source: Source
    hidden: tuple[int, ...]
    convolutional: bool = False
    classes: tuple[int, ...] = ()
    groups: int = 0
    noise: float = 0.0
    label_noise: float = 0.0
    shift: int = 0
    gain: float = 1.0
    samples: int = 0

    def load(self) -> Split:
        """Read, vary and split the data; always the same samples."""
        from sklearn.model_selection import train_test_split

        random = np.random.default_rng(SEED)
        inputs, labels = _read(self.source)
        if self.classes:
            kept = np.isin(labels, self.classes)
            inputs, labels = inputs[kept], np.searchsorted(sorted(self.classes), labels[kept])
        if self.groups:
            labels = labels % self.groups
        if self.shift:
            moves = random.integers(-self.shift, self.shift + 1, size=(len(inputs), 2))
            inputs = np.stack([_moved(x, *move) for x, move in zip(inputs, moves, strict=True)])
        inputs = self.gain * (inputs + self.noise * random.standard_normal(inputs.shape))
        train_x, test_x, train_y, test_y = train_test_split(
            inputs.astype(np.float32),
            labels.astype(np.int64),
            test_size=TEST_SHARE,
            random_state=SEED,
            stratify=labels,
        )
        drawn = random.integers(0, int(labels.max()) + 1, size=len(train_y))
        train_y = np.where(random.random(len(train_y)) < self.label_noise, drawn, train_y)
        if self.samples:
            train_x, train_y = train_x[: self.samples], train_y[: self.samples]
        return Split(train_x, train_y, test_x, test_y)

    def network(self, classes: int, features: int) -> nn.Module:
        """Network for so many classes and input features, initialised from torch's global generator."""
        from studies.tasks.networks import cnn, mlp

        if self.convolutional:
            return cnn((1, 8, 8), self.hidden, classes, pool="max")
        return mlp(features, self.hidden, classes)


def _read(source: Source) -> tuple[np.ndarray, np.ndarray]:
    from sklearn import datasets

    loaders: dict[str, Any] = {
        "digits": datasets.load_digits,
        "breast_cancer": datasets.load_breast_cancer,
        "wine": datasets.load_wine,
        "iris": datasets.load_iris,
    }
    inputs, labels = loaders[source](return_X_y=True)
    if source == "digits":
        return (inputs / 16.0).reshape(-1, 1, 8, 8), labels
    return (inputs - inputs.mean(axis=0)) / inputs.std(axis=0), labels


def _moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """The image moved, with zeros where nothing was."""
    height, width = image.shape[-2:]
    room = max(abs(down), abs(right))
    padded = np.pad(image, ((0, 0), (room, room), (room, room)))
    return padded[:, room - down : room - down + height, room - right : room - right + width]


def _digits(name: str, *, hidden: tuple[int, ...] = (24,), **options: Any) -> Task:
    return Task(name=name, source="digits", hidden=hidden, **options)


def _cnn(name: str, *, hidden: tuple[int, ...] = (4, 8), **options: Any) -> Task:
    return Task(name=name, source="digits", hidden=hidden, convolutional=True, **options)


#: Rows of the run table, in the order in which they are trained.
TASKS: tuple[Task, ...] = (
    _digits("digits"),
    _cnn("digits-cnn", hidden=(6, 12)),
    _digits("digits-even", classes=(0, 2, 4, 6, 8)),
    Task(name="cancer", source="breast_cancer", hidden=(8,)),
    _digits("digits-noise", noise=0.3),
    _cnn("digits-low-cnn", classes=(0, 1, 2, 3, 4)),
    Task(name="wine", source="wine", hidden=(8,)),
    _digits("digits-parity", groups=2),
    _digits("digits-shift", shift=1),
    Task(name="iris", source="iris", hidden=(8,)),
    _cnn("digits-shift-cnn", shift=1),
    _digits("digits-3-8-9", classes=(3, 8, 9), hidden=(8,)),
    _digits("digits-deep", hidden=(24, 24)),
    Task(name="cancer-noise", source="breast_cancer", hidden=(8,), noise=1.0),
    _digits("digits-few", samples=150),
    _digits("digits-mislabelled", label_noise=0.3),
    _cnn("digits-high-cnn", classes=(5, 6, 7, 8, 9)),
    _digits("digits-faint", gain=0.25),
    Task(name="wine-noise", source="wine", hidden=(8,), noise=1.0),
    _digits("digits-odd", classes=(1, 3, 5, 7, 9)),
    _digits("digits-noisier", noise=0.6),
    _digits("digits-remainder-of-3", groups=3),
    Task(name="iris-noise", source="iris", hidden=(8,), noise=0.5),
    _digits("digits-narrow", hidden=(8,)),
)
