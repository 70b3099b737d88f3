"""What the uses of an array say, against what else is said of it."""

from .._pages import Section, see
from .._spec import WeightSpec
from .._uses import Reading
from ._readings import Layout, Shapes


def no_law(wrong: str) -> str:
    """The message for an array of which no law holds."""
    return (
        f"{wrong}, so that no law of its spread holds; compute with the array itself, or freeze it "
        f"or give it the role buffer if it is not trained{see(Section.use)}"
    )


def not_followed(read: Reading, shape: tuple[int, ...]) -> str:
    """The message for an array that goes where it isn't followed."""
    return (
        f"{read.why}, so that its uses don't tell what shape {shape} is: say it with "
        f'layouts, such as ("out", "in") for a matrix that is applied as w @ x, or ("out",) '
        f"for a bias or gain; or freeze it{see(Section.use)}"
    )


def check_uses(spec: WeightSpec, read: Reading | None, shapes: Shapes, said: str) -> None:
    """Holds what is declared or chosen against what the uses show.

    **Raises:** `ValueError` with both, if they contradict each other.
    """
    base, probe, _ = shapes
    if read is None or read.summed is None or len(base) != len(probe):
        return
    axes = len(base)
    named = {axis + axes for axis in spec.fan_in if base[axis] != probe[axis]}
    if named != read.summed and not read.is_tied:
        raise ValueError(
            f"{said} fan_in {spec.fan_in} and fan_out {spec.fan_out}, but in use it is "
            f"{read.why}; correct what is said of its axes, or use it that way"
            f"{see(Section.use)}"
        )


def read_layout(read: Reading | None, shapes: Shapes, said: Layout | None) -> Layout | None:
    """The layout that the uses show, or what is said of it where that says the same.

    It does if the same axes that grow are summed over, and if there is a fan-in in both.
    """
    if read is None or read.layout is None:
        return None
    base, probe, _ = shapes
    axes = len(base)
    if said is None or len(base) != len(probe) or len(said) > axes:
        return read.layout

    def growing(layout: Layout) -> set[tuple[int, str]]:
        named = enumerate(layout, axes - len(layout))
        return {(axis, name) for axis, name in named if base[axis] != probe[axis]}

    same = growing(said) == growing(read.layout) and ("in" in said) == ("in" in read.layout)
    return said if same else read.layout
