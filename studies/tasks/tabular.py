"""Breast cancer in Wisconsin: two data sets of features, and two linear classifiers.

References
----------
.. [Street93] W. N. Street, W. H. Wolberg, O. L. Mangasarian, "Nuclear feature extraction for breast tumor
   diagnosis", 1993; the 569 samples with 30 features that scikit-learn ships.
.. [Wolberg90] W. H. Wolberg, O. L. Mangasarian, "Multisurface method of pattern separation for medical
   diagnosis applied to breast cytology", PNAS 87, 1990; the file ``breast-cancer-wisconsin.data`` of the
   UCI Machine Learning Repository, DOI 10.24432/C5HP4Z: 699 samples with 9 features.
.. [Cortes95] C. Cortes, V. Vapnik, "Support-Vector Networks", Machine Learning 20, 1995.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from studies.tasks.tables import PathText, TaskTable
from studies.tasks.task import Data, Metric, Task, TaskError

if TYPE_CHECKING:
    import torch
    from torch import nn

SPLIT_SEED = 0  # the split is part of the task: the same for every run
TEST_SHARE = 0.3
UCI_FEATURES = 9


def read_uci(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 9) float64 and labels (n,), 1 for malignant, of the file of [Wolberg90]_.

    Samples with a missing feature, ``?``, are left out: 683 of 699 stay.

    Raises
    ------
    TaskError
        There is no such file, or a line is not a sample id, 9 whole numbers in 1..10, and 2 or 4.
    """
    wanted = "a sample id, 9 whole numbers in 1..10 or '?', and the class 2 (benign) or 4 (malignant)"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        where = "" if path.is_absolute() else f" (in {Path.cwd()})"
        raise TaskError(
            f"no breast-cancer data at '{path}'{where}: wanted breast-cancer-wisconsin.data of the UCI "
            f"repository, comma-separated: {wanted}"
        ) from None
    except IsADirectoryError:
        raise TaskError(f"{path}: is a folder, the file breast-cancer-wisconsin.data is wanted") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: cannot be read: {error}") from None
    known = {str(value): float(value) for value in range(1, 11)}
    rows, labels = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split(",")]
        features = cells[1:-1]
        fits = len(features) == UCI_FEATURES and cells[-1] in ("2", "4")
        if not fits or any(cell not in known and cell != "?" for cell in features):
            raise TaskError(f"{path}: line {number}: wanted {wanted}, got {line.strip()[:80]!r}")
        if "?" not in features:
            rows.append([known[cell] for cell in features])
            labels.append(int(cells[-1] == "4"))
    if min(labels.count(0), labels.count(1)) < 2:
        raise TaskError(
            f"{path}: must have at least 2 complete samples of either class, "
            f"got {labels.count(0)} benign and {labels.count(1)} malignant"
        )
    return np.array(rows), np.array(labels)


def cancer(path: Path | None = None) -> Data:
    """Standardised features (n, 30 or 9) and labels (n,), 1 for malignant; 30 % are to test on.

    The split is stratified. Mean and standard deviation are those of the training part; a feature that is
    constant there is only centred.

    Parameters
    ----------
    path
        The file of [Wolberg90]_; ``None`` takes the set of [Street93]_.
    """
    import torch
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    if path is None:
        features, benign = load_breast_cancer(return_X_y=True)
        labels = 1 - benign
    else:
        features, labels = read_uci(path)
    train, test, train_labels, test_labels = train_test_split(
        features, labels, test_size=TEST_SHARE, random_state=SPLIT_SEED, stratify=labels
    )
    mean, deviation = train.mean(0), train.std(0)
    deviation[deviation == 0.0] = 1.0
    train_inputs, test_inputs = (
        torch.from_numpy(((part - mean) / deviation).astype(np.float32)) for part in (train, test)
    )
    return Data(
        train_inputs=train_inputs,
        train_labels=torch.from_numpy(train_labels.astype(np.int64)),
        test_inputs=test_inputs,
        test_labels=torch.from_numpy(test_labels.astype(np.int64)),
    )


def linear_classifier(features: int) -> nn.Module:
    """One output per sample, positive for label 1."""
    from torch import nn

    network = nn.Sequential()
    network.add_module("fc", nn.Linear(features, 1))
    return network


def logistic_loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean of ``log(1 + exp(-y s))`` for scores s (n, 1) and labels (n,), with y = -1 for 0 and 1 for 1."""
    from torch.nn import functional

    return functional.binary_cross_entropy_with_logits(outputs[:, 0], labels.to(outputs.dtype))


def hinge_loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean of ``max(0, 1 - y s)`` [Cortes95]_ for scores s (n, 1), labels (n,), y = -1 for 0 and 1 for 1."""
    margin = (2 * labels - 1).to(outputs.dtype) * outputs[:, 0]
    return (1.0 - margin).clamp(min=0.0).mean()


def right_side_percent(outputs: torch.Tensor, labels: torch.Tensor) -> tuple[float, int]:
    """One hundred per sample whose score (n, 1) is on its label's side of zero, and the samples."""
    return 100.0 * int(((outputs[:, 0] > 0) == (labels == 1)).sum()), len(labels)


ACCURACY = Metric(name="accuracy", unit="%", higher_is_better=True, function=right_side_percent, step=100.0)


class CancerTable(TaskTable):
    """Breast cancer [Street93]_; `path` is the file of [Wolberg90]_ to take instead."""

    path: PathText | None = None

    def _task(self, kind: str, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Task:
        path = None
        if self.path is not None:
            path = Path(self.path).expanduser()
            read_uci(path)
        features = 30 if path is None else UCI_FEATURES
        return Task(
            title=f"breast cancer, {features} features, {kind}",
            load=partial(cancer, path),
            network=partial(linear_classifier, features),
            loss=loss,
            metric=ACCURACY,
            input_shape=(features,),
            classes=2,
        )


class CancerLogistic(CancerTable):
    """Breast cancer and logistic regression."""

    name: Literal["cancer-logistic"]

    def build(self) -> Task:
        """Task of these options."""
        return self._task("logistic regression", logistic_loss)


class CancerSvm(CancerTable):
    """Breast cancer and a linear support vector machine; its regularisation is the weight decay."""

    name: Literal["cancer-svm"]

    def build(self) -> Task:
        """Task of these options."""
        return self._task("linear SVM", hinge_loss)
