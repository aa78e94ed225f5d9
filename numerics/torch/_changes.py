"""What new values of a field, or of parts of it, do to the rules and to the update of a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from numerics.torch._parts import changed
from numerics.torch.rules import PolicyError, Rule, Setting, read_whole
from numerics.torch.update_policy import UpdatePolicy

T = TypeVar("T")

_ABSENT = ("none", "native")


class Change:
    """New values of one field and of its parts, and the paths that ask for them."""

    def __init__(self) -> None:
        self._whole: dict[str, Any] = {}
        self._parts: dict[str, Any] = {}
        self.paths: list[str] = []

    def add(self, path: str, rest: str, value: Any) -> None:
        """Take down what `path` asks for; `rest` is what it says of the parts of the value."""
        self.paths.append(path)
        if rest:
            self._parts[rest] = value
        else:
            self._whole[path] = value

    @property
    def _where(self) -> str:
        return ", ".join(self.paths)

    def of_rules(self, role: str, rules: Sequence[Rule], hits: set[str]) -> list[Rule]:
        """Rules with the changes made to the field `role`; paths that changed something go to `hits`."""
        made = list(rules)
        for path, new in self._whole.items():
            value: Setting = tried(path, lambda v: read_whole(role, v), new)
            if not any(role in rule.settings for rule in made):
                made[-1] = _set(made[-1], role, value)
            made = [_set(rule, role, value) if role in rule.settings else rule for rule in made]
            hits.add(path)
        if not self._parts:
            return made
        for index, rule in enumerate(made):
            if (old := rule.settings.get(role)) is not None:
                made[index] = _set(rule, role, tried(self._where, lambda v: changed(v, self._parts), old))
                hits.update(self.paths)
        return made

    def of_update(self, update: UpdatePolicy | None) -> UpdatePolicy | None:
        """Changed numerics of the weight update; a format alone makes one where there is none."""
        for path, new in self._whole.items():
            update = None if is_absent(new) else tried(path, UpdatePolicy.parse, new)
        if not self._parts:
            return update
        if update is None:
            if "format" not in self._parts:
                raise PolicyError(f"{self._where}: there is no such thing yet; give update.format, too")
            update = tried("update.format", UpdatePolicy, self._parts["format"])
        made: UpdatePolicy = tried(self._where, lambda v: changed(v, self._parts), update)
        return made


def is_absent(value: Any) -> bool:
    """Whether a value or its text says that there is none."""
    return value is None or (isinstance(value, str) and value.strip().lower() in _ABSENT)


def tried(where: str, read: Callable[[Any], T], value: Any) -> T:
    """``read(value)``, its errors with a path in front."""
    try:
        return read(value)
    except (ValueError, TypeError) as error:
        raise PolicyError(f"{where}: {error}") from None


def _set(rule: Rule, name: str, value: Setting) -> Rule:
    return Rule(rule.modules, **(rule.settings | {name: value}))
