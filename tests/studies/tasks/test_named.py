"""Names and options: strict, with the key's path, and the same from TOML and from Python."""

import pickle
import subprocess
import sys

import pytest
import torch

from studies.config import ConfigError, Table, load
from studies.tasks import TASKS, TaskConfig, TaskError, build_task, digits, named_task, task_names


class Study(Table):
    """A study's file, as far as its task goes."""

    task: TaskConfig
    steps: int = 1


def read(tmp_path, text):
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, Study)


def refused(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    return str(caught.value).replace(f"{tmp_path / 'study.toml'}: ", "")


NAMES = (
    "digits-mlp",
    "digits-cnn",
    "idx-mlp",
    "idx-cnn",
    "npz-cnn",
    "npz-resnet8",
    "text-transformer",
    "cancer-logistic",
    "cancer-svm",
)


def test_the_built_in_tasks_are_these():
    assert task_names() == NAMES
    assert set(TASKS) == {"digits-cnn"}


def test_a_study_names_its_task_and_options(tmp_path, idx_folder):
    study = read(tmp_path, f'[task]\nname = "idx-mlp"\nfolder = "{idx_folder}"\ntrain = 30\nhidden = [16]\n')
    task = build_task(study.task)
    assert len(task.load().train_inputs) == 30
    assert [p.shape[0] for p in task.network().parameters()] == [16, 16, 10, 10]


def test_a_dumped_study_holds_all_options_and_reads_back(tmp_path):
    study = read(tmp_path, '[task]\nname = "npz-cnn"\npath = "some.npz"\nheld_out = 5\n')
    dumped = study.model_dump(mode="json", exclude_none=True)
    assert dumped["task"] == {
        "name": "npz-cnn",
        "path": "some.npz",
        "held_out": 5,
        "layout": "nhwc",
        "classes": 10,
        "normalise": False,
        "channels": [16, 32, 64],
    }
    assert Study.model_validate(dumped) == study


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "the file is empty; task: missing, and it is required"),
        ('task = "digits-mlp"', "task: must be a table with the name of a task, got 'digits-mlp'"),
        ("[task]", f"task.name: missing, and it is required: one of {', '.join(NAMES)}"),
        (
            '[task]\nname = "digit-mlp"',
            f"task.name: must be one of {', '.join(NAMES)}, got 'digit-mlp'; did you mean 'digits-mlp'?",
        ),
        ("[task]\nname = 3", f"task.name: must be one of {', '.join(NAMES)}, got 3"),
        (
            '[task]\nname = "digits-mlp"\nhiden = [3]',
            "task.hiden: unknown option of digits-mlp; did you mean 'hidden'? (allowed: hidden)",
        ),
        (
            '[task]\nname = "digits-cnn"\nfolder = "x"',
            "task.folder: unknown option of digits-cnn (allowed: no options)",
        ),
        ('[task]\nname = "idx-mlp"', "task.folder: missing, and it is required"),
        (
            '[task]\nname = "idx-mlp"\nfolder = "x"\ntrain = 0',
            "task.train: must be at least 1, got 0",
        ),
        (
            '[task]\nname = "idx-mlp"\nfolder = "x"\ntrain = 2.0',
            "task.train: must be a whole number, got 2.0",
        ),
        (
            '[task]\nname = "idx-cnn"\nfolder = "x"\nchannels = [8, 0]',
            "task.channels[1]: must be at least 1, got 0",
        ),
        (
            '[task]\nname = "digits-mlp"\nhidden = []',
            "task.hidden: must have at least one size, got none",
        ),
        (
            '[task]\nname = "text-transformer"\npath = "x"\nattention = "flash"',
            "task.attention: must be one of 'sdpa' or 'matmul', got 'flash'",
        ),
        (
            '[task]\nname = "text-transformer"\npath = "x"\nheads = 3',
            "task: heads must divide the width 64, got 3",
        ),
        (
            '[task]\nname = "text-transformer"\npath = "x"\nvalidation = 1.0',
            "task.validation: must be below 1, got 1.0",
        ),
        (
            '[task]\nname = "npz-cnn"',
            "task: wants either folder (with train.npz and test.npz) or path (one npz file)",
        ),
        (
            '[task]\nname = "npz-cnn"\npath = "x.npz"',
            "task: held_out, the number of test images, belongs to path: give both or neither",
        ),
    ],
)
def test_what_a_study_may_not_say_is_one_line_with_the_path_of_the_key(tmp_path, text, line):
    assert refused(tmp_path, text) == line


