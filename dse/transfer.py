"""What earlier campaigns know of a new one: their results in its columns, and designs to begin with.

Parameters and objectives map by name. A parameter that a source does not have stays unknown there, one that
only the source has is dropped; values that the space does not allow are placed on its scale all the same,
for a source with other limits is still of use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Float

from dse.metrics import non_dominated
from dse.objective import Objective
from dse.space import Design, Ordinal, Space

if TYPE_CHECKING:
    import pandas as pd

    from dse._bayes.transfer import Report, Task

Scale: TypeAlias = Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, " n"]]

_FEWEST = 5  # rows of a source from which a model of it is worth fitting
# R2 of a source's own left-out results: of 60 random rows of real tables it was 0.27 and more, with the
# results shuffled over the rows 0.1 and less on most of them.
_LEAST_QUALITY = 0.25


@dataclass(frozen=True, eq=False)
class Source:
    """Results of an earlier campaign.

    Attributes
    ----------
    name
        For reports.
    frame
        One row per result; parameters and objectives are columns.
    minimize
        Direction of its objectives, as far as it is known: a data frame does not tell.
    """

    name: str
    frame: pd.DataFrame
    minimize: Mapping[str, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Any, name: str = "source") -> Source:
        """Source from a source, a data frame, or a campaign, of which the finished trials count.

        Raises
        ------
        TypeError
            It is none of them.
        """
        import pandas as pd

        if isinstance(given, Source):
            return given
        if isinstance(given, pd.DataFrame):
            return cls(name, given)
        frame = getattr(given, "frame", None)
        if not callable(frame):
            raise TypeError(f"a transfer source must be a data frame or a campaign, got {given!r}")
        trials: pd.DataFrame = frame()
        state = trials["trial_state" if "trial_state" in trials.columns else "state"]
        usable = state == "done"
        if (fidelity := getattr(given, "fidelity", None)) is not None:
            usable &= trials[fidelity.name] == fidelity.full
        directions = {each.name: each.minimize for each in getattr(given, "objectives", ())}
        return cls(name, trials[usable].reset_index(drop=True), directions)

    def check(self, space: Space, objectives: Sequence[Objective]) -> None:
        """``ValueError`` where there is nothing to learn from, or what there is contradicts the campaign.

        Nothing is in common, an objective that is to be minimised was maximised there or the other way
        round, or a value is not in the domain of its objective.
        """
        self.shared(space)
        learnt = [each for each in objectives if each.known is None]
        common = [each for each in learnt if each.name in self.frame.columns]
        if learnt and not common:
            raise ValueError(
                f"transfer {self.name} has no objective to learn in common with the campaign, which learns "
                f"{', '.join(each.name for each in learnt)}"
            )
        for each in common:
            if self.minimize.get(each.name, each.minimize) != each.minimize:
                here, there = ("minimised", "maximised") if each.minimize else ("maximised", "minimised")
                raise ValueError(f"{each.name} must be {there}, as transfer {self.name} has it, got {here}")
            self.costs(each)

    def shared(self, space: Space) -> tuple[str, ...]:
        """Names of the searched parameters of the space that this source has.

        Raises
        ------
        ValueError
            There is none.
        """
        wanted = [parameter.name for parameter in space.searched]
        names = tuple(name for name in wanted if name in self.frame.columns)
        if not names:
            raise ValueError(
                f"transfer {self.name} has no parameter in common with the campaign, which searches "
                f"{', '.join(wanted)}; it has {', '.join(map(str, self.frame.columns))}"
            )
        return names

    def rows(self, space: Space) -> Float[np.ndarray, "n c"]:
        """Rows as the space encodes designs, (n, c); NaN where a column is not shared.

        Features of a table are not shared: only the target's are known on its scale.
        """
        shared = set(self.shared(space))
        encoded = space.encode([])
        rows = np.full((len(self.frame), len(encoded.names)), np.nan)
        for parameter in space.searched:
            if parameter.name in shared:
                values = [_plain(value) for value in self.frame[parameter.name]]
                rows[:, list(space.columns_of(parameter.name))] = _encoded(parameter, values)
        return rows

    def costs(self, objective: Objective) -> Float[np.ndarray, " n"]:
        """Costs of an objective, (n,), as the campaign compares them; NaN where there is no value.

        Raises
        ------
        ValueError
            The source does not have it, or a value is not in its domain.
        """
        if objective.name not in self.frame.columns:
            raise ValueError(f"transfer {self.name} has no column {objective.name}")
        values = np.array([np.nan if _missing(v) else objective.check(v) for v in self.frame[objective.name]])
        return objective.cost(values)


def tasks(
    sources: Sequence[Source], space: Space, objective: Objective, *, scale: Scale | None = None
) -> list[Task]:
    """Sources that have an objective, as a model reads them.

    A source with too few rows, or whose results or shared parameters do not vary, is left out.

    Objectives transfer separately: area may transfer where time does not.

    Parameters
    ----------
    scale
        From the costs of a source, (n,), to those that are modelled, for example their logarithms.

    Raises
    ------
    ValueError
        A source has no parameter in common with the space.
    """
    from dse._bayes.transfer import Task

    found = []
    for source in sources:
        rows = source.rows(space)
        if objective.name not in source.frame.columns:
            continue
        costs = source.costs(objective)
        kept = np.isfinite(costs)
        # A column is used if all rows have it: conditional parameters are absent from some.
        rows = rows[kept]
        has = ~np.isnan(rows).any(axis=0)
        rows[:, ~has] = np.nan
        varies = (rows[:, has] != rows[:1, has]).any()
        if kept.sum() >= _FEWEST and np.ptp(costs[kept]) > 0 and varies:
            modelled = costs[kept] if scale is None else scale(costs[kept])
            found.append(Task(source.name, rows, modelled))
    return found


def seed_designs(
    sources: Sequence[Source], space: Space, objectives: Sequence[Objective], n: int
) -> tuple[Design, ...]:
    """Up to `n` designs of the space that were best in the sources: their front, spread along it.

    A warm start without a model. Designs that the space does not have are skipped.
    """
    found: dict[Design, None] = {}
    for source in sources:
        learnt = [o for o in objectives if o.known is None and o.name in source.frame.columns]
        if not learnt or any(name not in source.frame.columns for name in space.names):
            continue
        costs = np.column_stack([source.costs(objective) for objective in learnt])
        records = source.frame[list(space.names)].to_dict("records")
        designs = [_design(space, record) for record in records]
        usable = [i for i, d in enumerate(designs) if d is not None and np.isfinite(costs[i]).all()]
        if not usable:
            continue
        front = np.array(usable)[non_dominated(costs[usable])]
        front = front[np.lexsort(costs[front].T[::-1])]
        for index in _spread(len(front)):
            design = designs[front[index]]
            assert design is not None
            found[design] = None
    return tuple(found)[:n]


class SourcePredictions:
    """Predictions of sources for one objective, as columns that a model of the target reads.

    With them as inputs, a Gaussian process can follow a source, bend it, or ignore it: a search that has a
    model of its own needs no other hook.

    Each source has a committee of its own, on the scale that predicts it best, as the target has: on the
    scale that it was measured on, a source of wide range would be known at its worst designs alone.

    Attributes
    ----------
    models
        One per source that has the objective and predicts its own results. One that does not follows
        nothing that the target could follow, and a few targets agree with anything.
    left_out
        Those of the others.
    """

    def __init__(self, sources: Sequence[Source], space: Space, objective: Objective, seed: int) -> None:
        from dse._bayes.columns import Columns
        from dse._bayes.source import SourceOutcome

        encoded = space.encode([])
        columns = Columns((*encoded.numeric, *encoded.features), tuple(encoded.categorical))
        self._encode = space.encode
        every = [SourceOutcome(task, columns, seed) for task in tasks(sources, space, objective)]
        self.models = tuple(model for model in every if model.quality >= _LEAST_QUALITY)
        self.left_out = tuple(model for model in every if model.quality < _LEAST_QUALITY)

    def __call__(self, designs: Sequence[Design]) -> Float[np.ndarray, "n s"]:
        """Standardised predictions of each source, (n, s)."""
        if not designs:
            return np.empty((0, len(self.models)))
        rows = self._encode(designs).rows
        return np.column_stack([np.empty((len(rows), 0)), *(model.predict(rows) for model in self.models)])

    def columns(self, designs: Sequence[Design]) -> Float[np.ndarray, "n s"]:
        """The same on the scale of other columns, (n, s): two standard deviations either way are 0 and 1."""
        scaled: Float[np.ndarray, "n s"] = (self(designs) + 2.0) / 4.0
        return scaled

    def followed(self, designs: Sequence[Design], costs: Float[np.ndarray, " n"]) -> dict[str, float]:
        """Rank correlation of each source's predictions with the target's costs, by name.

        Below 8 measured designs it says little.
        """
        from dse._bayes.transfer import spearman

        columns = self(designs).T
        return {
            model.name: spearman(column, costs) for model, column in zip(self.models, columns, strict=True)
        }


def report_lines(reports: Sequence[tuple[str, Report]]) -> tuple[str, ...]:
    """Text for the user: per objective what was transferred, and with which weight."""
    return tuple(f"{objective}: {line}" for objective, report in reports for line in report.lines())


def _encoded(parameter: Any, values: Sequence[Any]) -> Float[np.ndarray, "n c"]:
    """Encode values, also those that the parameter does not allow."""
    width = len(parameter.columns)
    result = np.full((len(values), width), np.nan)
    strange: dict[Any, int] = {}
    for index, value in enumerate(values):
        if _missing(value):
            continue
        try:
            result[index] = parameter.encode([parameter.check(value)])[0]
        except (TypeError, ValueError):
            if parameter.is_categorical:
                # A code of its own: equal to itself, and to no choice of the space.
                result[index] = (parameter.size or 0) + strange.setdefault(value, len(strange))
            elif width == 1 and isinstance(value, int | float):
                result[index] = _placed(parameter, float(value))
    return result


def _placed(parameter: Any, value: float) -> float:
    """Position of a number on the scale of a parameter, beyond 0..1 outside its range."""
    if isinstance(parameter, Ordinal) and isinstance(parameter.choices[0], str):
        return float("nan")
    low, high = (
        (parameter.choices[0], parameter.choices[-1])
        if isinstance(parameter, Ordinal)
        else (
            parameter.low,
            parameter.high,
        )
    )
    if getattr(parameter, "log", False):
        shift = float(low == 0)
        if value + shift <= 0:
            return float("nan")
        low, high, value = (float(np.log2(number + shift)) for number in (low, high, value))
    return float((value - low) / (high - low))


def _design(space: Space, record: dict[Any, Any]) -> Design | None:
    try:
        design = space.design({name: _plain(value) for name, value in record.items()})
    except (TypeError, ValueError):
        return None
    return design if space.is_feasible(design) else None


def _spread(count: int) -> list[int]:
    """Indices 0..count - 1, ends first, then always the middle of the widest gap."""
    order = [0, count - 1] if count > 1 else [0]
    while len(order) < count:
        known = sorted(order)
        gaps = [(right - left, left) for left, right in pairwise(known)]
        width, left = max(gaps, key=lambda gap: (gap[0], -gap[1]))
        order.append(left + width // 2)
    return order


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if _missing(value) else value


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))
