"""What may have been meant where a name stands in place of an object."""

from collections.abc import Mapping
from typing import Any


def meant(value: Any, objects: Mapping[str, str]) -> str:
    """The end of an error's sentence, `; did you mean scalex_eqx.mup?`, or nothing.

    **Arguments:**

    - `value`: what was given.
    - `objects`: the public objects' names, by the words for them, such as those of the command
        line.
    """
    word = value.lower().replace("-", "_") if isinstance(value, str) else ""
    return f"; did you mean scalex_eqx.{objects[word]}?" if word in objects else ""
