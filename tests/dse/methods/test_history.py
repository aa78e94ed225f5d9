import numpy as np
import pytest

from dse.history import History


def history(**change):
    fields = {
        "done": [(1,), (2,)],
        "costs": [[1.0], [2.0]],
        "constraints": [[-1.0, 0.0], [0.5, -1.0]],
        "failed": [(3,)],
        "pending": [(4,)],
        "asked": [(1,), (2,), (3,), (4,)],
        "seconds": [1.0, np.nan],
    }
    return History(**(fields | change))


def test_sequences_become_plain_tuples_and_arrays():
    found = history()
    assert found.done == ((1,), (2,))
    assert found.asked == frozenset([(1,), (2,), (3,), (4,)])
    assert found.costs.dtype == np.float64
    assert found.feasible.tolist() == [True, False]
    assert History.empty(2, 1).feasible.tolist() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"costs": [[1.0]]}, r"costs must have the shape \(n, k\) with n = 2, got \(1, 1\)"),
        ({"costs": [1.0, 2.0]}, "costs must have the shape"),
        ({"costs": [[1.0], [np.nan]]}, "costs must be finite, got nan"),
        ({"constraints": [[1.0], [np.inf]]}, "constraints must be finite, got inf"),
        ({"seconds": [1.0]}, r"seconds must have the shape \(n,\) with n = 2"),
    ],
)
def test_bad_arrays_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        history(**change)
