"""The random words of sums: uniform and independent, as far as the roundings of a matrix product can tell.

The words are those of ``oracles.philox`` (`test_cast_stochastic` compares the kernels with it), computed here
for whole arrays at once. Seeds are fixed, so every test has one outcome. Each compares a statistic with the
one of independent uniform words:

* A chi-square statistic of d degrees of freedom has mean d and variance 2 d. It must be within 6 standard
  deviations, above which one of 63 degrees lies with probability 1.3e-6, and one of 255 with 9.5e-8. Of the
  thousand or so here, one would be in 1 of 700 choices of the seeds.
* A mean of n independent words is within 5 standard deviations but for 6 cases of 10**7.

Output elements share the two words of an addition, so statistics over the outputs of one addition are not of
independent numbers. What the generator promises of them is pairwise, over keys or additions, and those are
the populations here. What follows for matrices of roundings, that rows, columns and the matrix as a whole
scatter as independent errors do, is tested on products of the package itself.
"""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from numerics import cast, matmul
from numerics._kernels import random
from oracles.philox import mixed, philox4x32, stream_key, sum_word

# Neighbours in a row, in a column, across the corners of tiles, and far apart.
ELEMENTS = (
    0,
    1,
    2,
    3,
    7,
    8,
    15,
    16,
    17,
    63,
    64,
    255,
    256,
    257,
    1023,
    1024,
    4095,
    65535,
    65536,
    10**6,
    2**31 + 5,
)
FAR = (2**32, 2**32 + 1, 2**33 + 7)  # beyond 2**32 outputs, as in stacks of products
STEPS = 1 << 16
CHI_LIMIT = 6.0


def keys_of(seeds, streams=0):
    """Keys of arrays of seeds and streams."""
    zero = np.zeros(np.broadcast(seeds, streams).shape, np.uint64)
    seeds, streams = np.asarray(seeds, np.uint64) + zero, np.asarray(streams, np.uint64) + zero
    low = np.uint64(0xFFFFFFFF)
    counter = streams & low, streams >> np.uint64(32), zero, zero
    return philox_arrays(counter, (seeds & low, seeds >> np.uint64(32)))[:2]


def philox_arrays(counter, key):
    """`philox4x32` on arrays of uint64: the same lines, with the round keys masked."""
    return philox4x32(tuple(np.asarray(word, np.uint64) for word in counter), key)


def words(elements, numbers, keys):
    """Words (keys or numbers, elements), for arrays of numbers or of keys."""
    numbers = np.asarray(numbers, np.uint64)
    zero = np.zeros(np.broadcast(numbers, keys[0]).shape, np.uint64)
    counter = numbers + zero, zero, zero, zero + np.uint64(1 << 31)
    a, b = philox_arrays(counter, keys)[:2]
    hashes = np.array([mixed((e & 0xFFFFFFFF) ^ mixed(e >> 32)) for e in elements], np.uint64)
    return ((a | np.uint64(1))[:, None] * hashes + b[:, None]) & np.uint64(0xFFFFFFFF)


def by_steps(elements, seed, stream=0, steps=STEPS):
    key = tuple(np.uint64(word) for word in stream_key(seed, stream))
    return words(elements, np.arange(steps), key)


def chi_square(values, cells):
    """(statistic - mean) / standard deviation of counts that should be even, cells along the last axis."""
    counts = np.bincount(np.asarray(values, np.int64).ravel(), minlength=cells)
    assert len(counts) == cells
    expected = counts.sum() / cells
    assert expected >= 20
    statistic = ((counts - expected) ** 2 / expected).sum()
    return (statistic - (cells - 1)) / np.sqrt(2 * (cells - 1))


def scatter_as_they_should(scores):
    """Scores have mean 0 and deviation 1, within 5 deviations of as many normal numbers."""
    assert abs(np.mean(scores)) < 5 / np.sqrt(len(scores))
    assert abs(np.std(scores) - 1) < 5 / np.sqrt(2 * len(scores))


