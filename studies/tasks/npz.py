"""Image sets in npz archives: arrays of pixels as of CIFAR-10, or JPEG files one after another."""

from __future__ import annotations

import io
import zipfile
import zlib
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from studies.tasks.images import Images, ImagesTable, convolutional, images_data, where
from studies.tasks.tables import Count, PathText, Sizes
from studies.tasks.task import Classification, Data, TaskError

if TYPE_CHECKING:
    from torch import nn


def npz_images(source: Path, *, held_out: int | None, layout: str) -> tuple[Images, Images]:
    """Training and test images of a folder with train.npz and test.npz, or of one npz file.

    Parameters
    ----------
    held_out
        Of one file: the number of its last images that are for testing.
    layout
        Axes of the images, ``"nhwc"`` or ``"nchw"``; (n, h, w) has one channel in either.
    """
    if held_out is None:
        paths = [source / f"{part}.npz" for part in ("train", "test")]
        if missing := [path.name for path in paths if not path.is_file()]:
            raise TaskError(f"no image arrays in {where(source)}: wanted {' and '.join(missing)} {_NPZ}")
        train, test = (read_npz(path, layout=layout) for path in paths)
        return train, test
    if not source.is_file():
        raise TaskError(f"no image arrays: {where(source)} is not a file: wanted an npz file {_NPZ}")
    whole = read_npz(source, layout=layout)
    if not held_out < len(whole.pixels):
        raise TaskError(
            f"{source}: held_out must be below the number of its images, {len(whole.pixels)}, got {held_out}"
        )
    cut = len(whole.pixels) - held_out
    train, test = (
        Images(
            pixels=whole.pixels[part],
            labels=whole.labels[part],
            pixels_source=whole.pixels_source,
            labels_source=whole.labels_source,
        )
        for part in (slice(None, cut), slice(cut, None))
    )
    return train, test


_NPZ = (
    "with 'labels' (n,) and 'images' (n, height, width, channels), uint8 or floating point, "
    "or JPEG files one after another in 'jpeg', uint8, with 'offsets' (n + 1,)"
)


