"""Offsets of fixed lifetimes: against all offsets tried one by one, and by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from time import perf_counter, sleep

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.schedule import allocation as module
from accel.schedule._packer.search import load_kernels, peak_load, problem_of
from accel.schedule.allocation import (
    Allocation,
    AllocationError,
    Lifetime,
    allocate,
    place_rectangles,
    read_lifetimes,
)

# The example in the documentation of MiniMalloc, for a memory of 12.
TINY = """id,lower,upper,size
b1,0,3,4
b2,3,9,4
b3,0,9,4
b4,9,21,4
b5,0,21,4
"""


def lifetimes_of(*rows: tuple[int, int, int]) -> list[Lifetime]:
    return [Lifetime(name=f"b{i}", start=a, end=b, bytes=n) for i, (a, b, n) in enumerate(rows)]


def can_place(rows: list[tuple[int, int, int]], capacity: int, alignment: int = 1) -> bool:
    """Whether any choice of offsets is legal: block by block, all multiples of the alignment."""
    rows = sorted(rows)
    if peak_of(rows) > capacity:
        return False

    def extend(chosen: list[int]) -> bool:
        if len(chosen) == len(rows):
            return True
        start, end, size = rows[len(chosen)]
        for at in range(0, capacity - size + 1, alignment):
            if all(
                size == 0 or n == 0 or end <= a or b <= start or at + size <= offset or offset + n <= at
                for offset, (a, b, n) in zip(chosen, rows, strict=False)
            ) and extend([*chosen, at]):
                return True
        return False

    return extend([])


def peak_of(rows: list[tuple[int, int, int]]) -> int:
    return max((sum(n for a, b, n in rows if a <= t < b) for t in range(40)), default=0)


def disjoint_and_inside(found: Allocation, capacity: int, alignment: int = 1) -> bool:
    """Byte by byte and step by step: a replay that is not `check`."""
    owner: dict[tuple[int, int], int] = {}
    for i, (buffer, at) in enumerate(zip(found.lifetimes, found.offsets, strict=True)):
        if at % alignment or at < 0 or at + buffer.bytes > capacity:
            return False
        for cell in product(range(buffer.start, buffer.end), range(at, at + buffer.bytes)):
            if owner.setdefault(cell, i) != i:
                return False
    return True


buffer_rows = st.builds(
    lambda start, length, size: (start, start + length, size),
    st.integers(0, 5),
    st.integers(1, 4),
    st.integers(0, 5),
)


@given(rows=st.lists(buffer_rows, max_size=7), spare=st.integers(-1, 2))
@settings(max_examples=100, deadline=None)
def test_places_exactly_what_can_be_placed(rows, spare):
    load = peak_of(rows)
    capacity = max(load + spare, 1)
    found = allocate(lifetimes_of(*rows), capacity)
    assert found.status == ("PLACED" if can_place(rows, capacity) else "INFEASIBLE")
    if found.status == "PLACED":
        found.check()
        assert disjoint_and_inside(found, capacity)
        assert load <= found.bound_bytes <= found.height_bytes <= capacity
    else:
        assert found.offsets == ()
        assert found.height_bytes is None
        assert found.bound_bytes > capacity


@given(rows=st.lists(buffer_rows, max_size=6))
@settings(max_examples=60, deadline=None)
def test_minimal_capacity_is_the_least_that_can_be_placed(rows):
    found = allocate(lifetimes_of(*rows))
    found.check()
    assert found.status == "OPTIMAL"
    assert found.height_bytes == found.bound_bytes
    assert disjoint_and_inside(found, found.height_bytes)
    assert can_place(rows, found.height_bytes)
    assert found.height_bytes == 0 or not can_place(rows, found.height_bytes - 1)


@given(rows=st.lists(buffer_rows, max_size=6), alignment=st.integers(2, 4), units=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_alignment_rounds_sizes_up_and_the_capacity_down(rows, alignment, units):
    rounded = [(a, b, -(-n // alignment) * alignment) for a, b, n in rows]
    capacity = units * alignment
    found = allocate(lifetimes_of(*rows), capacity + alignment - 1, alignment=alignment)
    assert found.status == ("PLACED" if can_place(rounded, capacity, alignment) else "INFEASIBLE")
    if found.is_placed:
        found.check()
        assert disjoint_and_inside(found, capacity, alignment)


def full_rows(
    seed: int,
    *,
    sizes: tuple[int, int] = (3, 8),
    capacities: tuple[int, int] = (8, 14),
    lasts: tuple[int, int] = (8, 14),
) -> tuple[list[tuple[int, int, int]], int]:
    """Lifetimes whose load is one number at all times: little choice, now and then none."""
    random = np.random.default_rng(seed)
    capacity = int(random.integers(*capacities))
    last = int(random.integers(*lasts))
    live: list[tuple[int, int]] = []
    rows: list[tuple[int, int, int]] = []
    for t in range(last + 1):
        ends = [t == last or random.random() < 0.3 for _ in live]
        rows += [(start, t, n) for (start, n), is_end in zip(live, ends, strict=True) if is_end]
        live = [block for block, is_end in zip(live, ends, strict=True) if not is_end]
        while t < last and (room := capacity - sum(n for _, n in live)):
            live.append((t, min(room, int(random.integers(*sizes)))))
    return rows, capacity


def test_full_loads_are_decided_as_by_trying_all_offsets():
    decisions = []
    for seed in range(500):
        rows, capacity = full_rows(seed)
        assert peak_of(rows) == capacity
        offsets, is_decided = place_rectangles(
            *np.array(rows, np.int64).T, capacity, deadline_s=perf_counter() + 30
        )
        assert is_decided
        assert (offsets is not None) == can_place(rows, capacity)
        decisions.append(offsets is not None)
    assert 0 < decisions.count(False) < decisions.count(True)


def cut_rectangle(
    pieces: int, seed: int, *, times: int = 60, height: int = 512
) -> list[tuple[int, int, int]]:
    """Lifetimes that fill ``times x height`` without a gap: cut, piece by piece, at random."""
    random = np.random.default_rng(seed)
    blocks = [(0, times, height)]
    while len(blocks) < pieces:
        i = int(np.argmax([(b - a) * n * random.random() for a, b, n in blocks]))
        a, b, n = blocks.pop(i)
        if b - a > 1 and (n == 1 or random.random() < 0.5):
            cut = int(random.integers(a + 1, b))
            blocks += [(a, cut, n), (cut, b, n)]
        else:
            cut = int(random.integers(1, n))
            blocks += [(a, b, cut), (a, b, n - cut)]
    return [blocks[i] for i in random.permutation(len(blocks))]


@pytest.mark.parametrize("seed", range(4))
def test_a_rectangle_cut_to_pieces_is_put_together(seed):
    found = allocate(lifetimes_of(*cut_rectangle(50, seed)), 512, time_limit_s=20)
    found.check()
    assert (found.status, found.height_bytes) == ("PLACED", 512)


def test_a_rectangle_cut_to_pieces_needs_the_search():
    found = [allocate(lifetimes_of(*cut_rectangle(50, seed)), 512, time_limit_s=20) for seed in range(4)]
    assert "search" in {each.method for each in found}
    assert all(each.nodes > 0 for each in found if each.method == "search")


@pytest.mark.parametrize("workers_seed", [0, 7])
def test_a_seed_gives_one_result(workers_seed):
    rows = lifetimes_of(*cut_rectangle(60, 11))
    first, second = (allocate(rows, 512, seed=workers_seed, time_limit_s=30) for _ in range(2))
    assert first.offsets == second.offsets


@pytest.mark.slow
@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize(("pieces", "seed"), [(150, 0), (150, 2), (220, 1), (220, 3)])
def test_many_pieces_are_put_together_forward_and_backward_in_time(pieces, seed, direction):
    rows = cut_rectangle(pieces, seed, times=80, height=1024)
    if direction < 0:
        rows = [(80 - b, 80 - a, n) for a, b, n in rows]
    found = allocate(lifetimes_of(*rows), 1024, time_limit_s=60)
    found.check()
    assert (found.status, found.method, found.height_bytes) == ("PLACED", "search", 1024)


@pytest.mark.slow
def test_larger_full_loads_are_decided():
    decisions = []
    for seed in range(60):
        rows, capacity = full_rows(seed, sizes=(3, 16), capacities=(40, 41), lasts=(16, 17))
        offsets, is_decided = place_rectangles(
            *np.array(rows, np.int64).T, capacity, deadline_s=perf_counter() + 30
        )
        assert is_decided
        if offsets is not None:
            found = replace(
                allocate([], capacity), lifetimes=tuple(lifetimes_of(*rows)), offsets=tuple(offsets.tolist())
            )
            found.check()
        decisions.append(offsets is not None)
    assert 0 < sum(decisions) < 60


def test_the_clock_starts_when_the_kernels_are_loaded(monkeypatch):
    load_kernels()
    monkeypatch.setattr(module, "load_kernels", lambda: sleep(0.5))
    found = allocate(lifetimes_of(*cut_rectangle(50, 0)), 512, time_limit_s=0.4)
    assert found.seconds >= 0.5
    assert found.status == "PLACED"


def test_a_full_load_without_placement_needs_one_more():
    rows = [
        (0, 2, 2), (0, 3, 4), (2, 4, 1), (3, 4, 1), (2, 5, 1), (3, 5, 3), (4, 6, 2), (5, 6, 2), (5, 6, 2)
    ]  # fmt: skip
    assert peak_of(rows) == 6
    assert not can_place(rows, 6)
    found = allocate(lifetimes_of(*rows), 6)
    assert (found.status, found.method, found.bound_bytes) == ("INFEASIBLE", "search", 7)
    least = allocate(lifetimes_of(*rows))
    least.check()
    assert (least.status, least.height_bytes) == ("OPTIMAL", 7)


def test_no_time_is_undecided_and_never_infeasible():
    rows = lifetimes_of(*cut_rectangle(150, 3))
    found = allocate(rows, 512, time_limit_s=0.0)
    assert (found.status, found.offsets, found.height_bytes) == ("UNDECIDED", (), None)
    with pytest.raises(AllocationError, match="status is UNDECIDED"):
        found.check()
    least = allocate(rows, time_limit_s=0.0)
    least.check()
    assert least.status == "FEASIBLE"
    assert least.bound_bytes == 512 < least.height_bytes


def test_the_time_limit_is_kept():
    rows = lifetimes_of(*cut_rectangle(400, 5, times=200, height=100_003))
    began = perf_counter()
    found = allocate(rows, 100_003, time_limit_s=0.3)
    assert perf_counter() - began < 10.0  # far from the minutes that it may need
    assert found.status in ("PLACED", "UNDECIDED")


def test_the_five_buffers_fill_twelve(tmp_path):
    (path := tmp_path / "tiny.csv").write_text(TINY)
    found = allocate(read_lifetimes(path), 12)
    found.check()
    assert (found.status, found.height_bytes, found.bound_bytes) == ("PLACED", 12, 12)
    assert set(found.by_name) == {"b1", "b2", "b3", "b4", "b5"}
    assert [found.by_name[a.name] for a in found.lifetimes] == list(found.offsets)
    assert list(found.table.columns) == ["id", "lower", "upper", "size", "offset"]
    assert found.table["offset"].tolist() == list(found.offsets)
    assert allocate(read_lifetimes(path), 11).status == "INFEASIBLE"
    assert allocate(read_lifetimes(path)).height_bytes == 12


def test_a_table_needs_no_names():
    frame = pd.DataFrame({"lower": [0, 1], "upper": [2, 3], "size": [5, 6]})
    found = allocate(frame, 11)
    assert sorted(found.by_name) == ["0", "1"]
    assert allocate(frame, 10).status == "INFEASIBLE"


def test_nothing_needs_nothing():
    assert allocate([]).height_bytes == 0
    assert allocate([]).status == "OPTIMAL"
    assert allocate([], 4).status == "PLACED"
    assert allocate(pd.DataFrame({"lower": [], "upper": [], "size": []})).offsets == ()
    allocate([]).check()


def test_zero_sizes_take_no_part():
    found = allocate(lifetimes_of((0, 4, 0), (0, 4, 3), (1, 2, 0)), 3)
    found.check()
    assert found.offsets == (0, 0, 0)


def test_identical_blocks_stack_up():
    found = allocate(lifetimes_of(*[(0, 4, 3)] * 12), 36)
    found.check()
    assert sorted(found.offsets) == list(range(0, 36, 3))
    assert allocate(lifetimes_of(*[(0, 4, 3)] * 12), 35).status == "INFEASIBLE"


def test_a_large_unit_is_divided_out():
    rows = lifetimes_of((0, 2, 3 << 40), (1, 3, 5 << 40))
    assert allocate(rows).height_bytes == 8 << 40
    assert allocate(rows, (8 << 40) - 1).status == "INFEASIBLE"


def test_check_finds_what_is_wrong():
    found = allocate(lifetimes_of((0, 4, 4), (2, 6, 4), (5, 8, 4)), 8, alignment=2)
    found.check()
    for offsets, message in (
        ((0, 2, 4), "live at once"),
        ((0, 6, 0), "multiples of 2 from 0 to 8"),
        ((1, 4, 0), "multiples of 2 from 0 to 8"),
        ((-2, 4, 0), "multiples of 2"),
    ):
        with pytest.raises(AllocationError, match=message):
            replace(found, offsets=offsets).check()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"lower": [0], "upper": [1]}, "missing size"),
        ({"lower": [0], "upper": [1], "size": [1], "hint": [3]}, "got also hint"),
        ({"lower": [0], "upper": [1], "size": [1.5]}, "size must hold integers, got float64"),
        ({"lower": [0], "upper": [1], "size": [-4]}, r"bytes of '0' must be in 0..2\*\*60, got -4"),
        ({"lower": [3], "upper": [3], "size": [4]}, "end of '0' must be after its start 3, got 3"),
        ({"id": ["x", "x"], "lower": [0, 1], "upper": [1, 2], "size": [1, 1]}, "distinct, got 'x' twice"),
    ],
)
def test_a_bad_table_is_named(columns, message):
    with pytest.raises(ValueError, match=message):
        allocate(pd.DataFrame(columns), 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity": 3, "alignment": 4}, "at least the alignment of 4 bytes, got 3"),
        ({"capacity": 0}, "capacity must be at least 1, got 0"),
        ({"alignment": 0}, "alignment must be at least 1, got 0"),
        ({"time_limit_s": -1.0}, "time_limit_s must be at least 0, got -1.0"),
    ],
)
def test_a_bad_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        allocate(lifetimes_of((0, 1, 1)), **options)


def test_a_lifetime_is_of_integers():
    with pytest.raises(TypeError, match=r"^start of 'x' must be a whole number, got 0\.5$"):
        Lifetime(name="x", start=0.5, end=2, bytes=1)
    with pytest.raises(TypeError, match=r"^bytes of 'x' must be a whole number, got True$"):
        Lifetime(name="x", start=0, end=2, bytes=True)


def test_narrow_integers_become_plain_ones():
    buffers = [Lifetime(name=name, start=0, end=2, bytes=np.uint8(200)) for name in "ab"]
    found = allocate(buffers, np.int16(400), alignment=np.uint8(2))
    assert (found.status, found.height_bytes) == ("PLACED", 400)
    assert {type(found.capacity), type(found.alignment), type(found.height_bytes)} == {int}


@pytest.mark.parametrize(("lifetimes", "got"), [(None, "None"), ([5], "5 in it"), ("ab", "'a' in it")])
def test_what_is_no_lifetime_is_refused(lifetimes, got):
    with pytest.raises(TypeError, match=f"^lifetimes must be a sequence of Lifetime or a table, got {got}$"):
        allocate(lifetimes)


@given(rows=st.lists(buffer_rows, max_size=6), capacity=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_arrays_are_placed_as_lifetimes_are(rows, capacity):
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    offsets, is_decided = place_rectangles(*columns, capacity, deadline_s=perf_counter() + 30)
    assert is_decided
    assert (offsets is not None) == can_place(rows, capacity)
    if offsets is not None:
        found = replace(
            allocate([], capacity), lifetimes=tuple(lifetimes_of(*rows)), offsets=tuple(offsets.tolist())
        )
        found.check()


def test_arrays_without_time_are_undecided():
    columns = np.array(cut_rectangle(150, 3), np.int64).T
    assert place_rectangles(*columns, 512, deadline_s=perf_counter()) == (None, False)


@given(rows=st.lists(buffer_rows.filter(lambda row: row[2] > 0), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_sections_keep_every_pair_that_meets_and_the_largest_load(rows):
    start, end, size = np.array(rows, np.int64).T
    problem, order = problem_of(start, end, size, 10)
    start, end, size = start[order], end[order], size[order]
    meets = (start[:, None] < end) & (start < end[:, None]) & ~np.eye(len(rows), dtype=bool)
    sections = (problem.start[:, None] < problem.end) & (problem.start < problem.end[:, None])
    assert (meets == (sections & ~np.eye(len(rows), dtype=bool))).all()
    loads = [problem.size[live].sum() for live in np.split(problem.live, problem.live_at[1:-1])]
    assert max(loads) == peak_load(start, end, size)


@pytest.mark.parametrize(
    "options", [{"capacity": 2.5}, {"capacity": True}, {"capacity": 8, "alignment": 1.5}]
)
def test_options_that_are_no_whole_numbers_are_refused(options):
    with pytest.raises(TypeError, match="must be a whole number"):
        allocate([Lifetime(name="a", start=0, end=1, bytes=2)], **options)


def test_a_row_that_is_too_long_is_refused(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text("lower,upper,size\n0,3,4,9\n")
    with pytest.raises(ValueError, match="rows must have as many values as there are columns"):
        read_lifetimes(path)
