"""Graphs of the scheduling tests, and a way to write more of them down."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from accel.workload import Operator, Role, Tensor, Workload
from numerics.formats import parse_format

GraphMaker = Callable[..., Workload]


@pytest.fixture(scope="session")
def make_graph() -> GraphMaker:
    """Workload from ``"A: x->a; B: a,x->b"`` and sizes in bytes.

    Tensors nobody produces are graph inputs, and those nobody reads graph outputs, unless named.
    """

    def make(
        text: str,
        sizes: Mapping[str, int],
        *,
        inputs: tuple[str, ...] | None = None,
        outputs: tuple[str, ...] | None = None,
    ) -> Workload:
        operators = []
        for part in filter(None, (part.strip() for part in text.split(";"))):
            name, arrow = part.split(":")
            read, written = ([t.strip() for t in side.split(",") if t.strip()] for side in arrow.split("->"))
            operators.append(Operator(name=name, kind="op", inputs=tuple(read), outputs=tuple(written)))
        written = {t for op in operators for t in op.outputs}
        read = {t for op in operators for t in op.inputs}
        int8 = parse_format("int8")
        return Workload(
            name="test",
            operators=tuple(operators),
            tensors={
                t: Tensor(name=t, shape=(size,), role=Role.ACTIVATION, format=int8)
                for t, size in sizes.items()
            },
            inputs=tuple(t for t in sizes if t not in written) if inputs is None else inputs,
            outputs=tuple(t for t in sizes if t not in read) if outputs is None else outputs,
        )

    return make


@pytest.fixture(scope="session")
def reference_graphs(make_graph: GraphMaker) -> Mapping[str, Workload]:
    """Six small graphs whose optima an independent search and two solvers have confirmed."""
    return {
        "T1": make_graph("A: x->a; B: a->b; C: b->c; D: a,c->d", {"x": 1, "a": 2, "b": 3, "c": 3, "d": 2}),
        "T2": make_graph(
            "A: x->a; B1: a->b; C1: a->c; B2: b->p; C2: c->q; D: p,q->d",
            {"x": 1, "a": 1, "b": 6, "c": 6, "p": 1, "q": 1, "d": 1},
        ),
        "T3": make_graph(
            "o0: x->t0; o1: x->t1; o2: t0,x->t2; o3: t1->t3; o4: t2,t3->t4; o5: t1->t5; o6: t2->t6;"
            "o7: t2,t5->t7; o8: t6->t8; Z: t4,t7,t8->z",
            {"x": 5, "t0": 2, "t1": 7, "t2": 2, "t3": 3, "t4": 4, "t5": 2, "t6": 6, "t7": 7, "t8": 1, "z": 1},
        ),
        "T4": make_graph("A: x->a; B: a->b; C: b,x->c", {"x": 4, "a": 3, "b": 4, "c": 1}),
        "T5": make_graph(
            "A: x->a; B: a->b; C: b->c; D: a,c->d; E: d->e; F: a,e->f",
            {"x": 1, "a": 3, "b": 4, "c": 4, "d": 3, "e": 5, "f": 1},
        ),
        "T6": make_graph(
            "o0: x->t0; o1: t0->t1; o2: t0,t1->t2; o3: t2->t3; o4: t1->t4; o5: t0,t3->t5; o6: t4->t6;"
            "o7: t4,t5->t7; o8: t6->t8; o9: t8->t9; Z: t7,t9->z",
            {"x": 2, "t0": 5, "t1": 7, "t2": 4, "t3": 4, "t4": 6, "t5": 7, "t6": 4, "t7": 2, "t8": 4}
            | {"t9": 3, "z": 1},
        ),
    }
