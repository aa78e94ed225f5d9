"""What may run while results wait for their reader: operators that run right before a reader of their result.

The proof is in ``_atomic.late_operators``. Lists of lists are flat, as in ``search_moves``.
"""

import numpy as np
from numba import njit

from accel.schedule._kernels.search_moves import has


@njit(cache=True)
def list_waiting(done, late, next_at, following, waiting):
    """Write down the late operators that are done while no reader of their result is; return their number."""
    count = 0
    for j in range(late.shape[0]):
        if late[j] and has(done, j):
            waits = True
            for k in range(next_at[j], next_at[j + 1]):
                if has(done, following[k]):
                    waits = False
                    break
            if waits:
                waiting[count] = j
                count += 1
    return count


@njit(cache=True)
def may_run(p, i, done, waiting, n_waiting):
    """Whether `i` reads what all waiting operators made, or is late and leads with them to one reader."""
    if not p.late[i]:
        for q in range(n_waiting):  # noqa: SIM110
            if not is_among(i, waiting[q], p.next_at, p.next):
                return False
        return True
    for k in range(p.target_at[i], p.target_at[i + 1]):
        c = p.target[k]
        good = True
        for w in range(done.shape[0]):
            if p.needed[c, w] & ~done[w] != np.uint64(0):
                good = False
                break
        for q in range(n_waiting):
            good = good and is_among(c, waiting[q], p.target_at, p.target)
        if good:
            return True
    return False


@njit(cache=True)
def is_among(c, j, items_at, items):
    """Whether `c` is in list `j`."""
    for k in range(items_at[j], items_at[j + 1]):  # noqa: SIM110
        if items[k] == c:
            return True
    return False
