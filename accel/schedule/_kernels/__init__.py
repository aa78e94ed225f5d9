"""Numba kernels of the schedules: plain loops over arrays, no checks."""