def test_several_errors_are_several_lines(tmp_path):
    lines = refused(tmp_path, '[task]\nname = "idx-mlp"\ntest = -1\nsize = 3').splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["task.folder", "task.size", "task.test"]


def test_a_task_by_name_refuses_what_a_study_refuses():
    with pytest.raises(TaskError, match=r"^task.name: must be one of .*, got 'mnist'"):
        named_task("mnist")
    with pytest.raises(
        TaskError, match=r"^task.widht: unknown option of text-transformer; did you mean 'width'\?"
    ):
        named_task("text-transformer", path="x", widht=3)
    with pytest.raises(TaskError, match=r"^task.hidden.0: .*greater than or equal to 1, got 0$"):
        named_task("digits-mlp", hidden=[0])
    with pytest.raises(TaskError, match=r"^task.folder: Field required$"):
        named_task("idx-mlp")


def test_digit_networks_are_what_they_say():
    perceptron = named_task("digits-mlp", hidden=[20, 15])
    assert perceptron.title == "handwritten digits (8 x 8 scans), perceptron 64-20-15-10"
    assert [p.shape[0] for p in perceptron.network().parameters()] == [20, 20, 15, 15, 10, 10]
    assert sum(p.numel() for p in named_task("digits-mlp").network().parameters()) == 65 * 32 + 33 * 10
    assert sum(p.numel() for p in TASKS["digits-cnn"].network().parameters()) == 80 + 1168 + 650
    assert isinstance(TASKS["digits-cnn"].network().pool1, torch.nn.MaxPool2d)


@pytest.mark.parametrize("name", ["digits-mlp", "digits-cnn"])
def test_digits_are_learnt(name):
    task, data = named_task(name), digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = task.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2, momentum=0.9)
    for step in range(60):
        chosen = slice(128 * (step % 10), 128 * (step % 10) + 128)
        optimizer.zero_grad()
        task.loss(network(data.train_inputs[chosen]), data.train_labels[chosen]).backward()
        optimizer.step()
    with torch.no_grad():
        assert task.metric.mean([(network(data.test_inputs), data.test_labels)]) > 75.0


def test_tasks_travel_to_other_processes(idx_folder, npz_folder, text_file, uci_file):
    tasks = [
        named_task("digits-mlp"),
        TASKS["digits-cnn"],
        named_task("idx-mlp", folder=idx_folder),
        named_task("idx-cnn", folder=idx_folder),
        named_task("npz-cnn", folder=npz_folder),
        named_task("npz-resnet8", folder=npz_folder),
        named_task("text-transformer", path=text_file, context=8),
        named_task("cancer-logistic", path=uci_file),
        named_task("cancer-svm"),
    ]
    for task in tasks:
        copy = pickle.loads(pickle.dumps(task))
        data, again = task.load(), copy.load()
        assert torch.equal(data.train_inputs, again.train_inputs)
        assert torch.equal(data.test_labels, again.test_labels)
        assert data.train_inputs.shape[1:] == task.input_shape
        outputs = copy.network()(data.test_inputs[:2])
        assert torch.isfinite(copy.loss(outputs, data.test_labels[:2]))


def test_names_and_options_are_known_without_loading_torch():
    code = (
        "import sys, studies.tasks as t; t.task_names(); assert t.TASKS['digits-cnn'].classes == 10; "
        "assert 'torch' not in sys.modules and 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
