"""JSON graphs: the plain schema of bytes, everything a workload knows, and what is wrong with a file."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.importers.json_graph import from_json, to_json
from accel.workload import Gemm, Operator, Phase, Role, Tensor, Window, Workload
from numerics.block import BlockFormat
from numerics.formats import BINARY32, E4M3, FixedFormat

PLAIN = {
    "name": "two layers",
    "inputs": ["x"],
    "outputs": ["z"],
    "tensors": {"x": 784, "h": 128, "y": 10, "z": 10},
    "operators": [
        {"name": "fc1", "kind": "linear+relu", "inputs": ["x"], "outputs": ["h"], "weight_bytes": 100480},
        {"name": "fc2", "kind": "linear", "inputs": ["h"], "outputs": ["y"], "weight_bytes": 1290},
        {"name": "add", "kind": "add", "inputs": ["y", "y"], "outputs": ["z"], "weight_bytes": 0},
    ],
}


def read(tmp_path, graph):
    path = tmp_path / "graph.json"
    path.write_text(graph if isinstance(graph, str) else json.dumps(graph))
    return from_json(path)


def test_the_plain_schema_has_a_byte_per_element_and_a_weight_per_operator(tmp_path):
    workload = read(tmp_path, PLAIN)
    assert workload.name == "two layers"
    assert workload.inputs == ("x", "fc1.weight", "fc2.weight")
    assert workload.outputs == ("z",)
    assert workload.batch == 1
    weight = workload.tensors["fc1.weight"]
    assert weight == Tensor(
        name="fc1.weight", shape=(100480,), role=Role.WEIGHT, format=FixedFormat.parse("int8")
    )
    assert {name: tensor.bytes for name, tensor in workload.tensors.items()} == {
        **PLAIN["tensors"],
        "fc1.weight": 100480,
        "fc2.weight": 1290,
    }
    assert workload.tensors["x"].role is Role.INPUT
    assert workload.tensors["h"].role is Role.ACTIVATION
    assert [(op.name, op.kind, op.inputs, op.outputs) for op in workload.operators] == [
        ("fc1", "linear+relu", ("x", "fc1.weight"), ("h",)),
        ("fc2", "linear", ("h", "fc2.weight"), ("y",)),
        ("add", "add", ("y", "y"), ("z",)),
    ]
    assert workload == Workload.from_json(tmp_path / "graph.json")


def test_a_plain_graph_can_be_trained(tmp_path):
    step = read(tmp_path, PLAIN).training()
    assert step.tensors["fc1.weight.gradient"].bytes == 100480
    backward = next(op for op in step.operators if op.name == "fc2.backward")
    # Both operands of the sum send their error back; the mask of the ReLU needs the result of fc1.
    assert backward.inputs == ("y.error", "fc2.weight", "h")
    assert backward.outputs == ("h.error",)
    assert backward.gemm is None  # its sizes are not known
    assert "x.error" not in step.tensors


def test_the_extended_schema_by_hand(tmp_path):
    graph = copy.deepcopy(PLAIN)
    graph["batch"] = 2
    graph["inputs"] = ["x", "w"]
    graph["tensors"] |= {
        "x": {"shape": [2, 3, 5, 5], "format": "e4m3fn"},
        "w": {"shape": [4, 3, 3, 3], "format": "mxfp4", "role": "weight"},
    }
    graph["operators"][0] |= {
        "kind": "conv2d",
        "inputs": ["x", "w"],
        "weight_bytes": 0,
        "gemm": {"m": 50, "n": 4, "k": 27},
        "window": {
            "batch": 2,
            "channels": 3,
            "input": [5, 5],
            "output": [5, 5],
            "kernel": [3, 3],
            "stride": [1, 1],
            "dilation": [1, 1],
            "padding": [1, 1],
        },
        "vector_ops": 7,
        "phase": "forward",
        "in_place": False,
    }
    graph["operators"][2]["in_place"] = True
    workload = read(tmp_path, graph)
    conv = workload.operators[0]
    assert conv.gemm == Gemm(m=50, n=4, k=27)
    assert (conv.window.padding, conv.vector_ops, conv.phase) == ((1, 1), 7, Phase.FORWARD)
    assert [operator.in_place for operator in workload.operators] == [False, False, True]
    assert workload.batch == 2
    assert workload.tensors["x"] == Tensor(name="x", shape=(2, 3, 5, 5), role=Role.INPUT, format=E4M3)
    assert workload.tensors["w"].bits == 36 * (3 * 4 + 8)
    assert workload.inputs == ("x", "w", "fc2.weight")


def test_a_plain_graph_stays_plain_where_it_can(tmp_path):
    workload = read(tmp_path, PLAIN)
    text = to_json(workload, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == text == workload.to_json()
    again = json.loads(text)
    assert {name: again["tensors"][name] for name in PLAIN["tensors"]} == PLAIN["tensors"]
    assert from_json(tmp_path / "again.json") == workload


FORMATS = [BINARY32, E4M3, *map(FixedFormat.parse, ("int8", "u3.1-wrap"))]
FORMATS += [BlockFormat.parse(text) for text in ("nvfp4", "mxint8", "e3m2 block=7 scale=e5m2")]
NAMES = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=5)


@st.composite
def workloads(draw):
    """Chains with branches; names, formats, roles, products and windows of any kind."""
    names = draw(st.lists(NAMES, min_size=2, max_size=8, unique=True))
    tensors = {
        name: Tensor(
            name=name,
            shape=tuple(draw(st.lists(st.integers(0, 9), max_size=3))),
            role=draw(st.sampled_from(list(Role))),
            format=draw(st.sampled_from(FORMATS)),
        )
        for name in names
    }
    given_count = draw(st.integers(1, len(names)))
    operators = []
    for place, name in enumerate(names[given_count:], given_count):
        product = window = None
        if draw(st.booleans()):
            axes = draw(st.integers(1, 3))
            sizes = st.tuples(*[st.integers(1, 4)] * axes)
            window = Window(
                batch=draw(st.integers(1, 3)),
                channels=2,
                padding=draw(st.tuples(*[st.integers(0, 2)] * axes)),
                **{key: draw(sizes) for key in ("input", "output", "kernel", "stride", "dilation")},
            )
            product = Gemm(m=window.m, n=draw(st.integers(1, 5)), k=window.k, count=draw(st.integers(1, 3)))
        read_names = draw(st.lists(st.sampled_from(names[:place]), min_size=2 if product else 0, max_size=3))
        operators.append(
            Operator(
                name=f"make {name}",
                kind=draw(st.sampled_from(["conv2d+relu", "add", "other"])),
                inputs=tuple(read_names),
                outputs=(name,),
                phase=draw(st.sampled_from(list(Phase))),
                gemm=product,
                window=window if draw(st.booleans()) else None,
                vector_ops=draw(st.integers(0, 10**9)),
                in_place=bool(read_names) and draw(st.booleans()),
            )
        )
    return Workload(
        name=draw(NAMES),
        operators=tuple(operators),
        tensors=tensors,
        inputs=tuple(names[:given_count]),
        outputs=tuple(draw(st.lists(st.sampled_from(names), max_size=3, unique=True))),
        batch=draw(st.integers(1, 4)),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("graphs")


@given(workload=workloads())
def test_a_workload_reads_back_as_it_was_written(workload, folder):
    to_json(workload, folder / "graph.json")
    again = from_json(folder / "graph.json")
    assert again == workload
    assert list(again.tensors) == list(workload.tensors)


def broken(*keys, to):
    """`PLAIN` with another value under a path of keys; ``...`` takes the key out."""
    graph = copy.deepcopy(PLAIN)
    place = graph
    for key in keys[:-1]:
        place = place[key]
    if to is ...:
        del place[keys[-1]]
    else:
        place[keys[-1]] = to
    return graph


WINDOW = {"batch": 1, "channels": 1, "input": [4], "output": [4], "kernel": [1], "stride": [1]}
WINDOW |= {"dilation": [1], "padding": [0]}


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("{", "is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[1]", "the file must be a table of keys and values, got [1]"),
        ('{"name": "a", "name": "b"}', "key 'name' is given twice"),
        (broken("name", to=...), "name is missing"),
        (broken("name", to=3), "name must be text, got 3"),
        (broken("operators", 1, "kind", to=...), "operators[1].kind is missing"),
        (broken("operators", 1, "weight_bytes", to=...), "operators[1].weight_bytes is missing"),
        (broken("operators", to={}), "operators must be a list, got {}"),
        (broken("operators", 0, "inputs", 0, to=1), "operators[0].inputs[0] must be text, got 1"),
        (broken("tensors", "h", to=-1), "tensors['h']: must be at least 0 bytes, got -1"),
        (
            broken("tensors", "h", to=1.5),
            "tensors['h']: must be a number of bytes or a table with a shape, got 1.5",
        ),
        (broken("tensors", "h", to={"shape": [2, -3]}), "tensors['h'].shape[1] must be at least 0, got -3"),
        (
            broken("tensors", "h", to=None),
            "tensors['h']: must be a number of bytes or a table with a shape, got None",
        ),
        (
            broken("tensors", "h", to={"shape": [None, 3]}),
            "tensors['h'].shape[0] must be a whole number, got None",
        ),
        (
            broken("tensors", "h", to={"shape": ["N", 3]}),
            "tensors['h'].shape[0] must be a whole number, got 'N'",
        ),
        (broken("tensors", "h", to={"bytes": 3}), "tensors['h'].shape is missing (and 1 more)"),
        (
            broken("tensors", "h", to={"shape": [2], "role": "output"}),
            (
                "tensors['h'].role: must be one of input, index, label, activation, weight, constant, error, "
                "weight_gradient, optimizer_state, got 'output'"
            ),
        ),
        (
            broken("tensors", "h", to={"shape": [2], "format": "int33"}),
            "tensors['h'].format: int_bits must be in 0..31, got 32",
        ),
        (
            broken("operators", 0, "weight_bytes", to=-5),
            "operators[0].weight_bytes must be at least 0, got -5",
        ),
        (
            broken("operators", 0, "weight_bytes", to=True),
            "operators[0].weight_bytes must be a whole number, got True",
        ),
        (
            broken("operators", 0, "weights", to=5),
            (
                "operators[0].weights is not a key; did you mean weight_bytes? (allowed: name, kind, inputs, "
                "outputs, weight_bytes, phase, gemm, window, vector_ops, in_place)"
            ),
        ),
        (
            broken("version", to=1),
            "version is not a key (allowed: name, inputs, outputs, tensors, operators, batch)",
        ),
        (
            broken("operators", 0, "gemm", to={"m": 1, "n": 0, "k": 1}),
            "operators[0].gemm.n must be at least 1, got 0",
        ),
        (
            broken("operators", 0, "gemm", to={"m": 1, "n": 1, "kk": 1}),
            "operators[0].gemm.k is missing (and 1 more)",
        ),
        (
            broken("operators", 0, "phase", to="later"),
            "operators[0].phase: must be one of forward, backward, gradient, update, got 'later'",
        ),
        (
            broken("operators", 0, "window", to=WINDOW),
            (
                "operators[0]: operator fc1: a window of m 4 and k 1 needs a matrix product of that m and k, "
                "got None"
            ),
        ),
        (broken("tensors", "h", to=2**62), f"tensors['h']: must be below 2**62 bytes, got {2**62}"),
        (
            broken("tensors", "h", to={"shape": [2, 10**30]}),
            f"tensors['h'].shape[1] must be below 2**62, got {10**30}",
        ),
        (
            broken("operators", 0, "gemm", to={"m": 10**30, "n": 1, "k": 1}),
            f"operators[0].gemm.m must be below 2**62, got {10**30}",
        ),
        (
            broken("operators", 1, "vector_ops", to=2**62),
            f"operators[1].vector_ops must be below 2**62, got {2**62}",
        ),
        (
            broken(
                "operators", 2, to=PLAIN["operators"][2] | {"inputs": ["y"], "gemm": {"m": 1, "n": 1, "k": 1}}
            ),
            (
                "operators[2]: operator add: a matrix product needs its operands A and W as inputs and an "
                "output, got inputs ('y',) and outputs ('z',)"
            ),
        ),
        (
            broken("operators", 1, "in_place", to=1),
            "operators[1].in_place must be true or false, got 1",
        ),
        (
            broken("operators", 2, to=PLAIN["operators"][2] | {"inputs": [], "in_place": True}),
            (
                "operators[2]: operator add: in place it must have an input and one output, got inputs () "
                "and outputs ('z',)"
            ),
        ),
        (broken("batch", to=0), "batch must be at least 1, got 0"),
        (broken("inputs", 0, to="q"), "inputs[0] names 'q', which tensors does not declare"),
        (broken("inputs", to=["x", "x"]), "inputs[1] names 'x' a second time"),
        (broken("outputs", 0, to="q"), "outputs[0] names 'q', which tensors does not declare"),
        (
            broken("operators", 1, "inputs", to=["h", "q"]),
            "operators[1].inputs[1] names 'q', which tensors does not declare",
        ),
        (
            broken("operators", 1, "outputs", 0, to="q"),
            "operators[1].outputs[0] names 'q', which tensors does not declare",
        ),
        (
            broken("operators", 1, "outputs", 0, to="h"),
            "operators[1].outputs[0]: tensor 'h' has two producers, fc1 and fc2",
        ),
        (
            broken("operators", 1, "outputs", 0, to="x"),
            "operators[1].outputs[0]: tensor 'x' has two producers, the graph's inputs and fc2",
        ),
        (
            broken("operators", 0, "inputs", to=["x", "z"]),
            "operators[0].inputs[1]: the operators form a cycle: fc1 -> fc2 -> add -> fc1",
        ),
        (
            broken("operators", 2, "inputs", to=["z"]),
            "operators[2].inputs[0]: the operators form a cycle: add -> add",
        ),
        (
            broken("operators", to=PLAIN["operators"][::-1]),
            "operators[0].inputs[0]: tensor 'y' is produced by a later one, operators[1]",
        ),
        (
            broken("inputs", to=[]),
            "operators[0].inputs[0]: tensor 'x' has no producer and is no input of the graph",
        ),
        (
            broken("operators", to=PLAIN["operators"][:2]),
            "outputs[0]: tensor 'z' has no producer and is no input of the graph",
        ),
        (
            broken("operators", 1, "name", to="fc1"),
            "operators[1].name 'fc1' is that of operators[0] already",
        ),
        (
            broken("tensors", to=PLAIN["tensors"] | {"fc2.weight": 3}),
            "operators[1].weight_bytes would make a tensor 'fc2.weight', which is declared already",
        ),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(graph, message, tmp_path):
    with pytest.raises(ValueError) as error:
        read(tmp_path, graph)
    assert str(error.value) == f"{tmp_path / 'graph.json'}: {message}"


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"missing.json: cannot be read: No such file or directory"):
        from_json(tmp_path / "missing.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"bytes.json: cannot be read: it is not UTF-8 text"):
        from_json(tmp_path / "bytes.json")
