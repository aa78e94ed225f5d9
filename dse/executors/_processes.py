"""Ending processes with everything they started. POSIX only."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_ROUNDS = 20  # a process may start another one while we look


def kill_session(leader: int) -> None:
    """Kill all processes of the session that `leader` began, itself last.

    A session holds whatever its leader started, in whatever process group, until someone calls
    ``setsid`` again. Where the system does not list its processes under ``/proc``, only the leader's
    process group is killed.
    """
    if not sys.platform.startswith("linux"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
        return
    for _ in range(_ROUNDS):
        followers = [pid for pid in _members(leader) if pid != leader]
        for pid in followers:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not followers:
            break
        time.sleep(0.005)
    if leader in _members(leader):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(leader, signal.SIGKILL)


def _members(session: int) -> list[int]:
    """Living processes of a session; those that ended and only wait for their parent are not."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # The name in parentheses may hold anything, so the fields are counted behind it:
                # state, parent, process group, session.
                state, _, _, own = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(own) == session and state not in "ZX":
                    found.append(int(entry.name))
    return found


def die_after(wait: Callable[[], object]) -> None:
    """End this process's session as soon as `wait`, called in a thread of its own, returns."""

    def watch() -> None:
        wait()
        kill_session(os.getpid())

    threading.Thread(target=watch, daemon=True, name="follows its parent").start()
