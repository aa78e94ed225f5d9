import math
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.space import Categorical, Ordinal, Space


def small():
    return pd.DataFrame(
        {
            "unroll": [4, 1, 2, 8, 1],
            "pipe": ["off", "cg", "off", "flatten", "off"],
            "clock": [100.0, 100.0, 200.0, 300.0, 100.0],
            "branch": [True, False, False, True, False],
            "fixed": [7] * 5,
            "estimate": [10.0, 1000.0, 100.0, 1.0, 31.622776601683793],
            "same": [3.0] * 5,
            "time": [5.0, 4.0, 3.0, 2.0, 1.0],
        }
    )


COLUMNS = ["unroll", "pipe", "clock", "branch", "fixed"]


def test_a_column_is_what_its_values_are():
    space = Space.from_table(small(), COLUMNS)
    assert space.parameters == (
        Ordinal("unroll", (1, 2, 4, 8), log=True),
        Categorical("pipe", ("cg", "flatten", "off")),
        Ordinal("clock", (100.0, 200.0, 300.0)),
        Categorical("branch", (False, True)),
        Ordinal("fixed", (7,)),
    )
    assert space.is_table
    assert space.size == 5
    assert [parameter.name for parameter in space.searched] == COLUMNS[:-1]
    for design in space.designs():
        assert [type(value) for value in design] == [int, str, float, bool, int]


def test_order_and_kinds_that_pandas_knows():
    frame = pd.DataFrame(
        {
            "family": pd.Categorical(["fp8", "fp4", "fp8"], ["fp4", "fp6", "fp8"], ordered=True),
            "flow": pd.Categorical(["ws", "os", "os"]),
            "bits": pd.array([8, 4, 2], dtype="Int64"),
            "scale": np.array([1, 2, 3], dtype=np.float32),
            "mixed": [1, "a", True],
            "numbers": pd.Series([1, 2.5, 4], dtype=object),
        }
    )
    space = Space.from_table(frame, frame.columns)
    assert space.parameters[0] == Ordinal("family", ("fp4", "fp8"))
    assert space.parameters[1] == Categorical("flow", ("os", "ws"))
    assert space.parameters[2] == Ordinal("bits", (2, 4, 8), log=True)
    assert space.parameters[3].choices == (1.0, 2.0, 3.0)
    assert space.parameters[4].choices == (1, "a")  # True is 1
    assert space.parameters[5] == Ordinal("numbers", (1, 2.5, 4))
    assert [space.row(design) for design in space.designs()] == [1, 2, 0]


def test_designs_are_the_rows_sorted_by_value():
    space = Space.from_table(small(), COLUMNS)
    designs = list(space.designs())
    assert [space.row(design) for design in designs] == [1, 4, 2, 0, 3]
    assert designs[0] == (1, "cg", 100.0, False, 7)
    for row, record in enumerate(small()[COLUMNS].to_dict("records")):
        assert space.row(space.design(record)) == row
        assert space.why_infeasible(record) is None


def test_what_is_no_row_is_infeasible():
    space = Space.from_table(small(), COLUMNS)
    absent = {"unroll": 8, "pipe": "cg", "clock": 100, "branch": False, "fixed": 7}
    assert space.why_infeasible(absent) == "the table has no such row"
    design = space.design(absent)
    assert not space.is_feasible(design)
    with pytest.raises(ValueError, match=r"a design must be a row of the table, got \(8, 'cg', 100.0"):
        space.row(design)
    with pytest.raises(ValueError, match="unroll must be one of 1, 2, 4, 8, got 3"):
        space.design({**absent, "unroll": 3})
    with pytest.raises(ValueError, match="only the designs of a table have rows"):
        Space([Ordinal("x", (1, 2))]).row((1,))


def test_features_are_columns_after_the_parameters():
    space = Space.from_table(small(), COLUMNS, features=["estimate", "same"])
    designs = [space.design(record) for record in small()[COLUMNS].to_dict("records")]
    encoded = space.encode(designs)
    assert encoded.names == ("unroll", "pipe", "clock", "branch", "estimate")
    assert (encoded.numeric, encoded.categorical, encoded.features) == ((0, 2), (1, 3), (4,))
    # Even in the logarithm, from 1 to 1000.
    np.testing.assert_allclose(encoded.rows[:, 4], [1 / 3, 1, 2 / 3, 0, 0.5])
    np.testing.assert_allclose(encoded.rows[:, 0], [2 / 3, 0, 1 / 3, 1, 0])
    assert space.columns_of("estimate") == (4,)
    assert space.columns_of("same") == ()
    with pytest.raises(ValueError, match="a design must be a row of the table"):
        space.encode([(8, "cg", 100.0, False, 7)])


