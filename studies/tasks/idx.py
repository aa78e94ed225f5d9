"""Image sets in the idx format: MNIST, Fashion-MNIST and their like.

References
----------
.. [LeCun98] Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998; the
   idx format.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from studies.tasks.images import Images, ImagesTable, convolutional, images_data, where
from studies.tasks.tables import PathText, Sizes
from studies.tasks.task import Classification, Data, TaskError

if TYPE_CHECKING:
    from torch import nn

IMAGES_MAGIC = 0x803  # unsigned bytes, three axes
LABELS_MAGIC = 0x801  # unsigned bytes, one axis


def read_idx(path: Path, magic: int) -> np.ndarray:
    """Array of unsigned bytes of an idx file [LeCun98]_, plain or gzip.

    Parameters
    ----------
    magic
        `IMAGES_MAGIC` or `LABELS_MAGIC`.

    Raises
    ------
    TaskError
        The file is no such array.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except EOFError:
        raise TaskError(f"{path}: the gzip file is truncated") from None
    except (OSError, zlib.error) as error:
        raise TaskError(f"{path}: cannot be read: {error}") from None
    axes = magic & 0xFF
    header = 4 + 4 * axes
    if len(content) < header:
        raise TaskError(f"{path}: is truncated: {header} bytes of header are wanted, got {len(content)}")
    found = int.from_bytes(content[:4], "big")
    if found != magic:
        raise TaskError(f"{path}: must begin with {magic:#010x} as an idx{axes} file, got {found:#010x}")
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
    size = math.prod(shape)
    if len(content) - header != size:
        problem = "is truncated" if len(content) - header < size else "has bytes to spare"
        wanted = " x ".join(map(str, shape))
        raise TaskError(f"{path}: {problem}: {wanted} bytes are wanted, got {len(content) - header}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def idx_paths(folder: Path) -> dict[str, Path]:
    """The four files of an idx image set; a plain file is preferred to its gzip.

    Raises
    ------
    TaskError
        One of them is missing.
    """
    found, missing = {}, []
    for part, prefix in (("train", "train"), ("test", "t10k")):
        for what, axes in (("images", 3), ("labels", 1)):
            name = f"{prefix}-{what}-idx{axes}-ubyte"
            variants = [
                f"{stem}{end}" for end in ("", ".gz") for stem in (name, name.replace("-idx", ".idx"))
            ]
            paths = [folder / variant for variant in variants if (folder / variant).is_file()]
            if paths:
                found[f"{part}-{what}"] = paths[0]
            else:
                missing.append(f"{name}(.gz)")
    if missing:
        raise TaskError(
            f"no MNIST-format images in {where(folder)}: wanted {', '.join(missing)} "
            "(unsigned bytes in idx format, plain or gzip)"
        )
    return found


def _idx_part(paths: Mapping[str, Path], part: str) -> Images:
    pixels_path, labels_path = paths[f"{part}-images"], paths[f"{part}-labels"]
    return Images(
        pixels=read_idx(pixels_path, IMAGES_MAGIC)[..., np.newaxis],
        labels=read_idx(labels_path, LABELS_MAGIC),
        pixels_source=str(pixels_path),
        labels_source=str(labels_path),
    )


def idx_images(folder: Path) -> tuple[Images, Images]:
    """Training and test images of the MNIST format in `folder`."""
    paths = idx_paths(folder)
    return _idx_part(paths, "train"), _idx_part(paths, "test")


def _idx_shape(folder: Path) -> tuple[int, int, int]:
    path = idx_paths(folder)["train-images"]
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(16)
    except (OSError, EOFError, zlib.error):
        header = b""
    if int.from_bytes(header[:4], "big") != IMAGES_MAGIC or len(header) < 16:
        read_idx(path, IMAGES_MAGIC)  # says what is wrong
    height, width = (int.from_bytes(header[start : start + 4], "big") for start in (8, 12))
    if not height or not width:
        raise TaskError(f"{path}: images must have pixels, got {height} x {width}")
    return 1, height, width


class IdxTable(ImagesTable):
    """MNIST-format images: `folder` holds the four idx files, plain or gzip."""

    folder: PathText

    def _task(self, kind: str, network: partial[nn.Module], shape: tuple[int, int, int]) -> Classification:
        folder = Path(self.folder).expanduser()
        return Classification(
            title=f"images of {folder.resolve().name} ({shape[1]} x {shape[2]}), {kind}",
            load=partial(load_idx, self),
            network=network,
            input_shape=shape,
            classes=self.classes,
        )

    def shape(self) -> tuple[int, int, int]:
        """Of an image: (1, height, width)."""
        return _idx_shape(Path(self.folder).expanduser())


def load_idx(table: IdxTable) -> Data:
    """Data of an idx task."""
    train, test = idx_images(Path(table.folder).expanduser())
    return images_data(
        train,
        test,
        classes=table.classes,
        train_limit=table.train,
        test_limit=table.test,
        normalise=table.normalise,
    )


class IdxMlp(IdxTable):
    """MNIST-format images and a perceptron; `hidden` are the sizes of its hidden layers."""

    name: Literal["idx-mlp"]
    hidden: Sizes = Field(default=[128])

    def build(self) -> Classification:
        """Task of these options."""
        from studies.tasks.networks import mlp

        shape = self.shape()
        sizes = (math.prod(shape), *self.hidden, self.classes)
        network = partial(mlp, sizes[0], tuple(self.hidden), self.classes)
        return self._task(f"perceptron {'-'.join(map(str, sizes))}", network, shape)


class IdxCnn(IdxTable):
    """MNIST-format images and a convolutional network; `channels` are those of its stages."""

    name: Literal["idx-cnn"]
    channels: Sizes = Field(default=[8, 16])

    def build(self) -> Classification:
        """Task of these options."""
        shape = self.shape()
        kind, network = convolutional(shape, self.channels, self.classes)
        return self._task(kind, network, shape)
