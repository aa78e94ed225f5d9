"""One evaluation in a process of its own, for executors whose workers must not crash or hang."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path

from dse.executors._logs import begin, last_line
from dse.executors._processes import die_after, kill_session
from dse.executors._worker import pack
from dse.executors.base import Kind, Outcome, ended, evaluate, one_line
from dse.space import Value

_LOOK_S = 0.5  # between looks at whether the evaluation is still wanted
_CHILD = "from dse.executors._apart import main; main()"


def evaluate_apart(
    packed: bytes,
    parameters: Mapping[str, Value],
    *,
    time_limit_s: float | None,
    timeout: Kind,
    is_wanted: Callable[[], bool],
    log: Path | None = None,
) -> Outcome:
    """Evaluate in a new process and wait for it.

    Parameters
    ----------
    packed
        The pickled evaluator.
    time_limit_s, timeout
        Limit of the evaluation, and the kind of outcome that exceeding it is.
    is_wanted
        Asked now and then; the process is killed when it says no, or when this one goes.
    log
        File to which what it prints is added; otherwise that goes where this process's output goes.
    """
    try:
        out = None if log is None else begin(log, parameters)
    except OSError as error:
        reason = f"the log {log} cannot be written: {error.strerror or error}"
        return Outcome("infrastructure", error=reason)
    with tempfile.TemporaryDirectory(prefix="evaluation-") as folder:
        job, result = Path(folder, "job"), Path(folder, "result")
        job.write_bytes(pickle.dumps((packed, dict(parameters))))
        child = subprocess.Popen(  # noqa: S603  our own interpreter
            [sys.executable, "-c", _CHILD, str(job), str(result)],
            # What this process can import, it can too.
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
            },
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        if out is not None:
            os.close(out)
        started = time.monotonic()
        try:
            status = _wait(child, started + (inf if time_limit_s is None else time_limit_s), is_wanted)
        finally:
            kill_session(child.pid)
            child.wait()
            if child.stdin is not None:
                child.stdin.close()
        seconds = time.monotonic() - started
        printed = "" if log is None else last_line(log)
        if status is None and not is_wanted():
            return Outcome("infrastructure", error="the evaluation was cancelled", seconds=seconds)
        if status is None:
            reason = f"the evaluation exceeded its time limit of {time_limit_s:g} s{printed}"
            return Outcome(timeout, error=reason, seconds=seconds)
        if result.exists():
            outcome: Outcome = pickle.loads(result.read_bytes())  # noqa: S301  written by our own child
            return outcome
        kind, reason = ended(status)
        return Outcome(kind, error=f"{reason}{printed}", seconds=seconds)


def _wait(child: subprocess.Popen[bytes], deadline: float, is_wanted: Callable[[], bool]) -> int | None:
    while is_wanted() and (left := deadline - time.monotonic()) > 0:
        try:
            return child.wait(min(left, _LOOK_S))
        except subprocess.TimeoutExpired:
            pass
    return None


def main() -> None:
    """Evaluate the job of the command line. The standard input stays open as long as it is wanted."""
    job, result = map(Path, sys.argv[1:])
    wanted = os.dup(0)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    die_after(lambda: os.read(wanted, 1))
    packed, parameters = pickle.loads(job.read_bytes())  # noqa: S301  written by our own parent
    try:
        evaluator = pickle.loads(packed)  # noqa: S301
    except Exception as error:
        reason = f"the evaluator cannot be loaded in a worker process: {one_line(error)}"
        outcome = pickle.dumps(Outcome("setup", error=reason))
    else:
        outcome = pack(evaluate(evaluator, parameters))
    part = result.with_suffix(".part")
    part.write_bytes(outcome)
    part.replace(result)
