"""Characters of a text file, and a transformer that predicts the next one."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from studies.tasks.tables import Count, PathText, TaskTable
from studies.tasks.task import Classification, Data, Metric, TaskError

if TYPE_CHECKING:
    import torch


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, line ends as they are.

    Raises
    ------
    TaskError
        There is no such file, it is not UTF-8, or it has fewer than two different characters.
    """
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise TaskError(f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except (FileNotFoundError, NotADirectoryError):
        where = "" if path.is_absolute() else f" (in {Path.cwd()})"
        raise TaskError(f"no text at '{path}'{where}: wanted a UTF-8 text file") from None
    except IsADirectoryError:
        raise TaskError(f"{path}: is a folder, a UTF-8 text file is wanted") from None
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from None
    if not text:
        raise TaskError(f"{path}: the text is empty")
    if len(set(text)) < 2:
        raise TaskError(f"{path}: must have at least two different characters, got only {text[0]!r}")
    return text


def vocabulary(text: str) -> str:
    """Characters of a text in the order of their code points; a character's index is its place here."""
    return "".join(sorted(set(text)))


def text_data(
    path: Path,
    *,
    context: int,
    stride: int,
    validation: float,
    train_limit: int | None,
    test_limit: int | None,
) -> Data:
    """Windows of `context` characters (n, context) int64, and each one's next characters as labels.

    Parameters
    ----------
    stride
        Characters from the start of a window to that of the next.
    validation
        Share of the text, at its end, to test on.
    train_limit, test_limit
        Numbers of first windows that are used.

    Raises
    ------
    TaskError
        The text is too short.
    """
    import torch

    text = read_text(path)
    places = {character: place for place, character in enumerate(vocabulary(text))}
    symbols = torch.tensor([places[character] for character in text], dtype=torch.int64)
    cut = int(len(text) * (1.0 - validation))
    windows = {}
    for part, piece, limit in (("train", symbols[:cut], train_limit), ("test", symbols[cut:], test_limit)):
        if len(piece) <= context:
            raise TaskError(
                f"{path}: too short: the {part} part must have more characters than the context, "
                f"{context}, got {len(piece)} of {len(text)}"
            )
        found = piece.unfold(0, context + 1, stride)
        if limit is not None and limit > len(found):
            raise TaskError(f"{path}: has {len(found)} windows to {part}, asked for the first {limit}")
        windows[part] = found[:limit]
    return Data(
        train_inputs=windows["train"][:, :-1],
        train_labels=windows["train"][:, 1:],
        test_inputs=windows["test"][:, :-1],
        test_labels=windows["test"][:, 1:],
    )


def next_character_loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy per character, in nats, of logits (n, length, classes) and labels (n, length)."""
    from torch.nn import functional

    return functional.cross_entropy(outputs.flatten(0, 1), labels.flatten())


def bits(outputs: torch.Tensor, labels: torch.Tensor) -> tuple[float, int]:
    """Sum of the cross entropies in bits, added in float64, and the number of characters."""
    from torch.nn import functional

    nats = functional.cross_entropy(outputs.flatten(0, 1).double(), labels.flatten(), reduction="sum")
    return float(nats) / math.log(2.0), labels.numel()


BITS_PER_CHARACTER = Metric(name="bits per character", unit="bit", higher_is_better=False, function=bits)


class TextTransformer(TaskTable):
    """Characters of the text file `path`, and a causal transformer of pre-norm blocks.

    `context` is the length of a window, `stride` (default: `context`) the distance of two of them;
    `validation` the share of the text, at its end, to test on. `width`, `layers` and `heads` size the
    network. `attention` is torch's ``"sdpa"``, or the same by two products, ``"matmul"``. `train` and `test`
    limit to the first windows.
    """

    name: Literal["text-transformer"]
    path: PathText
    context: Count = 64
    stride: Count | None = None
    width: Count = 64
    layers: Count = 2
    heads: Count = 4
    attention: Literal["sdpa", "matmul"] = "sdpa"
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    train: Count | None = None
    test: Count | None = None

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads must divide the width {self.width}, got {self.heads}")
        return self

    def build(self) -> Classification:
        """Task of these options; reads the text for its characters."""
        from studies.tasks.networks import Transformer

        path = Path(self.path).expanduser()
        classes = len(vocabulary(read_text(path)))
        blocks = "1 block" if self.layers == 1 else f"{self.layers} blocks"
        return Classification(
            title=(
                f"characters of {path.name}, transformer of {blocks}, width {self.width}, "
                f"{self.heads} heads, context {self.context}"
            ),
            load=partial(
                text_data,
                path,
                context=self.context,
                stride=self.stride or self.context,
                validation=self.validation,
                train_limit=self.train,
                test_limit=self.test,
            ),
            network=partial(
                Transformer,
                classes,
                context=self.context,
                width=self.width,
                layers=self.layers,
                heads=self.heads,
                attention=self.attention,
            ),
            loss=next_character_loss,
            metric=BITS_PER_CHARACTER,
            input_shape=(self.context,),
            classes=classes,
        )
