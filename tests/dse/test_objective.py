import math

import numpy as np
import pytest

from dse import Objective


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Objective(""), "name of an objective must be a non-empty text, got ''"),
        (lambda: Objective("area", known=len, inputs=("a",)), "but area is known"),
        (lambda: Objective("loss", inputs=()), r"inputs of loss must be a list of parameter names, got \(\)"),
        (lambda: Objective("loss", inputs="a"), "inputs of loss must be a list of parameter names, got 'a'"),
        (lambda: Objective("loss", threshold=math.inf), "threshold of loss must be finite, got inf"),
        (lambda: Objective("loss", transform="log", threshold=0), "threshold of loss must be positive"),
        (lambda: Objective("loss").check(math.nan), "loss must be finite, got nan"),
        (lambda: Objective("loss").check("low"), "loss must be a number, got 'low'"),
        (lambda: Objective("loss", transform="log").check(-1), "loss must be positive.*got -1.0"),
    ],
)
def test_a_bad_objective_or_value_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_costs_are_minimised_and_logarithmic_where_asked():
    values = np.array([0.1, 10.0])
    assert Objective("a").cost(values).tolist() == [0.1, 10.0]
    assert Objective("a", minimize=False).cost(values).tolist() == [-0.1, -10.0]
    assert Objective("a", transform="log").cost(values).tolist() == [-1.0, 1.0]
    assert Objective("a", minimize=False, transform="log").cost(values).tolist() == [1.0, -1.0]
