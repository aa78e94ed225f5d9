"""What a search of formats is about: tensor groups, candidate formats, an oracle, and the quality wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from studies.allocation.asking import Oracle
from studies.allocation.groups import TensorGroup
from studies.allocation.search import Found, search_precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A program whose tensors are held in formats that can be chosen.

    Attributes
    ----------
    title
        In a few words.
    identity
        All that the oracle depends on, for a store of its answers.
    groups, formats, oracle
        See `search_precision`.
    quality
        Name of what the oracle returns, with its unit.
    threshold, higher_is_better
        What is admitted if nothing else is asked for.
    """

    title: str
    identity: str
    groups: Sequence[TensorGroup]
    formats: Sequence[str]
    oracle: Oracle
    quality: str
    threshold: float
    higher_is_better: bool

    @property
    def size(self) -> int:
        """Number of assignments."""
        size: int = len(self.formats) ** len(self.groups)
        return size

    def search(self, **options: Any) -> Found:
        """`search_precision` with some options in place of those of the subject."""
        given: dict[str, Any] = {
            "threshold": self.threshold,
            "higher_is_better": self.higher_is_better,
            "identity": self.identity,
            **options,
        }
        formats = given.pop("formats", self.formats)
        return search_precision(self.groups, formats, self.oracle, **given)
