"""Evaluators that misbehave, in a module that worker processes can import."""

import ctypes
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dse.executors import Measurement, SetupError
from dse.trial import InfrastructureError


def good(p):
    return {"loss": float(p["x"])}, {"worker": os.getpid()}


def cached(p):
    return Measurement({"loss": float(p["x"])}, {"bytes": 4}, cached=True, seconds=123.0)


def slow(p):
    time.sleep(0.1)
    return good(p)


def not_a_number(p):
    return {"loss": math.nan}


def nothing(p):
    return None


def text(p):
    return "0.5"


def infinite(p):
    return {"loss": -math.inf}


def no_number(p):
    return {"loss": "fast"}


def other_name(p):
    return {"los": 1.0}


def unpicklable(p):
    return {"loss": 1.0}, {"f": lambda: None}


class ComesBackBroken:
    def __reduce__(self):
        return (int, ("no number",))


def broken_on_the_way_back(p):
    return {"loss": 1.0}, {"thing": ComesBackBroken()}


def garbage(p):
    os.write(1, b"\x00\xff\x1b[31mgarbage\n" * 10)
    os.write(2, b"\x80" * 100)
    return object()


def raises(p):
    raise ZeroDivisionError("no\nunits")


def leaves(p):
    os._exit(3)


def leaves_in_silence(p):
    os._exit(0)


def exits(p):
    sys.exit("bye")


def aborts(p):
    os.abort()


def crashes(p):
    ctypes.string_at(0)


def hangs(p):
    time.sleep(1000)


def hangs_and_ignores(p):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass


def breeds_and_hangs(p):
    """Leave processes in other process groups behind, with this one's pipes open, and hang."""
    for _ in range(2):
        subprocess.Popen(["sleep", "1000"], process_group=0)
    if os.fork() == 0:
        time.sleep(1000)
    time.sleep(1000)


def forks_and_leaves(p):
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(4)


def killed(p):
    os.kill(os.getpid(), signal.SIGKILL)


def terminated(p):
    os.kill(os.getpid(), signal.SIGTERM)


def temporary(p):
    os._exit(os.EX_TEMPFAIL)


def no_licence(p):
    raise InfrastructureError("no licence")


def misconfigured(p):
    raise SetupError("no tool")


def no_licence_twice(p):
    """Two failures for every design, then a result; the count is in files."""
    for attempt in range(2):
        mark = Path(p["folder"], f"{p['x']}-{attempt}")
        if not mark.exists():
            mark.touch()
            raise InfrastructureError(f"attempt {attempt}")
    return {"loss": 1.0}


def talks(p):
    """Print in every way, then end as the design says."""
    sys.stdout.write(f"python {p['x']}\n")
    os.write(2, b"\xffraw\n")
    subprocess.run(["echo", "a program"], check=True)
    if p["x"] == 1:
        sys.stdout.write("last words\x1b[31m\n")
        os._exit(3)
    if p["x"] == 2:
        sys.stdout.write("still working\n")
        time.sleep(1000)
    if p["x"] == 3:
        raise InfrastructureError("no licence")
    return {"loss": 1.0}


class Unloadable:
    """An evaluator that can be sent, and not received."""

    def __call__(self, p):
        return {"loss": 1.0}

    def __reduce__(self):
        return (int, ("no number",))


class Counter:
    """An evaluator with a state: workers keep it from one design to the next."""

    def __init__(self):
        self.calls = 0

    def __call__(self, p):
        self.calls += 1
        return {"loss": float(self.calls)}


ZOO = [good, slow, not_a_number, nothing, garbage, other_name, raises, leaves, crashes, hangs, killed]


def zoo(p):
    """Every kind of trouble in turn; with ``killed`` the infrastructure's."""
    return ZOO[p["x"] % len(ZOO)](p)


def slow_except_first(p):
    time.sleep(0.0 if p["x"] == 0 else 0.4)
    return good(p)
