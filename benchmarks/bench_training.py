"""What a bit-true training step costs, as multiples of PyTorch's float32 step, all in one run and one thread.

    python benchmarks/bench_training.py [--repeats 15] [--memory]

Benchmarks c1 and c2: a step of two small CNNs with operands, errors and weight gradients in e5m2 and every
addition of all three products rounded to (1,6,9); and a small character transformer under the same
numerics, attention included. Columns:

* step / float32: process time of the emulated step over that of the same step in plain PyTorch, medians of
  interleaved repetitions; forward, backward and update (SGD with momentum, in float32 in both).
* GMAC/s: multiply-accumulates of the three products per second of the whole emulated step; in kernels: per
  second of the kernels that sum them. Those of a convolution gather the windows as well, those of a stack
  of products pack them.
* kernels, own, rest: shares of the emulated step: inside these kernels; in the rest of the emulation
  (rounding of operands, biases, packing, Python); and what PyTorch needs for everything that is no
  product (activations, pooling, normalisation, loss, update), measured as the float32 step with every product
  replaced by an allocation.
* of emulation: share of the kernels in the emulation alone, kernels / (kernels + own).
* statistics: what `Statistics` with its defaults adds to the emulated step, on average over their period.

``--memory`` measures the peak memory of a step in fresh processes instead: the growth of the resident set
above that of the model and its input, as a multiple of plain PyTorch's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn
from torch.nn import functional

from numerics import threads
from numerics._kernels import batches, tiles, windows
from numerics.torch import LayerPolicy, Statistics, emulate

NUMERICS = LayerPolicy.uniform("e5m2", "e6m9", weight_gradient="e5m2")
_KERNELS = {
    tiles: ("gemm", "gemm_checked"),
    batches: ("gemm_batch",),
    windows: ("convolve", "weight_gradient"),
}
CASES = ("c1", "c2", "transformer")


def stages(channels: list[int], size: int, classes: int = 10) -> nn.Sequential:
    """Convolutions 3 x 3 with ReLU and average pooling by 2, and a linear layer."""
    layers: list[nn.Module] = []
    for inner, outer in pairwise(channels):
        layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)]
        size //= 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * size * size, classes))


class Block(nn.Module):
    """A pre-normalised transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, length, width)."""
        batch, length, width = x.shape
        parts = self.qkv(self.norm1(x)).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Characters to logits of the next character."""

    def __init__(self, vocabulary: int = 65, context: int = 64, width: int = 64, blocks: int = 2) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, 4) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (batch, length, vocabulary) of character numbers (batch, length)."""
        return self.head(self.norm(self.blocks(self.tokens(x) + self.places(torch.arange(x.shape[1])))))


def case(name: str, scale: int = 1) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Network, a batch of inputs and their labels; `scale` multiplies the batch."""
    torch.manual_seed(0)
    if name == "transformer":
        return Transformer(), *torch.randint(0, 65, (2, 16 * scale, 64))
    channels, size, batch = ([1, 8, 16], 28, 32) if name == "c1" else ([3, 16, 32, 64], 32, 64)
    inputs = torch.randn(batch * scale, channels[0], size, size)
    return stages(channels, size), inputs, torch.randint(0, 10, (batch * scale,))


