"""The line of a user's program that an equation comes from."""

import functools
import sysconfig
from pathlib import Path
from typing import Any

_STDLIB = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
_PACKAGES = tuple(
    str(Path(sysconfig.get_path(name)) / package)
    for name in ("purelib", "platlib")
    for package in ("jax", "jaxlib", "equinox", "numpy", "einops", "jaxtyping", "beartype", "optax")
)
_OURS = str(Path(__file__).parent.parent)


def place_of(equation: Any) -> str:
    """`"model.py:31"`, the innermost line that no library of layers has; `""` if there is none."""
    frames = getattr(getattr(equation.source_info, "traceback", None), "frames", ())
    for frame in frames:
        if _is_shown(frame.file_name):
            return f"{Path(frame.file_name).name}:{frame.line_num}"
    return ""


@functools.lru_cache(maxsize=4096)
def _is_shown(file: str) -> bool:
    if file.startswith("<") or file.startswith((*_PACKAGES, _OURS)):
        return False
    return "site-packages" in file or not file.startswith(_STDLIB)
