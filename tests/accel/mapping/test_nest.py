"""Loop nests against hand counts, Timeloop's printouts, and a walk that moves every word."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from accel.mapping.latency import Overlap, overlapped
from accel.mapping.many_nests import analyse_many
from accel.mapping.nest import HALOS, Level, Nest, analyse
from accel.mapping.problem import Access, Problem

CONVOLUTION = Problem.convolution(n=1, k=64, c=3, p=112, q=112, r=7, s=7, stride=(2, 2))
MAPPING = "L3[WIO] K8 Q28 - L2[WI] N1 K4X - L1[O] K2 S7 R7 Q4 P7 C3X - L0[W] P16"


class Walk:
    """Runs a nest: every unit of every level holds a set of words, and words are counted as they move.

    Of a moving tile, the rule says which steps may keep what is there: those that move the tile as a
    turn of the innermost loop outside does.
    """

    def __init__(self, problem, nest, halo):
        self.problem, self.halo = problem, halo
        self.levels = nest.levels
        self.loops = [
            (level, loop, turns, spatial)
            for level, where in enumerate(nest.levels)
            for some, spatial in ((where.temporal, False), (where.spatial, True))
            for loop, turns in some
        ]
        self.boxes = {}

    def outside(self, level, spatial):
        """Places of the loops outside a level, in order."""
        return [i for i, loop in enumerate(self.loops) if loop[0] < level and loop[3] == spatial]

    def turns(self, places):
        return list(product(*(range(self.loops[i][2]) for i in places)))

    def box(self, tensor, level, at):
        """Words of the box around what is touched inside `level` when the loops outside are `at`."""
        outer = [i for i, loop in enumerate(self.loops) if loop[0] < level]
        key = (tensor.name, level, tuple(at[i] for i in outer))
        if key not in self.boxes:
            inner = [i for i, loop in enumerate(self.loops) if loop[0] >= level]
            points = []
            for turn in self.turns(inner):
                now = {**{i: at[i] for i in outer}, **dict(zip(inner, turn, strict=True))}
                index = dict.fromkeys(self.problem.sizes, 0)
                for i, (_, loop, turns, _) in enumerate(self.loops):
                    index[loop] = index[loop] * turns + now[i]
                points.append([sum(step * index[loop] for loop, step in rank) for rank in tensor.ranks])
            low, high = np.min(points, axis=0), np.max(points, axis=0)
            sides = [range(a, b + 1) for a, b in zip(low, high, strict=True)]
            self.boxes[key] = tuple(map(int, low)), frozenset(product(*sides))
        return self.boxes[key]

    def visits(self, tensor, level, unit):
        """Words that arrive in a unit at each turn of the temporal loops outside its level."""
        places = self.outside(level, False)
        pacing = next((i for i in reversed(places) if self.loops[i][2] > 1), None)
        units = dict(zip(self.outside(level, True), unit, strict=True))
        here = None
        if pacing is not None:
            ends = [{**units, **dict.fromkeys(places, 0), pacing: turn} for turn in (0, 1)]
            starts = [np.array(self.box(tensor, level, at)[0]) for at in ends]
            pace = tuple(starts[1] - starts[0])
        for turn in self.turns(places):
            corner, words = self.box(tensor, level, {**units, **dict(zip(places, turn, strict=True))})
            if here is None:
                yield words
            else:
                step = tuple(np.array(corner) - here[0])
                keep = step == pace and (self.halo == "kept" or not any(step))
                yield words - here[1] if keep else words
            here = np.array(corner), words

    def counts(self, tensor):
        """Per level that keeps `tensor`: reads, fills, updates, drains of all units."""
        summed = tensor is self.problem.output
        keepers = [i for i, level in enumerate(self.levels) if tensor.name in level.keeps]
        table = {i: [0, 0, 0, 0] for i in keepers}
        for parent, child in zip(keepers, [*keepers[1:], len(self.levels)], strict=True):
            times = self.turns(self.outside(child, False))
            between = [i for i in self.outside(child, True) if self.loops[i][0] >= parent]
            above = self.outside(parent, True)
            for owner in self.turns(above):
                started = set()  # sums that this unit of the parent has had
                begun = {}  # and those of each of its children
                inside = self.turns(between)
                if child == len(self.levels):
                    arriving = None  # a multiplier takes its word every time
                else:
                    arriving = [list(self.visits(tensor, child, (*owner, *unit))) for unit in inside]
                for now, turn in enumerate(times):
                    served = {}
                    for number, unit in enumerate(inside):
                        at = {
                            **dict(zip(self.outside(child, False), turn, strict=True)),
                            **dict(zip(above, owner, strict=True)),
                            **dict(zip(between, unit, strict=True)),
                        }
                        # In each level, units below which all words are the same share a transfer.
                        group = tuple(
                            self.box(tensor, level + 1, {**dict.fromkeys(range(len(self.loops)), 0), **at})[1]
                            for level in range(parent, child)
                        )
                        words = group[-1] if arriving is None else arriving[number][now]
                        served[group] = words
                        if child in table:
                            back = words if not summed else words & begun.setdefault(unit, set())
                            table[child][1] += len(back)
                            table[child][3] += len(words) if summed else 0
                            begun.setdefault(unit, set()).update(words)
                    for words in served.values():
                        if summed:
                            table[parent][2] += len(words)
                            table[parent][0] += len(words & started)
                            started |= words
                        else:
                            table[parent][0] += len(words)
        return {self.levels[i].name: tuple(moved) for i, moved in table.items()}


@st.composite
def nests(draw, levels=3, limit=160):
    """A problem of few multiply-accumulates and a nest of it."""
    # Often but a few loops, so that those of one axis meet.
    names = st.sampled_from(draw(st.sampled_from(["NKCPQRS", "KPR", "PR", "P", "CQS"])))
    loops = draw(st.lists(st.tuples(names, st.integers(1, 3)), min_size=1, max_size=6))
    sizes = dict.fromkeys("NKCPQRS", 1)
    for loop, turns in loops:
        sizes[loop] *= turns
    assume(math.prod(sizes.values()) <= limit)
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 2))
    problem = Problem.convolution(
        **{loop.lower(): size for loop, size in sizes.items()}, stride=draw(pairs), dilation=draw(pairs)
    )
    parts = [([], []) for _ in range(levels)]
    for loop in loops:
        parts[draw(st.integers(0, levels - 1))][draw(st.integers(0, 2)) == 0].append(loop)
    keeps = ["WIO", *("".join(draw(st.sets(st.sampled_from("WIO")))) for _ in range(levels - 1))]
    return problem, Nest(
        tuple(
            Level(f"L{i}", tuple(kept), tuple(temporal), tuple(spatial))
            for i, (kept, (temporal, spatial)) in enumerate(zip(keeps, parts, strict=True))
        )
    )


@given(drawn=nests(), halo=st.sampled_from(HALOS))
@settings(max_examples=150)
def test_counts_are_those_of_a_walk_that_moves_every_word(drawn, halo):
    problem, nest = drawn
    walk, counts = Walk(problem, nest, halo), analyse(problem, nest, halo=halo)
    for tensor in problem.tensors:
        found = {
            name: (some.reads, some.fills, some.updates, some.drains)
            for name, some in ((name, kept.get(tensor.name)) for name, kept in counts.levels.items())
            if some
        }
        assert found == walk.counts(tensor)


@given(drawn=nests(limit=10**6), halo=st.sampled_from(HALOS))
def test_many_nests_count_what_each_does_alone(drawn, halo):
    problem, nest = drawn
    # The same loops in another order, and all in the first level.
    turned = Nest(
        tuple(
            Level(level.name, level.keeps, level.temporal[::-1], level.spatial[::-1]) for level in nest.levels
        )
    )
    loops = tuple(problem.sizes.items())
    flat = Nest(
        tuple(
            Level(level.name, level.keeps, loops if level is nest.levels[0] else ()) for level in nest.levels
        )
    )
    many = analyse_many(problem, [nest, turned, flat], halo=halo)
    assert [many[i] for i in range(len(many))] == [
        analyse(problem, each, halo=halo) for each in (nest, turned, flat)
    ]


@given(drawn=nests(limit=10**6))
def test_text_of_a_nest_reads_back(drawn):
    assert Nest.parse(str(drawn[1])) == drawn[1]
    assert str(Nest.parse(MAPPING)) == MAPPING


# Words of A, W and O that cross from a memory to a chip of one tile, for orders of three tile loops,
# outermost first; M, N, K and the tile counts nm, nn, nk above 1.
ORDERS = {
    "MNK": lambda m, n, k, nm, nn, nk: (m * k * nn, n * k * nm, m * n),
    "NMK": lambda m, n, k, nm, nn, nk: (m * k * nn, n * k * nm, m * n),
    "MKN": lambda m, n, k, nm, nn, nk: (m * k, n * k * nm, m * n * nk),
    "NKM": lambda m, n, k, nm, nn, nk: (m * k * nn, n * k, m * n * nk),
    "KMN": lambda m, n, k, nm, nn, nk: (m * k, n * k * nm, m * n * nk),
    "KNM": lambda m, n, k, nm, nn, nk: (m * k * nn, n * k, m * n * nk),
}


def product_nest(order, counts, tile):
    outer = " ".join(f"{loop}{counts[loop]}" for loop in order)
    return Nest.parse(f"Dram[AWO] {outer} - Chip[AWO] " + " ".join(f"{i}{size}" for i, size in tile.items()))


def off_chip(order, counts, tile):
    problem = Problem.gemm(**{loop.lower(): counts[loop] * tile[loop] for loop in "MNK"})
    dram = analyse(problem, product_nest(order, counts, tile)).levels["Dram"]
    assert dram["O"].reads == dram["O"].updates - problem.sizes["M"] * problem.sizes["N"]
    return dram["A"].reads, dram["W"].reads, dram["O"].updates


@pytest.mark.parametrize("order", ORDERS)
def test_tile_loops_fetch_what_the_table_of_orders_says(order):
    counts, tile = {"M": 2, "N": 3, "K": 5}, {"M": 4, "N": 7, "K": 6}
    m, n, k = (counts[loop] * tile[loop] for loop in "MNK")
    assert off_chip(order, counts, tile) == ORDERS[order](m, n, k, 2, 3, 5)


@pytest.mark.parametrize(
    ("order", "counts", "wanted"),
    [
        # 8 x 21 outputs, 30 terms: A has 240 words, W 630, O 168.
        ("MNK", {"M": 2, "N": 1, "K": 5}, (240, 630 * 2, 168)),
        ("MNK", {"M": 2, "N": 3, "K": 1}, (240, 630 * 2, 168)),  # one tile of A serves all N
        ("NMK", {"M": 2, "N": 3, "K": 1}, (240 * 3, 630, 168)),  # one of W serves all M
        ("MKN", {"M": 2, "N": 1, "K": 5}, (240, 630 * 2, 168)),  # sums stay over K
        ("NKM", {"M": 1, "N": 3, "K": 5}, (240 * 3, 630, 168)),
        ("KMN", {"M": 1, "N": 1, "K": 5}, (240, 630, 168)),
        ("KMN", {"M": 1, "N": 3, "K": 5}, (240, 630, 168 * 5)),
        ("KNM", {"M": 2, "N": 1, "K": 5}, (240, 630, 168 * 5)),
        ("KNM", {"M": 1, "N": 1, "K": 1}, (240, 630, 168)),
    ],
)
def test_a_loop_of_one_turn_is_no_loop(order, counts, wanted):
    sizes = {"M": 8, "N": 21, "K": 30}
    assert off_chip(order, counts, {loop: sizes[loop] // counts[loop] for loop in "MNK"}) == wanted


# Reads, fills, updates per instance as Timeloop prints them for its worked examples.
EXAMPLES = {
    "one-dimensional, one output at a time": (
        {"p": 16, "r": 3},
        "Memory[WIO] P16 - Buffer[WIO] R3",
        {
            ("Memory", "W"): (3, 0, 0),
            ("Memory", "I"): (18, 0, 0),
            ("Memory", "O"): (0, 0, 16),
            ("Buffer", "W"): (48, 3, 0),
            ("Buffer", "I"): (48, 18, 0),
            ("Buffer", "O"): (32, 0, 48),
        },
    ),
    "one-dimensional, one weight at a time": (
        {"p": 16, "r": 3},
        "Memory[WIO] R3 - Buffer[WIO] P16",
        {
            ("Memory", "I"): (18, 0, 0),
            ("Memory", "O"): (0, 0, 16),
            ("Buffer", "W"): (48, 3, 0),
            ("Buffer", "I"): (48, 18, 0),
            ("Buffer", "O"): (32, 0, 48),
        },
    ),
    "16 buffers": (
        {"p": 16, "r": 3, "k": 32, "c": 32},
        "Memory[WIO] K16X - Buffer[WIO] C32 K2 R3 - File[WIO] P16",
        {
            ("Memory", "W"): (3072, 0, 0),
            ("Memory", "I"): (576, 0, 0),
            ("Memory", "O"): (0, 0, 512),
            ("Buffer", "W"): (192, 192, 0),
            ("Buffer", "I"): (1152, 576, 0),
            ("Buffer", "O"): (992, 0, 1024),
            ("File", "W"): (3072, 192, 0),
            ("File", "I"): (3072, 1152, 0),
            ("File", "O"): (3040, 992, 3072),
        },
    ),
    "row stationary": (
        {"c": 3, "k": 32, "p": 112, "q": 112, "r": 3, "s": 3, "stride": (2, 2)},
        (
            "Dram[WIO] P8 Q2 K4 - Buffer[IO] P14 Q4 - Columns[] Q14X - Rows[] C3X S3X - Inputs[I] - "
            "Weights[W] R3 - Sums[O] K8"
        ),
        {
            ("Dram", "W"): (13824, 0, 0),
            ("Dram", "I"): (157296, 0, 0),
            ("Dram", "O"): (0, 0, 401408),
            ("Buffer", "I"): (1354752, 157296, 0),
            ("Buffer", "O"): (0, 0, 401408),
            ("Inputs", "I"): (86016, 10752, 0),
            ("Weights", "W"): (86016, 1536, 0),
            ("Sums", "O"): (57344, 0, 86016),
        },
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_counts_equal_those_that_timeloop_prints(name):
    sizes, text, wanted = EXAMPLES[name]
    counts = analyse(Problem.convolution(**sizes), Nest.parse(text))
    for (level, tensor), moved in wanted.items():
        some = counts.levels[level][tensor]
        assert tuple(words / some.instances for words in (some.reads, some.fills, some.updates)) == moved


def test_units_tiles_and_cycles_of_a_mapping_by_hand():
    counts = analyse(CONVOLUTION, Nest.parse(MAPPING))
    assert counts.macs == 64 * 3 * 112 * 112 * 7 * 7
    assert (counts.units, counts.cycles) == (12, counts.macs // 12)
    # A scratchpad tile: 8 filters of 3 x 7 x 7; 4 output columns, all 112 rows, stride 2.
    scratchpad = counts.levels["L2"]
    assert scratchpad["W"].tile_words == 8 * 3 * 7 * 7
    assert scratchpad["I"].tile_words == 3 * (111 * 2 + 7) * (3 * 2 + 7)
    # 4 columns of multipliers, each with sums of 2 channels, 112 rows, 4 columns of outputs.
    assert (counts.levels["L1"]["O"].instances, counts.levels["L1"]["O"].tile_words) == (4, 2 * 112 * 4)
    # 4 channels that use a sample get it by one read; 3 rows of cells add up on the way out.
    assert scratchpad["I"].reads == counts.macs // 4
    assert counts.levels["L1"]["O"].updates == counts.macs // 3


def test_a_window_keeps_its_halo_along_the_innermost_loop_only():
    problem = Problem.convolution(k=2, p=8, q=8, r=3, s=3)

    def fills(outer, **halo):
        inner = "K2 P2 Q2 R3 S3" if "K" not in outer else "P2 Q2 R3 S3"
        nest = Nest.parse(f"Dram[WIO] {outer} - Chip[WIO] {inner}")
        return analyse(problem, nest, **halo).levels["Chip"]["I"].fills

    # Tiles of 4 x 4 inputs; a step brings 4 x 2 new ones. Four sweeps of four tiles.
    assert fills("P4 Q4") == fills("Q4 P4") == 4 * (16 + 3 * 8)
    assert fills("P4 Q4", halo="refetched") == 16 * 16
    # Each of the two channels sweeps over every tile again, or stays with it.
    assert fills("K2 P4 Q4") == 2 * fills("P4 Q4")
    assert fills("P4 Q4 K2") == 16 * 16


@pytest.mark.parametrize("outer", ["P6", "P2 P3", "P3 P2", "P6 K1", "R1 P2 P1 P3"])
def test_a_window_slides_on_through_adjacent_loops_of_its_axis(outer):
    problem = Problem.convolution(p=12, r=3)
    nest = Nest.parse(f"Dram[WIO] {outer} - Chip[WIO] P2 R3")
    assert analyse(problem, nest).levels["Chip"]["I"].fills == 14
    assert analyse_many(problem, [nest])[0] == analyse(problem, nest)


def test_a_step_of_several_units_is_as_long_as_all_of_them():
    # Two chips of 2 outputs and 4 inputs: each moves on by 4, past all that it has.
    problem = Problem.convolution(p=12, r=3)
    counts = analyse(problem, Nest.parse("Dram[WIO] P3 P2X - Chip[WIO] P2 R3"))
    assert counts.levels["Chip"]["I"].fills == 2 * 3 * 4


def test_units_on_one_diagonal_share_an_input():
    problem = Problem.convolution(q=5, s=3)
    # 15 units use inputs 0 to 6: in one level each is read once; in two, 5 columns read 3 each.
    one = analyse(problem, Nest.parse("Buffer[WIO] Q5X S3X"))
    two = analyse(problem, Nest.parse("Buffer[WIO] Q5X - Rows[] S3X"))
    assert (one.levels["Buffer"]["I"].reads, two.levels["Buffer"]["I"].reads) == (7, 15)
    assert one.levels["Buffer"]["W"].reads == two.levels["Buffer"]["W"].reads == 3
    # With stride 3, 2 outputs use inputs 0, 1 and 3, 4.
    problem = Problem.convolution(q=2, s=2, stride=(1, 3))
    for nest in (Nest.parse("Buffer[WIO] S2X Q2X"), Nest.parse("Buffer[WIO] Q2X S2X")):
        assert analyse(problem, nest).levels["Buffer"]["I"].reads == 4
        assert analyse_many(problem, [nest])[0] == analyse(problem, nest)


@given(drawn=nests(limit=10**6))
def test_a_halo_that_is_kept_never_adds_and_every_word_is_fetched_once_at_least(drawn):
    problem, nest = drawn
    kept, refetched = (analyse(problem, nest, halo=halo) for halo in HALOS)
    for name, level in kept.levels.items():
        for tensor, some in level.items():
            assert some.fills <= refetched.levels[name][tensor].fills
            assert some.reads <= refetched.levels[name][tensor].reads
    # Words that an input has under one loop per axis; boxes would count gaps between strides.
    for tensor in problem.tensors:
        touched = math.prod(max(problem.sizes[loop] for loop, _ in rank) for rank in tensor.ranks)
        first = kept.levels[nest.levels[0].name][tensor.name]
        assert max(first.reads, first.updates) >= touched


@given(
    order=st.permutations("MNK"),
    counts=st.tuples(*[st.integers(1, 4)] * 3),
    tile=st.tuples(*[st.integers(1, 6)] * 3),
)
def test_traffic_of_a_product_is_above_the_bound_of_its_storage(order, counts, tile):
    counts, tile = dict(zip("MNK", counts, strict=True)), dict(zip("MNK", tile, strict=True))
    m, n, k = (counts[loop] * tile[loop] for loop in "MNK")
    a, w, o = off_chip(order, counts, tile)
    held = tile["M"] * tile["K"] + tile["K"] * tile["N"] + tile["M"] * tile["N"]
    words = a + w + o
    assert words >= m * k + k * n + m * n
    assert words >= 2 * m * n * k / math.sqrt(held) - 2 * held


@given(
    order=st.permutations("MNK"),
    counts=st.tuples(*[st.integers(1, 4)] * 3),
    tile=st.tuples(*[st.integers(1, 4)] * 3),
)
def test_a_chip_that_holds_the_innermost_tile_loop_fetches_no_more(order, counts, tile):
    counts, tile = dict(zip("MNK", counts, strict=True)), dict(zip("MNK", tile, strict=True))
    inner = order[-1]
    larger = off_chip(order, counts | {inner: 1}, tile | {inner: counts[inner] * tile[inner]})
    assert all(new <= old for new, old in zip(larger, off_chip(order, counts, tile), strict=True))


SMALL = Problem.gemm(m=4, n=6, k=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Nest.parse("Dram AWO M4"), "begin with NAME"),
        (lambda: Nest.parse("Dram[AWO] M"), "NAME COUNT"),
        (lambda: Nest.parse("Dram[AWO] M4X N6"), "temporal loop N6 of level Dram must precede"),
        (lambda: Nest.parse("Dram[AWO] M0"), "at least 1 turn, got 0"),
        (lambda: Nest.parse("Dram[AWO] - Dram[A]"), "Dram occurs more than once"),
        (lambda: analyse(SMALL, Nest.parse("Dram[AWO] M4 N3 K2")), "loop N multiply to 3, the problem has 6"),
        (lambda: analyse(SMALL, Nest.parse("Dram[AWO] M4 N6 K2 P1")), "unknown loop P"),
        (lambda: analyse(SMALL, Nest.parse("Dram[AO] M4 N6 K2")), "every tensor, W is missing"),
        (lambda: analyse(SMALL, Nest(())), "multiply to 1"),
        (
            lambda: analyse(SMALL, Nest.parse("Dram[AWO] M4 - Chip[I] N6 K2")),
            "keeps I; the tensors are A, W, O",
        ),
        (
            lambda: analyse(SMALL, Nest.parse("Dram[AWO] M4 N6 K2"), halo="none"),
            "kept, refetched; got 'none'",
        ),
        (lambda: Problem.gemm(m=0, n=1, k=1), "loop M must have at least 1 turn, got 0"),
        (lambda: Problem.convolution(p=2, stride=(0, 1)), "coefficient of P in I must be at least 1, got 0"),
        (lambda: Access("A", ((("M", 1),), (("M", 1),))), "M indexes tensor A more than once"),
        (lambda: Access("a", ((("M", 1),),)), "capital"),
        (lambda: Problem({"M": 2}, (), Access("O", ((("N", 1),),))), "indexed by N; the loops are M"),
        (lambda: Problem({"M": 2}, (), Access("O", ((("M", 2),),))), "must follow one loop"),
        (
            lambda: Problem({"M": 2}, (Access("O", ((("M", 1),),)),), Access("O", ((("M", 1),),))),
            "different names",
        ),
        (lambda: analyse_many(SMALL, []), "at least 1 nest"),
        (lambda: analyse_many(SMALL, [Nest.parse("Dram[AWO] M4 N6 K2")], halo="no"), "got 'no'"),
        (
            lambda: analyse_many(SMALL, [Nest.parse("Dram[AWO] M4 N6 K2"), Nest.parse("Chip[AWO] M4 N6 K2")]),
            "as those of the first nest",
        ),
        (
            lambda: analyse_many(
                Problem.gemm(m=2**21, n=2**21, k=2**21), [Nest.parse("D[AWO] M2097152 N2097152 K2097152")]
            ),
            "64 bits",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_counts_beyond_64_bits_are_exact_one_at_a_time():
    size = 2**21
    counts = analyse(Problem.gemm(m=size, n=size, k=size), Nest.parse(f"D[AWO] M{size} N{size} K{size}"))
    assert counts.levels["D"]["A"].reads == size**3


@given(times=st.lists(st.floats(0, 1e300), min_size=1, max_size=4), exponent=st.floats(1, 50))
def test_overlap_lies_between_the_longest_part_and_the_sum(times, exponent):
    found = float(overlapped(*times, exponent=exponent))
    assert max(times) * (1 - 1e-12) <= found <= sum(times) * (1 + 1e-12)
    assert float(overlapped(*times)) == max(times)
    assert float(overlapped(*times, exponent=1)) == pytest.approx(sum(times))


@given(
    first=st.floats(1e-3, 1e3),
    second=st.floats(1e-3, 1e3),
    exponents=st.tuples(st.floats(1, 20), st.floats(1, 20)).map(sorted),
)
def test_more_overlap_and_more_efficiency_never_take_longer(first, second, exponents):
    less, more = (float(overlapped(first, second, exponent=p)) for p in exponents)
    assert more <= less * (1 + 1e-12)
    slow, fast = (Overlap(exponent=2, memory_efficiency=e).time(first, second) for e in (0.5, 0.9))
    assert fast <= slow


def test_an_overlap_by_hand():
    overlap = Overlap(exponent=2, compute_efficiency=0.5, memory_efficiency=0.25, start=10)
    # (6 / 0.5)^2 + (4 / 0.25)^2 = 20^2; a port that takes 25 holds it up, one that takes 5 does not.
    assert overlap.time([6, 6], 4, [5, 25]).tolist() == [30, 35]
    assert overlapped([3, 0], [4, 0], exponent=2).tolist() == [5, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: overlapped(), "at least 1 time"),
        (lambda: overlapped(1, -2), "not be negative, got -2"),
        (lambda: overlapped(1, exponent=0.5), "at least 1, got 0.5"),
        (lambda: Overlap(exponent=math.nan), "exponent must be at least 1, got nan"),
        (lambda: Overlap(compute_efficiency=0), "compute_efficiency must be above 0, got 0"),
        (lambda: Overlap(start=-1), "start must not be negative, got -1"),
    ],
)
def test_bad_times_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
