"""The tests check annotated shapes at run time wherever the package has any."""

import re
import tomllib
from pathlib import Path

import scalex_eqx

SOURCE = Path(scalex_eqx.__file__).parent
SETTINGS = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
# A shape beside an argument or behind an arrow; behind a backtick it is in a docstring.
ANNOTATED = re.compile(
    r'^[^`\n]*(?:: |-> )(?:Weight\[)?(?:Bool|Float|Inexact|Int|Shaped|UInt)\[.*?, "', re.M
)


def checked() -> tuple[str, ...]:
    (option,) = [
        option.removeprefix("--jaxtyping-packages=")
        for option in SETTINGS["tool"]["pytest"]["ini_options"]["addopts"]
        if option.startswith("--jaxtyping-packages=")
    ]
    return tuple(option.split(",")[:-1])


def with_shapes() -> set[str]:
    return {
        ".".join(("scalex_eqx", *path.relative_to(SOURCE).with_suffix("").parts))
        for path in SOURCE.rglob("*.py")
        if ANNOTATED.search(path.read_text(encoding="utf-8"))
    }


def is_within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def test_every_shape_is_checked():
    assert {module for module in with_shapes() if not is_within(module, checked())} == set()


def test_one_that_is_left_out_is_found():
    left_out = tuple(name for name in checked() if name != "scalex_eqx.optim._adafactor")
    assert [module for module in with_shapes() if not is_within(module, left_out)] == [
        "scalex_eqx.optim._adafactor"
    ]
