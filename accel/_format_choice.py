"""Which element format a policy chooses for each tensor of a workload."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

from accel.workload import ElementFormat, Formats, Role, Tensor
from numerics.block import parse_any_format


def format_chooser(
    formats: Formats, tensors: Mapping[str, Tensor]
) -> Callable[[Tensor], ElementFormat | str | None]:
    """Function that gives the format of a tensor, ``None`` where it keeps its own.

    Raises
    ------
    ValueError
        See ``Workload.with_formats``.
    """
    if not isinstance(formats, Mapping):
        if callable(formats):
            return formats
        one = parse_any_format(formats)
        return lambda tensor: None if tensor.role.holds_integers else one
    by_role: dict[Role, ElementFormat] = {}
    by_name: dict[str, ElementFormat] = {}
    by_pattern: dict[str, ElementFormat] = {}
    roles = {str(role): role for role in Role}
    for key, value in formats.items():
        try:
            found = parse_any_format(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"format of {str(key)!r}: {error}") from None
        if key in roles:
            by_role[roles[key]] = found
        elif key in tensors:
            by_name[key] = found
        elif isinstance(key, str) and any(fnmatchcase(name, key) for name in tensors):
            by_pattern[key] = found
        else:
            raise ValueError(
                f"a format is given by role ({', '.join(Role)}), by the name of a tensor or by a pattern "
                f"that fits one, got {key!r}"
            )

    def choose(tensor: Tensor) -> ElementFormat | None:
        if (named := by_name.get(tensor.name)) is not None:
            return named
        if not tensor.role.holds_integers:
            for pattern, found in by_pattern.items():
                if fnmatchcase(tensor.name, pattern):
                    return found
        return by_role.get(tensor.role)

    return choose
