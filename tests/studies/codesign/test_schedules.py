"""Schedules are kept by content and replayed before use; layer by layer keeps nothing."""

import json

import pytest

from accel.schedule import WorkingSetError, baselines, schedule
from numerics import E5M2, E6M9, FloatFormat
from studies.cache import Kept
from studies.codesign import schedules
from studies.codesign.pricing import Storage
from studies.codesign.schedules import Schedules, layer_by_layer

SIZE = 81920


@pytest.fixture(scope="module")
def workload(found):
    return found.pricing.workload(Storage(E5M2, E5M2, E6M9, E6M9))


@pytest.fixture
def never(monkeypatch):
    """Scheduling anew is an error."""

    def refuse(*_, **__):
        raise AssertionError("scheduled anew")

    return lambda: monkeypatch.setattr(schedules, "schedule", refuse)


def test_a_schedule_is_made_once_across_campaigns(tmp_path, workload, never):
    made = Schedules(Kept(tmp_path, "schedules")).best(workload, SIZE)
    assert made == schedule(workload, SIZE, weights="tracked")
    never()
    assert Schedules(Kept(tmp_path, "schedules")).best(workload, SIZE) == made


def test_other_content_has_another_key(tmp_path, found, workload, never):
    kept = Schedules(Kept(tmp_path, "schedules"))
    kept.best(workload, SIZE)
    never()
    other = found.pricing.workload(Storage(FloatFormat.parse("e3m2"), E5M2, E6M9, E6M9))
    for graph, size in ((workload, SIZE + 4096), (other, SIZE)):
        with pytest.raises(AssertionError, match="scheduled anew"):
            kept.best(graph, size)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace('"load"', '"spill"'),
        lambda text: json.dumps({**json.loads(text), "value": {}}),
        lambda text: json.dumps({**json.loads(text), "key": {}}),
    ],
    ids=["half", "empty", "another plan", "no plan", "another key"],
)
def test_a_damaged_plan_is_made_anew(tmp_path, workload, damage):
    made = Schedules(Kept(tmp_path, "schedules")).best(workload, SIZE)
    (path,) = tmp_path.rglob("*.json")
    whole = path.read_text()
    path.write_text(damage(whole))
    assert path.read_text() != whole
    assert Schedules(Kept(tmp_path, "schedules")).best(workload, SIZE) == made
    again = json.loads(path.read_text())
    assert {**again["value"], "seconds": 0} == {**json.loads(whole)["value"], "seconds": 0}


def test_what_does_not_fit_is_an_error_and_is_not_kept(tmp_path, workload):
    with pytest.raises(WorkingSetError):
        Schedules(Kept(tmp_path, "schedules")).best(workload, 4096)
    assert not list(tmp_path.rglob("*.json"))


def test_layer_by_layer_moves_what_the_scheduler_says_of_it(workload):
    plan = layer_by_layer(workload, 1 << 20)
    rules = baselines(workload, 1 << 20, weights="tracked")
    (expected,) = rules.loc[rules["replacement"] == "layer-by-layer", "noncompulsory_bytes"]
    assert plan.noncompulsory_bytes == expected
    assert plan.noncompulsory_bytes > schedule(workload, 1 << 20, weights="tracked").noncompulsory_bytes
