"""Block formats in their bits, against exact rationals and one big integer for each bit string."""

import math
import pickle
import struct
import zlib

import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import NAMED_FORMATS, BlockFormat, PackedTensor, cast, decode
from numerics._scaling import products, quotients, round_blocks
from numerics.block_codes import BlockCodes, decode_blocks, encode_blocks
from numerics.rounding import Rounding
from oracles.blocks import EMAX, bit_string, code_of, mx_blocks, nv_blocks
from oracles.rational import DETERMINISTIC

MX = list(EMAX)
NAMES = [*MX, "nvfp4"]
TEXTS = [
    *NAMES,
    "e4m3fn-flush block=7 scale=e8m0",
    "e3m0fn block=5 scale=e8m0",
    "ue4m3 block=16 scale=e8m0",
    "e4m3fnuz block=9 scale=e8m0",
    "e2m1noneb-20 block=8 scale=e8m0",
    "e2m1noneb100 block=8 scale=e8m0",
    "u0.8 block=32 scale=e8m0",
    "u4.0 block=1 scale=e8m0",
    "bf16 block=4 scale=e8m0",
    "e2m12 block=32 scale=e8m0",
    "e5m10 block=8 scale=bf16",
    "s1.2 block=8 scale=e5m2",
]
WIDE = [
    "fp32 block=4 scale=e8m0",
    "e2m21 block=32 scale=e8m0",
    "e2m22 block=32 scale=e8m0",
    "s2.20 block=3 scale=e8m0",
]
KINDS = ["normal", "scattered", "ties", "sparse", "any bits"]
GFLOAT = {
    "mxfp8": "mxfp8_e4m3",
    "mxfp8e5m2": "mxfp8_e5m2",
    "mxfp6": "mxfp6_e2m3",
    "mxfp6e3m2": "mxfp6_e3m2",
    "mxfp4": "mxfp4_e2m1",
    "mxint8": "mxint8",
}


def words(x):
    return x.view(f"u{x.itemsize}")


def same_bits(a, b):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    np.testing.assert_array_equal(words(a), words(b))


def draw(rng, kind, dtype, shape):
    """Arrays that strain the scales: of all magnitudes, with ties, zeros of both signs, NaN, infinities."""
    x = rng.normal(size=shape)
    if kind == "scattered":
        x *= 2.0 ** rng.integers(-150, 128, (shape[0], 1))
    elif kind == "ties":
        x = np.ldexp(np.round(x * 64) / 64, rng.integers(-140, 110, shape))
    elif kind == "sparse":
        x *= 2.0 ** rng.integers(-20, 20, shape)
        x[rng.random(shape) < 0.5] = 0.0
        x *= rng.choice([-1.0, 1.0], shape)
    elif kind == "any bits":
        x = rng.integers(0, 1 << (8 * dtype().itemsize), shape, np.uint64)
        x = x.astype(f"u{dtype().itemsize}").view(dtype)
        x = np.where(np.isfinite(x) | (rng.random(shape) < 0.01), x, dtype(1.0))
    with np.errstate(over="ignore", under="ignore"):
        return x.astype(dtype)


def holds(text, dtype):
    return dtype == np.float64 or BlockFormat.parse(text).fits_float32


@settings(max_examples=60)
@given(
    name=st.sampled_from(MX),
    mode=st.sampled_from(DETERMINISTIC),
    dtype=st.sampled_from([np.float32, np.float64]),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32),
)
def test_the_bit_strings_of_mx_are_those_of_the_standard(name, mode, dtype, kind, seed):
    rng = np.random.default_rng(seed)
    x = draw(rng, kind, dtype, (2, int(rng.integers(1, 70))))
    element = NAMED_FORMATS[name].element
    packed = PackedTensor.pack(x, name, rounding=mode)
    expected = [block for row in x for block in mx_blocks(row, element, EMAX[name], mode)]
    codes = [code_of(value, element) for _, elements in expected for value in elements]
    assert packed.data.tobytes() == bit_string(codes, element.bits)
    assert packed.scales.data.tolist() == [255 if x is None else x + 127 for x, _ in expected]
    assert packed.tensor_scale is None


