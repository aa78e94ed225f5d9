"""Text: windows and their next characters, bits per character, and what cannot be read."""

import math

import pytest
import torch

from studies.tasks import TaskError, named_task


def test_windows_are_the_text_and_labels_are_its_next_characters(text_file):
    data = named_task("text-transformer", path=text_file, context=20).load()
    text = text_file.read_text(encoding="utf-8")
    characters = sorted(set(text))
    # 1040 characters: the first 936 to train on, in windows of 20 that each need a 21st.
    assert data.train_inputs.shape == (46, 20)
    assert data.test_inputs.shape == (5, 20)
    assert data.train_inputs.dtype == torch.int64
    for number in (0, 7, 45):
        window = "".join(characters[i] for i in data.train_inputs[number])
        following = "".join(characters[i] for i in data.train_labels[number])
        assert window == text[20 * number : 20 * number + 20]
        assert following == text[20 * number + 1 : 20 * number + 21]
    assert "".join(characters[i] for i in data.test_inputs[0]) == text[936:956]


def test_stride_share_and_limits_choose_the_windows(text_file):
    data = named_task(
        "text-transformer", path=text_file, context=20, stride=3, validation=0.5, train=9, test=4
    ).load()
    assert data.train_inputs.shape == (9, 20)
    assert data.test_inputs.shape == (4, 20)
    assert torch.equal(data.train_inputs[1, :17], data.train_inputs[0, 3:])
    whole = named_task("text-transformer", path=text_file, context=20, stride=3, validation=0.5).load()
    assert len(whole.train_inputs) == (520 - 21) // 3 + 1
    with pytest.raises(TaskError, match="has 167 windows to train, asked for the first 168"):
        named_task("text-transformer", path=text_file, context=20, stride=3, validation=0.5, train=168).load()


def test_characters_are_those_of_the_whole_file_line_ends_and_accents_included(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("é\r\nab".encode() * 10)
    task = named_task("text-transformer", path=path, context=4)
    assert task.classes == 5
    # Code points: \n, \r, a, b, é.
    assert task.load().train_inputs[0].tolist() == [4, 1, 0, 2]


def test_equal_logits_cost_the_logarithm_of_the_vocabulary_in_nats_and_in_bits(text_file):
    task = named_task("text-transformer", path=text_file, context=20)
    data = task.load()
    vocabulary = len(set(text_file.read_text(encoding="utf-8")))
    assert task.classes == vocabulary
    outputs = torch.zeros(*data.test_labels.shape, vocabulary)
    assert task.loss(outputs, data.test_labels).item() == pytest.approx(math.log(vocabulary), rel=1e-6)
    assert task.metric.mean([(outputs, data.test_labels)]) == pytest.approx(math.log2(vocabulary), rel=1e-12)
    assert not task.metric.higher_is_better


def test_loss_and_bits_are_means_over_all_characters(text_file):
    task = named_task("text-transformer", path=text_file, context=20)
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, 4, 5, generator=generator)
    labels = torch.randint(5, (3, 4), generator=generator)
    nats = []
    for sample, right in zip(outputs.tolist(), labels.tolist(), strict=True):
        for logits, label in zip(sample, right, strict=True):
            nats.append(math.log(sum(map(math.exp, logits))) - logits[label])
    mean = sum(nats) / 12
    assert task.loss(outputs, labels).item() == pytest.approx(mean, rel=1e-6)
    cut = [(outputs[:1], labels[:1]), (outputs[1:], labels[1:])]
    assert task.metric.mean(cut) == pytest.approx(mean / math.log(2), rel=1e-9)


@pytest.mark.parametrize("attention", ["sdpa", "matmul"])
def test_the_transformer_learns_a_text_that_repeats_itself(text_file, attention):
    task = named_task(
        "text-transformer", path=text_file, context=16, width=32, layers=1, heads=2, attention=attention
    )
    data = task.load()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = task.network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        outputs = network(data.train_inputs)
        assert outputs.dtype == torch.float32
        loss = task.loss(outputs, data.train_labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(task.classes), rel=0.1)
    assert losses[-1] < 0.3 * losses[0]


def test_text_that_cannot_be_used_is_named_with_what_is_wrong(tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    for content, wanted in (
        (b"", "text.txt: the text is empty"),
        (b"aaaa", "text.txt: must have at least two different characters, got only 'a'"),
        (b"abc\xff", "text.txt: is not UTF-8 text: invalid start byte at byte 3"),
    ):
        path.write_bytes(content)
        with pytest.raises(TaskError, match=wanted):
            named_task("text-transformer", path=path)
    with pytest.raises(TaskError, match="is a folder, a UTF-8 text file is wanted"):
        named_task("text-transformer", path=tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TaskError) as caught:
        named_task("text-transformer", path="none.txt")
    assert str(caught.value) == f"no text at 'none.txt' (in {tmp_path}): wanted a UTF-8 text file"


def test_each_part_must_be_longer_than_the_context(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("ab" * 50, encoding="utf-8")
    assert len(named_task("text-transformer", path=path, context=9).load().test_inputs) == 1
    with pytest.raises(
        TaskError,
        match="too short: the test part must have more characters than the context, 10, got 10 of 100",
    ):
        named_task("text-transformer", path=path, context=10).load()