def test_words_of_arrays_are_those_of_the_generator():
    found = by_steps(ELEMENTS + FAR, 12, 34, 5)
    over_keys = words(ELEMENTS[:4], 3, keys_of(np.arange(5), 2**40))
    for j, element in enumerate(ELEMENTS + FAR):
        for number in range(5):
            assert found[number, j] == sum_word(element, number, 0, 12, 34)
            assert found[number, j] == random.sum_word(element, number, 0, *random.stream_key(12, 34))
    for seed in range(5):
        for j in range(4):
            assert over_keys[seed, j] == sum_word(ELEMENTS[j], 3, 0, seed, 2**40)


# One output.


@pytest.mark.parametrize("seed", [0, 1, 2**62 + 3])
def test_the_top_bits_of_an_output_are_uniform_over_its_additions(seed):
    # 65536 words in 256 cells; 24 outputs and three seeds.
    found = by_steps(ELEMENTS + FAR, seed)
    scores = [chi_square(found[:, j] >> np.uint64(24), 256) for j in range(found.shape[1])]
    assert max(np.abs(scores)) < CHI_LIMIT
    scatter_as_they_should(scores)


def test_every_bit_of_a_word_is_set_in_half_of_the_additions():
    found = by_steps(ELEMENTS, 5)
    for bit in range(32):
        share = ((found >> np.uint64(bit)) & np.uint64(1)).astype(float).mean(0)
        # 32 * 21 = 672 shares of standard deviation 1 / 512: 5.5 of them.
        assert abs(share - 0.5).max() < 5.5 * 0.5 / np.sqrt(STEPS)


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 8, 64, 4096])
def test_additions_of_one_output_are_independent_of_each_other(lag):
    found = by_steps(ELEMENTS[:8], 6) >> np.uint64(29)
    for j in range(found.shape[1]):
        pairs = found[:-lag, j] * np.uint64(8) + found[lag:, j]
        assert abs(chi_square(pairs, 64)) < CHI_LIMIT


# Two outputs.


def pairs_of(elements):
    return [(i, j) for i in range(len(elements)) for j in range(i)]


def test_two_outputs_of_an_addition_are_independent_over_keys():
    # The top three bits of both: 64 cells, 65536 keys, 276 pairs of outputs of one addition.
    found = words(ELEMENTS + FAR, 9, keys_of(np.arange(STEPS))) >> np.uint64(29)
    scores = [chi_square(found[:, i] * np.uint64(8) + found[:, j], 64) for i, j in pairs_of(ELEMENTS + FAR)]
    assert max(np.abs(scores)) < CHI_LIMIT
    scatter_as_they_should(scores)


@pytest.mark.parametrize("seed", [0, 77])
def test_two_outputs_are_independent_over_additions(seed):
    found = by_steps(ELEMENTS + FAR, seed) >> np.uint64(29)
    scores = [chi_square(found[:, i] * np.uint64(8) + found[:, j], 64) for i, j in pairs_of(ELEMENTS + FAR)]
    assert max(np.abs(scores)) < CHI_LIMIT
    scatter_as_they_should(scores)


def test_neighbouring_outputs_are_uncorrelated_over_additions():
    # Of all 4096 outputs of a row, with the next, the one after it, the output below and the one below that.
    found = by_steps(range(4096), 3, steps=2048).astype(np.float64) / 2.0**32 - 0.5
    for shift in (1, 2, 3, 8, 16, 64, 128, 1024):
        correlation = 12 * (found[:, shift:] * found[:, :-shift]).mean(0)
        # Each is the mean of 2048 products of variance 1: some 4000 of them are within 5.7 deviations ...
        assert abs(correlation).max() < 5.7 / np.sqrt(2048)
        # ... and their mean square is 1/2048; as pairs share words, it is not taken to be closer than 10 %.
        assert abs(2048 * np.square(correlation).mean() - 1) < 0.1


