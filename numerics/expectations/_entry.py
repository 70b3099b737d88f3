import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Expected:
    """**Arguments:**

    - `backend`, `chip`, `operation`, `dtype`: of what; patterns as for file names. An operation
        is named by the kind of question and its name in the tables: `"error: sqrt"`.
    - `value`: the largest error, the number or the word that is expected.
    - `because`: the derivation or the source.
    """

    backend: str
    chip: str
    operation: str
    dtype: str
    value: float | str
    because: str

    @property
    def number(self) -> float:
        """The value of an entry that is not a word."""
        return float(self.value)


def entries(
    kind: str,
    because: str,
    values: Mapping[str, float | str],
    *,
    on: tuple[str, str] = ("*", "*"),
    dtypes: tuple[str, ...] = ("*",),
) -> tuple[Expected, ...]:
    """An entry an operation and dtype; `on` is a backend and a chip."""
    return tuple(
        Expected(*on, f"{kind}: {name}", dtype, value, because)
        for dtype in dtypes
        for name, value in values.items()
    )


CPU = ("cpu", "*")
