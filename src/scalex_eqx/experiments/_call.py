"""Calls with literal arguments, as text: read by Python's own grammar, and never evaluated."""

import ast
import math
from typing import Any, NamedTuple

from .._usage import UsageError

_OPEN, _CLOSE = "([{", ")]}"


class Call(NamedTuple):
    """What a text such as `adam(eps=1e-8)` says; a name alone is a call without arguments."""

    name: str
    positional: tuple[Any, ...]
    named: dict[str, Any]


def parse_call(text: str) -> Call:
    """The call that `text` writes.

    **Raises:** `UsageError` for what is no name with arguments in brackets, and for arguments other
    than numbers, strings, `True`, `False`, `None` and tuples of them.
    """
    name, bracket, rest = text.partition("(")
    if not bracket:
        return Call(name, (), {})
    try:
        node = ast.parse(f"f({rest}", mode="eval").body
    # Python also refuses zero bytes, long numbers and deep nesting, each in its own way.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        node = None
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise UsageError(f"{text!r} is no name with arguments; an example is adam(eps=1e-8)")
    names = [keyword.arg for keyword in node.keywords]
    for one in names:
        if one is None or names.count(one) > 1:
            what = "arguments behind **" if one is None else f"{one!r} twice"
            raise UsageError(f"{text!r} has {what}; give each argument once, by its name")
    return Call(
        name,
        tuple(_literal(text, one) for one in node.args),
        {str(one.arg): _literal(text, one.value) for one in node.keywords},
    )


def _literal(text: str, node: ast.expr) -> Any:
    try:
        value = ast.literal_eval(node)
        hash(value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        value = ...
    if value is ... or (isinstance(value, float) and not math.isfinite(value)):
        raise UsageError(
            f"{text!r} has the argument {ast.unparse(node)}; expected a finite number, a string, "
            "True, False, None or a tuple of them: nothing is evaluated"
        )
    return value


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """The text that `parse_call` reads, with the arguments in their order."""
    said = ",".join(f"{key}={value!r}" for key, value in arguments.items())
    return f"{name}({said})" if said else name


def split_outside(text: str, separator: str) -> list[str]:
    """The parts between the separators that stand in no bracket and no string."""
    parts, depth, quote, start = [], 0, "", 0
    escaped = False
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote and not escaped else quote
            escaped = character == "\\" and not escaped
        elif character in "'\"":
            quote = character
        elif character in _OPEN or character in _CLOSE:
            depth += 1 if character in _OPEN else -1
        elif character == separator and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]
