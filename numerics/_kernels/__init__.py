"""Numba kernels: plain loops over scalars and arrays, no validation, no objects.

A target format is passed as the fields of `numerics._target.Target`. ``fastmath`` stays off: it
reassociates the very additions that are studied.
"""

from numerics.kernel_cache import discard_stale_caches

discard_stale_caches(__file__)
