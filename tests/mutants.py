"""Mutants of the kernels: small faults made by script, each of which the fast tests must notice.

    .venv/bin/python tests/mutants.py [kernel ...] [--count 40] [--seed 0] [--jobs 1] [--list]

For every module of `numerics._kernels` some places of its syntax tree are drawn, a fair share of each kind
(a constant, a shift, a mask, a comparison, a limit, ...), and at each one thing is replaced. The tests of
that module then run in a copy of the tree until one fails. A mutant that fails none has SURVIVED, and the
exit code is 1: either a test is missing, or the fault changes no result and belongs to `EQUIVALENT`.

A process that has Numba and pytest loaded forks for every mutant. The copy keeps the compiled kernels of
the working tree; only those of the mutated module, and of the ones that import it, are compiled again.
"""

import argparse
import ast
import contextlib
import io
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from llvmlite import binding

ROOT = Path(__file__).resolve().parents[1]
KERNELS = Path("numerics/_kernels")


def edges(*claims):
    """Single tests of kernels called directly: little is compiled for them."""
    return [f"test_edges.py::test_{claim}" for claim in claims]


#: Tests of each module under tests/numerics, the quickest and most telling first. They are those that a
#: plain `pytest` runs; the second list is for mutants that the first one lets pass.
TESTS: dict[str, tuple[list[str], list[str]]] = {
    "rounding": (
        [
            *edges(
                "one_rounding_is_that_of_rationals_at_every_edge_of_the_format",
                "a_sum_to_odd_is_exact_or_the_odd_one_of_its_neighbours",
                "a_stochastic_sum_is_that_of_rationals_at_every_edge_of_the_format",
            ),
            "test_axpy.py",
            "test_cast_stochastic.py",
        ],
        ["test_cast.py"],
    ),
    "tiles": (
        [
            *edges(
                "a_tile_sends_the_ties_of_a_register_little_narrower_than_float32_to_even",
                "tiles_decide_ordinary_sums_themselves",
            ),
            "test_tiles.py",
            *edges(
                "a_word_that_does_not_decide_a_sum_of_either_sign_in_any_lane_takes_more_digits",
                "a_stochastic_sum_that_leaves_the_range_in_a_later_run_of_a_tile_overflows",
            ),
        ],
        ["test_certificate.py", "test_accumulate_stochastic.py"],
    ),
    "loops": (
        [
            *edges(
                "plain_loops_give_the_rational_sums_in_blocks_of_columns",
                "plain_loops_use_the_word_of_an_element_and_a_number",
            )
        ],
        ["test_accumulate_stochastic.py", "test_tiles.py"],
    ),
    "casts": (
        [
            *edges(
                "loops_round_to_nearest_even_at_every_edge_of_the_format",
                "loops_round_stochastically_at_every_edge_of_the_format",
            ),
            "test_cast_paths.py",
            "test_axpy.py",
        ],
        ["test_cast_stochastic.py"],
    ),
    "arrays": (
        [
            "test_cast_paths.py",
            *edges(
                "vectors_of_which_no_lane_is_decided_take_more_digits",
                "arrays_beyond_the_caches_are_rounded_as_their_parts",
                "sixteen_random_bits_decide_nearly_all_roundings_of_a_cast",
            ),
        ],
        ["test_cast_stochastic.py"],
    ),
    "fused_tiles": (["test_fused_tiles.py"], ["test_fused.py"]),
    "fused": (["test_fused.py"], ["test_fused_tiles.py"]),
    "ordered": (
        [
            *edges(
                "the_exponent_of_a_float64_is_the_one_of_frexp",
                "a_report_sees_shifts_between_the_ends_of_float64",
            ),
            "test_accumulate_orders.py",
        ],
        ["test_kulisch.py", "test_fused.py"],
    ),
    "random": (
        [*edges("halves_are_the_first_digits_of_eight_elements_to_a_counter"), "test_cast_stochastic.py"],
        ["test_accumulate_stochastic.py"],
    ),
    "kulisch": ([*edges("a_register_is_a_float64_and_a_rest_to_odd"), "test_kulisch.py"], []),
    "facts": (
        [
            *edges(
                "the_facts_of_an_operand_are_those_of_its_integers",
                "the_bounds_of_float32_patterns_are_those_of_integers",
            )
        ],
        ["test_certificate.py", "test_accumulate.py"],
    ),
    "panels": (
        [
            *edges(
                "rows_are_packed_in_panels_of_height_then_four_two_one",
                "columns_are_packed_in_pairs_of_panels_of_a_vector_padded_with_zeros",
            )
        ],
        ["test_tiles.py", "test_fused_tiles.py"],
    ),
    "integer": (["test_integer.py"], []),
    "coding": (
        ["test_codes.py", *edges("the_largest_magnitude_is_told_to_its_last_bit_whatever_its_sign")],
        [],
    ),
    "blocks": (
        [
            *edges("a_quotient_to_odd_is_exact_or_the_odd_one_of_its_neighbours"),
            "test_block.py",
            "test_packed_blocks.py",
        ],
        [],
    ),
    "packing": (
        [*edges("blocks_are_decoded_up_to_the_last_element_and_no_further"), "test_packed.py"],
        ["test_packed_blocks.py"],
    ),
    "vectors": (["test_tiles.py"], ["test_fused_tiles.py", "test_cast_paths.py"]),
    "roundings": (
        [
            *edges(
                "a_tile_sends_the_ties_of_a_register_little_narrower_than_float32_to_even",
                "opposite_products_add_up_to_plus_zero_in_every_direction",
            ),
            "test_cast_paths.py",
            "test_tiles.py",
            *edges(
                "a_word_that_does_not_decide_a_sum_of_either_sign_in_any_lane_takes_more_digits",
                "a_stochastic_sum_that_leaves_the_range_in_a_later_run_of_a_tile_overflows",
            ),
        ],
        ["test_certificate.py"],
    ),
}

