"""What Numba keeps on disk of compiled kernels, and when that is stale."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def discard_stale_caches(package_file: str) -> None:
    """Remove what Numba cached before any file of a package of kernels last changed.

    Numba compares a cache with the file of its own kernel only, but kernels inline those of other files.

    Parameters
    ----------
    package_file
        ``__file__`` of the package's ``__init__``, which calls this before it or another imports a kernel.
    """
    folder = Path(package_file).parent
    newest = max(path.stat().st_mtime_ns for path in folder.glob("*.py"))
    for index in (folder / "__pycache__").glob("*.nb[ci]"):
        with suppress(OSError):  # another process was faster, or the folder is not ours to write
            if index.stat().st_mtime_ns < newest:
                index.unlink()
