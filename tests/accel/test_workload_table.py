"""Tables have one row per operator, units in their names, and missing sizes where there is no product."""

import pandas as pd

from accel.workload import Gemm, Operator, Role, Tensor, Workload
from numerics.formats import E4M3


def test_a_workload_lists_products_and_bytes():
    shapes = {"x": (3, 5), "w": (5, 2), "y": (3, 2), "z": (3, 2)}
    workload = Workload(
        name="two",
        operators=(
            Operator(name="fc", kind="linear", inputs=("x", "w"), outputs=("y",), gemm=Gemm(m=3, n=2, k=5)),
            Operator(name="square", kind="mul", inputs=("y", "y"), outputs=("z",), vector_ops=6),
        ),
        tensors={
            name: Tensor(name=name, shape=shape, role=Role.ACTIVATION, format=E4M3)
            for name, shape in shapes.items()
        },
        inputs=("x", "w"),
        outputs=("z",),
    )
    table = workload.table()
    assert list(table["operator"]) == ["fc", "square"]
    assert list(table["macs"]) == [30, 0]
    assert list(table["input_bytes"]) == [25, 6]  # read twice, held once
    assert list(table["weight_bytes"]) == [0, 0]  # no role says that w is a parameter
    assert list(table["output_bytes"]) == [6, 6]
    assert list(table["formats"]) == ["e4m3fn -> e4m3fn"] * 2
    assert list(table.loc[0, ["m", "n", "k", "count"]]) == [3, 2, 5, 1]
    assert table.loc[1, ["m", "n", "k", "count"]].isna().all()
    assert pd.api.types.is_integer_dtype(table["k"].dtype)


def test_parameters_have_a_column_of_their_own():
    roles = {"x": Role.INPUT, "w": Role.WEIGHT, "b": Role.WEIGHT, "y": Role.ACTIVATION}
    shapes = {"x": (3, 5), "w": (5, 2), "b": (2,), "y": (3, 2)}
    workload = Workload(
        name="one",
        operators=(
            Operator(
                name="fc", kind="linear", inputs=("x", "w", "b"), outputs=("y",), gemm=Gemm(m=3, n=2, k=5)
            ),
        ),
        tensors={n: Tensor(name=n, shape=shapes[n], role=role, format=E4M3) for n, role in roles.items()},
        inputs=("x", "w", "b"),
        outputs=("y",),
    ).with_formats({Role.WEIGHT: "e2m1"})
    row = workload.table().loc[0]
    assert (row["input_bytes"], row["weight_bytes"], row["output_bytes"]) == (15, 5 + 1, 6)
    assert row["formats"] == "e4m3fn, e2m1 -> e4m3fn"
    step = workload.training().table()
    assert step["macs"].sum() == 2 * 30  # the data get no error
    assert set(step["phase"]) == {"forward", "backward", "gradient", "update"}
    update = step[step["kind"] == "sgd_momentum"].iloc[0]
    assert (update["weight_bytes"], update["input_bytes"]) == (6, 2 * 6)


def test_an_empty_workload_has_an_empty_table():
    empty = Workload(name="empty", operators=(), tensors={}, inputs=(), outputs=())
    assert len(empty.table()) == 0
    assert "input_bytes" in empty.table()
