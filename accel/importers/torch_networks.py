"""Well-known networks as PyTorch modules, with the layer names of their public versions.

Only what bears on shapes is kept: no initialisation.

A transformer that decodes is given, after its tokens, the keys and values of the positions before them, for
each block ``(batch, heads, context, size)``. The new tokens meet this cache and one another in products of
their own, so that the cache is read once and never copied; their own keys and values are results too, which
whoever runs the network adds to the cache.

References
----------
.. [Banbury21] C. Banbury et al., "MLPerf Tiny Benchmark", NeurIPS Datasets and Benchmarks 2021,
   arXiv 2106.07597.
.. [Dosovitskiy21] A. Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image
   Recognition at Scale", ICLR 2021, arXiv 2010.11929.
.. [He16] K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385.
.. [Sandler18] M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
   arXiv 1801.04381.
.. [Touvron21] H. Touvron et al., "Training data-efficient image transformers & distillation through
   attention", ICML 2021, arXiv 2012.12877.
.. [Radford19] A. Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
.. [Su21] J. Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021,
   arXiv 2104.09864.
.. [Llama3] Llama Team, "The Llama 3 Herd of Models", 2024, arXiv 2407.21783.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know
from torch import Tensor, nn


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """Module whose weights have a shape and no memory."""
    with torch.device("meta"):
        return make()


def example(shape: tuple[int, ...], dtype: str) -> Tensor:
    """Example input without memory."""
    return torch.empty(shape, dtype=getattr(torch, dtype), device="meta")


def digits_cnn() -> nn.Module:
    """Two 3 x 3 convolutions with ReLU and pooling, and a linear layer, for digits of 8 x 8 pixels."""
    return _named(
        ("conv1", nn.Conv2d(1, 8, 3, padding=1)),
        ("relu1", nn.ReLU()),
        ("pool1", nn.MaxPool2d(2)),
        ("conv2", nn.Conv2d(8, 16, 3, padding=1)),
        ("relu2", nn.ReLU()),
        ("pool2", nn.MaxPool2d(2)),
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(64, 10)),
    )


def resnet8() -> nn.Module:
    """ResNet-8 for CIFAR-10 of MLPerf Tiny [Banbury21]_: convolutions with biases, bare shortcuts."""
    return _named(
        ("conv1", nn.Conv2d(3, 16, 3, 1, 1)),
        ("bn1", nn.BatchNorm2d(16)),
        ("relu", nn.ReLU()),
        *(
            (f"layer{stage}", _Residual(width // 2 if stage > 1 else width, width, min(stage, 2), bare=True))
            for stage, width in enumerate((16, 32, 64), 1)
        ),
        ("avgpool", nn.AvgPool2d(8)),
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(64, 10)),
    )


def resnet18() -> nn.Module:
    """ResNet-18 for ImageNet [He16]_."""
    return _named(
        ("conv1", nn.Conv2d(3, 64, 7, 2, 3, bias=False)),
        ("bn1", nn.BatchNorm2d(64)),
        ("relu", nn.ReLU()),
        ("maxpool", nn.MaxPool2d(3, 2, 1)),
        *(
            (
                f"layer{stage}",
                nn.Sequential(
                    _Residual(width // 2 if stage > 1 else width, width, 2 if stage > 1 else 1),
                    _Residual(width, width, 1),
                ),
            )
            for stage, width in enumerate((64, 128, 256, 512), 1)
        ),
        ("avgpool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(512, 1000)),
    )


def resnet20() -> nn.Module:
    """ResNet-20 for CIFAR-10, whose shortcuts are padded with zeros [He16]_."""
    stages = []
    for stage, width in enumerate((16, 32, 64), 1):
        first = (width // 2, width, 2) if stage > 1 else (width, width, 1)
        blocks = (_Residual(*sizes, projected=False) for sizes in (first, *[(width, width, 1)] * 2))
        stages.append((f"layer{stage}", nn.Sequential(*blocks)))
    return _named(
        ("conv1", nn.Conv2d(3, 16, 3, 1, 1, bias=False)),
        ("bn1", nn.BatchNorm2d(16)),
        ("relu", nn.ReLU()),
        *stages,
        ("avgpool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(64, 10)),
    )


class _Residual(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut.

    The shortcut of a `bare` one is a convolution without normalisation, and all have biases.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, projected: bool = True, bare: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bare)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=bare)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 and bare:
            self.downsample = nn.Conv2d(inputs, outputs, 1, stride)
        elif stride > 1:
            self.downsample = (
                nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
                if projected
                else _PaddedShortcut(stride, outputs - inputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, h, w) to (batch, outputs, h / stride, w / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class _PaddedShortcut(nn.Module):
    """Every `stride`-th pixel, and `channels` of zeros more."""

    def __init__(self, stride: int, channels: int) -> None:
        super().__init__()
        self.stride, self.channels = stride, channels

    def forward(self, x: Tensor) -> Tensor:
        """(batch, c, h, w) to (batch, c + channels, h / stride, w / stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.channels))


