"""Runs of a co-design campaign as the accuracy model takes them, with the statistics of its task.

    config = load(Path("studies/configs/digits.toml"), CampaignConfig)
    mine = statistics_of(config.training, "my digits")
    runs = runs_of(pandas.read_parquet(folder / "evaluations.parquet"), config.training, "my digits")
    model = AccuracyModel({**known(), "my digits": mine}).fit(pandas.concat([read_runs(), runs]))

A campaign has one format for operands forward and backward, and gives the update and the loss scale to all of
its candidates. A candidate is one run here: its accuracy is the mean over its replicates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics import FloatFormat
from studies.accuracy.policies import NAMES, NumericsChoice
from studies.accuracy.subjects import Subject

if TYPE_CHECKING:
    import pandas as pd

    from studies.accuracy.statistics import TaskStatistics
    from studies.codesign.config import Training

_COLUMNS = (
    "format",
    "accumulator_exp_bits",
    "accumulator_frac_bits",
    "chunk",
    "update_rounding",
    "test_accuracy",
)


def runs_of(evaluations: pd.DataFrame, training: Training, task: str) -> pd.DataFrame:
    """Run table of a campaign, whole runs of the task called `task`.

    Candidates that were not trained are left out, and those whose operands have a format that is not of IEEE
    kind, for which `NumericsChoice` has no word.

    Parameters
    ----------
    evaluations
        Of a campaign, one row per candidate: ``evaluations.parquet`` of its folder.
    training
        Of its configuration.

    Raises
    ------
    ValueError
        A column that is missing, or a campaign none of whose candidates can be said.
    """
    import pandas as pd

    if missing := [name for name in _COLUMNS if name not in evaluations.columns]:
        raise ValueError(f"evaluations must have the column {missing[0]}, of a co-design campaign")
    update = FloatFormat.parse(training.update_format)
    rows = []
    for row in evaluations.dropna(subset=list(_COLUMNS)).to_dict("records"):
        operand = FloatFormat.parse(row["format"])
        choice = NumericsChoice.of(
            {
                **{name: row[name] for name in NAMES if name in row},
                "forward_exp_bits": operand.exp_bits,
                "forward_frac_bits": operand.frac_bits,
                "backward_exp_bits": operand.exp_bits,
                "backward_frac_bits": operand.frac_bits,
                "update_exp_bits": update.exp_bits,
                "update_frac_bits": update.frac_bits,
                "loss_scale": training.loss_scale,
            }
        )
        if choice.forward == operand and choice.update == update:
            rows.append(
                {
                    "task": task,
                    **choice.parameters,
                    "fidelity": 1.0,
                    "test_accuracy": float(row["test_accuracy"]),
                }
            )
    if not rows:
        raise ValueError(
            f"evaluations must have trained candidates with IEEE formats, got none in {len(evaluations)} rows"
        )
    return pd.DataFrame(rows)


def statistics_of(training: Training, task: str, *, seed: int = 0) -> TaskStatistics:
    """Statistics of a campaign's task, measured in float32: four trainings, without emulated sums.

    Raises
    ------
    ValueError
        An optimizer other than stochastic gradient descent, whose update the features do not know.
    TaskError
        The data are absent.
    """
    from studies.accuracy.probe import measure_statistics

    rule = training.rule
    if rule.kind != "sgd":
        raise ValueError(f"the accuracy model knows the optimizer sgd, got {rule.kind!r}")
    subject = Subject(
        name=task,
        task=training.table.name,
        learning_rate=rule.learning_rate,
        momentum=0.0 if rule.momentum is None else rule.momentum,
        batch=training.batch,
        steps=training.steps,
    )
    built = training.table.build()
    return measure_statistics(subject, built, built.load(), seed=seed)
