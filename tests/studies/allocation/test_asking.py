"""An oracle is asked once about each assignment, within a budget, and its answers survive."""

import math

import pytest

from studies.allocation.asking import Asking, BudgetSpentError, SearchError
from studies.allocation.groups import TensorGroup

GROUPS = (TensorGroup(name="a", elements=10), TensorGroup(name="b", elements=20))
ERROR = {"binary16": 0.0, "e4m3fn": 0.1, "e2m1": 1.0}


class Counting:
    def __init__(self):
        self.seen = []

    def __call__(self, formats):
        self.seen.append(formats)
        return ERROR[formats["a"]] + 2 * ERROR[formats["b"]]


def asking(oracle, **options):
    return Asking(GROUPS, list(ERROR), oracle, **({"threshold": 0.4, "budget": 5} | options))


def test_answers_are_remembered_and_the_budget_is_of_different_assignments():
    oracle = Counting()
    ask = asking(oracle, budget=2)
    assert ask.ask((1, 0)) is ask.ask((1, 0))
    assert len(oracle.seen) == ask.calls == 2  # the reference, and one
    with pytest.raises(BudgetSpentError):
        ask.ask((0, 1))
    assert ask.ask((0, 0)).error == 0.0


def test_errors_are_in_units_of_what_the_threshold_admits():
    ask = asking(Counting())
    assert ask.ask((1, 0)).error == pytest.approx(0.25)
    assert ask.ask((2, 2)).error == pytest.approx(3.0 / 0.4)
    assert not ask.ask((2, 2)).feasible
    upside = asking(lambda formats: 90.0 - ERROR[formats["a"]], threshold=89.0, higher_is_better=True)
    assert upside.ask((2, 0)).feasible
    assert upside.ask((2, 0)).error == pytest.approx(1.0)


def test_nan_is_never_admitted():
    ask = asking(lambda formats: math.nan if formats["b"] == "e2m1" else 0.0)
    assert ask.ask((0, 2)).error == math.inf


def test_a_threshold_that_is_the_reference_admits_what_is_as_good():
    ask = asking(Counting(), threshold=0.0)
    assert ask.reference.feasible
    assert not ask.ask((1, 0)).feasible


def test_formats_are_ordered_by_their_bits():
    ask = Asking(GROUPS, ["e2m1", "binary16", "e4m3fn"], Counting(), threshold=0.4, budget=3)
    assert ask.formats == ("binary16", "e4m3fn", "e2m1")


def test_answers_are_taken_from_the_store(tmp_path):
    path, first, second = tmp_path / "answers.jsonl", Counting(), Counting()
    asking(first, store=path).ask((1, 1))
    path.write_text(path.read_text() + '{"assignm')  # a write that was interrupted
    again = asking(second, store=path)
    assert again.ask((1, 1)).quality == pytest.approx(0.3)
    assert again.calls == 0
    again.ask((2, 0))
    assert second.seen == [{"a": "e2m1", "b": "binary16"}]
    assert len(path.read_text().splitlines()) == 3


def test_a_store_of_something_else_is_refused(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"assignment": {"x": "e2m1"}, "quality": 1.0}\n')
    with pytest.raises(SearchError, match="line 1 must have the groups a, b"):
        asking(Counting(), store=path)
    path.write_text('{"oracle": "x seed=1", "assignment": {"a": "e2m1", "b": "e2m1"}, "quality": 1.0}\n')
    with pytest.raises(SearchError, match="line 1 must be of the oracle 'x seed=2', got 'x seed=1'"):
        asking(Counting(), store=path, identity="x seed=2")
    path.write_text("hello\n")
    with pytest.raises(SearchError, match="line 1 is no answer of an oracle: 'hello'"):
        asking(Counting(), store=path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": -1.0}, "threshold must be at least 0, the quality in binary16 throughout, got -1"),
        ({"threshold": math.nan}, "threshold must be a number, got nan"),
        ({"budget": 0}, "budget must be at least 1, got 0"),
        ({"budget": 2.5}, "budget must be at least 1, got 2.5"),
        ({"higher_is_better": True}, "threshold must be at most 0, .* got 0.4"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, message):
    with pytest.raises(SearchError, match=message):
        asking(Counting(), **options)


def test_bad_groups_and_formats_are_refused():
    with pytest.raises(SearchError, match="distinct names"):
        Asking([GROUPS[0], GROUPS[0]], list(ERROR), Counting(), threshold=1.0, budget=1)
    with pytest.raises(SearchError, match="at least two different ones, got \\['e2m1'\\]"):
        Asking(GROUPS, ["e2m1"], Counting(), threshold=1.0, budget=1)
    with pytest.raises(SearchError, match="e99"):
        Asking(GROUPS, ["e2m1", "e99"], Counting(), threshold=1.0, budget=1)