@settings(max_examples=60)
@given(
    mode=st.sampled_from(DETERMINISTIC),
    tensor=st.none() | st.sampled_from([1.0, 0.75, float(np.float32(0.1)), 2.0**-20]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32),
)
def test_the_bit_strings_of_nvfp4_are_two_exact_scales_and_one_rounding(mode, tensor, dtype, seed):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(2, 37)) * 2.0 ** rng.integers(-12, 3, (2, 37))).astype(dtype)
    x[rng.random(x.shape) < 0.2] = -0.0
    x[:, :16] = rng.choice([0.5, 1.0, 1.5, -2.0, 2.5, 5.0], (2, 16))  # on values and on ties
    fmt = NAMED_FORMATS["nvfp4"]
    expected_tensor, rows = nv_blocks(x, fmt, mode, tensor)
    packed = PackedTensor.pack(x, fmt, rounding=mode, tensor_scale=tensor)
    assert packed.tensor_scale == expected_tensor
    blocks = [block for row in rows for block in row]
    codes = [code_of(value, fmt.element) for _, elements in blocks for value in elements]
    assert packed.data.tobytes() == bit_string(codes, 4)
    assert packed.scales.data.tolist() == [code_of(scale, fmt.scale) for scale, _ in blocks]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("rounding", [*DETERMINISTIC, "stochastic:7"])
def test_unpacking_gives_the_bits_of_cast(text, rounding):
    rng = np.random.default_rng(0)
    options = {"rounding": rounding, "seed": 5, "stream": 2}
    for kind in KINDS:
        for dtype in (np.float32, np.float64):
            if holds(text, dtype) and BlockFormat.parse(text).element.bits <= 16:
                x = draw(rng, kind, dtype, (4, int(rng.integers(1, 80))))
                same_bits(PackedTensor.pack(x, text, **options).unpack(dtype), cast(x, text, **options))


@pytest.mark.parametrize(
    ("text", "dtype"),
    [(text, dtype) for text in TEXTS for dtype in (np.float32, np.float64) if holds(text, dtype)],
)
def test_whole_blocks_are_unpacked_as_short_ones_are(text, dtype):
    fmt = BlockFormat.parse(text)
    for shape in ((3, 2 * fmt.block), (fmt.block,), (5, 1, 3 * fmt.block)):
        x = draw(np.random.default_rng(9), "normal", dtype, shape)
        codes = encode_blocks(x, fmt)
        packed = PackedTensor.pack(x, fmt)
        same_bits(packed.unpack(dtype), decode_blocks(codes, fmt, dtype))
        longer = np.concatenate([x, x[..., :1]], axis=-1)
        longer[..., -1] = 0.0
        same_bits(packed.unpack(dtype), PackedTensor.pack(longer, fmt).unpack(dtype)[..., :-1])


@pytest.mark.parametrize("text", [text for text in (*TEXTS, *WIDE) if "e8m0" in text or "mx" in text])
@pytest.mark.parametrize("mode", DETERMINISTIC)
def test_rounding_in_place_is_division_rounding_and_multiplication(text, mode):
    rng = np.random.default_rng(1)
    fmt = BlockFormat.parse(text)
    for kind in KINDS:
        for dtype in (np.float32, np.float64):
            if not holds(text, dtype):
                continue
            x = draw(rng, kind, dtype, (4, int(rng.integers(1, 80))))
            scales, _ = fmt.scales(x)
            elements = cast(quotients(x, fmt, scales), fmt.element, rounding=mode, overflow="saturate")
            out, divided = np.empty_like(x), np.empty_like(x)
            codes = round_blocks(x, fmt, Rounding.parse(mode), out)
            same_bits(out, products(elements, fmt, scales, np.empty_like(x)))
            assert np.array_equal(codes, round_blocks(x, fmt, Rounding.parse(mode), divided, divided=True))
            same_bits(divided.astype(np.float64), elements)
            with np.errstate(invalid="ignore"):
                exponents = np.where(np.isnan(scales), 128.0, np.log2(scales))
            np.testing.assert_array_equal(codes, exponents + 127)


def test_rounding_may_write_over_its_operand():
    fmt = BlockFormat.parse("mxfp6")
    mode = Rounding.parse("nearest-even")
    buffer = np.random.default_rng(2).normal(size=300).astype(np.float32)
    for shift in (0, 1, 33):
        moved = buffer.copy()
        source, target = moved[:200].reshape(2, 100), moved[shift : shift + 200].reshape(2, 100)
        expected = cast(source.copy(), fmt)
        round_blocks(source, fmt, mode, target)
        same_bits(target, expected)


