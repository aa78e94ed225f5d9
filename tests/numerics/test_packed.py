"""Packed tensors against one big Python integer, in which code i stands at bit ``i * n``."""

import os
import pickle
import random
import struct
import subprocess
import sys
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import numerics
from numerics import FixedFormat, FloatFormat, cast, parse_format
from numerics.codes import decode, encode
from numerics.packed import PackedTensor

WIDTHS = range(1, 17)
LENGTHS = (0, 1, 7, 8, 9, 63, 64, 65, 1000)
NAMES = """
e2m1 e3m0fn e2m3 e3m2 e4m3fn e5m2 hfp8 e4m3ieee e5m2-flush e2m2 e3m4 e4m4 e5m4 e5m5 e6m5 e5m7 e6m7 e6m8
e6m9 fp16 bf16 ue8m0fn ue4m4 s0.0 u0.1 s1.1 s3.4 int8 u4.5 s7.8 u0.16
e4m3fnuz e5m2fnuz binary8p3 binary8p4 dlfloat16 e3m3fused-top e4m6p3109 s3.4-wrap int4 s15.0
"""
FORMATS = NAMES.split()


def random_codes(length, bits, seed=0):
    draw = random.Random(f"{length} {bits} {seed}")
    codes = [draw.getrandbits(bits) for _ in range(length)]
    if codes:
        codes[draw.randrange(length)] = (1 << bits) - 1
    return codes