def resnet50() -> nn.Module:
    """ResNet-50 for ImageNet [He16]_, with the stride in the 3 x 3 convolutions as in torchvision."""
    stages = []
    inputs = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        parts = []
        for block in range(blocks):
            parts.append(_Bottleneck(inputs, width, 1 if stage == 1 or block else 2))
            inputs = 4 * width
        stages.append((f"layer{stage}", nn.Sequential(*parts)))
    return _named(
        ("conv1", nn.Conv2d(3, 64, 7, 2, 3, bias=False)),
        ("bn1", nn.BatchNorm2d(64)),
        ("relu", nn.ReLU()),
        ("maxpool", nn.MaxPool2d(3, 2, 1)),
        *stages,
        ("avgpool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(2048, 1000)),
    )


class _Bottleneck(nn.Module):
    """A 3 x 3 convolution between two of 1 x 1 beside a shortcut; the last has four times the `width`."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: nn.Module = nn.Identity()
        if inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, h, w) to (batch, 4 width, h / stride, w / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def mobilenetv2() -> nn.Module:
    """MobileNetV2 of width 1 for ImageNet [Sandler18]_."""
    features: list[nn.Module] = [_conv_bn_relu6(3, 32, 3, stride=2)]
    inputs = 32
    for expansion, width, blocks, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for block in range(blocks):
            features.append(_InvertedResidual(inputs, width, expansion, 1 if block else stride))
            inputs = width
    features.append(_conv_bn_relu6(320, 1280, 1))
    return _named(
        ("features", nn.Sequential(*features)),
        ("avgpool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("classifier", nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))),
    )


class _InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and linear bottleneck."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([_conv_bn_relu6(inputs, hidden, 1)] if expansion > 1 else []),
            _conv_bn_relu6(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, h, w) to (batch, outputs, h / stride, w / stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


def _conv_bn_relu6(inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


class VisionTransformer(nn.Module):
    """DeiT-Ti of [Touvron21]_ without distillation: ViT with patches of 16 x 16 pixels."""

    def __init__(self, width: int = 192, heads: int = 3, depth: int = 12, classes: int = 1000) -> None:
        super().__init__()
        self.patch_embed = _named(("proj", nn.Conv2d(3, width, 16, 16)))
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + 14 * 14, width))
        self.blocks = nn.Sequential(
            *(_Block(width, heads, ("norm1", "norm2", "qkv", "proj", "fc1", "fc2")) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, 3, 224, 224)."""
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.cls_token.expand(len(images), -1, -1), patches), 1) + self.pos_embed
        logits: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits


def vit_block() -> nn.Module:
    """One block of ViT-B/16 [Dosovitskiy21]_."""
    return _Block(768, 12, ("norm1", "norm2", "qkv", "proj", "fc1", "fc2"))


def gpt2_block() -> nn.Module:
    """One block of GPT-2 small [Radford19]_."""
    return _Block(768, 12, _GPT2_NAMES, causal=True)


_GPT2_NAMES = ("ln_1", "ln_2", "c_attn", "c_proj", "c_fc", "c_proj")