@pytest.mark.parametrize("name", MX)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_element_code_times_every_scale_code(name, dtype):
    fmt = NAMED_FORMATS[name]
    codes = np.tile(np.arange(1 << fmt.element.bits, dtype=np.uint8), (256, 1))
    blocks = -(-codes.shape[1] // 32)
    scales = np.repeat(np.arange(256, dtype=np.uint8)[:, None], blocks, axis=1)
    packed = PackedTensor.from_codes(codes, fmt.element.bits, fmt, scales=scales)
    elements = decode(codes[0], fmt.element, np.float64)
    with np.errstate(over="ignore", under="ignore"):
        expected = np.array([elements * 2.0**x for x in range(-127, 128)]).astype(dtype)
    values = packed.unpack(dtype)
    np.testing.assert_array_equal(values[:255], expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(values[:255])[numbers], np.signbit(expected)[numbers])
    assert np.isnan(values[255]).all()
    np.testing.assert_array_equal(values, decode_blocks(BlockCodes(codes, scales, None), fmt, dtype))


def test_every_nvfp4_element_code_times_every_scale_code():
    fmt = NAMED_FORMATS["nvfp4"]
    tensor = float(np.float32(0.1))
    codes = np.tile(np.arange(16, dtype=np.uint8), (256, 1))
    scales = np.arange(256, dtype=np.uint8)[:, None]
    packed = PackedTensor.from_codes(codes, 4, fmt, scales=scales, tensor_scale=tensor)
    magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    elements = np.array(magnitudes + [-v for v in magnitudes])
    theirs = scales.view(ml_dtypes.float8_e4m3fn).astype(np.float64)
    expected = elements * theirs * tensor
    np.testing.assert_array_equal(packed.unpack(np.float64), expected)
    np.testing.assert_array_equal(packed.unpack(), expected.astype(np.float32))


def test_scale_codes_are_those_of_ml_dtypes_and_gfloat():
    codes = np.arange(256, dtype=np.uint8)
    ours = PackedTensor.from_codes(
        np.full((256, 1), 2, np.uint8), 4, "mxfp4", scales=codes[:, None]
    ).unpack()[:, 0]
    np.testing.assert_array_equal(ours, codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float32))
    theirs = [gfloat.decode_float(gfloat.formats.format_info_ocp_e8m0, int(code)).fval for code in codes]
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", GFLOAT)
def test_gfloat_quantizes_blocks_to_the_same_values(name):
    theirs = getattr(gfloat.formats, f"format_info_{GFLOAT[name]}")
    rng = np.random.default_rng(4)
    x = rng.normal(size=(12, 32)) * 2.0 ** rng.integers(-40, 40, (12, 1))
    expected = [gfloat.quantize_block(theirs, row, gfloat.compute_scale_amax) for row in x]
    np.testing.assert_array_equal(PackedTensor.pack(x, name).unpack(np.float64), expected)


def test_mxfp4_by_hand():
    packed = PackedTensor.pack(np.array([8.0, 0.3, -2.5, -0.0, 1.0]), "mxfp4")
    # amax 8: floor(log2 8) - 2 = 1, so the elements are 4, 0, -1 (a tie of -1.25 with -1.5 is none), -0, 0.5
    assert packed.codes().tolist() == [0b0110, 0b0000, 0b1010, 0b1000, 0b0001]
    assert packed.data.tolist() == [0x06, 0x8A, 0x01]
    assert packed.scales.data.tolist() == [128]
    assert packed.unpack().tolist() == [8.0, 0.0, -2.0, 0.0, 1.0]
    assert math.copysign(1.0, packed.unpack()[3]) == -1.0


