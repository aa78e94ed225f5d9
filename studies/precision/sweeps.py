"""Policies as a study's file writes them: a preset or rules, changes by path, and lists that are swept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from numerics.torch import Policy
from numerics.torch.policy import PolicyError
from studies.config import ConfigError

_OF_THE_POLICY = ("preset", "rules")  # all other keys but the name are paths of `Policy.replace`

Swept = dict[str, dict[str, Any]]
Predict: TypeAlias = Callable[[Any, Policy], list[tuple[dict[str, Any], Policy]]]


def expanded(
    tables: Sequence[Mapping[str, Any]], predict: Predict | None = None
) -> tuple[dict[str, Policy], Swept]:
    """Every policy by its name, and what a sweep gave to it by path.

    Parameters
    ----------
    tables
        With the keys ``name`` (that of the preset by default), ``preset`` and ``rules`` as `Policy.from_toml`
        has them, and any path of `Policy.replace`. A value that is a list is swept (`Policy.expand`).
    predict
        What makes policies of a table ``predict`` and a policy, see `studies.precision.predicted.Predictor`.

    Raises
    ------
    ConfigError
        One line per error, with the path of the key.

    Examples
    --------
    >>> tables = [{"preset": "bf16"}, {"name": "k", "preset": "bf16", "accumulator": {"frac_bits": [5, 7]}}]
    >>> policies, swept = expanded(tables)
    >>> list(policies)
    ['bf16', 'k frac_bits=5', 'k frac_bits=7']
    >>> swept["k frac_bits=7"]
    {'accumulator.frac_bits': 7}
    """
    policies: dict[str, Policy] = {}
    swept: Swept = {}
    lines = []
    for index, table in enumerate(tables):
        try:
            found = _points(table, predict)
        except PolicyError as error:
            lines += [f"policies[{index}].{line}" for line in str(error).splitlines()]
            continue
        for name, policy, values in found:
            if name in policies:
                lines.append(f"policies[{index}].name: must be unique, got {name!r} twice")
            policies[name], swept[name] = policy, values
    if lines:
        raise ConfigError("\n".join(lines))
    return policies, swept


def _points(table: Mapping[str, Any], predict: Predict | None) -> list[tuple[str, Policy, dict[str, Any]]]:
    base = Policy.from_mapping({key: table[key] for key in _OF_THE_POLICY if key in table})
    name = table.get("name", table.get("preset", "policy"))
    if not isinstance(name, str) or not name.strip():
        raise PolicyError(f"name: must be a text, got {name!r}")
    changes = {key: value for key, value in table.items() if key not in (*_OF_THE_POLICY, "name")}
    wanted = changes.pop("predict") if predict is not None and "predict" in changes else None
    points = []
    found = base.expand(changes)
    if predict is not None and wanted is not None:
        found = [({**old, **new}, made) for old, policy in found for new, made in predict(wanted, policy)]
    for values, policy in found:
        full = f"{name}{_ending(values)}"
        points.append((full, policy.replace("name", full), values))
    return points


def base_name(name: str, values: Mapping[str, Any]) -> str:
    """Name that a policy had before a sweep gave `values` to it.

    Examples
    --------
    >>> base_name("k frac_bits=5", {"accumulator.frac_bits": 5})
    'k'
    """
    return name.removesuffix(_ending(values))


def _ending(values: Mapping[str, Any]) -> str:
    """What a sweep adds to the name of a policy."""
    return "".join(f" {_short(path, values)}={value}" for path, value in values.items())


def _short(path: str, paths: Mapping[str, Any]) -> str:
    """Last word of a path, where it is that of no other."""
    last = path.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in paths) == 1 else path
