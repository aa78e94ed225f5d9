"""Writers of the files that the built-in tasks read."""

import gzip
import struct

import numpy as np
import pytest


def idx(array):
    """Bytes of an idx file of unsigned bytes: magic, sizes, values."""
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def patterns(count, classes=10, size=12, seed=0):
    """Images that a network can tell apart: bright rows or columns where the label says, and noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    pixels = rng.integers(0, 60, (count, size, size), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        row = (label % 5) * 2
        (image if label < 5 else image.T)[row : row + 2] += 180
    return pixels, labels.astype(np.uint8)


@pytest.fixture
def idx_folder(tmp_path):
    """A set of 60 training and 20 test images of 12 x 12; the training images are compressed."""
    folder = tmp_path / "tiny-mnist"
    folder.mkdir()
    for prefix, count, seed in (("train", 60, 1), ("t10k", 20, 2)):
        pixels, labels = patterns(count, seed=seed)
        images = idx(pixels)
        if prefix == "train":
            (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        else:
            (folder / f"{prefix}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))
    return folder


@pytest.fixture
def npz_folder(tmp_path):
    """A set of 60 training and 20 test images of 12 x 12 x 3."""
    folder = tmp_path / "tiny-cifar"
    folder.mkdir()
    for part, count, seed in (("train", 60, 1), ("test", 20, 2)):
        pixels, labels = patterns(count, seed=seed)
        images = np.stack([pixels, 255 - pixels, pixels // 2], axis=-1)
        np.savez(folder / f"{part}.npz", images=images, labels=labels)
    return folder


@pytest.fixture
def text_file(tmp_path):
    """A text of 26 x 40 = 1040 characters, of which 11 are different."""
    path = tmp_path / "story.txt"
    path.write_text("the cat eats fish.\nhe sees\n"[:26] * 40, encoding="utf-8")
    return path


@pytest.fixture
def uci_file(tmp_path):
    """Rows of the UCI file's form: 30 complete ones, 20 benign, and 2 with a missing value."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(30):
        malignant = number % 3 == 0
        features = rng.integers(5, 11, 9) if malignant else rng.integers(1, 6, 9)
        rows.append([1000 + number, *features, 4 if malignant else 2])
    rows.insert(3, [2000, 1, 1, 1, 1, 1, "?", 1, 1, 1, 2])
    rows.append([2001, 9, 9, 9, 9, 9, "?", 9, 9, 9, 4])
    path = tmp_path / "breast-cancer-wisconsin.data"
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    return path
