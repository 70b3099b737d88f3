"""What two dictionaries of plain data by path don't share."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Difference(NamedTuple):
    """One entry's field that differs; the field is empty if one side has no such entry."""

    path: str
    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def differences(
    one: Mapping[str, Mapping[str, Any]],
    other: Mapping[str, Mapping[str, Any]],
    name: str,
    other_name: str,
) -> list[Difference]:
    """Each entry that is on one side only, and each field of the others that differs."""
    found = [Difference(path, "", f"only {name}") for path in one if path not in other]
    found += [Difference(path, "", f"only {other_name}") for path in other if path not in one]
    for path in one:
        a, b = one[path], other.get(path, one[path])
        found += [
            Difference(path, field, _text(field, a.get(field), b.get(field), name, other_name))
            for field in dict.fromkeys((*a, *b))
            if a.get(field) != b.get(field)
        ]
    return found


def _text(field: str, a: Any, b: Any, name: str, other_name: str) -> str:
    shown, other = _shown(a), _shown(b)
    if shown == other:
        shown, other = repr(a), repr(b)
    return f"{field} is {shown} {name}, {other} {other_name}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({', '.join(f'{key} {_shown(entry)}' for key, entry in value.items())})"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
