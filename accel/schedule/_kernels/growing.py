"""Arrays that grow, and a heap in them."""

import numpy as np
from numba import njit


@njit(cache=True)
def copy(source, target):
    """Copy one row or array: compiles faster than a slice."""
    for k in range(source.shape[0]):
        target[k] = source[k]


@njit(cache=True)
def sift_down(keys, marks, count):
    """Restore the heap after its first entry was replaced."""
    k = 0
    while 2 * k + 1 < count:
        child = 2 * k + 1
        if child + 1 < count and (
            keys[child + 1] < keys[child]
            or (keys[child + 1] == keys[child] and marks[child + 1] < marks[child])
        ):
            child += 1
        if keys[k] < keys[child] or (keys[k] == keys[child] and marks[k] < marks[child]):
            return
        keys[k], keys[child] = keys[child], keys[k]
        marks[k], marks[child] = marks[child], marks[k]
        k = child


@njit(cache=True)
def sift_up(keys, marks, k):
    """Restore the heap after an entry was put at place `k`."""
    while k > 0:
        up = (k - 1) >> 1
        if keys[up] < keys[k] or (keys[up] == keys[k] and marks[up] < marks[k]):
            return
        keys[k], keys[up] = keys[up], keys[k]
        marks[k], marks[up] = marks[up], marks[k]
        k = up


@njit(cache=True)
def grown(a):
    """Array of twice the length."""
    b = np.empty(2 * a.shape[0], a.dtype)
    copy(a, b)
    return b


@njit(cache=True)
def grown_rows(a):
    """Array with twice the rows."""
    b = np.empty((2 * a.shape[0], a.shape[1]), a.dtype)
    for k in range(a.shape[0]):
        copy(a[k], b[k])
    return b
