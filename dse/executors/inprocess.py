"""Evaluation in the process of the campaign itself: any callable, one at a time, no protection."""

from __future__ import annotations

from collections.abc import Mapping

from dse.executors.base import Closing, Evaluator, Outcome, evaluate
from dse.space import Value


class InProcess(Closing):
    """Evaluates in this process when polled. For quick evaluators that can be trusted not to crash.

    An interrupt during an evaluation passes through `poll`.
    """

    workers = 1

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Evaluator, dict[str, Value]]] = {}
        self._submitted = 0

    def prepare(self, evaluator: Evaluator) -> None:
        """Refuse what cannot be called."""
        if not callable(evaluator):
            raise TypeError(f"an evaluator must be callable, got {evaluator!r}")

    def submit(self, evaluator: Evaluator, parameters: Mapping[str, Value]) -> int:
        """Keep the design until the next poll."""
        self._submitted += 1
        self._waiting[self._submitted] = (evaluator, dict(parameters))
        return self._submitted

    def poll(self, timeout_s: float) -> list[tuple[int, Outcome]]:
        """Evaluate what was submitted, unless there is no time."""
        outcomes = []
        while self._waiting and timeout_s > 0:
            handle, (evaluator, parameters) = next(iter(self._waiting.items()))
            try:
                outcomes.append((handle, evaluate(evaluator, parameters)))
            finally:
                del self._waiting[handle]
        return outcomes

    def cancel(self, handle: int) -> None:
        """Forget a design that was not polled yet."""
        self._waiting.pop(handle, None)

    def close(self) -> None:
        """Forget all."""
        self._waiting.clear()