def without(frame, row, column, value):
    changed = (
        frame.astype({column: object}) if not isinstance(value, float) else frame.astype({column: float})
    )
    changed.loc[row, column] = value
    return changed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Space.from_table(without(small(), 3, "unroll", math.nan), COLUMNS),
            "column unroll of the table must have no missing value, got nan in row 3",
        ),
        (
            lambda: Space.from_table(without(small(), 2, "pipe", None), COLUMNS),
            "column pipe of the table must have no missing value, got None in row 2",
        ),
        (
            lambda: Space.from_table(without(small(), 1, "clock", math.inf), COLUMNS),
            "column clock of the table must be finite, got inf in row 1",
        ),
        (
            lambda: Space.from_table(small().assign(pipe=["a", "b", ("a",), "d", "e"]), COLUMNS),
            r"column pipe of the table must hold numbers, text or booleans, got \('a',\) in row 2",
        ),
        (
            lambda: Space.from_table(small(), ["unroll", "clock"]),
            "rows 1 and 4 of the table are the same design {'unroll': 1, 'clock': 100.0}",
        ),
        (
            lambda: Space.from_table(small(), ["unroll", "depth"]),
            "columns of the table must be among unroll, pipe, .*, time, got 'depth'",
        ),
        (
            lambda: Space.from_table(small(), ["unroll"], features=["depth"]),
            "columns of the table must be among unroll, pipe, .*, time, got 'depth'",
        ),
        (
            lambda: Space.from_table(small(), [*COLUMNS, "pipe"]),
            "columns of a table must be distinct, got 'pipe' twice",
        ),
        (
            lambda: Space.from_table(small(), COLUMNS, features=["unroll"]),
            "columns of a table must be distinct, got 'unroll' twice",
        ),
        (
            lambda: Space.from_table(pd.concat([small(), small()[["pipe"]]], axis=1), COLUMNS),
            "columns of a table must be distinct, got 'pipe' twice",
        ),
        (lambda: Space.from_table(small(), []), "must have at least one column of parameters, got none"),
        (lambda: Space.from_table(small()[:0], COLUMNS), "must have at least one row, got none"),
        (
            lambda: Space.from_table(small(), "unroll"),
            "columns must be a list of names, got the text 'unroll'",
        ),
        (
            lambda: Space.from_table(small(), COLUMNS, features="time"),
            "features must be a list of names, got the text 'time'",
        ),
        (
            lambda: Space.from_table(small()[1:4], ["unroll", "clock"], features=["pipe"]),
            "feature pipe of the table must be numeric, got 'cg'",
        ),
        (
            lambda: Space.from_table(without(small(), 0, "time", math.nan), COLUMNS, features=["time"]),
            "column time of the table must have no missing value, got nan in row 0",
        ),
        (
            lambda: Space.from_table(small(), COLUMNS, constraints=[lambda p: "never"]),
            "reject all 5; {'unroll': 1, 'pipe': 'cg', .*} for one: never",
        ),
        (
            lambda: Space.from_table(small().assign(when=pd.to_datetime("2026-01-01")), ["unroll", "when"]),
            "column when of the table must hold numbers, text or booleans, got Timestamp.* in row 0",
        ),
        (
            lambda: Space.from_table(small().assign(z=1j), ["unroll", "z"]),
            "column z of the table must hold real numbers, got 1j",
        ),
    ],
)
def test_a_bad_table_is_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=f"^.*{message}$") as caught:
        make()
    assert "\n" not in str(caught.value)


def test_only_a_data_frame_is_a_table():
    with pytest.raises(TypeError, match="a table must be a pandas DataFrame, got list"):
        Space.from_table([[1, 2]], ["a"])


def test_constraints_leave_rows_out():
    space = Space.from_table(
        small(), COLUMNS, constraints=[lambda p: None if p["unroll"] < 4 else "too wide"]
    )
    assert {space.row(design) for design in space.designs()} == {1, 2, 4}
    assert {space.row(d) for d in space.sequence(np.random.default_rng(0))} == {1, 2, 4}
    assert space.why_infeasible(small()[COLUMNS].iloc[0].to_dict()) == "too wide"


