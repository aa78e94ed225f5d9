"""What this installation is made of, and what stands in its way."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import packages_distributions, version
from pathlib import Path

NAMES = ("numerics", "accel", "dse", "studies")
_PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "torch", "gpytorch", "botorch", "ortools", "pandas")


def findings() -> dict[str, str]:
    """Versions, cores, vector width and threading layer, by name."""
    found = {"bitfront": version("bitfront"), "python": platform.python_version()}
    found |= {name: version(name) for name in _PACKAGES}
    return {
        **found,
        "cores": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}"
        if hasattr(os, "sched_getaffinity")
        else str(os.cpu_count()),
        "SIMD": simd_width(),
        "threading layer": threading_layer(),
    }


def simd_width() -> str:
    """Widest vectors that Numba's compiler sees on this processor."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    for feature, bits in (("avx512f", 512), ("avx2", 256), ("avx", 256), ("sse2", 128), ("neon", 128)):
        if features.get(feature):
            return f"{bits} bit ({feature} on {binding.get_host_cpu_name()})"
    return f"none known on {binding.get_host_cpu_name()}"


def threading_layer() -> str:
    """Threading layer that Numba's parallel kernels would use."""
    import numba

    @numba.njit(parallel=True)  # type: ignore[untyped-decorator]
    def count(n: int) -> int:
        total = 0
        for _ in numba.prange(n):
            total += 1
        return total

    count(2)
    return f"{numba.threading_layer()}, {numba.get_num_threads()} threads"


def warnings(
    owners: Mapping[str, Sequence[str]] | None = None, locations: Mapping[str, Path | None] | None = None
) -> list[str]:
    """Sentences on import names that another distribution owns or that are imported from elsewhere.

    Parameters
    ----------
    owners
        Distributions by import name; those installed by default.
    locations
        Folder from which each of our names is imported; looked up by default.
    """
    owners = packages_distributions() if owners is None else owners
    locations = {name: _location(name) for name in NAMES} if locations is None else locations
    home = locations["studies"]
    others = {
        name: sorted({who for who in owners.get(name, ()) if who.lower() != "bitfront"}) for name in NAMES
    }
    taken = [
        f"the import name {name!r} also belongs to {', '.join(others[name])}; "
        f"install bitfront in an environment of its own"
        for name in NAMES
        if others[name]
    ]
    astray = [
        f"{name!r} is imported from {locations[name]}, not from {home} like the rest"
        for name in NAMES
        if locations[name] != home
    ]
    return taken + astray


def _location(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent.parent if spec is not None and spec.origin else None
