"""Types of libraries that are not imported here, told by their names."""

import functools
from collections.abc import Mapping
from typing import Any

from .._weight import of_kind


@functools.lru_cache(maxsize=4096)
def _is_kind(kind: type, package: str, names: tuple[str, ...]) -> bool:
    return any(
        cls.__name__ in names and f"{cls.__module__}.".startswith(f"{package}.")
        for cls in kind.__mro__
    )


def is_of(x: Any, package: str, *names: str) -> bool:
    """Whether `x` is of one of a package's types, or of a subclass."""
    return _is_kind(type(x), package, names)


def said_kind(x: Any) -> str:
    """The type of `x` by the name that users know, with its article: `a paramax.NonTrainable`."""
    kind = type(x)
    parts = kind.__module__.split(".")
    package = ".".join(parts[: 2 if parts[0] in ("equinox", "flax") else 1])
    return f"{'an' if package[0] in 'aeiou' else 'a'} {package}.{kind.__name__}"


# Whether something is a dictionary of some kind.
is_mapping = of_kind(Mapping)
