"""Formats, accumulators and their like with some of their parts changed, by the names of the parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from numerics.accumulator import Accumulator, Register
from numerics.block import BlockFormat, parse_any_format
from numerics.formats import FloatFormat, parse_format
from numerics.fused import FusedAdder
from numerics.integer import IntegerAccumulator
from numerics.kulisch import ExactAccumulator
from numerics.rounding import Rounding
from numerics.torch.scaling import TensorPolicy

_FLOAT_PARTS = tuple(field.name for field in fields(FloatFormat))
#: Whose parts may be named without it: ``frac_bits`` of an accumulator is that of its register.
_REGISTERS: dict[type, str] = {Accumulator: "format", FusedAdder: "output", ExactAccumulator: "output"}
_WHOLE_NUMBERS = (
    *("exp_bits", "frac_bits", "bias", "int_bits", "bits", "block", "history"),
    *("chunk", "lanes", "products", "align_bits", "promote"),
)
_OPTIONAL: dict[type, tuple[str, ...]] = {
    FloatFormat: ("bias",),
    TensorPolicy: ("scaling", "rounding"),
    Accumulator: ("product", "chunk", "outer"),
    FusedAdder: ("promote",),
    IntegerAccumulator: ("chunk", "outer", "rounding"),
}
_ZERO_IS_NONE = ("chunk", "promote")
_SWITCHES = ("subnormals", "signed", "power_of_two", "halves")
_FORMATS = ("format", "output", "product", "state_format")


def changed(value: Any, changes: Mapping[str, Any]) -> Any:
    """`value` with all `changes` made at once.

    Parameters
    ----------
    value
        A format, scaling, tensor policy, accumulator, register, or another dataclass of such.
    changes
        New values or their texts by the names of parts, with dots between the parts of parts:
        ``{"frac_bits": 7, "outer.format": "e8m23"}``. ``"none"`` or ``None`` removes a part that may be
        absent, and so does 0 for `chunk` and `promote`.

    Raises
    ------
    ValueError, TypeError
        A part that this kind of value has not, or a value that it cannot have.

    Examples
    --------
    >>> print(changed(Accumulator("e6m9", chunk=64), {"frac_bits": 7, "chunk": 0}))
    e6m7
    """
    if not is_dataclass(value) or isinstance(value, Rounding):
        raise ValueError(f"{'native' if value is None else value} has no parts")
    known = tuple(field.name for field in fields(value) if field.name != "rule")
    parts = {name: getattr(value, name) for name in known}
    inner: dict[str, dict[str, Any]] = {}
    for path, new in changes.items():
        name, dot, rest = path.partition(".")
        if name not in known and name in _FLOAT_PARTS and type(value) in _REGISTERS:
            name, dot, rest = _REGISTERS[type(value)], ".", path
        if name not in known:
            raise ValueError(f"{value} has no part {name!r}; it has {', '.join(known)}{_meant(name, known)}")
        if dot:
            inner.setdefault(name, {})[rest] = new
        else:
            parts[name] = _read(type(value), name, new)
    for name, more in inner.items():
        if parts[name] is None:
            raise ValueError(f"{name} of {value} is not set and has no parts")
        parts[name] = changed(parts[name], more)
    _follow(value, parts, changes)
    kind: Any = type(value)
    return kind(**parts)


def _follow(value: Any, parts: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """What goes without saying in the text of a value follows what is changed."""
    if isinstance(value, FloatFormat) and "bias" not in changes:
        usual = FloatFormat(
            exp_bits=value.exp_bits,
            frac_bits=value.frac_bits,
            specials=value.specials,
            subnormals=value.subnormals,
            signed=value.signed,
        )
        if usual == value:
            parts["bias"] = None
    if isinstance(value, Accumulator) and value.outer is not None and parts["outer"] == value.outer:
        same = value.outer.rounding == value.rounding  # and so it prints without one
        parts["outer"] = Register(value.outer.format, parts["rounding"]) if same else value.outer


def _read(kind: type, name: str, new: Any) -> Any:
    """Value of a part; text that the constructors parse stays as it is."""
    word = new.strip().lower() if isinstance(new, str) else new
    optional = name in _OPTIONAL.get(kind, ()) or name == "state_format"
    if optional and (word is None or (word == "none" and name != "scaling")):
        return None
    if name in _WHOLE_NUMBERS or (kind is IntegerAccumulator and name == "outer"):
        return _whole_number(kind, name, new, optional)
    if name in _SWITCHES:
        if not isinstance(flag := {"true": True, "false": False}.get(word, word), bool):
            raise ValueError(f"{name} must be true or false, got {new!r}")
        return flag
    if not isinstance(word, str):
        return new
    if kind is BlockFormat:
        return word if word == "e8m0" else FloatFormat.parse(word) if name == "scale" else parse_format(word)
    if name in _FORMATS:
        return parse_any_format(word) if kind is TensorPolicy else FloatFormat.parse(word)
    return new


def _whole_number(kind: type, name: str, new: Any, optional: bool) -> int | None:
    number = new
    if isinstance(new, str):
        if kind is IntegerAccumulator and name == "outer":  # a register, as in the text of the whole
            return IntegerAccumulator.parse(new).bits
        number = int(new) if new.strip().removeprefix("-").isdecimal() else new
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError(f"{name} must be a whole number{' or none' if optional else ''}, got {new!r}")
    return None if number == 0 and name in _ZERO_IS_NONE and optional else number


def _meant(name: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
