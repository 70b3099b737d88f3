"""Which layers of models of different depth are compared: those at the same place of the stack."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

_NUMBER = re.compile(r"\d+(?!.*\d)")
_Value = TypeVar("_Value")


def positions(names: Sequence[Iterable[str]]) -> list[dict[str, str]]:
    """For each model the names that stand for the first, the middle and the last layer of a stack.

    Layers are numbered by one part of their names, `blocks/3/up/weight` in a list of blocks or
    `blocks/up/weight/3` in a stack of arrays. Where models have different numbers of them, that
    part becomes `first`, `middle`, with half of the layers in front of it, and `last`.

    **Arguments:**

    - `names`: of all layers, by model.

    **Returns:** for each model a dictionary from the names that all models have to its own.
    """
    known = [list(model) for model in names]
    groups = [_groups(model) for model in known]
    deep = {
        group
        for group in set.intersection(*map(set, groups))
        if len({len(of_model[group]) for of_model in groups}) > 1
    }
    return [_placed(model, of_model, deep) for model, of_model in zip(known, groups, strict=True)]


def placed(values: Mapping[str, _Value], names: Mapping[str, str]) -> dict[str, _Value]:
    """`values` by the names that all models have."""
    return {shown: values[name] for shown, name in names.items() if name in values}


_PLACES = ("first", "middle", "last")


def _groups(names: Iterable[str]) -> dict[str, list[tuple[int, str]]]:
    """The layers that differ in one number, by what they share, with the number."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        parts = name.split("/")
        for i, part in enumerate(parts):
            match = _NUMBER.search(part)
            if match is not None:
                shared = f"{part[: match.start()]}<>{part[match.end() :]}"
                group = "/".join([*parts[:i], shared, *parts[i + 1 :]])
                found.setdefault(group, []).append((int(match.group()), name))
    return {group: sorted(members) for group, members in found.items()}


def _placed(
    names: Iterable[str], groups: Mapping[str, list[tuple[int, str]]], deep: set[str]
) -> dict[str, str]:
    by_name = {name: group for group in deep for _, name in groups[group]}
    found = {}
    for name in names:
        group = by_name.get(name)
        if group is None:
            found[name] = name
        # Once for all of its layers, where the first stands.
        elif name == groups[group][0][1]:
            members = [member for _, member in groups[group]]
            chosen = (members[0], members[len(members) // 2], members[-1])
            for place, member in zip(_PLACES, chosen, strict=True):
                found[group.replace("<>", place)] = member
    return found
