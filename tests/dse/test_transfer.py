import numpy as np
import pandas as pd
import pytest

import dse
from dse.objective import Objective
from dse.space import Categorical, Integer, Ordinal, Space
from dse.transfer import Source, SourcePredictions, seed_designs, tasks

SPACE = Space(
    [Ordinal("rows", (4, 8, 16), log=True), Integer("bits", 1, 9), Categorical("flow", ("os", "ws"))]
)
TIME, AREA = Objective("time"), Objective("area")


def frame(**columns) -> pd.DataFrame:
    base = {
        "rows": [4, 8, 16, 32, 4, 8],
        "bits": [1, 5, 9, 5, 13, 3],
        "flow": ["os", "ws", "is", "os", "rs", "is"],
        "time": [6.0, 5, 4, 3, 2, 1],
        "area": [1.0, 2, 3, 4, 5, 6],
    }
    return pd.DataFrame({**base, **columns})


def column(name: str) -> int:
    return SPACE.columns_of(name)[0]


def test_numbers_beyond_the_space_keep_their_place_on_its_scale():
    rows = Source("old", frame()).rows(SPACE)
    np.testing.assert_allclose(rows[:, column("rows")], [0, 0.5, 1, 1.5, 0, 0.5])
    np.testing.assert_allclose(rows[:, column("bits")], [0, 0.5, 1, 0.5, 1.5, 0.25])


def test_categories_that_the_space_lacks_get_codes_of_their_own():
    codes = Source("old", frame()).rows(SPACE)[:, column("flow")]
    assert codes[:2].tolist() == [0, 1]
    assert codes[2] == codes[5] != codes[4]
    assert codes[2] >= 2
    assert codes[4] >= 2


def test_a_parameter_that_the_source_lacks_is_unknown():
    rows = Source("old", frame().drop(columns="bits")).rows(SPACE)
    assert np.isnan(rows[:, column("bits")]).all()
    assert not np.isnan(rows[:, column("rows")]).any()


def test_a_parameter_that_only_the_source_has_is_dropped():
    assert Source("old", frame(extra=range(6))).rows(SPACE).shape == (6, 3)


def test_no_common_parameter_is_one_line():
    with pytest.raises(
        ValueError, match=r"transfer old has no parameter in common.*searches rows, bits, flow"
    ):
        Source("old", pd.DataFrame({"x": [1], "time": [2.0]})).shared(SPACE)


def test_objectives_transfer_separately():
    source = Source("old", frame().drop(columns="area"))
    assert len(tasks([source], SPACE, TIME)) == 1
    assert tasks([source], SPACE, AREA) == []
    with pytest.raises(ValueError, match="transfer old has no column area"):
        source.costs(AREA)


def test_rows_without_a_value_do_not_count_and_maximised_ones_change_sign():
    source = Source("old", frame(time=[1.0, 2, np.nan, 4, 5, 6]))
    (task,) = tasks([source], SPACE, Objective("time", minimize=False))
    assert task.y.tolist() == [-1, -2, -4, -5, -6]
    assert len(task.rows) == 5


def test_costs_of_a_source_can_be_modelled_on_another_scale():
    (task,) = tasks([Source("old", frame())], SPACE, TIME, scale=np.log10)
    np.testing.assert_allclose(task.y, np.log10([6, 5, 4, 3, 2, 1]))


def test_a_source_of_few_rows_is_left_out():
    assert tasks([Source("old", frame().head(4))], SPACE, TIME) == []


def test_the_front_of_a_source_seeds_the_search():
    found = seed_designs([Source("old", frame())], SPACE, [TIME], 5)
    # The best design that the space has: rows 32, bits 13 and the flows is and rs are not in it.
    assert found == ((8, 5, "ws"),)
    both = seed_designs([Source("old", frame(flow=["os"] * 6))], SPACE, [TIME, AREA], 2)
    assert both == ((8, 3, "os"), (4, 1, "os"))


