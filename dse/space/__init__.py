"""Design spaces: parameters of every kind, conditions, known constraints, and tables of candidates."""

from dse.space.constraints import Constraint, ConstraintError
from dse.space.encoding import Encoded
from dse.space.listed import Categorical, Ordinal, PowerOfTwo
from dse.space.parameter import Design, Parameter, Value
from dse.space.permutation import Permutation
from dse.space.ranged import Integer, Real
from dse.space.space import ENUMERABLE, Space

__all__ = [
    "ENUMERABLE",
    "Categorical",
    "Constraint",
    "ConstraintError",
    "Design",
    "Encoded",
    "Integer",
    "Ordinal",
    "Parameter",
    "Permutation",
    "PowerOfTwo",
    "Real",
    "Space",
    "Value",
]
