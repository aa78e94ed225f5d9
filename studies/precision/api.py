"""A precision study in one call."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd

from studies.precision.run import Watcher, run
from studies.precision.study import Study


def train(
    study: Study | str | Path,
    folder: str | Path | None = None,
    *,
    workers: int = 1,
    force: bool = False,
    watcher: Watcher | None = None,
) -> pd.DataFrame:
    """Train a network under several policies, beside its full-precision twin, and judge each of them.

    Parameters
    ----------
    study
        A `Study`, or the path of its TOML file.
    folder
        Run folder. A study that was interrupted goes on there; so does one to which seeds or policies
        were added at the end. In the end it has a report, ``report.html``. Without a folder nothing is kept
        but the table.
    workers
        Processes. With more than one, the task must be picklable, and a script must start its work under
        ``if __name__ == "__main__":``. Results do not depend on it.
    force
        Replace another study in the folder.

    Returns
    -------
    One row per policy, the twin first: see `studies.precision.table.summary`.

    Raises
    ------
    studies.config.ConfigError, studies.precision.files.FolderError
        The study cannot be trained, or not in this folder; the message has one line per error.

    Examples
    --------
    >>> from studies.tasks import named_task
    >>> study = Study(
    ...     task=named_task("digits-mlp"),
    ...     policies={"FP8": "wang2018"},
    ...     optimizer={"kind": "sgd", "learning_rate": 0.1},
    ...     steps=4,
    ...     seeds=[0, 1],
    ... )
    >>> table = train(study)
    >>> list(table["policy"]), list(table["seeds"])
    (['float32', 'FP8'], [2, 2])
    """
    if not isinstance(study, Study):
        study = Study.from_toml(Path(study))
    if folder is not None:
        from studies.precision.report import write_report

        table = run(study, Path(folder), workers=workers, force=force, watcher=watcher).table
        write_report(Path(folder))
        return table
    with tempfile.TemporaryDirectory(prefix="bitfront-") as place:
        return run(study, Path(place), workers=workers, watcher=watcher).table