def test_few_pairs_of_outputs_have_hashes_that_no_multiplier_tells_apart():
    # The top three bits of two words are independent unless the hashes agree in the lower 29 bits or so: then
    # the words differ by a multiple of 2**29, whatever the odd multiplier. Of the pairs of n outputs,
    # n**2 / 2**30 do so by chance: 64 +- 8 of the first 2**18, in any shape of a matrix.
    hashes = mixed(np.arange(1 << 18, dtype=np.uint64) ^ np.uint64(mixed(0)))
    assert [int(h) for h in hashes[:3]] == [int(random.output_hash(e)) for e in range(3)]
    assert len(np.unique(hashes)) == len(hashes)
    _, counts = np.unique(hashes & np.uint64((1 << 29) - 1), return_counts=True)
    assert abs((counts * (counts - 1) // 2).sum() - 64) < 5 * 8


# Keys.


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((0, 0), (1, 0)),
        ((0, 0), (0, 1)),
        ((1, 0), (0, 1)),
        ((5, 5), (5, 6)),
        ((2**32, 0), (0, 2**32)),
        ((2**62, 1), (2**62 + 1, 0)),
        ((0, 2**33), (0, 2**34)),
    ],
)
def test_streams_and_seeds_are_independent_of_each_other(first, second):
    one, other = (by_steps(ELEMENTS, *key) >> np.uint64(29) for key in (first, second))
    for j in range(len(ELEMENTS)):
        assert abs(chi_square(one[:, j] * np.uint64(8) + other[:, j], 64)) < CHI_LIMIT


@pytest.mark.parametrize("which", ["seed", "stream"])
def test_the_first_word_is_uniform_over_consecutive_keys_and_neighbours_are_independent(which):
    count = np.arange(STEPS + 1)
    keys = keys_of(count, 0) if which == "seed" else keys_of(0, count)
    found = words(ELEMENTS[:6], 0, keys)
    for j in range(6):
        assert abs(chi_square(found[:-1, j] >> np.uint64(24), 256)) < CHI_LIMIT
        top = found[:, j] >> np.uint64(29)
        assert abs(chi_square(top[:-1] * np.uint64(8) + top[1:], 64)) < CHI_LIMIT


# Roundings of a matrix product.
#
# Every element of C = A B is the same dot product, so that each differs from the others by its words alone.
# Errors are compared with as many independent draws of the same law: the same errors, shuffled by PCG64.

SIDE, DEPTH = 128, 48


@pytest.fixture(scope="module", params=[(1, 0), (2, 0), (1, 9)])
def errors(request):
    """Centred errors of 128 x 128 equal stochastic dot products."""
    seed, stream = request.param
    rng = np.random.default_rng(4)
    row = rng.uniform(0.5, 1.5, DEPTH).astype(np.float32)
    row = matmul(row[None], np.eye(DEPTH, dtype=np.float32), "e5m8")[0]
    a, b = np.tile(row, (SIDE, 1)), np.ones((DEPTH, SIDE), np.float32)
    found = matmul(a, b, "e6m4 rounding=stochastic", seed=seed, stream=stream).astype(np.float64)
    error = found - row.astype(np.float64).sum()
    assert error.std() > 1.0
    return error


def test_the_mean_error_of_a_product_is_zero(errors):
    assert abs(errors.mean()) < 5 * errors.std() / SIDE


@pytest.mark.parametrize("axis", [0, 1])
def test_means_of_rows_and_columns_scatter_as_those_of_independent_errors(errors, axis):
    # (n - 1) s**2 / (sigma**2 / n) is chi-squared with 127 degrees of freedom: 127 +- 15.9.
    scatter = (SIDE - 1) * errors.mean(axis).var(ddof=1) * SIDE / errors.var()
    assert abs(scatter - (SIDE - 1)) < 5 * np.sqrt(2 * (SIDE - 1))


SHUFFLES = 24


