"""Searches of formats: small ones against all assignments, large ones against an exact optimum."""

from itertools import product

import numpy as np
import pytest

from dse.allocate import Allocation, exact
from studies.allocation.asking import SearchError
from studies.allocation.groups import TensorGroup, traffic_bytes
from studies.allocation.search import METHODS, search_precision

FORMATS = ("binary16", "e4m3fn", "e3m2", "e2m1")


class Noise:
    """Independent errors of groups, whose squares add up: the root mean square of a sum."""

    def __init__(self, groups, seed):
        rng = np.random.default_rng(seed)
        self.groups = tuple(
            TensorGroup(name=f"t{k}", elements=int(n))
            for k, n in enumerate(rng.lognormal(6, 1.5, groups) + 1)
        )
        steps = np.array([2.0**-11, 2.0**-4, 2.0**-3, 2.0**-2])
        self.squares = np.outer(rng.lognormal(0, 2, groups), steps**2)
        self.threshold = float(np.sqrt(0.05 * self.squares[:, -1].sum()))

    def __call__(self, formats):
        places = [FORMATS.index(formats[group.name]) for group in self.groups]
        return float(np.sqrt(sum(row[o] for row, o in zip(self.squares, places, strict=True))))

    def search(self, method, **options):
        return search_precision(
            self.groups, FORMATS, self, **({"threshold": self.threshold, "method": method} | options)
        )

    def best(self):
        problem = Allocation(
            groups=tuple(group.name for group in self.groups),
            options=FORMATS,
            cost=np.array([[group.bytes_in(fmt) for fmt in FORMATS] for group in self.groups]),
            loss=self.squares,
        )
        return problem.cost_of(exact(problem, max_loss=self.threshold**2))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_threshold_and_none_beats_all_assignments(method):
    noise = Noise(3, 1)
    names = [group.name for group in noise.groups]
    every = [dict(zip(names, chosen, strict=True)) for chosen in product(FORMATS, repeat=3)]
    best = min(traffic_bytes(noise.groups, a) for a in every if noise(a) <= noise.threshold)
    found = noise.search(method, budget=64)
    assert noise(found.assignment) == found.quality <= noise.threshold
    assert found.traffic_bytes == traffic_bytes(noise.groups, found.assignment) >= best
    assert found.calls == len(found.asked) <= 64
    if method in ("exhaustive", "random", "learned"):
        assert found.traffic_bytes == best


def test_within_two_percent_of_the_optimum_of_sixty_thousand_assignments():
    noise = Noise(8, 0)
    best = noise.best()
    found = noise.search("learned", budget=120)
    assert best * (1 - 1e-12) <= found.traffic_bytes <= 1.02 * best


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_within_two_percent_of_the_optimum_of_four_million_assignments(seed):
    noise = Noise(11, seed)
    best = noise.best()
    found = noise.search("learned", budget=200)
    assert len(found.asked) <= 200
    assert best * (1 - 1e-12) <= found.traffic_bytes <= 1.02 * best
    assert found.within(best) <= 200


def test_the_recommended_method_is_never_worse_than_integer_programming():
    noise = Noise(6, 10)
    additive, learned = noise.search("additive", budget=60), noise.search("learned", budget=60)
    assert learned.traffic_bytes <= additive.traffic_bytes


@pytest.mark.parametrize("method", ["random", "bayesian", "learned"])
def test_equal_seeds_ask_equal_questions(method):
    noise = Noise(5, 3)
    first, second = (noise.search(method, budget=28, seed=4) for _ in range(2))
    assert [asked.choice for asked in first.asked] == [asked.choice for asked in second.asked]


def test_a_search_goes_on_from_its_store(tmp_path):
    noise = Noise(5, 2)
    path = tmp_path / "answers.jsonl"
    part = noise.search("learned", budget=20, store=path)
    whole = noise.search("learned", budget=40, store=path)
    alone = noise.search("learned", budget=40)
    assert part.calls == 20
    assert whole.calls == len(alone.asked) - 20
    assert whole.asked == alone.asked


def test_savings_are_shares_of_one_format_for_all():
    found = Noise(3, 1).search("by-size")
    assert found.saved("binary32") == pytest.approx(
        1 - found.traffic_bytes / traffic_bytes(found.groups, "binary32")
    )
    assert found.within(1.0) is None


def test_an_unknown_method_and_a_space_beyond_the_budget_are_refused():
    with pytest.raises(SearchError, match=r"method must be one of exhaustive.*did you mean 'learned'"):
        Noise(2, 0).search("learnt")
    with pytest.raises(
        SearchError, match=r"exhaustive takes a budget of 4,194,304, all assignments, got 200"
    ):
        Noise(11, 0).search("exhaustive", budget=200)
