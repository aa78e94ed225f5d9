"""How far off are weight gradients of a trained network that are summed in narrow registers.

    python benchmarks/bench_gradient_sums.py [--data FOLDER] [--images 16] [--batches 8]

The ResNet-8 of MLPerf Tiny with its trained weights, and the first CIFAR-10 images: gradients of the kernels
of the three convolutions on 32 x 32 pixels, sums of 1024 products per image. Operands are rounded to e5m2
(errors after a loss scale of 2**13); sums in (1,6,m), nearest and stochastic, plain and in chunks of 64, are
compared with float64 sums of the same operands: root of the mean squared error over that of the gradient, the
median over the batches and its range.

It needs `mlperf-tiny-weights/resnet8_cifar10.npz` (arrays ``layer/array`` of the Keras model) and
`cifar10-lossless-1k/first1000.npz` (``images``, ``labels``) in the folder, and says so where they are absent.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from numerics import cast
from numerics.convolution import Geometry, convolve_weight_gradient

LOSS_SCALE = 2.0**13
LAYERS = ("conv2d", "conv2d_1", "conv2d_2")
GEOMETRY = Geometry((3, 3), padding=(1, 1))


class Resnet8:
    """The network in evaluation mode; keeps input and output of every convolution."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = {name: torch.from_numpy(value) for name, value in arrays.items()}
        self.seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self.norms = 0

    def convolution(self, x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        """Convolution with the padding of Keras."""
        kernel = self.arrays[f"{name}/kernel"].permute(3, 2, 0, 1)  # from rows, columns, in, out
        size = kernel.shape[2]
        total = max(size - stride, 0)  # "same" padding of Keras: the odd zero comes last
        padded = functional.pad(x, [total // 2, total - total // 2] * 2)
        y = functional.conv2d(padded, kernel, self.arrays[f"{name}/bias"], stride)
        y.requires_grad_().retain_grad()
        self.seen[name] = x, y
        return y

    def norm(self, x: torch.Tensor, number: int) -> torch.Tensor:
        """Normalisation by the statistics of training."""
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        mean, variance, gamma, beta = (
            self.arrays[f"{name}/{part}"] for part in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        return functional.batch_norm(x, mean, variance, gamma, beta, eps=1e-3)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of images (n, 3, 32, 32) with pixels in 0..255."""
        x = torch.relu(self.norm(self.convolution(x, "conv2d"), 0))
        for first, second, shortcut, stride in ((1, 2, None, 1), (3, 4, 5, 2), (6, 7, 8, 2)):
            norm = first if first < 6 else first - 1  # shortcuts have no normalisation
            y = torch.relu(self.norm(self.convolution(x, f"conv2d_{first}", stride), norm))
            y = self.norm(self.convolution(y, f"conv2d_{second}"), norm + 1)
            x = torch.relu(y + (x if shortcut is None else self.convolution(x, f"conv2d_{shortcut}", stride)))
        features = x.mean((2, 3))
        return features @ self.arrays["dense/kernel"] + self.arrays["dense/bias"]


def relative_error(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.sqrt(((found - exact) ** 2).mean() / (exact**2).mean()))


def exact_gradient(errors: np.ndarray, images: np.ndarray) -> np.ndarray:
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns = errors.shape[2:]
    windows = [padded[:, :, i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    stacked = np.stack([np.einsum("nohw,nchw->oc", errors.astype(np.float64), w) for w in windows], -1)
    return stacked.reshape(errors.shape[1], images.shape[1], 3, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batches", type=int, default=8)
    options = parser.parse_args()
    weights = options.data / "mlperf-tiny-weights" / "resnet8_cifar10.npz"
    pictures = options.data / "cifar10-lossless-1k" / "first1000.npz"
    if missing := [path for path in (weights, pictures) if not path.is_file()]:
        sys.exit(f"nothing is measured: {missing[0]} is absent (--data FOLDER)")
    network = Resnet8(dict(np.load(weights)))
    with np.load(pictures) as archive:
        images, labels = archive["images"], torch.from_numpy(archive["labels"].astype(np.int64))
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
    with torch.no_grad():
        right = sum(
            int((network(x).argmax(1) == y).sum())
            for x, y in zip(inputs.split(100), labels.split(100), strict=True)
        )
    print(f"the network is right on {right} of the {len(labels)} images")
    accumulators = [
        f"e6m{bits}{chunk}{rounding}"
        for rounding in ("", " rounding=stochastic")
        for bits in (9, 6)
        for chunk in ("", " chunk=64")
    ]
    errors: dict[tuple[str, str], list[float]] = {}
    for start in range(0, options.batches * options.images, options.images):
        batch = slice(start, start + options.images)
        loss = functional.cross_entropy(network(inputs[batch]), labels[batch])
        (loss * LOSS_SCALE).backward()
        for name in LAYERS:
            x, y = network.seen[name]
            assert y.grad is not None
            pair = [
                cast(part.detach().contiguous().numpy(), "e5m2", overflow="saturate") for part in (y.grad, x)
            ]
            exact = exact_gradient(*pair)
            for accumulator in accumulators:
                found = convolve_weight_gradient(*pair, GEOMETRY, accumulator, seed=start)
                errors.setdefault((accumulator, name), []).append(100 * relative_error(found, exact))
    print(f"\nrelative error of weight gradients in percent, sums of {options.images * 1024} products\n")
    width = max(map(len, accumulators))
    print(f"{'accumulator':<{width}} " + " ".join(f"{name:>20}" for name in LAYERS))
    for accumulator in accumulators:
        cells = [errors[accumulator, name] for name in LAYERS]
        texts = [f"{np.median(cell):.2f} ({min(cell):.2f}..{max(cell):.2f})" for cell in cells]
        print(f"{accumulator:<{width}} " + " ".join(f"{text:>20}" for text in texts))


if __name__ == "__main__":
    main()