@pytest.fixture(scope="module")
def spectra(errors):
    """Singular values of the centred errors, in row 0, and of copies shuffled by PCG64."""
    error, rng = errors - errors.mean(), np.random.Generator(np.random.PCG64(0))
    copies = [rng.permuted(error.ravel()).reshape(error.shape) for _ in range(SHUFFLES)]
    with threadpool_limits(1):  # threads that wait for each other take longer than one
        return np.linalg.svd(np.stack([error, *copies]), compute_uv=False)


def test_the_spectral_norm_is_that_of_a_matrix_of_independent_errors(errors, spectra):
    # About 2 sigma sqrt(n). How it scatters, by some n**(-2/3), the shuffled matrices show; 6 of their
    # deviations, as these are known to a seventh.
    norm, others = spectra[0, 0], spectra[1:, 0]
    assert abs(norm - others.mean()) < 6 * others.std(ddof=1)
    assert others.mean() == pytest.approx(2 * errors.std() * np.sqrt(SIDE), rel=0.05)


def test_the_largest_singular_values_show_no_structure(spectra):
    # Words shared by rows or columns would leave errors of low rank, and large squares in front.
    shares = np.square(spectra[:, :8]).sum(1)
    assert abs(shares[0] - shares[1:].mean()) < 6 * shares[1:].std(ddof=1)


@pytest.mark.parametrize("shift", [1, 2, 7, 8, 16, 64])
@pytest.mark.parametrize("axis", [0, 1])
def test_errors_of_neighbouring_outputs_are_uncorrelated(errors, axis, shift):
    error = (errors - errors.mean()) / errors.std()
    moved = np.roll(error, shift, axis)
    # The mean of 16384 products of variance 1.
    assert abs((error * moved).mean()) < 5 / SIDE


@pytest.mark.parametrize(
    ("text", "operand"), [("e6m4 rounding=stochastic", "e4m3fn"), ("e8m5 rounding=stochastic:12", "e5m2")]
)
def test_a_product_of_different_numbers_is_unbiased_in_rows_columns_and_as_a_whole(text, operand):
    # The sum of 60 products of each of the 96 x 96 elements, over 60 streams: errors are independent over
    # streams, whatever the elements share.
    rng = np.random.default_rng(8)
    a, b = (cast(rng.normal(size=shape).astype(np.float32), operand) for shape in ((96, 40), (40, 96)))
    exact = a.astype(np.float64) @ b
    streams = 60
    runs = np.stack([matmul(a, b, text, seed=3, stream=s) - exact for s in range(streams)])
    assert runs.std() > 0.01
    for summed in (runs.mean((1, 2)), runs.mean(1), runs.mean(2), runs):
        mean, deviation = summed.mean(0), summed.std(0, ddof=1) / np.sqrt(streams)
        scores = mean / np.where(deviation > 0, deviation, 1.0)
        # Student's t of 59 degrees of freedom; of 9216 the largest is below 6.5 but in 1 of 5000 suites.
        assert np.abs(scores).max() < (5.0 if np.ndim(scores) == 0 else 6.5)
        if np.ndim(scores) == 2:
            # Their mean square is the variance of t, 59 / 57; 9216 of them scatter by 0.016.
            assert np.square(scores).mean() == pytest.approx(59 / 57, abs=0.1)


@pytest.mark.parametrize("bits", [8, 16])
def test_few_random_bits_are_those_at_the_top_of_the_words(bits):
    # Equal shares of all r-bit numbers decide: 1 + 3/8 of a last place goes up in 3 of 8 of 2**16 outputs.
    count, x = 1 << 16, np.array([[1.0 + 3 * 2.0**-7]], np.float32)  # e6m4
    found = matmul(
        np.repeat(x, count, 0), np.ones((1, 1), np.float32), f"e6m4 rounding=stochastic:{bits}", seed=0
    )
    # One addition: its words are a multiply-add hash of the outputs. They are spread evenly, more evenly than
    # independent ones, and no less.
    assert abs((found > 1).mean() - 3 / 8) < 5 * np.sqrt(15 / 64 / count)
