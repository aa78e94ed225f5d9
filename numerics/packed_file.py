r"""The file of a packed tensor, little-endian throughout.

======  ============================================================================
bytes   content
======  ============================================================================
0-7     ``\x93PACKED\n``
8-9     version: 1, or 2 for a block format
10, 11  bits of a code; number of axes, a
12-13   bytes of the format's text, t (0: raw codes)
14-15   zero
16-19   CRC-32 of bytes 0-15 and of all that follows
20-     a lengths of 8 bytes; t bytes of ASCII text; the bit string
        version 2: then the bit string of the scales, and the scale of the tensor, a
        float32 number, if the format has one
======  ============================================================================
"""

from __future__ import annotations

import struct
import zlib
from math import prod
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from numerics.bit_string import bytes_of
from numerics.block import BlockFormat, parse_any_format
from numerics.formats import Format

_MAGIC = b"\x93PACKED\n"
_HEAD = struct.Struct("<8sHBBHxx")  # magic, version, bits, axes, bytes of the format's text
_CHECKSUM = struct.Struct("<I")
_BODY = _HEAD.size + _CHECKSUM.size
_TENSOR_SCALE = struct.Struct("<f")


class Content(NamedTuple):
    """What a file holds; the bit string of the scales is empty without a block format."""

    bits: int
    shape: tuple[int, ...]
    format: Format | BlockFormat | None
    data: UInt8[np.ndarray, " nbytes"]
    scales: UInt8[np.ndarray, " scale_nbytes"]
    tensor_scale: float | None


def write(path: str | PathLike[str], content: Content) -> None:
    """Write a file of version 1, of version 2 for a block format."""
    version = 2 if isinstance(content.format, BlockFormat) else 1
    text = ("" if content.format is None else str(content.format)).encode("ascii")
    body = struct.pack(f"<{len(content.shape)}Q", *content.shape) + text
    body += content.data.tobytes() + content.scales.tobytes()
    if content.tensor_scale is not None:
        body += _TENSOR_SCALE.pack(content.tensor_scale)
    head = _HEAD.pack(_MAGIC, version, content.bits, len(content.shape), len(text))
    Path(path).write_bytes(head + _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(head))) + body)


def read(path: str | PathLike[str]) -> Content:
    """Read a file of version 1 or 2.

    Raises
    ------
    ValueError
        Another kind of file, another version, a truncated or damaged file.
    """
    content = Path(path).read_bytes()
    if len(content) < _BODY or not content.startswith(_MAGIC):
        raise ValueError(f"{path} is not the file of a packed tensor")
    _, version, bits, axes, text_bytes = _HEAD.unpack_from(content)
    if version not in (1, 2):
        raise ValueError(f"version of {path} must be 1 or 2, got {version}")
    (expected,) = _CHECKSUM.unpack_from(content, _HEAD.size)
    checksum = zlib.crc32(memoryview(content)[_BODY:], zlib.crc32(content[: _HEAD.size]))
    if checksum != expected:
        raise ValueError(f"{path} is truncated or damaged: CRC-32 {checksum:#010x}, not {expected:#010x}")
    begin = _BODY + 8 * axes
    shape = struct.unpack_from(f"<{axes}Q", content, _BODY)
    text = content[begin : begin + text_bytes].decode("ascii")
    fmt = parse_any_format(text) if text else None
    rest = np.frombuffer(content, np.uint8, offset=begin + text_bytes)
    if not isinstance(fmt, BlockFormat):
        return Content(bits, shape, fmt, rest, rest[:0], None)
    scales = bytes_of(prod(shape), bits)
    tensor = scales + bytes_of(prod(fmt.blocks_in(shape)), fmt.scale_bits)
    tensor_scale = None if fmt.rule == "floor" else float(_TENSOR_SCALE.unpack(rest[tensor:].tobytes())[0])
    return Content(bits, shape, fmt, rest[:scales], rest[scales:tensor], tensor_scale)
