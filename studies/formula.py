"""Formulas that people post: arithmetic on numbers, and nothing else.

A formula is read once into a tree in which every node is on the white list below; what is not is refused
with its own words quoted. Nothing of it is ever compiled or executed by Python: `simpleeval` walks the
tree with NumPy's operations. Every number is a float64, so that no power grows beyond 8 bytes, and what is
not defined (1/0, a root of -1, an overflow) is NaN or infinity, as in IEEE 754, for the caller to refuse.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simpleeval import SimpleEval

from studies.errors import suggestion

VARIABLES = ("epoch", "step", "epochs", "steps", "lr", "lr0")
"""What a formula may speak of: see `studies.schedules.expression`."""

CONSTANTS = {"pi": np.pi}

MAX_CHARACTERS = 500
MAX_DEPTH = 100
"""How deep a formula may be nested; reading and evaluating recurse so deep."""

Number = np.float64 | NDArray[np.float64]
Given = float | np.integer[Any] | NDArray[np.integer[Any] | np.float64]


@dataclass(frozen=True)
class Formula:
    """A formula that was read, and can be evaluated as often as one likes.

    names: every variable, constant and parameter in it; parameters: those that are neither variable nor
    constant, as they come.
    """

    text: str
    names: frozenset[str]
    parameters: tuple[str, ...]
    _tree: ast.expr = field(repr=False, compare=False)

    def value(self, names: Mapping[str, Given]) -> Number:
        """The value at these values of its names: float64, elementwise over arrays of one shape.

        `a and b`, `a or b` and `a if c else b` choose as Python does, element by element, with every part
        evaluated; a comparison is 1 or 0. A formula without arrays in it gives a single number.
        """
        return _evaluate(self._tree, {**CONSTANTS, **names})


def read(text: str) -> Formula:
    """Read a formula. Raises ValueError that quotes the part which is not allowed.

    >>> read("lr0 * g ** (epoch // k)").parameters
    ('g', 'k')
    >>> float(read("lr0 * g ** (epoch // k)").value({"lr0": 0.1, "g": 0.5, "epoch": 9, "k": 3}))
    0.0125
    >>> read("lr0.__class__")
    Traceback (most recent call last):
    ValueError: attribute access is not allowed: 'lr0.__class__'
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"must be at most {MAX_CHARACTERS} characters long, but got {len(text):,}")
    return _read(text)


@lru_cache(maxsize=256)
def _read(text: str) -> Formula:
    line = text.translate(_BLANKS).strip(" ")
    _check_characters(line)
    reader = _Reader(line, _tree(line))
    names = dict.fromkeys(reader.names)
    own = tuple(name for name in names if name not in VARIABLES and name not in CONSTANTS)
    return Formula(line, frozenset(names), own, reader.tree)


# --- reading

_BLANKS = str.maketrans("\t\r\n", "   ")
_NUMERAL = r"(?>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_GLUED = re.compile(rf"(?<![\w.]){_NUMERAL}[A-Za-z_]\w*")
"""A number with a letter right behind it: hexadecimal, 1_000, 2j, or a forgotten operator."""

_OPERATORS: dict[type[ast.operator | ast.unaryop | ast.cmpop], np.ufunc] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.remainder,
    ast.Pow: np.power,
    ast.USub: np.negative,
    ast.UAdd: np.positive,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
"""By the operations themselves, never by Python's signs: `x ** y` takes short cuts that round otherwise."""

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.absolute,
    "ceil": np.ceil,
    "cos": np.cos,
    "exp": np.exp,
    "floor": np.floor,
    "log": np.log,
    "max": lambda *values: reduce(np.maximum, values),
    "min": lambda *values: reduce(np.minimum, values),
    "round": np.rint,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
}
FUNCTIONS = tuple(_FUNCTIONS)
"""All of one argument, but for `max` and `min`, which take two or more. `round` goes to the nearest even."""

_OTHER_OPERATORS = {
    ast.MatMult: "@",
    ast.LShift: "<<",
    ast.RShift: ">>",
    ast.BitOr: "| (write or)",
    ast.BitXor: "^ (a power is written **)",
    ast.BitAnd: "& (write and)",
    ast.Invert: "~ (write not)",
    ast.Is: "is (write ==)",
    ast.IsNot: "is not (write !=)",
    ast.In: "in",
    ast.NotIn: "not in",
}

