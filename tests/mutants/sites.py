"""Places of a kernel module that can be broken, and the ways to do it."""

import ast
import random
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from mutants.tables import EQUIVALENT, UNUSED

ROOT = Path(__file__).resolve().parents[2]


KERNELS = Path("numerics/_kernels")


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