@pytest.mark.parametrize("name", NAMES)
def test_special_blocks_have_their_codes(name):
    fmt = NAMED_FORMATS[name]
    x = np.ones((1, 5 * fmt.block + 3), np.float32)
    for k, value in enumerate([np.nan, np.inf, -np.inf, 0.0]):
        x[0, k * fmt.block] = value
    x[0, 3 * fmt.block : 4 * fmt.block] = [0.0, -0.0] * (fmt.block // 2)
    packed = PackedTensor.pack(x, name)
    blocks = packed.codes()[0, : 4 * fmt.block].reshape(4, fmt.block)
    assert (blocks[:3] == 0).all()
    minus_zero = 0 if name == "mxint8" else 1 << (fmt.element.bits - 1)
    assert blocks[3].tolist() == [0, minus_zero] * (fmt.block // 2)
    nan, zero = (0x7F, 0x00) if name == "nvfp4" else (255, 0)
    assert packed.scales.codes()[0, :4].tolist() == [nan, nan, nan, zero]
    assert np.isnan(packed.unpack()[0, : 3 * fmt.block]).all()
    np.testing.assert_allclose(packed.unpack()[0, 4 * fmt.block :], 1.0, rtol=2.0**-6)


@pytest.mark.parametrize(
    ("name", "shape", "nbytes"),
    [
        ("mxfp4", (4, 64), 4 * (32 + 2)),
        ("mxfp4", (3, 33), 50 + 3 * 2),  # 99 codes of 4 bits; two blocks to a row
        ("mxfp6", (64,), 48 + 2),
        ("mxfp8", (2, 3, 31), 186 + 6),
        ("mxint8", (32,), 32 + 1),
        ("nvfp4", (4, 64), 4 * (32 + 4) + 4),
        ("e2m1 block=8 scale=ue3m2ieee", (5, 8), 20 + 4 + 4),  # five scales of 5 bits
        ("mxfp4", (0, 7), 0),
        ("mxfp4", (7, 0), 0),
        ("nvfp4", (0,), 4),
    ],
)
def test_all_that_is_stored_is_counted(name, shape, nbytes):
    x = np.random.default_rng(0).normal(size=shape)
    packed = PackedTensor.pack(x, name)
    assert packed.nbytes == nbytes
    assert packed.unpack(np.float64).shape == shape
    same_bits(packed.unpack(np.float64), cast(x, name))


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_strides_do_not_matter(name):
    x = np.random.default_rng(3).normal(size=(5, 2, 40)).astype(np.float32)
    for view in (x, x.transpose(2, 1, 0), x[::2, :, ::-3], x[0, 0], np.asfortranarray(x)):
        packed = PackedTensor.pack(view, name)
        assert packed == PackedTensor.pack(view.copy(order="C"), name)
        same_bits(packed.unpack(), cast(view, name))


@pytest.mark.parametrize("name", [*NAMES, "e2m3 block=5 scale=ue3m2ieee"])
def test_a_part_of_the_rows_takes_their_scales_along(name):
    x = np.random.default_rng(5).normal(size=(5, 3, 41)) * 2.0 ** np.arange(5)[:, None, None]
    packed = PackedTensor.pack(x, name)
    values = packed.unpack(np.float64)
    for key in (0, 2, -1, slice(1, 4), slice(-2, None), slice(4, 2), slice(None)):
        part = packed[key]
        same_bits(part.unpack(np.float64), values[key])
        assert (part.format, part.tensor_scale) == (packed.format, packed.tensor_scale)
        assert part.scales == packed.scales[key]
    same_bits(packed[3][1].unpack(np.float64), values[3, 1])
    same_bits(packed[3][1][: packed.format.block].unpack(np.float64), values[3, 1, : packed.format.block])


def test_a_single_axis_is_cut_between_blocks():
    x = np.random.default_rng(6).normal(size=100).astype(np.float32)
    packed = PackedTensor.pack(x, "mxfp6")
    for key in (slice(32, 96), slice(64, None), slice(0, 0), slice(7, 7), slice(-4, None), slice(50, 3)):
        same_bits(packed[key].unpack(), packed.unpack()[key])
        assert (
            packed[key].scales == packed.scales[-(-key.indices(100)[0] // 32) :][: -(-len(packed[key]) // 32)]
        )
    for start, stop in ((1, 100), (96, 99), (33, 64)):
        with pytest.raises(ValueError, match=f"whole blocks of 32, got {start}:{stop}"):
            packed[start:stop]
    for index in (0, 99, -1):
        with pytest.raises(ValueError, match=f"whole blocks of 32, got {index % 100}"):
            packed[index]
    with pytest.raises(IndexError, match=r"-100\.\.99, got 100"):
        packed[100]


def test_a_part_at_bytes_is_a_view():
    packed = PackedTensor.pack(np.ones((4, 64)), "mxfp4")
    assert np.shares_memory(packed[1:3].data, packed.data)
    assert np.shares_memory(packed[1:3].scales.data, packed.scales.data)


def test_equality_and_hash_see_the_scales():
    x = np.random.default_rng(7).normal(size=(2, 40))
    one = PackedTensor.pack(x, "nvfp4")
    again = PackedTensor.pack(x.copy(), "nvfp4")
    assert one == again
    assert hash(one) == hash(again)
    fields = {"data": one.data, "bits": 4, "shape": one.shape, "format": one.format}
    changed = one.scales.codes()
    changed[1, 2] ^= 1
    others = [
        PackedTensor(**fields, scales=one.scales, tensor_scale=2.0 * one.tensor_scale),
        PackedTensor.from_codes(one.codes(), 4, "nvfp4", scales=changed, tensor_scale=one.tensor_scale),
        PackedTensor.from_codes(one.codes(), 4, "e2m1"),
        PackedTensor.pack(2.0 * x, "mxfp4"),
    ]
    assert all(one != other for other in others)
    # Scaled by two, the elements are the same and the scales are not.
    assert PackedTensor.pack(x, "mxfp4").data.tobytes() == others[-1].data.tobytes()
    assert PackedTensor.pack(x, "mxfp4") != others[-1]


def test_it_prints_short():
    packed = PackedTensor.pack(np.ones((2, 33)), "mxfp4")
    assert repr(packed) == "PackedTensor(shape=(2, 33), format=mxfp4, nbytes=37)"
    assert repr(packed.scales) == "PackedTensor(shape=(2, 2), bits=8, nbytes=4)"


@pytest.mark.parametrize("name", [*NAMES, "e2m1 block=8 scale=ue3m2ieee"])
def test_pickling_and_files_give_the_same_tensor_back(tmp_path, name):
    packed = PackedTensor.pack(np.random.default_rng(8).normal(size=(5, 2, 37)), name)
    path = tmp_path / "tensor.bin"
    for each in (packed, packed[1], packed[2:4], packed[0][1], packed[:0]):
        each.save(path)
        assert PackedTensor.load(path) == each == pickle.loads(pickle.dumps(each))
        same_bits(PackedTensor.load(path).unpack(np.float64), each.unpack(np.float64))
        assert path.stat().st_size == 20 + 8 * len(each.shape) + len(str(each.format)) + each.nbytes
    with pytest.raises(ValueError, match="read-only"):
        PackedTensor.load(path).scales.data[:1] = 0


def test_the_file_is_the_documented_one(tmp_path):
    path = tmp_path / "tensor.bin"
    codes, scales = np.array([[1, 2, 3]], np.uint8), np.array([[0x38]], np.uint8)
    PackedTensor.from_codes(codes, 4, "nvfp4", scales=scales, tensor_scale=0.75).save(path)
    head = b"\x93PACKED\n" + struct.pack("<HBBHH", 2, 4, 2, 5, 0)
    body = struct.pack("<QQ", 1, 3) + b"nvfp4" + bytes([0x21, 0x03, 0x38]) + struct.pack("<f", 0.75)
    assert path.read_bytes() == head + struct.pack("<I", zlib.crc32(head + body)) + body


def test_truncated_and_damaged_files_are_refused_in_one_line(tmp_path):
    path = tmp_path / "tensor.bin"
    PackedTensor.pack(np.ones((3, 5)), "nvfp4").save(path)
    whole = path.read_bytes()
    broken = [whole[:length] for length in range(len(whole))] + [whole + b"\0"]
    broken += [whole[:i] + bytes([whole[i] ^ 0x10]) + whole[i + 1 :] for i in range(len(whole))]
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"tensor\.bin") as caught:
            PackedTensor.load(path)
        assert "\n" not in str(caught.value)


def test_out_is_filled_and_returned():
    packed = PackedTensor.pack(np.linspace(-3, 3, 66).reshape(2, 33), "nvfp4")
    out = np.full((2, 33), np.nan, np.float32)
    assert packed.unpack(out=out) is out
    same_bits(out, packed.unpack())


CODES = np.zeros((2, 33), np.uint8)
SCALES = np.zeros((2, 2), np.uint8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"fmt": "mxfp4"}, TypeError, "scales of mxfp4 must be a PackedTensor, got NoneType"),
        ({"fmt": "mxfp4", "scales": SCALES[:, :1]}, ValueError, r"shape \(2, 2\) .* got 8, \(2, 1\)"),
        ({"fmt": "mxfp4", "scales": SCALES, "tensor_scale": 1.0}, ValueError, "belongs to rule 'amax'"),
        ({"fmt": "nvfp4", "scales": SCALES}, ValueError, r"shape \(2, 3\)"),
        (
            {"fmt": "nvfp4", "scales": np.zeros((2, 3), np.uint8)},
            ValueError,
            "tensor_scale of nvfp4 must be a positive float32 number, got None",
        ),
        (
            {"fmt": "nvfp4", "scales": np.zeros((2, 3), np.uint8), "tensor_scale": 0.1},
            ValueError,
            "positive float32 number, got 0.1",
        ),
        ({"fmt": "e2m1", "scales": SCALES}, ValueError, "scales belong to block formats"),
        ({"fmt": "e2m1", "tensor_scale": 1.0}, ValueError, "tensor_scale belong to block formats"),
        ({"fmt": "mxfp6", "scales": SCALES}, ValueError, "bits must be 6 for format mxfp6, got 4"),
        ({"fmt": "mxfp4", "scales": SCALES.astype(float)}, TypeError, "unsigned integers, got float64"),
    ],
)
def test_scales_that_do_not_fit_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        PackedTensor.from_codes(CODES, 4, **arguments)


