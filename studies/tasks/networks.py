"""Networks of the built-in tasks, freshly initialised from torch's global generator.

References
----------
.. [Banbury21] C. Banbury et al., "MLPerf Tiny Benchmark", NeurIPS Datasets and Benchmarks, 2021.
.. [He15] K. He et al., "Delving Deep into Rectifiers", ICCV 2015.
.. [Radford19] A. Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
.. [Xiong20] R. Xiong et al., "On Layer Normalization in the Transformer Architecture", ICML 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import nn
from torch.nn import functional

Attention: TypeAlias = Literal["sdpa", "matmul"]


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Module:
    """Perceptron: linear layers ``fc1``, ``fc2``, ... with ReLU between them."""
    network = nn.Sequential()
    network.add_module("flatten", nn.Flatten())
    sizes = [inputs, *hidden, outputs]
    for index in range(1, len(sizes)):
        network.add_module(f"fc{index}", nn.Linear(sizes[index - 1], sizes[index]))
        if index < len(sizes) - 1:
            network.add_module(f"relu{index}", nn.ReLU())
    return network


def cnn(
    input_shape: tuple[int, int, int], channels: Sequence[int], outputs: int, *, pool: Literal["max", "mean"]
) -> nn.Module:
    """Stages of a 3 x 3 convolution, ReLU and 2 x 2 pooling, and a linear layer.

    Parameters
    ----------
    input_shape
        (channels, height, width) of an image.
    channels
        Output channels of each stage ``conv1``, ``conv2``, ...; each halves height and width.

    Raises
    ------
    ValueError
        The images are too small for so many stages.
    """
    before, height, width = input_shape
    network = nn.Sequential()
    for stage, after in enumerate(channels, start=1):
        network.add_module(f"conv{stage}", nn.Conv2d(before, after, 3, padding=1))
        network.add_module(f"relu{stage}", nn.ReLU())
        network.add_module(f"pool{stage}", nn.MaxPool2d(2) if pool == "max" else nn.AvgPool2d(2))
        before, height, width = after, height // 2, width // 2
    if not height or not width:
        raise ValueError(
            f"images must be at least {2 ** len(channels)} pixels high and wide "
            f"for {len(channels)} stages, got {input_shape[1]} x {input_shape[2]}"
        )
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc", nn.Linear(before * height * width, outputs))
    return network


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut: the identity, or 1 x 1 where the shape changes."""

    def __init__(self, before: int, after: int, *, batch_norm: bool) -> None:
        super().__init__()
        stride = 1 if before == after else 2
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1)
        self.norm1 = nn.BatchNorm2d(after) if batch_norm else nn.Identity()
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(after) if batch_norm else nn.Identity()
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(before, after, 1, stride=stride)
        self.relu2 = nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, before, h, w) to (n, after, h / stride, w / stride)."""
        branch = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(images)))))
        y: torch.Tensor = self.relu2(branch + self.shortcut(images))
        return y


def resnet8(channels: int, outputs: int, *, batch_norm: bool, widths: Sequence[int]) -> nn.Module:
    """ResNet-8 of MLPerf Tiny [Banbury21]_: 78,186 parameters for 3 channels, 10 classes, 16, 32, 64.

    Its convolutions have biases, as there; their zero padding is that of PyTorch (one pixel on each side),
    not TensorFlow's. Without batch norm, weights are drawn after [He15]_, and the last convolution of each
    of the L blocks is divided by sqrt(L): residual branches that add up neither explode nor vanish.

    Parameters
    ----------
    channels
        Of the images.
    widths
        Channels of the blocks ``block1``, ``block2``, ...; a block with another width than the one before
        halves height and width.
    """
    network = nn.Sequential()
    network.add_module("conv1", nn.Conv2d(channels, widths[0], 3, padding=1))
    network.add_module("norm1", nn.BatchNorm2d(widths[0]) if batch_norm else nn.Identity())
    network.add_module("relu1", nn.ReLU())
    before = widths[0]
    for index, after in enumerate(widths, start=1):
        network.add_module(f"block{index}", ResidualBlock(before, after, batch_norm=batch_norm))
        before = after
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc", nn.Linear(before, outputs))
    if not batch_norm:
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                if name.endswith(".conv2"):
                    with torch.no_grad():
                        module.weight /= math.sqrt(len(widths))
    return network


class CausalAttention(nn.Module):
    """Self-attention in which a position sees itself and what comes before it."""

    hidden: torch.Tensor

    def __init__(self, context: int, width: int, heads: int, *, attention: Attention) -> None:
        super().__init__()
        self.heads, self.attention = heads, attention
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        later = torch.ones(context, context, dtype=torch.bool).triu(1)
        self.register_buffer("hidden", later, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, length, width) to the same."""
        n, length, width = x.shape
        query, key, value = (
            layer(x).reshape(n, length, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        if self.attention == "sdpa":
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            scores = torch.matmul(query, key.transpose(-2, -1)) / math.sqrt(width // self.heads)
            scores = scores.masked_fill(self.hidden[:length, :length], -math.inf)
            mixed = torch.matmul(functional.softmax(scores, dim=-1), value)
        y: torch.Tensor = self.output(mixed.transpose(1, 2).reshape(n, length, width))
        return y


class TransformerBlock(nn.Module):
    """Attention and a perceptron, each behind a layer norm and beside the identity [Xiong20]_."""

    def __init__(self, context: int, width: int, heads: int, *, attention: Attention) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = CausalAttention(context, width, heads, attention=attention)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, length, width) to the same."""
        x = x + self.attention(self.norm1(x))
        y: torch.Tensor = x + self.down(self.gelu(self.up(self.norm2(x))))
        return y


class Transformer(nn.Module):
    """Predicts the next symbol at every position, from those up to it.

    Initialised after [Radford19]_: weights of standard deviation 0.02, those that end a residual branch
    divided by the square root of the number of branches; biases zero.

    Parameters
    ----------
    vocabulary, context
        Number of symbols, and the longest sequence.
    width, layers, heads
        Of the residual stream; blocks; attention heads, which must divide the width.
    attention
        Written with torch's ``scaled_dot_product_attention``, or as two matrix products and a softmax.
    """

    positions: torch.Tensor

    def __init__(
        self, vocabulary: int, *, context: int, width: int, layers: int, heads: int, attention: Attention
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide the width {width}, got {heads}")
        self.symbol = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.Sequential(
            *(TransformerBlock(context, width, heads, attention=attention) for _ in range(layers))
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)
        self.register_buffer("positions", torch.arange(context), persistent=False)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                last = name.endswith((".output", ".down"))
                nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * layers) if last else 0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, symbols: torch.Tensor) -> torch.Tensor:
        """Symbols (n, length) int64 to logits (n, length, vocabulary)."""
        x = self.symbol(symbols) + self.position(self.positions[: symbols.shape[1]])
        y: torch.Tensor = self.head(self.norm(self.blocks(x)))
        return y