def read_npz(path: Path, *, layout: str) -> Images:
    """Images and labels of one npz file; nothing in it is unpickled.

    Raises
    ------
    TaskError
        The file is none, or its arrays do not fit each other.
    """
    if not zipfile.is_zipfile(path):
        raise TaskError(f"{path}: is not an npz file, a zip archive of arrays, or it is truncated")
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = list(archive)
            for key in ("images", "jpeg", "offsets", "labels"):
                if key in keys:
                    arrays[key] = archive[key]
    except (
        OSError,
        EOFError,
        ValueError,
        MemoryError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = " ".join(str(error).split())
        if "allow_pickle" in reason:
            reason = "it holds Python objects, which are not read; wanted arrays of numbers"
        raise TaskError(f"{path}: cannot be read as npz: {reason or type(error).__name__}") from None
    if "labels" not in arrays or not ("images" in arrays or {"jpeg", "offsets"} <= arrays.keys()):
        raise TaskError(f"{path}: wanted arrays {_NPZ[5:]}; got {', '.join(map(repr, keys)) or 'none'}")
    labels = arrays["labels"]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if "images" in arrays:
        pixels = _channels_last(arrays["images"], layout, path)
    else:
        pixels = _decoded(arrays["jpeg"], arrays["offsets"], path)
    return Images(
        pixels=pixels,
        labels=labels,
        pixels_source=f"{path}['{'images' if 'images' in arrays else 'jpeg'}']",
        labels_source=f"{path}['labels']",
    )


def _channels_last(images: np.ndarray, layout: str, path: Path) -> np.ndarray:
    if images.ndim == 3:
        images = images[..., np.newaxis]
    elif images.ndim == 4 and layout == "nchw":
        images = images.transpose(0, 2, 3, 1)
    if images.ndim != 4 or not 1 <= images.shape[3] <= 4 or 0 in images.shape:
        raise TaskError(
            f"{path}['images']: must be (n, h, w), or with 1 to 4 channels "
            f"{'(n, c, h, w)' if layout == 'nchw' else '(n, h, w, c)'} as layout = {layout!r} says, "
            f"got axes {images.shape}"
        )
    return images


def _decoded(jpeg: np.ndarray, offsets: np.ndarray, path: Path) -> np.ndarray:
    """JPEG files one after another, (n, height, width, 3) uint8."""
    if jpeg.dtype != np.uint8 or jpeg.ndim != 1:
        raise TaskError(f"{path}['jpeg']: must be uint8 with one axis, got {jpeg.dtype} {jpeg.shape}")
    if (
        offsets.dtype.kind not in "iu"
        or offsets.ndim != 1
        or len(offsets) < 2
        or offsets[0] != 0
        or offsets[-1] != len(jpeg)
        or (offsets[1:] <= offsets[:-1]).any()
    ):
        raise TaskError(f"{path}['offsets']: must be whole numbers that rise from 0 to {len(jpeg)}")
    try:
        pillow: Any = import_module("PIL.Image")
    except ImportError:
        raise TaskError(f"{path}: holds JPEG files, which need Pillow: pip install pillow") from None
    images: list[np.ndarray] = []
    for index in range(len(offsets) - 1):
        file = io.BytesIO(jpeg[offsets[index] : offsets[index + 1]].tobytes())
        try:
            with pillow.open(file, formats=("JPEG",)) as image:
                images.append(np.asarray(image.convert("RGB"), np.uint8))
        except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
            problem = "is no JPEG file" if isinstance(error, pillow.UnidentifiedImageError) else str(error)
            raise TaskError(f"{path}['jpeg']: image {index}: {problem}") from None
        if images[index].shape != images[0].shape:
            raise TaskError(
                f"{path}['jpeg']: images must be equal in size, image 0 has {images[0].shape[:2]}, "
                f"image {index} has {images[index].shape[:2]}"
            )
    return np.stack(images)


class NpzTable(ImagesTable):
    """Images in npz archives: `folder` with train.npz and test.npz, or one file `path`.

    Of one file, the last `held_out` images are for testing. An archive holds `labels` (n,) and `images`,
    whose axes `layout` names, or JPEG files one after another (`jpeg` uint8, `offsets` (n + 1,)).
    """

    folder: PathText | None = None
    path: PathText | None = None
    held_out: Count | None = None
    layout: Literal["nhwc", "nchw"] = "nhwc"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.folder is None) == (self.path is None):
            raise ValueError("wants either folder (with train.npz and test.npz) or path (one npz file)")
        if (self.path is None) != (self.held_out is None):
            raise ValueError("held_out, the number of test images, belongs to path: give both or neither")
        return self

    def images(self) -> tuple[Images, Images]:
        """Training and test images."""
        source = Path(self.folder or self.path or "").expanduser()
        return npz_images(source, held_out=self.held_out, layout=self.layout)

    def shape(self) -> tuple[int, int, int]:
        """Of an image: (channels, height, width)."""
        height, width, channels = self.images()[0].pixels.shape[1:]
        return channels, height, width

    def _task(self, kind: str, network: partial[nn.Module], shape: tuple[int, int, int]) -> Classification:
        source = Path(self.folder or self.path or "").expanduser().resolve()
        return Classification(
            title=f"images of {source.name} ({shape[1]} x {shape[2]}, {shape[0]} channels), {kind}",
            load=partial(load_npz, self),
            network=network,
            input_shape=shape,
            classes=self.classes,
        )


def load_npz(table: NpzTable) -> Data:
    """Data of an npz task."""
    train, test = table.images()
    return images_data(
        train,
        test,
        classes=table.classes,
        train_limit=table.train,
        test_limit=table.test,
        normalise=table.normalise,
    )


class NpzCnn(NpzTable):
    """Images in npz archives and a convolutional network; `channels` are those of its stages."""

    name: Literal["npz-cnn"]
    channels: Sizes = Field(default=[16, 32, 64])

    def build(self) -> Classification:
        """Task of these options."""
        shape = self.shape()
        kind, network = convolutional(shape, self.channels, self.classes)
        return self._task(kind, network, shape)


class NpzResnet8(NpzTable):
    """Images in npz archives and the ResNet-8 of MLPerf Tiny, with batch norm or without.

    `widths` are the channels of its blocks.
    """

    name: Literal["npz-resnet8"]
    batch_norm: bool = True
    widths: Sizes = Field(default=[16, 32, 64])

    def build(self) -> Classification:
        """Task of these options."""
        from studies.tasks.networks import resnet8

        shape = self.shape()
        widths = tuple(self.widths)
        network = partial(resnet8, shape[0], self.classes, batch_norm=self.batch_norm, widths=widths)
        kind = "ResNet-8" if widths == (16, 32, 64) else f"ResNet of {'-'.join(map(str, widths))} channels"
        return self._task(f"{kind}{'' if self.batch_norm else ' without batch norm'}", network, shape)
