"""Image sets: pixels, labels and their order are those that the test wrote; bad files say what is wrong."""

import gzip
import importlib.util
import io
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch

from studies.tasks import TaskError, named_task

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def written_images(path):
    """Pixels of an idx3 file, by offset."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    count, rows, columns = struct.unpack(">III", content[4:16])
    return [
        [[content[16 + (i * rows + r) * columns + c] for c in range(columns)] for r in range(rows)]
        for i in range(count)
    ]


def learns(task, steps=40, rate=0.05):
    """First and last loss of a few steps on the whole training set, and the test metric."""
    data = task.load()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = task.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = task.loss(network(data.train_inputs), data.train_labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    network.eval()
    with torch.no_grad():
        return losses[0], losses[-1], task.metric.mean([(network(data.test_inputs), data.test_labels)])


# ---------------------------------------------------------------------------------------------- idx


def test_idx_pixels_are_the_bytes_of_the_files_over_255_in_their_order(idx_folder):
    data = named_task("idx-mlp", folder=idx_folder).load()
    assert data.train_inputs.dtype == torch.float32
    assert data.train_inputs.shape == (60, 1, 12, 12)
    assert data.test_inputs.shape == (20, 1, 12, 12)
    for inputs, name in ((data.train_inputs, TRAIN_IMAGES), (data.test_inputs, TEST_IMAGES)):
        wanted = np.array(written_images(idx_folder / name), np.float32) / np.float32(255.0)
        np.testing.assert_array_equal(inputs[:, 0].numpy(), wanted)
    assert data.train_labels.dtype == torch.int64
    assert data.train_labels.tolist() == [i % 10 for i in range(60)]
    assert data.test_labels.tolist() == [i % 10 for i in range(20)]


def test_limits_take_the_first_images(idx_folder):
    whole = named_task("idx-cnn", folder=idx_folder).load()
    part = named_task("idx-cnn", folder=idx_folder, train=7, test=3).load()
    assert torch.equal(part.train_inputs, whole.train_inputs[:7])
    assert torch.equal(part.test_inputs, whole.test_inputs[:3])
    assert part.train_labels.tolist() == [0, 1, 2, 3, 4, 5, 6]
    with pytest.raises(TaskError, match="t10k-images-idx3-ubyte: has 20 images, asked for the first 21"):
        named_task("idx-cnn", folder=idx_folder, test=21).load()


def test_normalised_training_pixels_have_mean_0_and_deviation_1_and_test_pixels_the_same_map(idx_folder):
    raw = named_task("idx-mlp", folder=idx_folder, train=50).load()
    data = named_task("idx-mlp", folder=idx_folder, train=50, normalise=True).load()
    pixels = raw.train_inputs.numpy().astype(np.float64)
    np.testing.assert_allclose(data.train_inputs.numpy(), (pixels - pixels.mean()) / pixels.std(), rtol=1e-5)
    test = raw.test_inputs.numpy().astype(np.float64)
    np.testing.assert_allclose(data.test_inputs.numpy(), (test - pixels.mean()) / pixels.std(), rtol=1e-5)


def test_files_of_the_other_spelling_are_found_and_a_plain_file_is_preferred(idx_folder):
    (idx_folder / TRAIN_LABELS).rename(idx_folder / "train-labels.idx1-ubyte")
    assert named_task("idx-mlp", folder=idx_folder).load().train_labels.tolist()[:3] == [0, 1, 2]
    (idx_folder / f"{TEST_LABELS}.gz").write_bytes(b"not read")
    assert named_task("idx-mlp", folder=idx_folder).load().test_labels.tolist()[:3] == [0, 1, 2]


def test_idx_networks_take_the_size_of_the_images_and_learn_them(idx_folder):
    perceptron = named_task("idx-mlp", folder=idx_folder, hidden=(24, 16))
    assert perceptron.input_shape == (1, 12, 12)
    assert [p.shape[0] for p in perceptron.network().parameters()] == [24, 24, 16, 16, 10, 10]
    assert perceptron.title == "images of tiny-mnist (12 x 12), perceptron 144-24-16-10"
    for task in (named_task("idx-mlp", folder=idx_folder), named_task("idx-cnn", folder=idx_folder)):
        first, last, accuracy = learns(task, steps=80, rate=0.1)
        assert last < 0.5 * first
        assert accuracy > 50.0


def test_absent_files_are_named_with_their_format_and_the_folder(tmp_path, idx_folder, monkeypatch):
    with pytest.raises(TaskError) as caught:
        named_task("idx-mlp", folder=tmp_path / "none")
    assert str(caught.value) == (
        f"no MNIST-format images in '{tmp_path / 'none'}': wanted train-images-idx3-ubyte(.gz), "
        "train-labels-idx1-ubyte(.gz), t10k-images-idx3-ubyte(.gz), t10k-labels-idx1-ubyte(.gz) "
        "(unsigned bytes in idx format, plain or gzip)"
    )
    (idx_folder / TEST_LABELS).unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TaskError) as caught:
        named_task("idx-mlp", folder="tiny-mnist")
    assert str(caught.value).startswith(
        f"no MNIST-format images in 'tiny-mnist' (in {tmp_path}): wanted t10k-labels-idx1-ubyte(.gz) ("
    )


def broken_idx(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("name", "change", "wanted"),
    [
        (TEST_IMAGES, lambda b: b[:-5], "is truncated: 20 x 12 x 12 bytes are wanted, got 2875"),
        (TEST_IMAGES, lambda b: b + b"\0", "has bytes to spare: 20 x 12 x 12 bytes are wanted, got 2881"),
        (TEST_IMAGES, lambda b: b[:9], "is truncated: 16 bytes of header are wanted, got 9"),
        (TEST_IMAGES, lambda b: b"\0\0\x0d\3" + b[4:], "must begin with 0x00000803 .*, got 0x00000d03"),
        (TEST_LABELS, lambda b: b"\0\0\x08\3" + b[4:], "must begin with 0x00000801 .*, got 0x00000803"),
        (TRAIN_IMAGES, lambda b: b[: len(b) // 2], "the gzip file is truncated"),
        (TRAIN_IMAGES, lambda b: gzip.decompress(b), "cannot be read: Not a gzipped file"),
        (TEST_LABELS, lambda b: struct.pack(">II", 0x801, 19) + b[8:-1], "got 20 and 19"),
        (TEST_LABELS, lambda b: b[:-1] + b"\x0b", "labels must be in 0..9, .* the first is 11 at index 19"),
        (TRAIN_LABELS, lambda b: struct.pack(">II", 0x801, 0), "got 60 and 0"),
    ],
)
def test_a_broken_idx_file_is_named_with_what_is_wrong(idx_folder, name, change, wanted):
    broken_idx(idx_folder, name, change)
    with pytest.raises(TaskError, match=wanted) as caught:
        named_task("idx-mlp", folder=idx_folder).load()
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_training_images_that_are_none_are_refused_before_they_are_loaded(idx_folder):
    (idx_folder / TRAIN_IMAGES).write_bytes(gzip.compress(b"\0\0\0\0 something else"))
    with pytest.raises(TaskError, match="must begin with 0x00000803 as an idx3 file, got 0x00000000"):
        named_task("idx-mlp", folder=idx_folder)
    (idx_folder / TRAIN_IMAGES).write_bytes(gzip.compress(struct.pack(">IIII", 0x803, 60, 0, 12)))
    with pytest.raises(TaskError, match="images must have pixels, got 0 x 12"):
        named_task("idx-mlp", folder=idx_folder)


def test_parts_of_different_sizes_are_refused(idx_folder):
    pixels = bytes(20 * 10 * 12)
    (idx_folder / TEST_IMAGES).write_bytes(struct.pack(">IIII", 0x803, 20, 10, 12) + pixels)
    with pytest.raises(TaskError, match=r"\(12, 12, 1\), got \(10, 12, 1\)"):
        named_task("idx-mlp", folder=idx_folder).load()


def test_pixels_that_are_all_equal_cannot_be_normalised(idx_folder):
    (idx_folder / TRAIN_IMAGES).write_bytes(
        gzip.compress(struct.pack(">IIII", 0x803, 60, 12, 12) + bytes([7]) * (60 * 144))
    )
    assert float(named_task("idx-mlp", folder=idx_folder).load().train_inputs.max()) == np.float32(7 / 255)
    with pytest.raises(TaskError, match="cannot be normalised: all pixels of a channel are equal"):
        named_task("idx-mlp", folder=idx_folder, normalise=True).load()


def test_too_many_stages_for_the_images_are_refused_before_training(idx_folder):
    with pytest.raises(
        TaskError, match=r"channels: 4 stages halve images of at least 16 x 16 .*, got 12 x 12"
    ):
        named_task("idx-cnn", folder=idx_folder, channels=[2, 2, 2, 2])


# ---------------------------------------------------------------------------------------------- npz


def test_npz_pixels_are_bytes_over_255_with_the_channels_first(npz_folder):
    data = named_task("npz-cnn", folder=npz_folder, channels=[4]).load()
    assert data.train_inputs.shape == (60, 3, 12, 12)
    with np.load(npz_folder / "train.npz") as written:
        pixel = written["images"][5, 2, 7]
    assert data.train_inputs[5, :, 2, 7].tolist() == [float(np.float32(v) / np.float32(255)) for v in pixel]
    # The first two channels were written as x and 255 - x.
    assert torch.allclose(data.test_inputs[:, 0] + data.test_inputs[:, 1], torch.ones(()))
    assert data.test_labels.tolist() == [i % 10 for i in range(20)]


def test_every_layout_of_the_same_images_gives_the_same_inputs(npz_folder, tmp_path):
    wanted = named_task("npz-cnn", folder=npz_folder, channels=[4]).load()
    with np.load(npz_folder / "train.npz") as train:
        images, labels = train["images"], train["labels"]
    np.savez_compressed(tmp_path / "nchw.npz", images=images.transpose(0, 3, 1, 2), labels=labels[:, None])
    data = named_task("npz-cnn", path=tmp_path / "nchw.npz", held_out=15, layout="nchw", channels=[4]).load()
    assert torch.equal(data.train_inputs, wanted.train_inputs[:45])
    assert torch.equal(data.test_inputs, wanted.train_inputs[45:])
    assert torch.equal(data.test_labels, wanted.train_labels[45:])
    np.savez(tmp_path / "grey.npz", images=images[..., 0] / 255.0, labels=labels.astype(np.int64))
    grey = named_task("npz-cnn", path=tmp_path / "grey.npz", held_out=15, channels=[4]).load()
    assert torch.equal(grey.train_inputs, wanted.train_inputs[:45, :1])


def test_npz_images_are_normalised_channel_by_channel(npz_folder):
    data = named_task("npz-resnet8", folder=npz_folder, normalise=True).load()
    for channel in range(3):
        pixels = data.train_inputs[:, channel].double()
        assert float(pixels.mean()) == pytest.approx(0.0, abs=1e-6)
        assert float(pixels.square().mean()) == pytest.approx(1.0, rel=1e-6)


def test_npz_networks_learn(npz_folder):
    tasks = (
        named_task("npz-cnn", folder=npz_folder, train=20, normalise=True),
        named_task("npz-resnet8", folder=npz_folder, train=20, normalise=True),
        named_task("npz-resnet8", folder=npz_folder, train=20, normalise=True, batch_norm=False),
    )
    assert [sum(p.numel() for p in task.network().parameters()) for task in tasks[1:]] == [78_186, 77_706]
    for task in tasks:
        first, last, _ = learns(task, steps=30)
        assert last < 0.7 * first


def test_a_narrower_resnet_says_its_widths(npz_folder):
    task = named_task("npz-resnet8", folder=npz_folder, batch_norm=False, widths=[2, 4])
    assert task.title.endswith("ResNet of 2-4 channels without batch norm")
    # By hand: 3 x 3 convolutions with biases, a 1 x 1 shortcut from 2 to 4 channels, 10 classes.
    first, same, wider = 2 * 27 + 2, 2 * (2 * 18 + 2), (4 * 18 + 4) + (4 * 36 + 4) + (4 * 2 + 4)
    assert sum(p.numel() for p in task.network().parameters()) == first + same + wider + (4 * 10 + 10)


def test_absent_npz_files_are_named(tmp_path, npz_folder):
    (npz_folder / "test.npz").unlink()
    with pytest.raises(
        TaskError, match=r"no image arrays in .*tiny-cifar': wanted test.npz with 'labels' \(n,\)"
    ):
        named_task("npz-cnn", folder=npz_folder)
    with pytest.raises(TaskError, match=r"none.npz' is not a file: wanted an npz file with 'labels'"):
        named_task("npz-cnn", path=tmp_path / "none.npz", held_out=2)


def npz_bytes(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy_bytes(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


IMAGES, LABELS = np.zeros((4, 12, 12, 3), np.uint8), np.arange(4)
BROKEN_NPZ = {
    "no zip": (b"something else", "is not an npz file, a zip archive of arrays, or it is truncated"),
    "empty": (b"", "is not an npz file"),
    "truncated": (
        npz_bytes(images=IMAGES, labels=LABELS)[:-60],
        "or it is truncated",
    ),
    "array": (npy_bytes(IMAGES), "is not an npz file, a zip archive of arrays"),
    "damaged": (zipped(images=npy_bytes(IMAGES)[:-9], labels=npy_bytes(LABELS)), "cannot be read as npz"),
    "objects": (
        npz_bytes(images=np.array([IMAGES, None], dtype=object), labels=LABELS),
        "cannot be read as npz: it holds Python objects, which are not read",
    ),
    "no labels": (npz_bytes(images=IMAGES), r"wanted arrays 'labels' \(n,\) and 'images' .*; got 'images'$"),
    "other keys": (npz_bytes(x=IMAGES, y=LABELS), "got 'x', 'y'$"),
    "axes": (npz_bytes(images=IMAGES[:, 0, 0], labels=LABELS), r"must be \(n, h, w\).* got axes \(4, 3\)"),
    "channels": (
        npz_bytes(images=IMAGES.transpose(0, 3, 1, 2), labels=LABELS),
        r"1 to 4 channels \(n, h, w, c\) as layout = 'nhwc' says, got axes \(4, 3, 12, 12\)",
    ),
    "integers": (
        npz_bytes(images=IMAGES.astype(np.int32), labels=LABELS),
        "must be uint8 or floating point, got int32",
    ),
    "numbers": (npz_bytes(images=IMAGES, labels=LABELS[:3]), "at least one, got 4 and 3"),
    "fractions": (npz_bytes(images=IMAGES, labels=LABELS / 2), "whole numbers with one axis, got float64"),
    "negative": (npz_bytes(images=IMAGES, labels=LABELS - 1), r"got 1 others, the first is -1 at index 0"),
}


@pytest.mark.parametrize("case", BROKEN_NPZ)
def test_a_broken_npz_file_is_named_with_what_is_wrong(npz_folder, case):
    content, wanted = BROKEN_NPZ[case]
    (npz_folder / "test.npz").write_bytes(content)
    with pytest.raises(TaskError, match=wanted) as caught:
        named_task("npz-cnn", folder=npz_folder, channels=[4]).load()
    assert str(npz_folder / "test.npz") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_pixels_that_are_not_finite_in_float32_are_refused_with_number_and_index(npz_folder, value):
    images = np.zeros((4, 12, 12, 3))
    images[2, 3, 4, 1] = images[3, 0, 0, 0] = value
    (npz_folder / "test.npz").write_bytes(npz_bytes(images=images, labels=LABELS))
    with pytest.raises(TaskError, match=r"test.npz\['images'\]: .* got 2 NaN or infinite.* \(2, 1, 3, 4\)"):
        named_task("npz-cnn", folder=npz_folder, channels=[4]).load()


def test_all_images_held_out_are_refused(npz_folder):
    with pytest.raises(TaskError, match="held_out must be below the number of its images, 60, got 60"):
        named_task("npz-cnn", path=npz_folder / "train.npz", held_out=60)


# --------------------------------------------------------------------------------------------- jpeg


def jpeg_parts(**changes):
    parts = {
        "jpeg": np.zeros(30, np.uint8),
        "offsets": np.array([0, 10, 30], np.int32),
        "labels": np.arange(2),
    }
    return npz_bytes(**parts | changes)


def test_jpeg_files_without_pillow_say_what_to_install(npz_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    (npz_folder / "train.npz").write_bytes(jpeg_parts())
    with pytest.raises(TaskError, match=r"train.npz: holds JPEG files, .* Pillow: pip install pillow"):
        named_task("npz-cnn", folder=npz_folder)


@pytest.mark.parametrize("offsets", [[0, 10, 29], [1, 10, 30], [0, 20, 10, 30], [0.0, 30.0], [0]])
def test_offsets_must_cut_the_jpeg_bytes(npz_folder, offsets):
    (npz_folder / "train.npz").write_bytes(jpeg_parts(offsets=np.array(offsets)))
    with pytest.raises(
        TaskError, match=r"train.npz\['offsets'\]: must be whole numbers that rise from 0 to 30"
    ):
        named_task("npz-cnn", folder=npz_folder)


@pytest.mark.skipif(importlib.util.find_spec("PIL") is None, reason="Pillow is not installed")
def test_jpeg_files_are_decoded_in_their_order(npz_folder):
    from PIL import Image

    files = []
    for grey in (40, 200):
        file = io.BytesIO()
        Image.new("L", (16, 12), grey).save(file, "JPEG")
        files.append(np.frombuffer(file.getvalue(), np.uint8))
    ends = [0, len(files[0]), len(files[0]) + len(files[1])]
    content = jpeg_parts(jpeg=np.concatenate(files), offsets=np.array(ends))
    for part in ("train", "test"):
        (npz_folder / f"{part}.npz").write_bytes(content)
    task = named_task("npz-cnn", folder=npz_folder, channels=[4])
    assert task.input_shape == (3, 12, 16)
    inputs = task.load().train_inputs
    assert torch.allclose(inputs[0] * 255, torch.full((3, 12, 16), 40.0), atol=1.5)
    assert torch.allclose(inputs[1] * 255, torch.full((3, 12, 16), 200.0), atol=1.5)
    (npz_folder / "train.npz").write_bytes(jpeg_parts())
    with pytest.raises(TaskError, match=r"train.npz\['jpeg'\]: image 0: is no JPEG file"):
        named_task("npz-cnn", folder=npz_folder)
