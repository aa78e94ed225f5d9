"""Arithmetic on parameters as text, such as ``rows * columns <= 256``: parsed, never executed.

Only numbers, text, parameter names, the operators below and a few functions exist. There are no
attributes, no subscripts and no other calls, so a file from elsewhere cannot do anything but compute.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

_LONGEST = 1000  # characters of an expression
_LARGEST_POWER = 1024.0  # exponents beyond would only make numbers that no parameter has

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, among: value in among,
    ast.NotIn: lambda value, among: value not in among,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "log2": math.log2,
    "log10": math.log10,
    "max": max,
    "min": min,
    "sqrt": math.sqrt,
}


class ExpressionError(ValueError):
    """An expression has no value for some parameters; the message is one line."""


class Expression:
    """An expression of parameters, checked when it is read.

    Parameters
    ----------
    text
        Python's syntax for arithmetic, comparisons, ``and``, ``or``, ``not``, ``in``.
    names
        Parameters that it may use.

    Raises
    ------
    ValueError
        Not an expression, an unknown name, or something that is no arithmetic.

    Examples
    --------
    >>> limit = Expression("rows * columns <= 256 and mode in ('a', 'b')", ("rows", "columns", "mode"))
    >>> limit({"rows": 16, "columns": 32, "mode": "a"})
    False
    """

    def __init__(self, text: str, names: Collection[str]) -> None:
        if len(text) > _LONGEST:
            raise ValueError(f"an expression must have at most {_LONGEST} characters, got {len(text)}")
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else str(error)
            raise ValueError(f"{text!r} is not an expression: {reason}") from None
        self.text = text.strip()
        self._names = frozenset(names)
        self._tree = tree.body
        try:
            self._check(tree.body)
        except RecursionError:
            raise ValueError(f"{text!r} is nested too deeply") from None
        self.uses = tuple(
            sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & self._names)
        )

    def __call__(self, parameters: Mapping[str, Any]) -> Any:
        """Value for these parameters.

        Raises
        ------
        ExpressionError
            It has none there, such as a division by zero or a number compared with a text.
        """
        try:
            return self._value(self._tree, parameters)
        except (ArithmeticError, TypeError, ValueError) as error:
            at = ", ".join(f"{name} = {parameters.get(name)!r}" for name in self.uses)
            raise ExpressionError(f"{self.text!r} has no value at {at}: {error}") from None

    @property
    def is_condition(self) -> bool:
        """Whether it is true or false rather than a number."""
        node = self._tree
        return isinstance(node, ast.Compare | ast.BoolOp) or (
            isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        )

    def _check(self, node: ast.expr) -> None:
        match node:
            case ast.BinOp(left, op, right) if type(op) in _BINARY or isinstance(op, ast.Pow):
                inner = [left, right]
            case ast.UnaryOp(ast.USub() | ast.UAdd() | ast.Not(), operand):
                inner = [operand]
            case ast.BoolOp(_, values):
                inner = values
            case ast.Compare(left, ops, comparators) if all(type(op) in _COMPARE for op in ops):
                inner = [left, *comparators]
            case ast.Tuple(elements) | ast.List(elements):
                inner = elements
            case ast.Call(ast.Name(name), arguments, []):
                if name not in _FUNCTIONS:
                    raise ValueError(
                        f"{name!r} is no function of expressions, which are {', '.join(sorted(_FUNCTIONS))}"
                    )
                inner = arguments
            case ast.Constant(value) if isinstance(value, int | float | str):
                inner = []
            case ast.Name(name):
                if name not in self._names:
                    raise ValueError(
                        f"{self.text!r} uses {name!r}, which is none of {', '.join(sorted(self._names))}"
                    )
                inner = []
            case _:
                raise ValueError(f"{ast.unparse(node)!r} is not allowed in the expression {self.text!r}")
        for part in inner:
            self._check(part)

    def _value(self, node: ast.expr, parameters: Mapping[str, Any]) -> Any:
        match node:
            case ast.Constant(value):
                return value
            case ast.Name(name):
                return parameters[name]
            case ast.Tuple(elements) | ast.List(elements):
                return tuple(self._value(element, parameters) for element in elements)
            case ast.BinOp(left, op, right):
                a, b = self._value(left, parameters), self._value(right, parameters)
                if isinstance(a, str) or isinstance(b, str):
                    raise TypeError("arithmetic on a text")
                return _power(a, b) if isinstance(op, ast.Pow) else _BINARY[type(op)](a, b)
            case ast.UnaryOp(op, operand):
                value = self._value(operand, parameters)
                if isinstance(op, ast.Not):
                    return not value
                return -value if isinstance(op, ast.USub) else +value
            case ast.BoolOp(op, values):
                wanted = isinstance(op, ast.Or)
                return (
                    any(self._value(v, parameters) for v in values)
                    if wanted
                    else self._all(values, parameters)
                )
            case ast.Compare(left, ops, comparators):
                value = self._value(left, parameters)
                for compare, node_right in zip(ops, comparators, strict=True):
                    right_value = self._value(node_right, parameters)
                    if not _COMPARE[type(compare)](value, right_value):
                        return False
                    value = right_value
                return True
            case ast.Call(ast.Name(name), arguments):
                return _FUNCTIONS[name](*(self._value(argument, parameters) for argument in arguments))
        raise AssertionError(ast.dump(node))  # the check has let nothing else through

    def _all(self, values: list[ast.expr], parameters: Mapping[str, Any]) -> bool:
        return all(self._value(value, parameters) for value in values)


def _power(base: Any, exponent: Any) -> Any:
    if abs(exponent) > _LARGEST_POWER or abs(base) > 2.0**64:
        raise ArithmeticError(f"the power {base} ** {exponent} is out of range")
    result = base**exponent
    if isinstance(result, complex):
        raise ArithmeticError(f"the power {base} ** {exponent} is not real")
    return result


class Rule:
    """A known constraint of a space, as `dse.Space` takes it: ``None`` if met, otherwise the reason.

    One that reads a parameter that is inactive in a design does not apply to it.
    """

    def __init__(self, text: str, names: Collection[str]) -> None:
        self.expression = Expression(text, names)
        if not self.expression.is_condition:
            raise ValueError(f"a constraint must be a comparison such as 'a * b <= 4', got {text!r}")
        self.__name__ = self.expression.text

    def __call__(self, parameters: Mapping[str, Any]) -> str | None:
        """Reason why these parameters break the rule, or ``None``."""
        used = {name: parameters[name] for name in self.expression.uses}
        if any(value is None for value in used.values()) or self.expression(parameters):
            return None
        return f"{self.expression.text} is broken by " + ", ".join(f"{k} = {v}" for k, v in used.items())