_OTHER_PARTS: dict[type[ast.AST], str] = {
    ast.Attribute: "attribute access",
    ast.Subscript: "an index",
    ast.Lambda: "a lambda",
    ast.JoinedStr: "a string",
    ast.ListComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.NamedExpr: "an assignment",
    ast.List: "a list",
    ast.Tuple: "a tuple",
    ast.Set: "a set",
    ast.Dict: "a dictionary",
    ast.Starred: "a starred argument",
    ast.Await: "await",
    ast.Yield: "yield",
    ast.YieldFrom: "yield",
}
_MODULES = ("math", "np", "numpy", "tf", "jnp", "K", "ops")
_SHOWN = 60


def _check_characters(line: str) -> None:
    if not line:
        raise ValueError("must be a formula, such as lr0 * 0.1 ** (epoch // 30)")
    for place, character in enumerate(line):
        if not (character.isascii() and character.isprintable()):
            raise ValueError(f"character {place + 1}, {character!a}, is not allowed: a formula is plain ASCII")
        if character in "#\\":
            what = "a comment" if character == "#" else "a backslash"
            raise ValueError(f"{what} is not allowed: {_quoted(line[place:])}")
    if glued := _GLUED.search(line):
        raise ValueError(f"a number is written 10, 0.5 or 1e-3, with a space behind it: {_quoted(glued.group())}")


def _tree(line: str) -> ast.expr:
    """The line as Python's grammar has it; nothing is compiled."""
    try:
        # mode="eval": for a file's text Python would look for that file, to show the line of an error.
        return ast.parse(line, mode="eval").body
    except (MemoryError, RecursionError):
        raise ValueError("it is nested too deeply") from None
    except SyntaxError as error:
        place = error.offset - 1 if error.offset else len(line)
        near = f" at {_quoted(line[place:])}" if place < len(line) else " at its end"
        raise ValueError(f"cannot be read{near}: {error.msg}") from None


class _Reader:
    """Goes through a tree from the outside in, from left to right, and refuses the first part that is not allowed.

    names: those in it, as they come.
    """

    def __init__(self, line: str, tree: ast.expr) -> None:
        self._line = line
        self.names: list[str] = []
        self.tree = tree
        self._check(tree)
        for constant in _constants(self.tree):
            if not np.isfinite(_evaluate(constant, CONSTANTS)):
                raise ValueError(f"this is no finite number: {self._source(constant)}")

    def _check(self, tree: ast.expr) -> None:
        left: list[tuple[ast.expr, int]] = [(tree, 1)]
        while left:
            node, depth = left.pop()
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
            left += [(part, depth + 1) for part in reversed(self._parts(node))]

    def _parts(self, node: ast.expr) -> list[ast.expr]:
        """The expressions in an allowed node; refuses any other."""
        match node:
            case ast.Constant():
                self._check_constant(node)
                return []
            case ast.Name(id=name):
                self._note(node, name)
                return []
            case ast.UnaryOp(op=operator, operand=operand):
                if not isinstance(operator, ast.Not):
                    self._check_operator(node, operator)
                return [operand]
            case ast.BinOp(left=left, op=operator, right=right):
                self._check_operator(node, operator)
                return [left, right]
            case ast.Compare(left=left, ops=operators, comparators=others):
                for comparison in operators:
                    self._check_operator(node, comparison)
                return [left, *others]
            case ast.BoolOp(values=values):
                return values
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return [body, test, orelse]
            case ast.Call():
                return self._arguments(node)
            case _:
                raise self._refusal(node)

    def _check_constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            what = "a string is not allowed" if isinstance(node.value, str | bytes) else "this is no number"
            raise ValueError(f"{what}: {self._source(node)}")
        try:
            float(node.value)
        except OverflowError:
            raise ValueError(f"the number is too large: {self._source(node)}") from None

    def _check_operator(self, node: ast.expr, operator: ast.operator | ast.unaryop | ast.cmpop) -> None:
        if type(operator) not in _OPERATORS:
            raise ValueError(f"the operator {_OTHER_OPERATORS[type(operator)]} is not allowed: {self._source(node)}")

    def _note(self, node: ast.expr, name: str) -> None:
        if name in FUNCTIONS:
            raise ValueError(f"{name} is a function, and is written {name}(...): {self._source(node)}")
        if name.startswith("_"):
            raise ValueError(f"a name must start with a letter: {self._source(node)}")
        self.names.append(name)

    def _arguments(self, node: ast.Call) -> list[ast.expr]:
        if not isinstance(node.func, ast.Name):
            self._parts(node.func)
            raise ValueError(f"only {', '.join(FUNCTIONS)} can be called: {self._source(node)}")
        name = node.func.id
        if name in VARIABLES or name in CONSTANTS:
            raise ValueError(f"{name} is a number, not a function: {self._source(node)}")
        if name not in FUNCTIONS:
            raise ValueError(f"unknown function in {self._source(node)}{suggestion(name, FUNCTIONS)}")
        if node.keywords:
            raise ValueError(f"keyword arguments are not allowed: {self._source(node.keywords[0])}")
        several = name in ("max", "min")
        if len(node.args) < 2 if several else len(node.args) != 1:
            number = "two arguments or more" if several else "one argument"
            raise ValueError(f"{name} takes {number}, but got {len(node.args)}: {self._source(node)}")
        return node.args

    def _refusal(self, node: ast.AST) -> ValueError:
        kind = _OTHER_PARTS.get(type(node), "this")
        hint = ""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _MODULES:
            known = node.attr in FUNCTIONS or node.attr in CONSTANTS
            hint = f"; write {node.attr}" if known else ""
        return ValueError(f"{kind} is not allowed: {self._source(node)}{hint}")

    def _source(self, node: Any) -> str:
        """The node as it was written; the line is ASCII, so that its bytes are its characters."""
        return _quoted(self._line[node.col_offset : node.end_col_offset])


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def _constants(node: ast.expr) -> Iterator[ast.expr]:
    """The largest parts of a formula in which no variable and no parameter stands."""
    inside = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
    if isinstance(node, ast.Call):
        inside = node.args  # the function's name is none
    if all(part.id in CONSTANTS for part in ast.walk(node) if isinstance(part, ast.Name) and part.id not in FUNCTIONS):
        yield node
    else:
        for part in inside:
            yield from _constants(part)


