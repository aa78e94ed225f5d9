"""What a user names: networks in every spelling, and the formats in which tensors are stored."""

import pytest

from accel import Design, Role
from accel.importers.json_graph import to_json
from accel.networks import ExampleInput, zoo
from studies.cost.source import store
from studies.model import Model, open_model, parse_stored, read_formats


def test_a_list_of_products_keeps_its_sizes(layers):
    workload = open_model(Model(text=str(layers)))
    assert workload.name == "two layers"
    assert workload.macs == 256 * 128 * 512 + 256 * 16 * 128
    assert open_model(Model(text=str(layers), batch=3)).macs == 3 * workload.macs


def test_a_graph_in_json_is_the_graph(layers, tmp_path):
    workload = open_model(Model(text=str(layers)))
    path = tmp_path / "graph.json"
    to_json(workload, path)
    assert open_model(Model(text=str(path))) == workload


def test_a_graph_without_operators_is_refused(tmp_path):
    path = tmp_path / "none.json"
    path.write_text('{"name": "n", "inputs": ["x"], "outputs": ["x"], "tensors": {"x": 4}, "operators": []}')
    with pytest.raises(ValueError, match=r"none.json must have at least one operator, got none"):
        open_model(Model(text=str(path)))


def test_an_onnx_file_and_its_name_are_the_same():
    name, path = "zoo:squeezenet", zoo()["zoo:squeezenet"]
    by_name, by_file = (open_model(Model(text=text, batch=2)) for text in (name, str(path)))
    assert by_name.batch == by_file.batch == 2
    assert by_name.operators == by_file.operators


def test_a_module_is_called_by_name(monkeypatch, tmp_path):
    (tmp_path / "my_net.py").write_text(
        "from torch import nn\n\n"
        "def make():\n    return nn.Sequential(nn.Linear(6, 300), nn.ReLU(), nn.Linear(300, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    workload = open_model(Model(text="my_net:make", batch=5, inputs=(ExampleInput(shape=(6,)),)))
    assert workload.macs == 5 * (6 * 300 + 300 * 3)
    assert workload.batch == 5
    with pytest.raises(ValueError, match="my_net:make needs --input-shape, such as 3,224,224"):
        open_model(Model(text="my_net:make"))


def test_a_training_step_has_a_batch_of_256_and_keeps_batch_normalisations():
    step = open_model(Model(text="resnet8", training=True))
    inference = open_model(Model(text="resnet8"))
    assert (step.batch, inference.batch) == (256, 1)
    # Without the error of the image: two products for the first layer, three for all others.
    first = next(operator.macs for operator in inference.operators if operator.name == "conv1")
    assert step.macs == 256 * (3 * inference.macs - first)
    kinds = {operator.kind for operator in step.operators}
    assert "batch_norm" in kinds
    assert not any("batch_norm" in operator.kind for operator in inference.operators)


def test_decoding_reads_the_cache():
    workload = open_model(Model(text="gpt2-block", tokens=2, context=100))
    assert workload.macs == 2 * (12 * 768 * 768 + 2 * 768 * (100 + 2))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Model(text="resnet51"), "got 'resnet51', did you mean resnet50"),
        (Model(text="missing.onnx"), "there is no file missing.onnx"),
        (Model(text="missing.json"), "missing.json"),
        (Model(text="resnet8", dims={"n": 1}), "--dim is for an ONNX file, got 'resnet8'"),
        (
            Model(text="resnet8", inputs=(ExampleInput(shape=(3,)),)),
            "--input-shape is for package.module:callable, got 'resnet8'",
        ),
        (Model(text="missing.toml", tokens=3), "--tokens is for a network that is known by name"),
        (Model(text="resnet8", context=3), "context can be chosen of gpt2-small"),
        (Model(text="zoo:nothing"), "there is no network 'zoo:nothing'"),
    ],
)
def test_what_cannot_be_read_is_one_line(model, message):
    with pytest.raises(ValueError, match=message) as error:
        open_model(model)
    assert "\n" not in str(error.value)


def test_tensors_are_stored_as_the_array_reads_them(layers, changed):
    workload = open_model(Model(text=str(layers)))
    design = Design.from_file(changed("mixed", operand="e5m2", weight="e2m1fn"))
    formats = {t.name: str(t.format) for t in store(workload, design).tensors.values()}
    assert formats["fc1.weight"] == "e2m1fn"
    assert {name: fmt for name, fmt in formats.items() if not name.endswith("weight")} == {
        name: "e5m2" for name in formats if not name.endswith("weight")
    }


def test_formats_are_chosen_for_all_and_then_by_role_or_pattern(layers, design, tmp_path):
    workload, chip = open_model(Model(text=str(layers))), Design.from_file(design)
    table = tmp_path / "formats.toml"
    table.write_text('weight = "int8"\n"fc2.*" = "fp32"\n')
    stored = store(workload, chip, parse_stored("bf16"), read_formats(table))
    formats = {t.name: t.format.bits for t in stored.tensors.values()}
    assert formats["fc1.weight"] == 8
    assert formats["fc1.input"] == formats["fc1.output"] == 16
    assert formats["fc2.weight"] == formats["fc2.output"] == 32
    assert store(workload, chip, parse_stored("own")) is workload


def test_labels_and_indices_stay_whole_numbers(design):
    workload = open_model(Model(text="gpt2-block", training=True, batch=1, tokens=8))
    tokens = open_model(Model(text="resnet8", training=True, batch=2))
    for step in (workload, tokens):
        stored = store(step, Design.from_file(design))
        whole = [name for name, t in step.tensors.items() if t.role.holds_integers]
        assert all(stored.tensors[name] == step.tensors[name] for name in whole)
    assert any(t.role is Role.LABEL for t in tokens.tensors.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 3\n", "formats.toml: a must be the text of a format, such as a = 'bf16', got 3"),
        ("fc1.weight = 'int8'\n", "names with dots need quotes"),
        ("a = = 3\n", "formats.toml: is not TOML"),
    ],
)
def test_a_wrong_table_of_formats_is_one_line(text, message, tmp_path):
    path = tmp_path / "formats.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_formats(path)
