"""Earlier co-design campaigns to learn from: what their trials measured, by numerics."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pandas as pd

from studies.campaigns.runs import RunError, read_run
from studies.codesign.config import CampaignConfig
from studies.codesign.evaluate import LEARNT
from studies.codesign.pricing import numerics_names
from studies.config import ConfigError


def transfer_of(paths: Sequence[Path], config: CampaignConfig) -> list[pd.DataFrame]:
    """Finished trials of run folders: parameters and learnt objectives, each numerics once.

    Raises
    ------
    ConfigError
        A folder holds no campaign, one of another space or of other objectives, or no finished trial.
    """
    return [_frame(path, config) for path in paths]


def _frame(path: Path, config: CampaignConfig) -> pd.DataFrame:
    try:
        run = read_run(path)
    except RunError as error:
        raise ConfigError(f"--transfer {error}") from None
    frame = run.done
    numerics = numerics_names(config.space)
    if "backward_format" in numerics and "backward_format" not in run.names and "format" in run.names:
        frame = frame.assign(backward_format=frame["format"])  # errors were in the operands' format
    if missing := [name for name in numerics if name not in frame.columns]:
        raise ConfigError(
            f"--transfer {path}: is a campaign of another space: it has no {', '.join(missing)}, "
            f"but {', '.join(run.names)}"
        )
    directions = {wanted.name: wanted.minimize for wanted in run.objectives}
    learnt = [name for name in config.search.objectives if name in LEARNT]
    shared = [name for name in learnt if name in directions]
    if not shared:
        raise ConfigError(
            f"--transfer {path}: has none of the objectives to learn here, {', '.join(learnt) or 'none'}; "
            f"it has {', '.join(directions)}"
        )
    if wrong := [name for name in shared if not directions[name]]:
        raise ConfigError(f"--transfer {path}: maximises {wrong[0]}, which is minimised here")
    if frame.empty:
        raise ConfigError(f"--transfer {path}: has no finished trial to learn from")
    table = frame[[*numerics, *shared]]
    return table.drop_duplicates(list(numerics)).reset_index(drop=True)


def fingerprint(frames: Sequence[pd.DataFrame]) -> list[str]:
    """What tells the sources of a campaign from others, for its identity."""
    return [sha256(frame.to_csv(index=False).encode()).hexdigest() for frame in frames]