def stepper(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    sgd = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        sgd.zero_grad()
        outputs = network(inputs)
        functional.cross_entropy(outputs.flatten(0, -2), labels.flatten()).backward()
        sgd.step()

    return step


class Hollow(torch.autograd.Function):
    """Stands for a product: tensors of the right shapes and no arithmetic."""

    @staticmethod
    def forward(ctx: Any, shape: tuple[int, ...], *tensors: torch.Tensor) -> torch.Tensor:
        """Zeros of `shape`."""
        ctx.save_for_backward(*tensors)
        return torch.zeros(shape)

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Zeros in the shapes of the operands."""
        return None, *(torch.zeros_like(x) if x.is_floating_point() else None for x in ctx.saved_tensors)


class WithoutProducts(torch.overrides.TorchFunctionMode):
    """Every product of the float32 network becomes an allocation: what is left is the rest of the step."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.linear:
            return Hollow.apply((*args[0].shape[:-1], args[1].shape[0]), *(x for x in args if x is not None))
        if func is functional.conv2d:
            return Hollow.apply(
                (len(args[0]), len(args[1]), *args[0].shape[2:]), *(x for x in args[:3] if x is not None)
            )
        if func is functional.scaled_dot_product_attention:
            return Hollow.apply(args[0].shape, *args[:3])
        return func(*args, **kwargs)


def multiply_accumulates(network: nn.Module, inputs: torch.Tensor) -> int:
    """Of the three products of every layer of a step."""
    total = 0
    first = True

    def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal total, first
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        places = output.numel() // weight.shape[0]
        products = 2 if first and isinstance(module, nn.Conv2d) else 3  # no gradient of the images
        first = False
        total += products * weight.numel() * places

    handles = [
        m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    network(inputs)
    for handle in handles:
        handle.remove()
    for module in network.modules():
        if isinstance(module, Block):  # two products, each with two gradients
            total += 6 * inputs.numel() * inputs.shape[1] * module.out.in_features
    return total


class KernelTime:
    """Time spent in the GEMM kernels."""

    def __init__(self) -> None:
        self.seconds = 0.0
        for module, names in _KERNELS.items():
            for name in names:
                setattr(module, name, self._timed(getattr(module, name)))

    def _timed(self, kernel: Callable[..., object]) -> Callable[..., object]:
        def timed(*arguments: object) -> object:
            start = time.process_time()
            try:
                return kernel(*arguments)
            finally:
                self.seconds += time.process_time() - start

        return timed


def seconds_of(step: Callable[[], None]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def cost_of_statistics(name: str, repeats: int) -> float:
    """Share that statistics add to a step, over whole periods in turns with as many plain steps."""
    _, inputs, labels = case(name)
    with Statistics() as statistics_of:
        watched = stepper(emulate(case(name)[0], NUMERICS, seed=0, statistics=statistics_of), inputs, labels)
        plain = stepper(emulate(case(name)[0], NUMERICS, seed=0), inputs, labels)
        spent = {"watched": 0.0, "plain": 0.0}
        for period in range(1 + max(2, repeats // 3)):
            for _ in range(statistics_of.every):
                for kind, step in (("watched", watched), ("plain", plain)):
                    seconds = seconds_of(step)
                    spent[kind] += seconds if period else 0.0  # the first one compiles
                start = time.process_time()
                statistics_of.step()
                spent["watched"] += (time.process_time() - start) if period else 0.0
    return spent["watched"] / spent["plain"] - 1.0


def measure(name: str, repeats: int, kernels: KernelTime) -> None:
    network, inputs, labels = case(name)
    plain = stepper(network, inputs, labels)
    emulated = stepper(emulate(network, NUMERICS, seed=0), inputs, labels)
    rest_of = stepper(case(name)[0], inputs, labels)

    def rest() -> None:
        with WithoutProducts():
            rest_of()

    for step in (plain, emulated, rest):
        for _ in range(3):
            step()
    times: dict[str, list[float]] = {"plain": [], "emulated": [], "rest": [], "kernels": []}
    for _ in range(repeats):
        times["plain"].append(seconds_of(plain))
        kernels.seconds = 0.0
        times["emulated"].append(seconds_of(emulated))
        times["kernels"].append(kernels.seconds)
        times["rest"].append(seconds_of(rest))
    middle = {key: statistics.median(values) for key, values in times.items()}
    work = multiply_accumulates(network, inputs)
    step_time, kernel_time = middle["emulated"], middle["kernels"]
    own = max(step_time - kernel_time - middle["rest"], 0.0)
    print(
        f"{name:<12} {step_time / middle['plain']:>15.2f} {work / step_time / 1e9:>8.2f} "
        f"{work / kernel_time / 1e9:>12.2f} {kernel_time / step_time:>8.2f} {own / step_time:>6.2f} "
        f"{middle['rest'] / step_time:>6.2f} {kernel_time / (kernel_time + own):>14.2f} "
        f"{cost_of_statistics(name, repeats):>11.1%}"
    )


def peak_of(name: str, kind: str) -> None:
    """Print how much the resident set grows in a step (child process)."""
    network, inputs, labels = case(name, scale=8)
    warm_inputs, warm_labels = inputs[:4], labels[:4]
    if kind == "emulated":
        emulate(network, NUMERICS, seed=0, inplace=True)
    step = stepper(network, inputs, labels)
    stepper(network, warm_inputs, warm_labels)()
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    before = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    step()
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))


def memory() -> None:
    print(f"{'case':<12} {'plain, MB':>10} {'emulated, MB':>13} {'ratio':>6}")
    for name in CASES:
        peaks = []
        for kind in ("plain", "emulated"):
            command = [sys.executable, __file__, "--peak", name, kind]
            found = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(json.loads(found.stdout) / 1024)
        print(f"{name:<12} {peaks[0]:>10.0f} {peaks[1]:>13.0f} {peaks[1] / peaks[0]:>6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    threads.limit(1)
    if options.peak:
        peak_of(*options.peak)
        return
    if options.memory:
        memory()
        return
    kernels = KernelTime()
    print(
        f"{'case':<12} {'step / float32':>15} {'GMAC/s':>8} {'in kernels':>12} {'kernels':>8} {'own':>6} "
        f"{'rest':>6} {'of emulation':>14} {'statistics':>11}"
    )
    for name in CASES:
        measure(name, options.repeats, kernels)


if __name__ == "__main__":
    main()