@pytest.mark.parametrize(
    ("x", "text", "arguments", "message"),
    [
        (np.ones(3, np.float16), "mxfp4", {}, "float16 arrays cannot hold"),
        (np.ones(3, np.float32), "fp16 block=4 scale=e8m0", {}, "float32 arrays cannot hold"),
        (np.ones(3), "fp32 block=4 scale=e8m0", {}, r"bits of an element of .* must be in 1\.\.16, got 32"),
        (np.ones(()), "mxfp4", {}, "at least one axis"),
        (np.ones(3), "mxfp4", {"overflow": "nan"}, "must be format or saturate, got 'nan'"),
        (np.ones(3), "mxfp4", {"tensor_scale": 2.0}, "tensor_scale belongs to rule 'amax'"),
        (np.ones(3), "e4m3fn", {"tensor_scale": 2.0}, "tensor_scale belongs to block formats"),
        (np.ones(3), "nvfp4", {"tensor_scale": 1e300}, r"positive float32 number, got 1e\+300"),
        (np.ones(3), "mxfp4", {"rounding": "stochastic"}, "needs a seed"),
        (np.ones(3), "mxfp4", {"stream": -1}, "stream must be in"),
    ],
)
def test_bad_arguments_are_named(x, text, arguments, message):
    with pytest.raises(ValueError, match=message):
        PackedTensor.pack(x, text, **arguments)


def test_unpack_refuses_a_dtype_that_cannot_hold_the_values():
    packed = PackedTensor.pack(np.ones(8), "fp16 block=4 scale=e8m0")
    with pytest.raises(ValueError, match="float32 arrays cannot hold"):
        packed.unpack()
    assert packed.unpack(np.float64).tolist() == [1.0] * 8


def test_decode_blocks_names_codes_that_do_not_fit_one_another():
    codes = encode_blocks(np.ones((2, 40)), "mxfp4")
    with pytest.raises(ValueError, match=r"scales must have shape \(2, 2\)"):
        decode_blocks(codes._replace(scales=codes.scales[:1]), "mxfp4")
    with pytest.raises(TypeError, match="scales of mxfp4 must be uint8 codes, got uint16"):
        decode_blocks(codes._replace(scales=codes.scales.astype(np.uint16)), "mxfp4")
    with pytest.raises(ValueError, match="tensor_scale of nvfp4 must be"):
        decode_blocks(encode_blocks(np.ones((2, 40)), "nvfp4")._replace(tensor_scale=None), "nvfp4")
