"""Choices of the caller for some of a model's arrays: by path, by module type, by function."""

import difflib
import fnmatch
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from .._pages import Section, see
from .._weight import path_string
from ._nnx import variable
from ._nodes import Node, Path

_Value = TypeVar("_Value")

_Match = Callable[[Path, Node], bool]
Key = str | type
Choices = Mapping[Any, Any] | Callable[[str, Any], Any]
"""A mapping from path patterns or module types, or a function of path and array."""


def select(
    name: str,
    given: Choices | None,
    nodes: Mapping[Path, Node],
    parse: Callable[[Any], _Value],
) -> tuple[dict[Path, _Value], list[str]]:
    """What `given` says of each node that it says something of, and what is wrong with it.

    **Arguments:**

    - `name`: of the argument, for the errors.
    - `given`: see `parameterize`.
    - `nodes`: those that may be chosen, by path.
    - `parse`: checks a value and raises `ValueError`.
    """
    errors: list[str] = []
    chosen: dict[Path, tuple[_Value, str]] = {}
    for label, paths, value in _entries(name, given, nodes, errors):
        try:
            parsed = parse(value)
        except ValueError as error:
            errors.append(f"{label}: {error}")
            continue
        for path in paths:
            before, earlier = chosen.setdefault(path, (parsed, label))
            if before != parsed:
                errors.append(
                    f"{path_string(path)}: {earlier} says {before} and {label} says {parsed}; "
                    "let one of them match it"
                )
    return {path: value for path, (value, _) in chosen.items()}, errors


def as_choices(name: str, given: Collection[Key] | Callable[[str, Any], Any] | None) -> Any:
    """A collection of keys, or a function that answers yes or no, as `Choices` of `True`."""
    if isinstance(given, str | type | Mapping):
        raise ValueError(
            f"{name} is {given!r}; expected a collection of keys, such as a list, or a function"
        )
    if given is None or callable(given):
        return given and (lambda path, array: True if given(path, array) else None)
    return dict.fromkeys(given, True)


def _entries(
    name: str, given: Choices | None, nodes: Mapping[Path, Node], errors: list[str]
) -> list[tuple[str, list[Path], Any]]:
    """Each entry's label, the paths that it matches, and its value."""
    if given is None:
        return []
    if isinstance(given, type) or not (isinstance(given, Mapping) or callable(given)):
        raise ValueError(f"{name} is {given!r}; expected a mapping or a function")
    if callable(given):
        answers = [(path, given(path_string(path), node.array)) for path, node in nodes.items()]
        return [(f"{name}(...)", [path], value) for path, value in answers if value is not None]
    entries = []
    for key, value in given.items():
        if not isinstance(key, str | type):
            errors.append(f"{name} has the key {key!r}; expected a path pattern or a module type")
            continue
        for label, matches, chosen in _rules(name, key, value):
            paths = [path for path, node in nodes.items() if matches(path, node)]
            if not paths:
                near = _near(key, nodes)
                errors.append(f"{label} matches no array of the model{near}{see(Section.no_match)}")
            entries.append((label, paths, chosen))
    return entries


def _rules(name: str, key: Key, value: Any) -> list[tuple[str, _Match, Any]]:
    """The label, the condition and the value of each rule that an entry of a mapping stands for."""
    if isinstance(key, str):
        return [(f"{name}[{key!r}]", lambda path, node: _matches(path, node, key), value)]
    label = f"{name}[{key.__name__}]"
    if not isinstance(value, Mapping):
        return [(label, _inside(key, "*"), value)]
    return [
        (f"{label}[{pattern!r}]", _inside(key, pattern), chosen)
        for pattern, chosen in value.items()
    ]


def _inside(key: type, pattern: str) -> _Match:
    """Whether a node stands in a module of type `key`, under a path there that fits."""
    return lambda _, node: any(
        isinstance(parent, key) and _matches(relative, node, pattern)
        for parent, relative in node.parents
    )


def _matches(path: Path, node: Node, pattern: str) -> bool:
    """Whether a pattern fits a path, or that of the variable of Flax NNX that holds the array."""
    paths = (path, path[:-1]) if variable(node) is not None else (path,)
    return any(fnmatch.fnmatchcase(path_string(one), pattern) for one in paths)


def _near(key: Key, nodes: Mapping[Path, Node]) -> str:
    """The paths or module types that may have been meant."""
    if isinstance(key, str):
        word, known = key, [path_string(path) for path in nodes]
    else:
        types = (type(parent).__name__ for node in nodes.values() for parent, _ in node.parents)
        word, known = key.__name__, list(dict.fromkeys(types))
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.4) or known[:3]
    return f"; there are {', '.join(near)}" if near else ""
