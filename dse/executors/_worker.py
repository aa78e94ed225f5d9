"""The far side of `LocalProcesses`: one process that evaluates what it is sent, one at a time."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from multiprocessing.connection import Connection, wait

from dse.executors._logs import captured
from dse.executors._processes import die_after
from dse.executors.base import Evaluator, Outcome, evaluate, one_line

HELLO = b"hello"  # a worker is there
BEGUN = b"begun"  # its evaluator is loaded, and the clock of the evaluation runs from now


def serve(connection: Connection) -> None:
    """Evaluate (evaluator or ``None`` for the last one, parameters, log) until the other end is closed."""
    # A session of its own: an interrupt from the terminal reaches the campaign alone, and whatever
    # an evaluator starts can be found and ended.
    os.setsid()
    if (parent := multiprocessing.parent_process()) is not None:
        sentinel = parent.sentinel
        die_after(lambda: wait([sentinel]))
    connection.send_bytes(HELLO)
    evaluator: Evaluator | None = None
    while True:
        try:
            packed, parameters, log = pickle.loads(connection.recv_bytes())  # noqa: S301  from our own parent
        except EOFError:
            return
        if packed is not None:
            try:
                evaluator = pickle.loads(packed)  # noqa: S301
            except Exception as error:
                reason = f"the evaluator cannot be loaded in a worker process: {one_line(error)}"
                connection.send_bytes(pickle.dumps(Outcome("setup", error=reason)))
                continue
        if evaluator is None:  # the last one could not be loaded
            raise RuntimeError("a worker must be sent an evaluator first")
        connection.send_bytes(BEGUN + repr(time.monotonic()).encode())
        try:
            with captured(log, parameters):
                outcome = evaluate(evaluator, parameters)
        except OSError as error:
            reason = f"the log {log} cannot be written: {error.strerror or error}"
            outcome = Outcome("infrastructure", error=reason)
        connection.send_bytes(pack(outcome))


def pack(outcome: Outcome) -> bytes:
    """Outcome as bytes; one that cannot be sent is a fault of the evaluator."""
    try:
        packed = pickle.dumps(outcome)
        pickle.loads(packed)  # noqa: S301  what we just made; some objects only fail on the way back
    except Exception as error:
        reason = f"the result of an evaluator must be picklable: {one_line(error)}"
        return pickle.dumps(Outcome("design", error=reason, seconds=outcome.seconds))
    return packed