@st.composite
def tables(draw):
    pool = draw(
        st.lists(
            st.tuples(st.integers(0, 3), st.sampled_from(("a", "b", "c")), st.sampled_from((0.5, 1.5, 8.0))),
            min_size=1,
            max_size=20,
            unique=True,
        )
    )
    return pd.DataFrame(pool, columns=["n", "c", "x"])


@given(frame=tables(), seed=st.integers(0, 2**32 - 1), sobol=st.booleans())
def test_a_sequence_has_every_row_once_whatever_their_order(frame, seed, sobol):
    space = Space.from_table(frame, ["n", "c", "x"])
    found = list(space.sequence(np.random.default_rng(seed), sobol=sobol))
    assert sorted(space.row(design) for design in found) == list(range(len(frame)))
    shuffled = frame.sample(frac=1, random_state=seed, ignore_index=True)
    other = Space.from_table(shuffled, ["n", "c", "x"])
    assert list(other.sequence(np.random.default_rng(seed), sobol=sobol)) == found
    assert list(other.designs()) == list(space.designs())
    assert other.describe() == space.describe()
    np.testing.assert_array_equal(other.encode(found).rows, space.encode(found).rows)


@given(frame=tables(), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_moves_and_mutations_are_rows_nearby(frame, seed):
    space = Space.from_table(frame, ["n", "c", "x"])
    rows = list(frame.itertuples(index=False, name=None))
    rng = np.random.default_rng(seed)
    for row in rows[:5]:
        expected = {r for r in rows if sum(a != b for a, b in zip(r, row, strict=True)) == 1}
        assert set(space.moves(row)) == expected
        mutated = {space.mutate(row, rng) for _ in range(20)}
        assert row not in mutated
        assert (mutated == {None}) == (len(rows) == 1)
        assert mutated - {None} <= set(rows)


def test_a_mutation_leaves_a_row_that_every_single_change_is_nearest_to():
    space = Space.from_table(pd.DataFrame({name: [0, 1] for name in "abc"}), ["a", "b", "c"])
    assert list(space.moves((0, 0, 0))) == []
    assert space.mutate((0, 0, 0), np.random.default_rng(0)) == (1, 1, 1)


def test_a_sobol_sequence_spreads_over_the_rows():
    x, y = np.meshgrid(np.arange(32), np.arange(32))
    frame = pd.DataFrame({"x": x.ravel(), "y": y.ravel()})
    space = Space.from_table(frame, ["x", "y"])
    for seed in range(5):
        drawn = [d for d, _ in zip(space.sequence(np.random.default_rng(seed)), range(64), strict=False)]
        cells = {(a // 4, b // 4) for a, b in drawn}
        # 64 random rows would hit 64 * (1 - 1 / e) = 40 of the 64 cells.
        assert len(cells) >= 55


def test_a_description_names_what_differs_and_is_short_for_long_columns():
    frame = pd.DataFrame({"x": np.linspace(0, 1, 300), "estimate": np.arange(300.0)})
    described = Space.from_table(frame, ["x"], features=["estimate"]).describe()
    assert described["parameters"][0]["choices"] == {"number": 300, "first": 0.0, "last": 1.0}
    assert described["table"]["rows"] == 300
    assert described["table"]["features"] == ["estimate"]
    frame.loc[5, "estimate"] += 0.5
    changed = Space.from_table(frame, ["x"], features=["estimate"]).describe()
    assert changed["table"]["sha256"] != described["table"]["sha256"]
    assert changed["parameters"] == described["parameters"]


def test_a_table_of_76_800_rows_is_read_and_encoded_in_seconds():
    sizes = (4, 4, 4, 4, 5, 5, 2, 6)
    grids = np.meshgrid(*(np.arange(1, size + 1) for size in sizes), indexing="ij")
    frame = pd.DataFrame({f"k{i}": grid.ravel() for i, grid in enumerate(grids)})
    frame["k7"] = frame["k7"].map(str)
    columns = list(frame.columns)
    assert len(frame) == 76_800
    frame["estimate"] = np.arange(len(frame)) ** 1.5
    begin = time.process_time()
    space = Space.from_table(frame, columns, features=["estimate"])
    read = time.process_time() - begin
    designs = list(space.designs())
    begin = time.process_time()
    encoded = space.encode(designs)
    assert time.process_time() - begin < 4  # 0.1 in a process of its own
    assert encoded.rows.shape == (len(frame), 9)
    assert read < 4