class GPT2(nn.Module):
    """GPT-2 small [Radford19]_; its last layer is the transposed embedding."""

    def __init__(self, width: int = 768, heads: int = 12, depth: int = 12, words: int = 50257) -> None:
        super().__init__()
        self.wte = nn.Embedding(words, width)
        self.wpe = nn.Embedding(1024, width)
        self.h = nn.ModuleList(_Block(width, heads, _GPT2_NAMES, causal=True) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, words, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor, *past: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits (batch, positions, words) of tokens (batch, positions), and what goes into the cache.

        `past` are the keys and the values of every block.
        """
        first = past[0].shape[-2] if past else 0
        positions = torch.arange(first, first + tokens.shape[1], device=tokens.device)
        x = self.wte(tokens) + self.wpe(positions)
        added: list[Tensor] = []
        for place, block in enumerate(self.h):
            if past:
                x, *made = block(x, *past[2 * place : 2 * place + 2])
                added += made
            else:
                x = block(x)
        logits: Tensor = self.lm_head(self.ln_f(x))
        return (logits, *added) if past else logits


class _Block(nn.Module):
    """Transformer block with normalisation first.

    `names` are those of two normalisations, two layers of the attention and two of the perceptron.
    """

    def __init__(self, width: int, heads: int, names: tuple[str, ...], *, causal: bool = False) -> None:
        super().__init__()
        self.norms = names[:2]
        for name in self.norms:
            self.add_module(name, nn.LayerNorm(width))
        self.attn = _Attention(width, heads, names[2:4], causal=causal)
        self.mlp = _named(
            (names[4], nn.Linear(width, 4 * width)),
            ("act", nn.GELU()),
            (names[5], nn.Linear(4 * width, width)),
        )

    def forward(self, x: Tensor, *past: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(batch, positions, width) to the same, and the new keys and values if there are `past` ones."""
        before, between = (self.get_submodule(name) for name in self.norms)
        y, *added = self.attn(before(x), *past)
        x = x + y
        x = x + self.mlp(between(x))
        return (x, *added) if past else x


class _Attention(nn.Module):
    """Self-attention with one layer for queries, keys and values."""

    def __init__(self, width: int, heads: int, names: tuple[str, ...], *, causal: bool) -> None:
        super().__init__()
        self.heads, self.names, self.causal = heads, names, causal
        self.add_module(names[0], nn.Linear(width, 3 * width))
        self.add_module(names[1], nn.Linear(width, width))

    def forward(self, x: Tensor, *past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, positions, width) to the same, keys and values (batch, heads, positions, size)."""
        first, last = (self.get_submodule(name) for name in self.names)
        q, k, v = first(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if past:
            y = _cached_attention(q, k, v, *past)
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return last(y.transpose(1, 2).flatten(2)), k, v


class LlamaBlock(nn.Module):
    """One block of Llama 3 8B [Llama3]_, where four heads share a key and a value."""

    def __init__(self, width: int = 4096, heads: int = 32, shared: int = 8, hidden: int = 14336) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(width)
        self.self_attn = _GroupedAttention(width, heads, shared)
        self.post_attention_layernorm = nn.RMSNorm(width)
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(width, hidden, bias=False),
                "up_proj": nn.Linear(width, hidden, bias=False),
                "down_proj": nn.Linear(hidden, width, bias=False),
            }
        )

    def forward(self, x: Tensor, *past: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(batch, positions, width) to the same, and the new keys and values if there are `past` ones."""
        y, *added = self.self_attn(self.input_layernorm(x), *past)
        x = x + y
        y = self.post_attention_layernorm(x)
        x = x + self.mlp["down_proj"](F.silu(self.mlp["gate_proj"](y)) * self.mlp["up_proj"](y))
        return (x, *added) if past else x


class _GroupedAttention(nn.Module):
    """Causal self-attention in which several heads share a key and a value, with rotated positions."""

    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.size = width // heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, shared * self.size, bias=False)
        self.v_proj = nn.Linear(width, shared * self.size, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, *past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, positions, width) to the same, keys and values (batch, heads, positions, size)."""
        q, k, v = (
            project(x).unflatten(-1, (-1, self.size)) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        first = past[0].shape[-2] if past else 0
        positions = torch.arange(first, first + x.shape[1], device=x.device)
        q, k, v = (
            _rotated(q, positions).transpose(1, 2),
            _rotated(k, positions).transpose(1, 2),
            v.transpose(1, 2),
        )
        if past:
            y = _cached_attention(q, k, v, *past)
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(y.transpose(1, 2).flatten(2)), k, v


def _rotated(x: Tensor, positions: Tensor, *, base: float = 500_000.0) -> Tensor:
    """Rotary embedding [Su21]_ of (batch, positions, heads, size): pairs turned as complex numbers."""
    pairs = x.shape[-1] // 2
    speeds = base ** (torch.arange(pairs, device=x.device) / -pairs)
    angles = positions[:, None, None] * speeds
    turns = torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(torch.view_as_complex(x.view(*x.shape[:-1], pairs, 2)) * turns).flatten(-2)


def _cached_attention(q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor) -> Tensor:
    """Causal attention of new tokens to cached positions and to themselves.

    Queries are (batch, heads, positions, size); keys and values have as many heads or fewer.
    """
    context = past_k.shape[-2]
    q = q.view(q.shape[0], k.shape[1], -1, *q.shape[-2:]) * q.shape[-1] ** -0.5
    among = torch.einsum("bsgtd,bsud->bsgtu", q, k)
    if k.shape[-2] > 1:
        later = torch.ones(k.shape[-2], k.shape[-2], dtype=torch.bool, device=k.device).triu(1)
        among = among.masked_fill(later, float("-inf"))
    scores = torch.cat((torch.einsum("bsgtd,bsud->bsgtu", q, past_k), among), -1)
    weights = scores.softmax(-1)
    y = torch.einsum("bsgtu,bsud->bsgtd", weights[..., :context], past_v)
    y = y + torch.einsum("bsgtu,bsud->bsgtd", weights[..., context:], v)
    return y.flatten(1, 2)


def _named(*parts: tuple[str, nn.Module]) -> nn.Sequential:
    network = nn.Sequential()
    for name, part in parts:
        network.add_module(name, part)
    return network
