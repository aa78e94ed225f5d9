"""Rules of a policy: some modules, and what is set for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from numerics.accumulate import AnyAccumulator
from numerics.rounding import Rounding
from numerics.torch._parts import changed
from numerics.torch.layer_policy import PRODUCTS, TENSORS, LayerPolicy, read_setting
from numerics.torch.scaling import Scaling, TensorPolicy

Setting: TypeAlias = TensorPolicy | AnyAccumulator | Rounding | Scaling | str | None

#: Globs that stand for a layer by its place in the model.
PLACES = ("@first", "@last")

FIELDS = tuple(field.name for field in fields(LayerPolicy))
SETTINGS = (*FIELDS, "unsupported")


class PolicyError(ValueError):
    """A policy that cannot be, or does not fit the model: one line for each mistake."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Some modules, and what is set for them.

    Attributes
    ----------
    modules
        Globs over qualified module names (`fnmatch`, case counts; ``*`` crosses dots). ``@first`` and
        ``@last`` are the first and the last linear layer or convolution, in the order of the modules.
    items
        The settings in the order of the fields: those of `LayerPolicy` that the rule sets, ``None`` (as text:
        ``native``) for float32, and ``unsupported``: ``"error"`` or ``"pass"``, what to do with a module that
        cannot be emulated.

    Raises
    ------
    PolicyError
        An unknown setting or a bad value, by the names of the rule and the key; nothing set.

    Examples
    --------
    >>> print(Rule("conv*", forward="e6m9 chunk=64", weight="e4m3fn"))
    conv*: weight=e4m3fn, forward=e6m9 chunk=64
    """

    modules: tuple[str, ...]
    items: tuple[tuple[str, Setting], ...]

    def __init__(self, modules: str | Iterable[str], **settings: Any) -> None:
        globs = read_globs(modules)
        read, errors = read_settings(settings)
        if errors:
            raise PolicyError("\n".join(f"rule {', '.join(globs)!r}: {key}: {e}" for key, e in errors))
        if not read:
            raise PolicyError(
                f"rule {', '.join(globs)!r} sets nothing; it must set at least one of {', '.join(SETTINGS)}"
            )
        object.__setattr__(self, "modules", globs)
        object.__setattr__(self, "items", tuple((name, read[name]) for name in SETTINGS if name in read))

    @classmethod
    def every(cls, modules: str | Iterable[str], layer: LayerPolicy | str) -> Rule:
        """Rule that sets every field of a layer, so that no later one matters; text is parsed."""
        layer = LayerPolicy.parse(layer)
        return cls(modules, **{name: getattr(layer, name) for name in FIELDS})

    @property
    def settings(self) -> dict[str, Setting]:
        """What the rule sets, by field."""
        return dict(self.items)

    def matches(self, name: str, *, first: bool = False, last: bool = False) -> bool:
        """Whether the rule is for the module `name`, the first or last layer as told."""
        places = {"@first": first, "@last": last}
        return any(places[glob] if glob in places else fnmatchcase(name, glob) for glob in self.modules)

    def __str__(self) -> str:
        return f"{', '.join(self.modules)}: {', '.join(f'{k}={as_text(v)}' for k, v in self.items)}"


def read_globs(modules: Any) -> tuple[str, ...]:
    """Globs of a rule from one or several.

    Raises
    ------
    PolicyError
        Anything else, or an unknown place.
    """
    listed = isinstance(modules, Iterable) and not isinstance(modules, str | Mapping)
    globs = tuple(modules) if listed else (modules,)
    if not globs or not all(isinstance(glob, str) for glob in globs):
        raise PolicyError(f"modules must be a glob or a list of them, got {modules!r}")
    for glob in globs:
        if glob.startswith("@") and glob not in PLACES:
            raise PolicyError(f"modules must be globs, or {' or '.join(PLACES)}; got {glob!r}")
    return globs


def read_settings(given: Mapping[str, Any]) -> tuple[dict[str, Setting], list[tuple[str, str]]]:
    """Settings of a rule by field, and what is wrong with them: key and message.

    A field may be given whole (``forward``, ``forward.accumulator``) or by its `format`, and then parts of it
    by their paths.
    """
    wholes: dict[str, tuple[str, Any]] = {}
    parts: dict[str, dict[str, Any]] = {}
    errors: list[tuple[str, str]] = []
    for key, value in flat(given).items():
        field, _, rest = key.partition(".")
        rest = within(field, rest)
        if field not in SETTINGS:
            known = (*SETTINGS, "modules")
            errors.append((key, f"unknown key; keys are {', '.join(known)}{meant(field, known)}"))
        elif rest:
            parts.setdefault(field, {})[rest] = value
        elif field in wholes:
            errors.append((key, f"{field} is set twice, also as {wholes[field][0]}"))
        else:
            wholes[field] = key, value
    read: dict[str, Setting] = {}
    for field in dict.fromkeys([*wholes, *parts]):
        inner = parts.get(field, {})
        if field not in wholes and "format" in inner and field in (*TENSORS, *PRODUCTS):
            wholes[field] = f"{field}.format", inner.pop("format")
        key, value = wholes.get(field, (f"{field}.{next(iter(inner), '')}", None))
        try:
            if field not in wholes:
                raise ValueError(f"is part of a value that is not set; set {field} itself, too")
            read[field] = read_whole(field, value)
            if inner:
                key = f"{field}.{next(iter(inner))}"
                read[field] = changed(read[field], inner)
        except (ValueError, TypeError) as error:
            errors.append((key, str(error)))
    return read, errors


def read_whole(field: str, value: Any) -> Setting:
    """Value of a field from a value or its text.

    Raises
    ------
    ValueError, TypeError
        A bad value.
    """
    if field != "unsupported":
        read: Setting = read_setting(field, value)
        return read
    if value not in ("error", "pass"):
        raise ValueError(f"unsupported must be 'error' or 'pass', got {value!r}")
    return str(value)


def within(field: str, rest: str) -> str:
    """Path inside the value of a field: ``accumulator`` after a product says nothing more."""
    head, _, tail = rest.partition(".")
    return tail if field in PRODUCTS and head == "accumulator" else rest


def flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by path, with dots between the keys of tables inside tables."""
    values: dict[str, Any] = {}
    for key, value in mapping.items():
        path = f"{prefix}{key}"
        values |= flat(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value}
    return values


def as_text(value: Setting) -> str:
    """Text of a setting."""
    return "native" if value is None else str(value)


def meant(word: str, known: Iterable[str]) -> str:
    """What a misspelt word may have meant, as the end of an error."""
    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