def test_sources_come_from_frames_and_campaigns():
    campaign = dse.Campaign(SPACE, [TIME], seed=0, method="random")
    for trial, value in zip(campaign.ask(3), (1.0, None, 2.0), strict=True):
        if value is None:
            campaign.fail(trial, "does not fit")
        else:
            campaign.tell(trial, {"time": value})
    assert Source.of(campaign).frame["time"].tolist() == [1.0, 2.0]
    source = Source.of(frame(), "old")
    assert Source.of(source) is source
    with pytest.raises(TypeError, match="must be a data frame or a campaign, got 3"):
        Source.of(3)


def test_predictions_of_a_source_rank_the_space():
    rng = np.random.default_rng(0)
    designs = list(SPACE.designs())
    some = [designs[i] for i in rng.permutation(len(designs))[:30]]
    truth = np.array([np.log2(rows) + 0.3 * bits + (flow == "ws") for rows, bits, flow in designs])
    of = dict(zip(designs, truth, strict=True))
    table = pd.DataFrame(some, columns=list(SPACE.names)).assign(time=[100 * of[d] for d in some])
    predictions = SourcePredictions([Source("old", table)], SPACE, TIME, seed=0)
    assert predictions(designs).shape == (len(designs), 1)
    assert predictions([]).shape == predictions.columns([]).shape == (0, 1)
    np.testing.assert_allclose(predictions.columns(designs), 0.5 + predictions(designs) / 4)
    assert predictions.followed(designs, truth)["old"] > 0.95


@pytest.mark.parametrize("method", ["auto", "qlognparego", "predict"])
def test_a_source_that_has_nothing_to_tell_or_the_opposite_is_refused_before_any_trial(method):
    def campaign(*sources, objectives=(TIME, AREA)):
        return dse.Campaign(SPACE, objectives, seed=0, method=method, transfer=sources)

    with pytest.raises(ValueError, match="transfer source 2 has no parameter in common with the campaign"):
        campaign(frame(), pd.DataFrame({"x": [1.0], "time": [1.0]}))
    with pytest.raises(
        ValueError, match="no objective to learn in common with the campaign, which learns time"
    ):
        campaign(frame().drop(columns=["time", "area"], errors="ignore"))
    with pytest.raises(TypeError, match="must be a data frame or a campaign, got 'runs/a'"):
        campaign("runs/a")
    slowest = dse.Campaign(SPACE, [dse.Objective("time", minimize=False)], seed=0, method="random")
    for trial in slowest.ask(6):
        slowest.tell(trial, {"time": float(trial.id)})
    with pytest.raises(
        ValueError, match="time must be maximised, as transfer source 1 has it, got minimised"
    ):
        campaign(slowest)
    with pytest.raises(ValueError, match="time must be positive"):
        campaign(
            frame(time=[1.0, 2.0, -3.0, 4.0, 5.0, 6.0]), objectives=[dse.Objective("time", transform="log")]
        )


def test_a_source_whose_shared_parameters_do_not_vary_is_left_out():
    fixed = frame(rows=[8] * 6, bits=[5] * 6, flow=["os"] * 6)
    assert tasks([Source("old", fixed)], SPACE, TIME) == []
    assert len(tasks([Source("old", fixed.assign(bits=[1, 2, 3, 4, 5, 6]))], SPACE, TIME)) == 1


def test_a_source_that_does_not_predict_its_own_results_is_left_out():
    rng = np.random.default_rng(0)
    designs = list(SPACE.designs())
    table = pd.DataFrame(designs, columns=list(SPACE.names))
    table["time"] = [np.log2(rows) + 0.3 * bits + (flow == "ws") for rows, bits, flow in designs]
    noise = table.assign(time=rng.permutation(table["time"].to_numpy()))
    found = SourcePredictions([Source("old", table), Source("noise", noise)], SPACE, TIME, seed=0)
    assert [source.name for source in found.models] == ["old"]
    assert [source.name for source in found.left_out] == ["noise"]
    assert found.models[0].quality > 0.9
    assert found.left_out[0].quality < 0.2
    assert found(designs).shape == (len(designs), 1)
