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
    assert list(table["output_bytes"]) == [6, 6]
    assert list(table.loc[0, ["m", "n", "k", "count"]]) == [3, 2, 5, 1]
    assert table.loc[1, ["m", "n", "k", "count"]].isna().all()
    assert pd.api.types.is_integer_dtype(table["k"].dtype)


def test_an_empty_workload_has_an_empty_table():
    empty = Workload(name="empty", operators=(), tensors={}, inputs=(), outputs=())
    assert len(empty.table()) == 0
    assert "input_bytes" in empty.table()
