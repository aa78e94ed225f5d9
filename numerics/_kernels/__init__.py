"""Numba kernels: plain loops over scalars and arrays, no validation, no objects.

A target format is passed as the fields of `numerics._target.Target`. ``fastmath`` stays off: it
reassociates the very additions that are studied.
"""

from contextlib import suppress
from pathlib import Path


def _discard_stale_caches() -> None:
    """Remove what Numba cached before any of these files last changed.

    Numba compares a cache with the file of its own kernel only, but kernels inline those of other files.
    """
    folder = Path(__file__).parent
    newest = max(path.stat().st_mtime_ns for path in folder.glob("*.py"))
    for index in (folder / "__pycache__").glob("*.nb[ci]"):
        with suppress(OSError):  # another process was faster, or the folder is not ours to write
            if index.stat().st_mtime_ns < newest:
                index.unlink()


_discard_stale_caches()
