"""What image sets have in common: pixels and labels become tensors, and a network is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from studies.tasks.tables import Count, TaskTable
from studies.tasks.task import Data, TaskError, check_finite

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Images (n, height, width, channels), bytes or floating point, labels (n,), and where they are from."""

    pixels: np.ndarray
    labels: np.ndarray
    pixels_source: str
    labels_source: str


def where(path: Path) -> str:
    """A path as it was given, and the folder in which it was looked for if it is relative."""
    return f"'{path}'" + ("" if path.is_absolute() else f" (in {Path.cwd()})")


def _tensors(images: Images, classes: int, limit: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels (n, c, h, w) in [0, 1] and labels (n,) of the first `limit` images."""
    import torch

    pixels, labels = images.pixels, images.labels
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise TaskError(
            f"{images.labels_source}: must be whole numbers with one axis, got {labels.dtype} {labels.shape}"
        )
    if len(pixels) != len(labels) or not len(pixels):
        raise TaskError(
            f"{images.pixels_source}, {images.labels_source}: must have equal numbers of images and labels, "
            f"at least one, got {len(pixels)} and {len(labels)}"
        )
    if limit is not None and limit > len(pixels):
        raise TaskError(f"{images.pixels_source}: has {len(pixels)} images, asked for the first {limit}")
    pixels, labels = pixels[:limit], labels[:limit]
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise TaskError(
            f"{images.labels_source}: labels must be in 0..{classes - 1}, as classes = {classes}, "
            f"got {len(wrong)} others, the first is {labels[wrong[0]]} at index {wrong[0]}"
        )
    if pixels.dtype != np.uint8 and pixels.dtype.kind != "f":
        raise TaskError(f"{images.pixels_source}: must be uint8 or floating point, got {pixels.dtype}")
    with np.errstate(over="ignore"):
        inputs = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32))
    if pixels.dtype == np.uint8:
        inputs /= 255.0
    check_finite(inputs, images.pixels_source)
    return inputs, torch.from_numpy(labels.astype(np.int64))


def images_data(
    train: Images,
    test: Images,
    *,
    classes: int,
    train_limit: int | None,
    test_limit: int | None,
    normalise: bool,
) -> Data:
    """First images of either part; bytes are scaled to [0, 1], floating-point pixels stay as they are.

    Parameters
    ----------
    normalise
        Subtract the mean of each channel and divide by its standard deviation, both of the training images
        that are used.

    Raises
    ------
    TaskError
        Images and labels do not fit each other or `classes`, or a pixel is NaN or infinite.
    """
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise TaskError(
            f"{test.pixels_source}: images must be of the size of the training images, "
            f"{train.pixels.shape[1:]}, got {test.pixels.shape[1:]}"
        )
    train_inputs, train_labels = _tensors(train, classes, train_limit)
    test_inputs, test_labels = _tensors(test, classes, test_limit)
    if normalise:
        exact = train_inputs.double()
        mean = exact.mean((0, 2, 3), keepdim=True)
        deviation = exact.std((0, 2, 3), keepdim=True, correction=0)
        if not (deviation > 0).all():
            raise TaskError(f"{train.pixels_source}: cannot be normalised: all pixels of a channel are equal")
        train_inputs, test_inputs = (
            ((inputs.double() - mean) / deviation).float() for inputs in (train_inputs, test_inputs)
        )
    return Data(
        train_inputs=train_inputs,
        train_labels=train_labels,
        test_inputs=test_inputs,
        test_labels=test_labels,
    )


class ImagesTable(TaskTable):
    """What the tasks on images share.

    `train` and `test` limit to the first images; `classes` is the number of classes, labelled from 0.
    """

    train: Count | None = None
    test: Count | None = None
    classes: Count = 10
    normalise: bool = False


def convolutional(
    shape: tuple[int, int, int], channels: Sequence[int], classes: int
) -> tuple[str, partial[nn.Module]]:
    """Convolutional network with mean pooling for images of `shape`, and its description.

    Raises
    ------
    TaskError
        The images are too small for so many stages.
    """
    from studies.tasks.networks import cnn

    smallest = 2 ** len(channels)
    if min(shape[1:]) < smallest:
        raise TaskError(
            f"channels: {len(channels)} stages halve images of at least {smallest} x {smallest} pixels, "
            f"got {shape[1]} x {shape[2]}"
        )
    network = partial(cnn, shape, tuple(channels), classes, pool="mean")
    return f"CNN with {'-'.join(map(str, channels))} channels", network