def big_integer_bytes(codes, bits):
    number = sum(code << (i * bits) for i, code in enumerate(codes))
    return number.to_bytes(-(-len(codes) * bits // 8), "little")


def array(codes, bits):
    return np.array(codes, np.uint8 if bits <= 8 else np.uint16)


def tensor(length, bits, seed=0):
    return PackedTensor.from_codes(array(random_codes(length, bits, seed), bits), bits)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("length", LENGTHS)
def test_the_buffer_is_the_big_integer_and_gives_the_codes_back(bits, length):
    codes = random_codes(length, bits)
    packed = PackedTensor.from_codes(array(codes, bits), bits)
    assert packed.data.tobytes() == big_integer_bytes(codes, bits)
    assert packed.nbytes == len(packed.data) == -(-length * bits // 8)
    assert packed.codes().tolist() == codes
    assert packed.codes().dtype == (np.uint8 if bits <= 8 else np.uint16)


@pytest.mark.parametrize("bits", WIDTHS)
def test_every_short_length_packs_and_unpacks(bits):
    for length in range(40):
        codes = random_codes(length, bits, seed=1)
        packed = PackedTensor.from_codes(array(codes, bits), bits)
        assert packed.data.tobytes() == big_integer_bytes(codes, bits)
        assert packed.codes().tolist() == codes


def test_the_layout_is_the_documented_one():
    packed = PackedTensor.from_codes(np.array([0b100, 0b110, 0b011, 0b101], np.uint8), 3)
    assert [f"{byte:08b}" for byte in packed.data] == ["11110100", "00001010"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, ">u2"])
@pytest.mark.parametrize("bits", [3, 8])
def test_unsigned_codes_of_any_dtype_and_stride_are_packed_in_c_order(dtype, bits):
    codes = np.array(random_codes(60, bits)).reshape(5, 12).astype(dtype)
    for view in (codes, codes.T, codes[::2, ::-3]):
        packed = PackedTensor.from_codes(view, bits)
        assert packed.shape == view.shape
        assert packed.data.tobytes() == big_integer_bytes(view.reshape(-1).tolist(), bits)
        np.testing.assert_array_equal(packed.codes(), view)


def test_a_scalar_and_an_empty_tensor_keep_their_shapes():
    scalar = PackedTensor.from_codes(np.array(5, np.uint8), 5)
    assert (scalar.shape, scalar.nbytes, scalar.codes()[()]) == ((), 1, 5)
    empty = PackedTensor.from_codes(np.empty((3, 0, 2), np.uint16), 11)
    assert (empty.nbytes, empty.codes().shape, empty[1:].shape) == (0, (3, 0, 2), (2, 0, 2))
    one = PackedTensor.from_codes(np.array([0, 0x38], np.uint8), 8, "e4m3fn")[1].unpack()
    assert (one.shape, one[()]) == ((), 1.0)
    assert PackedTensor.from_codes(np.empty((3, 0), np.uint16), 11, "e5m5").unpack().shape == (3, 0)


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unpacking_all_codes_of_a_format_gives_their_values(text, dtype):
    fmt = parse_format(text)
    codes = np.arange(1 << fmt.bits).astype(np.uint16)
    # Every code in every place of a group of eight, and in the last elements.
    codes = np.concatenate([codes, np.roll(codes, 3)[:-1]])
    packed = PackedTensor.from_codes(codes, fmt.bits, fmt)
    expected = decode(array(codes, fmt.bits), fmt, dtype)
    found = packed.unpack(dtype)
    assert found.dtype == dtype
    word = f"u{found.itemsize}"
    np.testing.assert_array_equal(found.view(word), expected.view(word))


@pytest.mark.parametrize("text", FORMATS)
def test_packing_rounds_as_encode_does(text):
    x = np.random.default_rng(3).normal(0.0, 3.0, (7, 9)).astype(np.float32)
    for options in ({}, {"rounding": "toward-zero"}, {"rounding": "stochastic:9", "seed": 4, "stream": 2}):
        packed = PackedTensor.pack(x, text, **options)
        np.testing.assert_array_equal(packed.codes(), encode(x, text, **options))
        assert packed.format == parse_format(text)
        np.testing.assert_array_equal(packed.unpack(), cast(x, text, **options))


def test_known_values_survive_in_their_bits():
    x = np.array([[0.0, -0.0, 1.5], [-448.0, 2.0**-9, np.nan]], np.float32)
    packed = PackedTensor.pack(x, "e4m3fn")
    assert packed.codes().tolist()[0] == [0x00, 0x80, 0x3C]
    assert packed.codes().tolist()[1][:2] == [0xFE, 0x01]
    np.testing.assert_array_equal(packed.unpack(), x)
    np.testing.assert_array_equal(np.signbit(packed.unpack()[0]), [False, True, False])
    assert packed.nbytes == 6


def test_out_is_filled_and_returned():
    packed = PackedTensor.pack(np.linspace(-3, 3, 21).reshape(3, 7), "e3m2")
    out = np.full((3, 7), np.nan, np.float32)
    assert packed.unpack(out=out) is out
    np.testing.assert_array_equal(out, packed.unpack())


@pytest.mark.parametrize("bits", WIDTHS)
def test_slices_are_slices_of_the_codes(bits):
    codes = np.array(random_codes(43, bits), np.uint16)
    packed = PackedTensor.from_codes(codes, bits)
    for start in range(44):
        for stop in (start - 1, start, start + 1, start + 8, 42, 43, 99, -1, None):
            part = packed[start:stop]
            expected = codes[start:stop].tolist()
            assert part.codes().tolist() == expected
            assert part.data.tobytes() == big_integer_bytes(expected, bits)
    assert [int(element.codes()) for element in packed] == codes.tolist()
    assert int(packed[-1].codes()) == codes[-1]


def test_slices_of_the_leading_axis_keep_the_others_and_the_format():
    x = np.random.default_rng(0).normal(size=(5, 3, 7)).astype(np.float32)
    packed = PackedTensor.pack(x, "e2m3")
    values = packed.unpack()
    assert (packed[2].shape, packed[1:4].format) == ((3, 7), packed.format)
    np.testing.assert_array_equal(packed[2].unpack(), values[2])
    np.testing.assert_array_equal(packed[-4:-1].unpack(), values[1:4])
    np.testing.assert_array_equal(packed[3][1][4:].unpack(), values[3, 1, 4:])


def test_a_slice_at_bytes_is_a_view_and_any_other_slice_has_its_own_bytes():
    packed = tensor(64, 6)
    assert np.shares_memory(packed[4:8].data, packed.data)
    assert not np.shares_memory(packed[1:8].data, packed.data)
    assert packed[4:6].nbytes == 2  # 12 bits


def test_equality_and_hash_see_shape_bits_format_and_codes():
    codes = array(random_codes(24, 8), 8)
    one = PackedTensor.from_codes(codes, 8, "e4m3fn")
    assert one == PackedTensor.from_codes(codes.copy(), 8, "e4m3fn")
    assert hash(one) == hash(PackedTensor.from_codes(codes.copy(), 8, "e4m3fn"))
    changed = codes.copy()
    changed[23] ^= 1
    others = [
        PackedTensor.from_codes(codes, 8),
        PackedTensor.from_codes(codes, 8, "e5m2"),
        PackedTensor.from_codes(codes.reshape(4, 6), 8, "e4m3fn"),
        PackedTensor.from_codes(changed, 8, "e4m3fn"),
    ]
    assert all(one != other for other in others)
    assert one != codes.tobytes()
    # Parts that differ only in the neighbours of their bits are equal.
    assert PackedTensor.from_codes(np.array([7, 1, 0], np.uint8), 3)[1:2] == tensor_of([1])


def tensor_of(codes, bits=3):
    return PackedTensor.from_codes(np.array(codes, np.uint8), bits)


def test_the_data_cannot_be_written():
    packed = tensor(10, 5)
    with pytest.raises(ValueError, match="read-only"):
        packed.data[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        pickle.loads(pickle.dumps(packed)).data[0] = 0
    with pytest.raises(AttributeError):
        packed.bits = 4


@pytest.mark.parametrize("text", ["e2m1", "ue4m4", "s3.4", "e6m9-flush", None])
def test_pickling_and_files_give_the_same_tensor_back(tmp_path, text):
    bits = 13 if text is None else parse_format(text).bits
    packed = PackedTensor.from_codes(array(random_codes(35, bits), bits).reshape(5, 7), bits, text)
    path = tmp_path / "tensor.bin"
    for each in (packed, packed[1], packed[2:4], packed[0][0], packed[:0]):
        each.save(path)
        assert PackedTensor.load(path) == each == pickle.loads(pickle.dumps(each))
        text_bytes = len(str(each.format)) if text else 0
        assert path.stat().st_size == 20 + 8 * len(each.shape) + text_bytes + each.nbytes


def test_the_file_is_the_documented_one(tmp_path):
    path = tmp_path / "tensor.bin"
    PackedTensor.from_codes(np.array([[1, 2, 3]], np.uint8), 4, "e2m1").save(path)
    head = b"\x93PACKED\n" + struct.pack("<HBBHH", 1, 4, 2, 4, 0)
    body = struct.pack("<QQ", 1, 3) + b"e2m1" + bytes([0x21, 0x03])
    assert path.read_bytes() == head + struct.pack("<I", zlib.crc32(head + body)) + body


def test_truncated_damaged_and_foreign_files_are_refused_in_one_line(tmp_path):
    path = tmp_path / "tensor.bin"
    PackedTensor.pack(np.ones((3, 5)), "e3m2").save(path)
    whole = path.read_bytes()
    broken = [whole[:length] for length in range(len(whole))] + [whole + b"\0", b"PK\x03\x04" * 20]
    broken += [whole[:i] + bytes([whole[i] ^ 0x10]) + whole[i + 1 :] for i in range(len(whole))]
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"tensor\.bin") as caught:
            PackedTensor.load(path)
        assert "\n" not in str(caught.value)


def test_a_later_version_is_named(tmp_path):
    path = tmp_path / "tensor.bin"
    tensor(3, 3).save(path)
    content = bytearray(path.read_bytes())
    content[8] = 3
    path.write_bytes(content)
    with pytest.raises(ValueError, match="must be 1 or 2, got 3"):
        PackedTensor.load(path)


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_first_code_beyond_the_bits_is_named(bits):
    top = 1 << bits
    dtypes = [dtype for dtype in (np.uint8, np.uint16, np.uint32, np.uint64) if top <= np.iinfo(dtype).max]
    assert len(dtypes) >= 2
    for dtype, place in product(dtypes, (0, 20, 63, 66)):
        codes = np.zeros((67, 1), dtype)
        codes[place:, 0] = top
        codes[place + 1 :, 0] = np.iinfo(dtype).max
        with pytest.raises(ValueError, match=rf"must be below {top} .* got {top} at \[{place}, 0\]"):
            PackedTensor.from_codes(codes, bits)


@pytest.mark.parametrize("bits", [0, 17, -1])
def test_bits_outside_1_to_16_are_refused(bits):
    codes = np.zeros(3, np.uint8)
    with pytest.raises(ValueError, match=rf"bits must be in 1\.\.16, got {bits}"):
        PackedTensor.from_codes(codes, bits)
    with pytest.raises(ValueError, match=rf"bits must be in 1\.\.16, got {bits}"):
        PackedTensor(data=codes, bits=bits, shape=(3,))


@pytest.mark.parametrize("bits", [4.0, "4", True, None])
def test_bits_that_are_no_integer_are_refused(bits):
    with pytest.raises(TypeError, match="bits must be an integer"):
        PackedTensor.from_codes(np.zeros(3, np.uint8), bits)


@pytest.mark.parametrize("codes", [[1, 2], np.zeros(2), np.zeros(2, np.int8), np.zeros(2, bool)])
def test_codes_that_are_not_unsigned_are_refused(codes):
    with pytest.raises(TypeError, match="codes must be an array of unsigned integers"):
        PackedTensor.from_codes(codes, 4)


def test_a_format_of_other_bits_is_refused():
    with pytest.raises(ValueError, match="bits must be 8 for format e5m2, got 7"):
        PackedTensor.from_codes(np.zeros(2, np.uint8), 7, "e5m2")
    with pytest.raises(ValueError, match="bits must be 8 for format e5m2, got 7"):
        PackedTensor(data=np.zeros(7, np.uint8), bits=7, shape=(8,), format=FloatFormat.parse("e5m2"))


@pytest.mark.parametrize("fmt", ["tf32", "fp32", FixedFormat.parse("s8.8")])
def test_a_format_beyond_16_bits_is_refused(fmt):
    with pytest.raises(ValueError, match=r"bits of .* must be in 1\.\.16, got (19|32|17)"):
        PackedTensor.pack(np.zeros(2), fmt)


@pytest.mark.parametrize(
    ("data", "shape", "error", "message"),
    [
        (np.zeros(3, np.int8), (8,), TypeError, "uint8"),
        ([0, 0, 0], (8,), TypeError, "uint8"),
        (np.zeros(4, np.uint8), (8,), ValueError, r"shape \(3,\)"),
        (np.zeros((3, 1), np.uint8), (8,), ValueError, r"shape \(3,\)"),
        (np.zeros(6, np.uint8)[::2], (8,), ValueError, "contiguous"),
        (np.array([0, 0, 16], np.uint8), (2, 3), ValueError, "6 zero bits"),
        (np.zeros(3, np.uint8), (-8, -1), ValueError, "no negative"),
    ],
)
def test_data_that_do_not_fit_are_refused(data, shape, error, message):
    with pytest.raises(error, match=message):
        PackedTensor(data=data, bits=3, shape=shape)


def test_unpack_names_what_is_missing_or_unfit():
    raw = tensor(6, 4)
    with pytest.raises(ValueError, match="needs a format"):
        raw.unpack()
    packed = PackedTensor.pack(np.ones((2, 3)), "e2m1")
    frozen = np.empty((2, 3), np.float32)
    frozen.flags.writeable = False
    message = r"out must be writeable and C-contiguous with shape \(2, 3\) and dtype float32"
    for out in (np.empty((3, 2), np.float32), np.empty((2, 3)), np.empty((3, 2), np.float32).T, frozen):
        with pytest.raises(ValueError, match=message):
            packed.unpack(out=out)
    for dtype in (np.int32, np.float16):
        with pytest.raises(TypeError, match="float32 or float64"):
            packed.unpack(dtype)


def test_indices_that_are_not_of_the_leading_axis_are_refused():
    packed = tensor(6, 4)
    for index in (6, -7):
        with pytest.raises(IndexError, match=rf"-6\.\.5, got {index}"):
            packed[index]
    for key in ((0, 0), 1.0, True, None, ...):
        with pytest.raises(TypeError, match="leading axis"):
            packed[key]
    for step in (2, -1):
        with pytest.raises(ValueError, match=f"must be 1, got {step}"):
            packed[::step]
    with pytest.raises(TypeError, match="no length"):
        packed[0][0]


def test_it_prints_short():
    assert repr(tensor(6, 4)) == "PackedTensor(shape=(6,), bits=4, nbytes=3)"
    packed = PackedTensor.pack(np.ones((2, 3)), "e4m3fn")
    assert repr(packed) == "PackedTensor(shape=(2, 3), format=e4m3fn, nbytes=6)"


SMALL_CASE = """
import numba
import numpy as np
from numerics.packed import PackedTensor

print(numba.config.DISABLE_JIT)
for bits in range(1, 17):
    codes = np.random.default_rng(bits).integers(0, 1 << bits, 45, np.uint16)
    packed = PackedTensor.from_codes(codes, bits, f"u0.{bits}")
    print(packed.data.tobytes().hex(), packed.codes().tobytes().hex(), packed.unpack().tobytes().hex())
"""


def test_the_compiler_changes_no_bit():
    lines = {}
    for disable in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", SMALL_CASE],
            env=os.environ | {"NUMBA_DISABLE_JIT": disable},
            cwd=Path(numerics.__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        lines[disable] = done.stdout.splitlines()
    assert [lines[key][0] for key in ("0", "1")] == ["0", "1"]
    assert len(lines["0"]) == 17
    assert lines["0"][1:] == lines["1"][1:]