# --- evaluating


def _evaluate(tree: ast.expr, names: Mapping[str, Given]) -> Number:
    evaluator = _Evaluator({name: np.float64(value) for name, value in names.items()})
    with np.errstate(all="ignore"):
        value: Number = evaluator.eval("", tree)
    return value


class _Evaluator(SimpleEval):  # type: ignore[misc]
    """simpleeval, with no more than the nodes, operators and functions of a formula, over float64."""

    def __init__(self, names: Mapping[str, Number]) -> None:
        # Not super().__init__(), which offers more than we allow, and changes the process's warning filters.
        self.names = names
        self.operators = _OPERATORS
        self.functions = _FUNCTIONS
        self.allowed_attrs: dict[type, set[str]] = {}
        self.nodes: dict[type[ast.AST], Callable[[Any], Number]] = {
            ast.Constant: self._number,
            ast.Name: self._eval_name,
            ast.UnaryOp: self._unary,
            ast.BinOp: self._eval_binop,
            ast.BoolOp: self._first_or_last,
            ast.Compare: self._comparison,
            ast.IfExp: self._conditional,
            ast.Call: self._eval_call,
        }

    @staticmethod
    def _number(node: ast.Constant) -> Number:
        return np.float64(node.value)  # type: ignore[arg-type]

    def _unary(self, node: ast.UnaryOp) -> Number:
        if isinstance(node.op, ast.Not):
            zero: Number = np.equal(self._eval(node.operand), 0.0).astype(np.float64)
            return zero
        return self._eval_unaryop(node)  # type: ignore[no-any-return]

    def _first_or_last(self, node: ast.BoolOp) -> Number:
        """`and` gives the first value that is 0, `or` the first that is not, else the last."""
        *values, last = [self._eval(value) for value in node.values]
        chosen: Number = last
        for value in reversed(values):
            chosen = np.where((value == 0.0) == isinstance(node.op, ast.And), value, chosen)
        return chosen

    def _comparison(self, node: ast.Compare) -> Number:
        left, *others = [self._eval(value) for value in (node.left, *node.comparators)]
        pairs = zip(node.ops, (left, *others), others, strict=False)
        holds = [self.operators[type(op)](one, other) for op, one, other in pairs]
        return reduce(np.logical_and, holds).astype(np.float64)  # type: ignore[no-any-return]

    def _conditional(self, node: ast.IfExp) -> Number:
        test, yes, no = (self._eval(part) for part in (node.test, node.body, node.orelse))
        chosen: Number = np.where(test != 0.0, yes, no)
        return chosen
