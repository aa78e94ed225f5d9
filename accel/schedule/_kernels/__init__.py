"""Numba kernels of the schedules: plain loops over arrays, no validation, no objects."""

from numerics.kernel_cache import discard_stale_caches

discard_stale_caches(__file__)
