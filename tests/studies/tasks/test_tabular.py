"""Breast cancer: the published counts, the losses of two linear classifiers, and bad files."""

import math

import numpy as np
import pytest
import torch

from studies.tasks import TaskError, named_task


def test_the_set_of_30_features_has_its_published_counts_and_1_means_malignant():
    data = named_task("cancer-logistic").load()
    # Of 569 samples, 212 are malignant; 30 % are 171.
    assert data.train_inputs.shape == (398, 30)
    assert data.test_inputs.shape == (171, 30)
    assert int(data.train_labels.sum() + data.test_labels.sum()) == 212
    assert abs(int(data.test_labels.sum()) - 212 * 0.3) < 1.0
    # Malignant nuclei are larger: the first feature is the mean radius.
    radius = data.train_inputs[:, 0]
    assert radius[data.train_labels == 1].mean() > radius[data.train_labels == 0].mean() + 1.0
    assert torch.equal(data.train_inputs, named_task("cancer-svm").load().train_inputs)


def test_features_are_standardised_by_the_training_part():
    data = named_task("cancer-svm").load()
    columns = data.train_inputs.double().numpy()
    np.testing.assert_allclose(columns.mean(0), 0.0, atol=1e-6)
    np.testing.assert_allclose(columns.std(0), 1.0, rtol=1e-6)
    assert abs(float(data.test_inputs.mean())) > 1e-4


def test_the_uci_file_is_read_without_its_incomplete_samples(uci_file):
    data = named_task("cancer-logistic", path=uci_file).load()
    assert data.train_inputs.shape == (21, 9)
    assert data.test_inputs.shape == (9, 9)
    assert int(data.train_labels.sum()) == 7
    assert int(data.test_labels.sum()) == 3
    # Malignant rows were written with the larger features.
    score = data.train_inputs.sum(1)
    assert score[data.train_labels == 1].min() > score[data.train_labels == 0].max()


def test_the_losses_are_those_of_their_papers():
    scores, labels = torch.tensor([[2.0], [-0.5], [0.25]]), torch.tensor([1, 0, 0])
    logistic = [math.log1p(math.exp(-m)) for m in (2.0, 0.5, -0.25)]
    assert named_task("cancer-logistic").loss(scores, labels).item() == pytest.approx(sum(logistic) / 3)
    # Margins 2, 0.5, -0.25: hinge losses 0, 0.5, 1.25.
    assert named_task("cancer-svm").loss(scores, labels).item() == pytest.approx(1.75 / 3)


def test_the_side_of_zero_is_what_the_accuracy_counts():
    scores, labels = torch.tensor([[2.0], [-0.5], [0.25], [-3.0]]), torch.tensor([1, 0, 0, 1])
    assert named_task("cancer-svm").metric.function(scores, labels) == (200.0, 4)


@pytest.mark.parametrize("name", ["cancer-logistic", "cancer-svm"])
def test_a_linear_classifier_learns_to_tell_almost_all_samples(name):
    task = named_task(name)
    data = task.load()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = task.network()
    assert sum(p.numel() for p in network.parameters()) == 31
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = task.loss(network(data.train_inputs), data.train_labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    with torch.no_grad():
        assert task.metric.mean([(network(data.test_inputs), data.test_labels)]) > 93.0


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("1,1,1,1,1,1,1,1,1,2", "1,1,1,1,1,1,1,1,1,2"),
        ("1,1,1,1,1,1,1,1,1,11,2", "1,1,1,1,1,1,1,1,1,11,2"),
        ("1,1,1,1,1,nan,1,1,1,1,2", "nan"),
        ("1,1,1,1,1,1,1,1,1,1,3", "1,3'"),
        ("id,a,b,c,d,e,f,g,h,i,class", "id,a"),
    ],
)
def test_a_line_of_another_form_is_named(uci_file, line, shown):
    lines = uci_file.read_text(encoding="utf-8").splitlines()
    lines[4] = line
    uci_file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(TaskError, match=f"breast-cancer-wisconsin.data: line 5: wanted a sample id.*{shown}"):
        named_task("cancer-svm", path=uci_file)


def test_a_file_that_is_absent_or_empty_is_named(tmp_path):
    with pytest.raises(
        TaskError, match=r"no breast-cancer data at .*none': wanted breast-cancer-wisconsin.data"
    ):
        named_task("cancer-svm", path=tmp_path / "none")
    (tmp_path / "empty.data").write_text("\n", encoding="utf-8")
    with pytest.raises(TaskError, match="2 complete samples of either class, got 0 benign and 0 malignant"):
        named_task("cancer-svm", path=tmp_path / "empty.data")
    with pytest.raises(TaskError, match="is a folder"):
        named_task("cancer-svm", path=tmp_path)
