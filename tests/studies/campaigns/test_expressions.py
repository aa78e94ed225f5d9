import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.campaigns.expressions import Expression, Rule

NAMES = ("rows", "columns", "mode")


@given(rows=st.integers(-50, 50), columns=st.integers(1, 50))
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rows * columns <= 256", lambda r, c: r * c <= 256),
        ("1 < rows < columns", lambda r, c: 1 < r < c),
        ("not (rows + 2 == columns) or rows % columns != 0", lambda r, c: r + 2 != c or r % c != 0),
        ("max(rows, columns) - -3 > abs(rows) // columns", lambda r, c: max(r, c) + 3 > abs(r) // c),
        ("rows in (1, 2, 3) and columns not in [4, 5]", lambda r, c: r in (1, 2, 3) and c not in (4, 5)),
        ("2 ** 3 * columns / 4 >= log2(columns)", lambda r, c: 2 * c >= math.log2(c)),
    ],
)
def test_expressions_compute_what_they_say(text, expected, rows, columns):
    assert Expression(text, NAMES)({"rows": rows, "columns": columns}) == expected(rows, columns)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').system('true')", "not allowed"),
        ("rows.__class__", "not allowed"),
        ("eval('1')", "'eval' is no function of expressions"),
        ("[x for x in rows]", "not allowed"),
        ("rows[0]", "not allowed"),
        ("lambda: 1", "not allowed"),
        ("(rows := 3)", "not allowed"),
        ("f'{rows}'", "not allowed"),
        ("max(*rows)", "not allowed"),
        ("max(rows, key=abs)", "not allowed"),
        ("rows is None", "not allowed"),
        ("row * 2", "uses 'row', which is none of columns, mode, rows"),
        ("rows *", "is not an expression"),
        ("rows\0", "is not an expression"),
        ("", "is not an expression"),
        ("1+" * 600 + "1", "at most 1000 characters"),
        ("(" * 300 + "1" + ")" * 300, "is not an expression"),
        ("rows <= 3; columns", "is not an expression"),
    ],
)
def test_nothing_but_arithmetic_is_read(text, message):
    with pytest.raises(ValueError, match=message):
        Expression(text, NAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / rows", "'1 / rows' has no value at rows = 0: division by zero"),
        ("mode * 1000", "arithmetic on a text"),
        ("mode < 3", "has no value at mode = 'a'"),
        ("9 ** 9 ** 9", "out of range"),
        ("(0 - 1) ** 0.5", "not real"),
        ("log2(rows)", "has no value at rows = 0"),
    ],
)
def test_expressions_without_a_value_say_where(text, message):
    with pytest.raises(ValueError) as caught:
        Expression(text, NAMES)({"rows": 0, "columns": 1, "mode": "a"})
    assert message in str(caught.value)


def test_a_rule_gives_its_reason_and_skips_inactive_parameters():
    rule = Rule("rows * columns <= 256", NAMES)
    assert rule({"rows": 16, "columns": 16, "mode": "a"}) is None
    assert rule({"rows": 16, "columns": 17}) == "rows * columns <= 256 is broken by columns = 17, rows = 16"
    assert rule({"rows": None, "columns": 17}) is None
    assert rule.__name__ == "rows * columns <= 256"
    with pytest.raises(ValueError, match="must be a comparison"):
        Rule("rows * columns", NAMES)
