"""Which tensor and which training product of which layer gets which numerics, as a value that reads as TOML.

A policy is a list of rules. A rule names modules by globs and sets some fields of their `LayerPolicy`; each
field of a layer comes from the first rule that matches the layer and sets it. As TOML::

    name = "fp8"
    preset = "wang2018"                # optional: its rules follow those of this file
    loss_scale = 1000                  # or "dynamic", "none"
    accumulator.frac_bits = 8          # any path of `Policy.replace`, also of what the preset sets

    [update]
    format = "e6m9"
    rounding = "stochastic"

    [[rules]]
    modules = ["head", "@last"]        # @first, @last: first and last linear layer or convolution
    weight = "e6m9"
    error = "e5m2 scaling=tensor"
    forward = "e6m9 chunk=64"

Inside a rule a value may be written in parts (``error.format``, ``error.scaling``, ``forward.accumulator``),
and a part of one that the rule sets may be changed by its path: ``"forward.accumulator.frac_bits" = 7`` (in
quotes, for bare TOML keys cannot reach into a text).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from itertools import product
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeAlias

import tomli_w

from numerics.accumulator import Accumulator
from numerics.block import BlockFormat
from numerics.fused import FusedAdder
from numerics.kulisch import ExactAccumulator
from numerics.torch._changes import Change, is_absent, tried
from numerics.torch.layer_policy import OPERANDS, PRODUCTS, TENSORS, LayerPolicy
from numerics.torch.rules import (
    PLACES,
    SETTINGS,
    PolicyError,
    Rule,
    as_text,
    flat,
    meant,
    read_globs,
    read_settings,
    within,
)
from numerics.torch.scaling import Scaling, TensorPolicy
from numerics.torch.update_policy import UpdatePolicy

__all__ = [
    "OPERANDS",
    "PRESETS",
    "PRODUCTS",
    "TENSORS",
    "LayerPolicy",
    "Policy",
    "PolicyError",
    "Rule",
    "Scaling",
    "TensorPolicy",
    "UpdatePolicy",
]

Unsupported: TypeAlias = Literal["error", "pass"]
LossScale: TypeAlias = float | Literal["dynamic"] | None

_GROUPS = {"operands": ("weight", "activation", "error"), "accumulator": PRODUCTS}
_PATHS = ("name", "loss_scale", "update", *_GROUPS, *SETTINGS)
_KEYS = ("preset", "rules", *_PATHS)
_WHOLE = ("name", "loss_scale", "rounding", "unsupported")  # have no parts
_LISTED = 12  # modules that an error lists
_FOLDER = files("numerics") / "torch" / "presets"

#: Names of the policies that come with the package, see `Policy.preset`.
PRESETS = tuple(
    sorted(file.name.removesuffix(".toml") for file in _FOLDER.iterdir() if file.name.endswith(".toml"))
)


@dataclass(frozen=True, slots=True)
class Policy:
    """Numerics of a training run.

    Attributes
    ----------
    rules
        In order: each field of a layer comes from the first rule that matches it and sets the field. A pair
        ``(glob, LayerPolicy)`` sets every field; a `LayerPolicy` alone holds for all modules.
    update
        Of the optimizer; ``None`` leaves it in float32. Text is parsed.
    loss_scale
        By what the loss is multiplied: a positive number, ``"dynamic"`` or ``None``.
    name
        For tables and reports.

    Examples
    --------
    >>> fp8 = LayerPolicy.uniform("e5m2", "e6m9 chunk=64")
    >>> policy = Policy([Rule("fc", weight="e5m10"), ("*", fp8)])
    >>> print(policy.layer("fc").weight, policy.layer("fc").error, policy.layer("conv1").weight)
    e5m10 e5m2 e5m2
    >>> print(policy.replace("accumulator.frac_bits", 7).layer("fc").forward)
    e6m7 chunk=64
    >>> Policy.from_toml(policy.to_toml()) == policy
    True
    """

    rules: tuple[Rule, ...]
    update: UpdatePolicy | None = None
    loss_scale: LossScale = None
    name: str = ""

    def __init__(
        self,
        rules: LayerPolicy | Iterable[Rule | tuple[str, LayerPolicy]],
        update: UpdatePolicy | str | None = None,
        loss_scale: LossScale = None,
        name: str = "",
    ) -> None:
        listed = (("*", rules),) if isinstance(rules, LayerPolicy) else tuple(rules)
        if not listed:
            raise PolicyError("a policy must have at least one rule, got none")
        made = tuple(_rule(rule) for rule in listed)
        object.__setattr__(self, "rules", made)
        object.__setattr__(self, "update", None if update is None else UpdatePolicy.parse(update))
        object.__setattr__(self, "loss_scale", _loss_scale(loss_scale))
        object.__setattr__(self, "name", _name(name))

    def layer(self, name: str, *, first: bool = False, last: bool = False) -> LayerPolicy:
        """Numerics of the layer `name`, the first or the last of the model as told.

        Raises
        ------
        PolicyError
            No rule matches, what the rules give together can never work, or a format of the backward pass
            cannot hold the loss scale.
        """
        matching = [rule for rule in self.rules if rule.matches(name, first=first, last=last)]
        if not matching:
            globs = ", ".join(glob for rule in self.rules for glob in rule.modules)
            raise PolicyError(f"no rule of the policy matches layer {name!r}; the rules are for {globs}")
        settings = {field: value for rule in reversed(matching) for field, value in rule.items}
        settings.pop("unsupported", None)
        layer = tried(f"layer {name!r}", lambda given: LayerPolicy(**given), settings)
        tried(f"layer {name!r}", self._check_loss_scale, layer)
        return layer

    def matches(self, name: str) -> bool:
        """Whether a rule names the module `name`, not by its place alone."""
        return any(rule.matches(name) for rule in self.rules)

    def unsupported(self, name: str) -> Unsupported:
        """What to do with a module that cannot be emulated: the first rule that says, else ``"error"``."""
        for rule in self.rules:
            setting = rule.settings.get("unsupported")
            if setting is not None and rule.matches(name):
                return "pass" if setting == "pass" else "error"
        return "error"

    def check(self, names: Iterable[str], *, product_names: Iterable[str]) -> None:
        """See that every rule of the policy matches something.

        Parameters
        ----------
        names, product_names
            Of all modules that a rule may name, and of the products: with any of these there is a first and a
            last layer.

        Raises
        ------
        PolicyError
            One line for each rule none of whose globs matches.
        """
        products = list(product_names)
        modules = list(dict.fromkeys([*names, *products]))
        lines = []
        for number, rule in enumerate(self.rules, 1):
            if any(_matches_any(glob, modules, products) for glob in rule.modules):
                continue
            globs = ", ".join(repr(glob) for glob in rule.modules)
            shown = ", ".join(repr(name) for name in modules[:_LISTED]) or "none"
            more = f", ... ({len(modules)} in all)" if len(modules) > _LISTED else ""
            close = meant(rule.modules[0], modules)
            lines.append(f"rule {number} ({globs}) matches no module; modules are {shown}{more}{close}")
        if lines:
            raise PolicyError("\n".join(lines))

    def _check_loss_scale(self, layer: LayerPolicy) -> None:
        """Refuse a format that cannot hold the loss scale where errors have no scale of their own."""
        error, gradient = layer.tensor("error"), layer.tensor("weight_gradient")
        if not isinstance(self.loss_scale, float) or (error is not None and error.scaling != Scaling.NONE):
            return
        largest: dict[str, float] = {}
        for role, tensor in (("error", error), ("weight_gradient", gradient)):
            plain = tensor is not None and tensor.scaling == Scaling.NONE
            if plain and tensor is not None and not isinstance(tensor.format, BlockFormat):
                largest[f"{role}={tensor.format}"] = tensor.format.max
        for role in ("backward", "gradient"):
            accumulator = getattr(layer, role)
            if isinstance(accumulator, Accumulator):
                largest[f"{role}={accumulator}"] = accumulator.format.max
            elif isinstance(accumulator, FusedAdder | ExactAccumulator):
                largest[f"{role}={accumulator}"] = accumulator.output.max
        for what, top in largest.items():
            if top < self.loss_scale:
                raise ValueError(
                    f"{what} cannot hold the loss scale {self.loss_scale:g}: its largest value is {top:g}; "
                    f"use a smaller loss scale, or scaling=tensor"
                )

    def replace(self, path: str, value: Any) -> Policy:
        """The same policy with one thing changed, in every rule that sets it.

        Parameters
        ----------
        path
            A field of a rule (``weight``, ``forward``, ``rounding``, ...) or a part of one:
            ``weight.format.frac_bits``, ``error.scaling``, ``forward.accumulator.chunk`` (or
            ``forward.chunk``). ``operands`` is weight, activation and error at once, ``accumulator`` the
            three products: ``accumulator.frac_bits``. Also ``update.format``, ``update.rounding``,
            ``update.state_format``, ``loss_scale`` and ``name``.
        value
            A value or its text; ``"native"`` for a tensor or product in float32; ``"none"`` (or 0) for no
            chunk. Where no rule sets a whole field, the last rule then does. A part is changed in the rules
            whose value is not native.

        Raises
        ------
        PolicyError
            An unknown path, a part that a value has not, a bad value, or nothing to change.

        Examples
        --------
        >>> print(Policy.preset("wang2018").replace("accumulator.chunk", 0).layer("fc").gradient)
        e6m9
        """
        return self._with({path: value})

    def expand(self, mapping: Mapping[str, Any]) -> list[tuple[dict[str, Any], Policy]]:
        """All policies of a sweep.

        Parameters
        ----------
        mapping
            Values by paths of `replace`; tables in it stand for paths with dots. Lists are swept: the result
            is their Cartesian product, the last key fastest. Other values hold for all points. Of two paths
            to the same part, the later one holds.

        Returns
        -------
        The swept values of each point by path, and its policy.

        Raises
        ------
        PolicyError
            As `replace`, and for an empty list.

        Examples
        --------
        >>> sweep = Policy.preset("wang2018").expand({"accumulator": {"frac_bits": [9, 7]}})
        >>> [(point, str(policy.layer("fc").forward)) for point, policy in sweep]
        [({'accumulator.frac_bits': 9}, 'e6m9 chunk=64'), ({'accumulator.frac_bits': 7}, 'e6m7 chunk=64')]
        """
        values = flat(mapping)
        swept = {path: list(value) for path, value in values.items() if isinstance(value, list | tuple)}
        if empty := [path for path, listed in swept.items() if not listed]:
            raise PolicyError(f"{empty[0]}: a sweep must have at least one value, got an empty list")
        points = [dict(zip(swept, point, strict=True)) for point in product(*swept.values())]
        return [(point, self._with(values | point)) for point in points]

    def _with(self, values: Mapping[str, Any]) -> Policy:
        """All changes at once, so that parts which depend on each other are not tried one by one."""
        new: dict[str, Any] = {"name": self.name, "loss_scale": self.loss_scale}
        changes: dict[str, Change] = {}
        for path, value in values.items():
            head, _, rest = path.partition(".")
            if head not in _PATHS or (rest and head in _WHOLE):
                begin = f"paths begin with {', '.join(_PATHS)}"
                raise PolicyError(f"{path}: no such path; {begin}{meant(head, _PATHS)}")
            if head in ("name", "loss_scale"):
                new[head] = tried(path, _name if head == "name" else _loss_scale, value)
                continue
            for field in _GROUPS.get(head, (head,)):
                inside = within("forward" if head == "accumulator" else head, rest)
                changes.setdefault(field, Change()).add(path, inside, value)
        update = changes.pop("update").of_update(self.update) if "update" in changes else self.update
        rules, hits = list(self.rules), set[str]()
        for field, change in changes.items():
            rules = change.of_rules(field, rules, hits)
        if missed := [path for change in changes.values() for path in change.paths if path not in hits]:
            raise PolicyError(
                f"{missed[0]}: no rule has a value with such a part; set the value itself first"
            )
        return Policy(rules, update, **new)

    @classmethod
    def preset(cls, name: str) -> Policy:
        """A published recipe; its file in ``numerics/torch/presets`` tells the source and what is our choice.

        Raises
        ------
        PolicyError
            An unknown name.

        Examples
        --------
        >>> print(Policy.preset("hopper-promote").layer("fc").forward)
        hopper-fp8 promote=128
        """
        if not isinstance(name, str):
            raise PolicyError(f"one preset is allowed, by its name, got {name!r}")
        if name not in PRESETS:
            raise PolicyError(
                f"preset must be one of {', '.join(PRESETS)}; got {name!r}{meant(name, PRESETS)}"
            )
        return _preset(name)

    @classmethod
    def from_toml(cls, source: str | Path) -> Policy:
        """Read a policy from a file, or from text: a `str` with a line break or ``=`` in it.

        Raises
        ------
        PolicyError
            No such file, no TOML, or one line for each mistake with the path of its key.

        Examples
        --------
        >>> policy = Policy.from_toml('''
        ... preset = "bf16"
        ... [[rules]]
        ... modules = "head"
        ... weight = "fp16"
        ... ''')
        >>> print(policy.layer("head").weight, policy.layer("head").error)
        e5m10 e8m7
        """
        is_text = isinstance(source, str) and ("\n" in source or "=" in source)
        where = "" if is_text else f"{source}: "
        try:
            data = tomllib.loads(str(source) if is_text else Path(source).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise PolicyError(f"{where}no such file; a policy's TOML is wanted") from None
        except tomllib.TOMLDecodeError as error:
            raise PolicyError(f"{where}the policy is not TOML: {error}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise PolicyError(f"{where}cannot be read: {error}") from None
        return cls.from_mapping(data)

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Policy:
        """Read a policy from the table that its TOML holds.

        Parameters
        ----------
        data
            With the keys ``preset`` and ``rules``, and any path of `replace`: what these say is changed last.

        Raises
        ------
        PolicyError
            One line for each mistake, with the path of its key.
        """
        rules, errors = _read_rules(data.get("rules", []))
        errors += [
            (key, f"unknown key; keys are {', '.join(_KEYS)}{meant(key, _KEYS)}")
            for key in data
            if key.partition(".")[0] not in _KEYS
        ]
        base = None
        if "preset" in data:
            try:
                base = cls.preset(data["preset"])
            except PolicyError as error:
                errors.append(("preset", str(error)))
        if not errors and base is None and not rules:
            errors.append(("rules", "a policy must have at least one rule or a preset, got neither"))
        if errors:
            raise PolicyError("\n".join(f"{key}: {message}" for key, message in errors))
        changes = {key: value for key, value in data.items() if key not in ("preset", "rules")}
        if base is None:
            policy = cls(rules)
        elif rules or changes:  # it goes by the name of the preset no more
            policy = replace(base, rules=(*rules, *base.rules), name="")
        else:
            policy = base
        return policy._with(flat(changes))

    def to_toml(self) -> str:
        """TOML that `from_toml` reads as an equal policy; what came from a preset is written out."""
        head: dict[str, Any] = {"name": self.name} if self.name else {}
        if self.loss_scale is not None:
            head["loss_scale"] = self.loss_scale
        if self.update is not None:
            parts = {field.name: getattr(self.update, field.name) for field in fields(self.update)}
            head["update"] = {name: str(value) for name, value in parts.items() if value is not None}
        tables = [tomli_w.dumps(head)] if head else []
        for rule in self.rules:
            modules = rule.modules[0] if len(rule.modules) == 1 else list(rule.modules)
            table = {"modules": modules} | {name: as_text(value) for name, value in rule.items}
            tables.append(f"[[rules]]\n{tomli_w.dumps(table)}")
        return "\n".join(tables)

    def __str__(self) -> str:
        return self.to_toml()


@cache
def _preset(name: str) -> Policy:
    return Policy.from_mapping({"name": name, **tomllib.loads((_FOLDER / f"{name}.toml").read_text("utf-8"))})


def _rule(value: Any) -> Rule:
    if isinstance(value, Rule):
        return value
    if not isinstance(value, tuple) or len(value) != 2:
        raise TypeError(f"a rule must be a Rule or a pair (glob, LayerPolicy), got {value!r}")
    return Rule.every(*value)


def _matches_any(glob: str, modules: list[str], layers: list[str]) -> bool:
    if glob in PLACES:
        return bool(layers)
    return glob == "*" or any(fnmatchcase(name, glob) for name in modules)


def _read_rules(listed: Any) -> tuple[list[Rule], list[tuple[str, str]]]:
    """Rules of a file, and what is wrong with them: path and message."""
    if not isinstance(listed, list) or not all(isinstance(table, Mapping) for table in listed):
        return [], [("rules", f"must be tables ([[rules]]), got {listed!r}")]
    rules: list[Rule] = []
    errors: list[tuple[str, str]] = []
    for index, table in enumerate(listed):
        settings, wrong = read_settings({key: value for key, value in table.items() if key != "modules"})
        errors += [(f"rules[{index}].{key}", message) for key, message in wrong]
        if "modules" not in table:
            errors.append((f"rules[{index}].modules", "missing, and it is required"))
            continue
        try:
            globs = read_globs(table["modules"])
        except PolicyError as error:
            errors.append((f"rules[{index}].modules", str(error)))
            continue
        if not settings and not wrong:
            errors.append((f"rules[{index}]", f"sets nothing; keys are {', '.join(SETTINGS)}"))
        if settings:
            rules.append(Rule(globs, **settings))
    return rules, errors


def _loss_scale(value: Any) -> LossScale:
    if is_absent(value):
        return None
    if value == "dynamic":
        return "dynamic"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not value > 0 or not isfinite(value):
        raise ValueError(f"loss_scale must be a positive number, 'dynamic' or 'none', got {value!r}")
    return float(value)


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"name must be text, got {value!r}")
    return value