#: Faults that change no result: (module, what of `Mutant.text` they contain as a regular expression, why).
EQUIVALENT: tuple[tuple[str, str, str], ...] = (
    # Sizes that are chosen for speed.
    (
        "tiles",
        r"^module \| (DEPTH|CHECKED_DEPTH|_HEIGHTS\b.*|if REGISTERS .*) ",
        "any height and depth will do",
    ),
    ("arrays", r"^module \| (BLOCK|GROUPS|PAST_CACHES) = ", "any size will do"),
    ("casts", r"^module \| (BLOCK|GROUP) = ", "any size will do"),
    ("integer", r"^module \| _BLOCK = ", "any size will do"),
    ("rounding", r"^module \| ENDLESS = .* \| (30 -> |1 -> \(2\))", "more bits than any number has"),
    ("tiles", r"failed <= 8 \+ tried // 2.* \| (<= -> <|8 -> |2 -> |\+ -> -: 8|// -> )", "when to give up"),
    ("panels", r"^module \| _(DEPTH|ROWS) = ", "any size will do"),
    ("packing", r"^_groups \| return min.* \| >= -> >", "what no group takes is unpacked one by one"),
    ("packing", r"^pack_\w+ \| return union \| _put.* \| factor dropped", "codes are put down twice"),
    ("tiles", r"^gemm(_checked)? \| (step|run) = .* \| (min -> max|// -> \*)", "longer runs will do as well"),
    ("fused_tiles", r"^gemm \| run = .* \| (max -> min|// -> \*)", "longer runs will do as well"),
    ("vectors", r"^module \| REGISTERS = ", "any height of a tile will do"),
    # Where both choices are the same.
    (
        "tiles",
        r"^gemm_checked \| doubt = k > 0 and .* \| > -> >=",
        "no sum is large before the first product",
    ),
    (
        "roundings",
        r"Any.magnitude \| small = .* \| \"<\" -> '<='",
        "the lift of a number on the grid is exact",
    ),
    ("roundings", r"Any.magnitude \| lift = .* \| 0 -> \(1\)", "5e-324 changes no larger number"),
    ("roundings", r"Any64.round \| negative = .* \| \"<\" -> '<='", "a zero is on the grid"),
    ("facts", r"^unit_f32 \| .* \| 2150 -> ", "any exponent beyond those of float32 will do"),
    ("fused_tiles", r"^exponents \| exponent = .* \| > -> >=", "both are emin then"),
    ("fused_tiles", r"^_emit \| field = builder.lshr.* \| lshr -> ashr", "the sign is masked away after it"),
    ("panels", r"^pack_columns \| for start .* \| 0 -> \(-1\)", "row -1 is the last one, and packed anyway"),
    (
        "kulisch",
        r"^_register_value \| while limbs.* \| & -> \|",
        "128 bits from a leading zero on are enough",
    ),
    ("kulisch", r"^gemm_kulisch \| field = .* \| 1 -> ", "no format reaches down to subnormal float64"),
    ("ordered", r"^_tree \| while step < count.* \| < -> <=", "a step of all has no pair"),
    (
        "arrays",
        r"^round_stochastic \| if whole (>|<) .* \| (0 -> \(1\)|< -> <=)",
        "an empty part is rounded in vain",
    ),
    ("casts", r"^cast_nearest_even_f32 \| field = .* -> \(0x7f800001", "a last bit that is set is in no tie"),
    ("loops", r"^module \| _EXPONENT_64 = .* -> \(0x7ff0000000000001", "a last bit that is set is in no tie"),
    ("vectors", r"^write_control.emit \| builder.store.* \| 0 -> \(-1\)", "there is one argument"),
    ("blocks", r"^round_nearest_even_f32 \| most = .* \| 0 -> \(1\)", "the least scale is that of zeros"),
    ("arrays", r"^_digits \| chains.append.* \| lshr -> ashr", "a counter has no sign"),
    ("arrays", r"^_digits \| builder.xor\(builder.lshr\(p.* \| lshr -> ashr", "no product sees upper halves"),
    ("rounding", r"^round_one \| if magnitude >= 2\.0\*\*200.* \| >= -> >", "2**200 overflows later as well"),
    (
        "casts",
        r"^cast_(any|undecided) \| out\[i\] = .* \| 0 -> ",
        "the number of an addition; a cast has none",
    ),
    ("casts", r"^cast_undecided \| for i .* -> \(group\)$", "decided elements are only rounded again"),
    ("casts", r"^cast_stochastic \| more = .* \| > -> >=", "elements are only rounded again"),
    ("casts", r"^cast_stochastic \| source, result = .* \| \+ -> -: first \+ count", "no end is looked at"),
    ("ordered", r"^round_counting \| elif .* \| < -> <=", "a power of two is on the format"),
    ("vectors", r"^Vectors.load_words .* \| 32 -> \(33\)", "to the same type nothing is widened"),
    ("blocks", r"^module \| _SPLIT = .* -> \(134217728\.0", "split at 27 bits as well"),
    ("blocks", r"^round_nearest_even_f32 \| if emin .* \| < -> <=", "the other way has the same results"),
    ("blocks", r"^_quotient_to_odd \| away = .*residual > 0.0.* \| > -> >=", "nothing is added to an exact one"),
    ("kulisch", r"^_register_value \| if sticky and rest % .* \| % -> //", "a rest of 1 or more is enough"),
    ("fused", r"largest\[j\] = -126 if .* \| (> -> >=|1000 -> )", "no addend is beyond 2**128"),
    ("coding", r"^encode_f(32|64) \| below = .* \| < -> <=", "the smallest normal number is twice the lift"),
    ("roundings", r"Random64.question \| .* \| \">\" -> '>='", "the exact kernel settles a doubt too many"),
    ("roundings", r"Any64.round \| negative = .* \| 0 -> \(-1\)", "a NaN of all ones is the only difference"),
    ("roundings", r"Any64.round \| last = .* \| lshr -> ashr", "a magnitude has no sign"),
)

#: Lines of `_Nearest` that make no instructions on this processor: see `vectors.HAS_ADDERS`.
_ADDERS = binding.get_host_cpu_name().startswith("znver")
UNUSED = r"self\.(up|down)\b" if _ADDERS else r"self\.lift\b"

_COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
}  # fmt: skip
_OPERATORS = {
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "|"),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
}
_NAMES = {"min": "max", "max": "min", "floor": "ceil", "ceil": "floor", "trunc": "floor", "rint": "trunc"}
_BUILDER = {
    "add": "sub", "sub": "add", "and_": "or_", "or_": "and_", "xor": "or_", "shl": "lshr", "lshr": "ashr",
    "ashr": "lshr", "fadd": "fsub", "fsub": "fadd", "fmul": "fadd", "mul": "add",
}  # fmt: skip
_NEIGHBOURS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "uno": "ord"}


class Mutant(NamedTuple):
    """One replacement in the source of a kernel module."""

    module: str
    line: int
    start: int  # bytes of the source that are replaced
    end: int
    new: str
    kind: str
    text: str  # function, source line, and what becomes of it

    @property
    def name(self):
        return f"{self.module}.py:{self.line} {self.text}"


class _Sites(ast.NodeVisitor):
    """All places of a module that can be broken, with the ways to do it."""

    def __init__(self, module, source, rng):
        self.module, self.source, self.rng = module, source.encode(), rng
        self.starts = [0]
        for line in self.source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.lines = source.splitlines()
        self.functions, self.found = ["module"], []
        self.ends = set()  # comparisons that choose the greater or lesser of two: equal ones are one value

    def span(self, node):
        return (
            self.starts[node.lineno - 1] + node.col_offset,
            self.starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def code(self, node):
        start, end = self.span(node)
        return self.source[start:end].decode()

    def add(self, kind, node, *news):
        """One of `news` in the place of a node."""
        start, end = self.span(node)
        self.replace(kind, start, end, node.lineno, *news)

    def replace(self, kind, start, end, line, *news):
        old = self.source[start:end].decode()
        new = self.rng.choice(news)
        change = " ".join(f"{old} -> {new}".split())
        text = f"{'.'.join(self.functions[1:]) or 'module'} | {self.lines[line - 1].strip()} | {change}"
        self.found.append(Mutant(self.module, line, start, end, new, kind, text))

    def visit_FunctionDef(self, node):
        self.functions.append(node.name)
        for statement in node.body:  # neither decorators nor annotations nor defaults
            self.visit(statement)
        self.functions.pop()

    def visit_ClassDef(self, node):
        self.functions.append(node.name)
        for statement in node.body:
            self.visit(statement)
        self.functions.pop()

    def visit_AnnAssign(self, node):
        if node.value:
            self.visit(node.value)

    def visit_ImportFrom(self, node):
        pass

    def visit_JoinedStr(self, node):  # names of LLVM intrinsics and blocks
        pass

    def visit_Constant(self, node):
        value = node.value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return
        if isinstance(value, int):
            bit = 1 << self.rng.randrange(max(value.bit_length(), 1))
            news = {value + 1, value - 1, 2 * value, value ^ bit} - {value}
            shown = hex if self.code(node).startswith("0x") else str
            self.add("constant", node, *[f"({shown(new)})" for new in sorted(news)])
        else:
            news = {value + 1.0, value - 1.0, 2.0 * value} - {value}
            self.add("constant", node, *[f"({new!r})" for new in sorted(news)])

    def visit_Subscript(self, node):
        if isinstance(node.value, ast.Attribute) and node.value.attr == "shape":
            if isinstance(node.slice, ast.Constant):  # not to -1, the same for a flat array
                self.add("constant", node.slice, f"({node.slice.value ^ 1})")
            return
        self.generic_visit(node)

    def visit_BinOp(self, node):
        left, right = f"({self.code(node.left)})", f"({self.code(node.right)})"
        kind = type(node.op)
        if kind in _OPERATORS:
            old, new = _OPERATORS[kind]
            start, end = self.span(node.left)[1], self.span(node.right)[0]
            between = self.source[start:end].decode()
            precise = f"({left} {new} {right})"
            group = {"<<": "shift", ">>": "shift", "&": "mask", "|": "mask", "^": "mask"}.get(old, "sum")
            self.replace_whole(group, node, f"{old} -> {new}", precise)
            if group == "shift" and not isinstance(node.right, (ast.Constant, ast.Call)):
                one = "_ONE" if self.module == "packing" else "1"
                for sign in "+-":
                    self.replace_whole(
                        "shift", node, f"by one {sign}", f"({left}{between.strip()} ({right} {sign} {one}))"
                    ) if between.strip() == old else None
        elif kind is ast.Mult:
            self.replace_whole("product", node, "factor dropped", self.rng.choice([left, right]))
        self.generic_visit(node)

    def replace_whole(self, kind, node, what, new):
        start, end = self.span(node)
        line = self.lines[node.lineno - 1].strip()
        change = " ".join(f"{what}: {self.code(node)} -> {new}".split())
        text = f"{'.'.join(self.functions[1:]) or 'module'} | {line} | {change}"
        self.found.append(Mutant(self.module, node.lineno, start, end, new, kind, text))

    def visit_AugAssign(self, node):
        if type(node.op) in _OPERATORS:
            _, new = _OPERATORS[type(node.op)]
            start, end = self.span(node.target)[1], self.span(node.value)[0]
            self.replace("sum", start, end, node.lineno, f" {new}= ")
        self.generic_visit(node)

    def visit_UnaryOp(self, node):
        if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            self.visit(node.operand)
            return
        self.add("sign", node, f"({self.code(node.operand)})")
        self.generic_visit(node)

    def visit_Compare(self, node):
        left = node.left
        if id(node) in self.ends:
            self.generic_visit(node)
            return
        for operator, right in zip(node.ops, node.comparators, strict=True):
            if type(operator) in _COMPARISONS:
                start, end = self.span(left)[1], self.span(right)[0]
                between = self.source[start:end].decode()
                old = re.search(r"[<>=!]=?", between).group()
                new = between.replace(old, _COMPARISONS[type(operator)], 1)
                self.replace("comparison", start, end, node.lineno, new)
            left = right
        self.generic_visit(node)

    def visit_BoolOp(self, node):
        word = " or " if isinstance(node.op, ast.And) else " and "
        self.replace_whole(
            "condition",
            node,
            "and/or",
            "(" + word.join(f"({self.code(value)})" for value in node.values) + ")",
        )
        self.generic_visit(node)

    def negated(self, node):
        test = node.test
        same = isinstance(test, ast.Compare) and type(test.ops[0]) in (ast.Eq, ast.NotEq)
        if not same and not isinstance(test, ast.UnaryOp):
            self.add("condition", test, f"(not ({self.code(test)}))")
        self.generic_visit(node)

    visit_If = visit_While = negated  # noqa: N815

    def visit_IfExp(self, node):
        if isinstance(node.test, ast.Compare):
            self.note_ends(node.test, [node.test.left, *node.test.comparators], [node.body, node.orelse])
        self.negated(node)

    def note_ends(self, test, compared, chosen):
        if {self.code(part) for part in compared} == {self.code(part) for part in chosen}:
            self.ends.add(id(test))

    def visit_Call(self, node):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        end = self.span(node.func)[1]
        if name in _NAMES and len(node.args) >= 1 and not name.startswith("_"):
            self.replace("limit", end - len(name), end, node.lineno, _NAMES[name])
        owner = self.code(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        if owner.endswith("builder"):
            if name in _BUILDER:
                kind = {"shl": "shift", "lshr": "shift", "ashr": "shift"}.get(name)
                kind = kind or ("mask" if name in ("and_", "or_", "xor") else "sum")
                self.replace(kind, end - len(name), end, node.lineno, _BUILDER[name])
            elif name == "select":
                test, one, other = node.args
                self.replace_whole_pair(one, other)
                if isinstance(test, ast.Call):
                    self.note_ends(test, test.args[1:], [one, other])
            elif id(node) in self.ends:
                pass
            elif name.startswith(("icmp", "fcmp")) and isinstance(node.args[0], ast.Constant):
                self.add("comparison", node.args[0], repr(_NEIGHBOURS[node.args[0].value]))
        self.generic_visit(node)

    def replace_whole_pair(self, one, other):
        start, end = self.span(one)[0], self.span(other)[1]
        between = self.source[self.span(one)[1] : self.span(other)[0]].decode()
        new = self.code(other) + between + self.code(one)
        self.replace("condition", start, end, one.lineno, new)

    def visit_keyword(self, node):
        if node.arg not in ("cache", "nogil", "strict"):
            self.visit(node.value)


def equivalent(mutant):
    """Why a mutant changes no result, or None."""
    if mutant.module == "roundings" and re.search(rf"^_Nearest\.\w+ \| .*{UNUSED}", mutant.text):
        return "for another processor"
    return next(
        (
            why
            for module, pattern, why in EQUIVALENT
            if module == mutant.module and re.search(pattern, mutant.text)
        ),
        None,
    )


def mutants_of(module, count, seed):
    """`count` mutants of a module, as many of each kind as there are, and the number of all places."""
    source = (ROOT / KERNELS / f"{module}.py").read_text(encoding="utf-8")
    rng = random.Random(f"{seed} {module}")
    sites = _Sites(module, source, rng)
    sites.visit(ast.parse(source))
    kinds = defaultdict(list)
    for mutant in sites.found:
        kinds[mutant.kind].append(mutant)
    for kind, group in kinds.items():
        rng.shuffle(group)
        kinds[kind] = [mutant for mutant in group if not equivalent(mutant)]
    places = sum(map(len, kinds.values()))
    drawn = []
    while len(drawn) < count and any(kinds.values()):
        for kind in sorted(kinds):
            if kinds[kind] and len(drawn) < count:
                drawn.append(kinds[kind].pop())
    return sorted(drawn, key=lambda mutant: (mutant.start, mutant.end, mutant.new)), places


def dependents(module):
    """A module and all kernel modules that import it, directly or not."""
    imports = {}
    for path in (ROOT / KERNELS).glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports[path.stem] = {
            (node.module or "").rpartition(".")[2]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
        }
    found = {module}
    while more := {name for name, used in imports.items() if used & found} - found:
        found |= more
    return found


class _Recorder:
    """A pytest plugin that keeps the first failure."""

    def __init__(self):
        self.first = None

    def pytest_runtest_logreport(self, report):
        if report.failed and self.first is None:
            self.first = report.nodeid

    def pytest_collectreport(self, report):
        if report.failed and self.first is None:
            self.first = f"import of {report.nodeid}"


def load():
    """Import what every run needs, but nothing of this project, so that forks need not."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = "1"  # no threads before a fork
    import gfloat  # noqa: F401
    import hypothesis
    import ml_dtypes  # noqa: F401
    import numba
    import numpy
    import pytest

    hypothesis.settings.register_profile(
        "mutants",
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],  # a failure need not be made small
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pytest.main(["--version"])
    numba.njit(lambda x: x[0] + 1)(numpy.zeros(2))  # the compiler itself


class Tree:
    """A copy of what the tests need, in a temporary folder."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.kernels = self.folder / KERNELS
        self.cache = self.kernels / "__pycache__"

    @classmethod
    def copied(cls, folder):
        ignore = shutil.ignore_patterns("*.pyc", ".hypothesis")
        for name in ("numerics", "tests"):
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=ignore)
        shutil.copy2(ROOT / "pyproject.toml", folder)
        return cls(folder)

    def compiled(self, modules):
        """Cached kernels of some modules."""
        return [
            path for path in self.cache.glob("*.nb[ci]") if path.name.split(".")[0].split("-")[0] in modules
        ]

    def run(self, tests, limit):
        """(seconds, first failing test, or None) of a run in a fork; seconds of the processor, as the limit.

        Neither a busy machine nor a pause makes them more.
        """
        report, log = self.folder / "report.json", self.folder / "log.txt"
        report.unlink(missing_ok=True)
        process = os.fork()
        if process == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
            signal.alarm(20 * int(limit))  # one that waits forever uses no processor
            self._test(tests, report, log)
        _, status, used = os.wait4(process, 0)
        outcome, seconds = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        if outcome == _DONE and not report.exists():
            raise RuntimeError(log.read_text(encoding="utf-8"))
        if outcome in (-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGALRM):
            return seconds, f"the limit of {limit:.0f} s"
        if not report.exists():
            return seconds, signal.Signals(-outcome).name if outcome < 0 else f"exit code {outcome}"
        found = json.loads(report.read_text(encoding="utf-8"))
        if found["code"] == 0:
            return seconds, None
        return seconds, found["first"] or f"pytest ended with {found['code']}"

    def _test(self, tests, report, log):
        try:
            os.setsid()
            os.chdir(self.folder)
            os.environ["PYTHONPATH"] = str(self.folder)
            with log.open("wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            own = str(Path(__file__).parent)
            sys.path[:] = [str(self.folder), *(entry for entry in sys.path if entry not in (own, str(ROOT)))]
            import pytest

            recorder = _Recorder()
            options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--tb=short"]
            options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
            options += ["--hypothesis-profile=mutants", "--hypothesis-seed=0"]
            code = pytest.main([*options, *(f"tests/numerics/{test}" for test in tests)], plugins=[recorder])
            import numerics

            assert Path(numerics.__file__).is_relative_to(self.folder), numerics.__file__
            report.write_text(json.dumps({"code": int(code), "first": recorder.first}), encoding="utf-8")
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(_DONE)

    def judge(self, mutant, limits):
        """(seconds, what killed it, or None) of one mutant; the copy is then as before."""
        source = self.kernels / f"{mutant.module}.py"
        affected = dependents(mutant.module)
        before, stamp = source.read_bytes(), source.stat().st_mtime_ns
        aside = self.folder / "aside"
        aside.mkdir(exist_ok=True)
        for path in self.compiled(affected):
            path.rename(aside / path.name)
        try:
            self._write(source, before[: mutant.start] + mutant.new.encode() + before[mutant.end :], stamp)
            total = 0.0
            for tests, limit in zip(TESTS[mutant.module], limits, strict=True):
                if tests:
                    seconds, killer = self.run(tests, limit)
                    total += seconds
                    if killer:
                        return total, killer
            return total, None
        finally:
            self._write(source, before, stamp)
            for path in self.compiled(affected):
                path.unlink()
            for path in aside.iterdir():
                path.rename(self.cache / path.name)

    def _write(self, source, content, stamp):
        source.write_bytes(content)
        os.utime(source, ns=(stamp, stamp))  # or the package would discard the caches of all kernels
        for path in self.cache.glob(f"{source.stem}.*.pyc"):
            path.unlink()


_DONE = 77  # exit code of a run that did not end by a crash
_tree = None  # of this process


def _begin(template):
    global _tree
    _tree = Tree(template) if multiprocessing.parent_process() is None else None
    if _tree is None:
        folder = tempfile.mkdtemp(prefix="worker-", dir=Path(template).parent)
        shutil.copytree(template, folder, dirs_exist_ok=True)
        _tree = Tree(folder)


def _judge(task):
    return _tree.judge(*task)


def say(text):
    print(text, flush=True)  # noqa: T201


def check(module, mutants, jobs, folder):
    """Judge the mutants of a module and print a line for each; (killed, survived, seconds)."""
    began = time.monotonic()
    tree = Tree.copied(Path(folder) / module)
    for path in tree.compiled(dependents(module)):
        path.unlink()
    limits = []
    for tests in TESTS[module]:
        seconds, failed = tree.run(tests, 900) if tests else (0.0, None)
        if failed:
            say((tree.folder / "log.txt").read_text(encoding="utf-8")[-3000:])
            sys.exit(f"{module}: {failed} fails without any mutant")
        limits.append(20 + 3 * seconds)
    spent = " and ".join(f"{(limit - 20) / 3:.0f}" for limit in limits)
    say(f"{module}: without a mutant its tests take {spent} s")
    tasks = [(mutant, limits) for mutant in mutants]
    survived = 0
    with contextlib.ExitStack() as stack:
        if jobs == 1:
            _begin(tree.folder)
            results = map(_judge, tasks)
        else:
            context = multiprocessing.get_context("fork")
            pool = stack.enter_context(context.Pool(jobs, _begin, (tree.folder,)))
            results = pool.imap(_judge, tasks)
        for mutant, (seconds, killer) in zip(mutants, results, strict=True):
            survived += killer is None
            outcome = f"killed by {killer.removeprefix('tests/numerics/')}" if killer else "SURVIVED"
            say(f"{seconds:5.1f} s  {mutant.name}\n         {outcome}")
    shutil.rmtree(tree.folder)
    return len(mutants) - survived, survived, time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description="Break the kernels in many ways; the tests must notice.")
    parser.add_argument("modules", nargs="*", metavar="kernel", help=f"of {', '.join(TESTS)}")
    parser.add_argument("--count", type=int, default=40, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0, help="of the choice among all places")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time, each in a copy of its own")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--only", default="", help="a regular expression that a mutant's line must contain")
    options = parser.parse_args()
    known = {path.stem for path in (ROOT / KERNELS).glob("*.py")} - {"__init__"}
    if forgotten := known - set(TESTS):
        parser.error(f"TESTS names no tests for {', '.join(sorted(forgotten))}")
    modules = [Path(name).stem for name in options.modules] or [name for name in TESTS if name in known]
    if unknown := set(modules) - known:
        parser.error(f"no such kernel: {', '.join(sorted(unknown))}")
    drawn = {}
    for module in modules:
        mutants, places = mutants_of(module, options.count, options.seed)
        if places < options.count:
            say(f"{module}: only {places} places; all of them are taken")
        drawn[module] = [mutant for mutant in mutants if re.search(options.only, mutant.name)]
    if options.list:
        for mutants in drawn.values():
            say("\n".join(mutant.name for mutant in mutants))
        return 0
    load()
    table = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for module, mutants in drawn.items():
            table[module] = check(module, mutants, options.jobs, folder)
    say(f"\n{'module':<12} mutants killed survived seconds")
    for module, (killed, survived, seconds) in table.items():
        say(f"{module:<12} {killed + survived:7} {killed:6} {survived:8} {seconds:7.0f}")
    return int(any(survived for _, survived, _ in table.values()))


if __name__ == "__main__":
    sys.exit(main())
