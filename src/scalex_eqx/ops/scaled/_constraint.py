"""One factor for the forward and the backward pass of an operation, where the graph needs it."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

Number = float | int

Constraint = Literal[
    "to_output_scale",
    "to_grad_input_scale",
    "to_left_grad_scale",
    "to_right_grad_scale",
    "gmean",
    "hmean",
    "amean",
]
"""How the factors of an operation's output and of its inputs' gradients become one number."""

_MEANS: dict[str, Callable[[Sequence[Number]], float]] = {
    "gmean": lambda scales: math.prod(scales) ** (1 / len(scales)),
    "hmean": lambda scales: len(scales) / sum(1 / scale for scale in scales),
    "amean": lambda scales: sum(scales) / len(scales),
}

_CHOICES = {
    "to_output_scale": (0, None),
    "to_grad_input_scale": (1, 1),
    "to_left_grad_scale": (1, 2),
    "to_right_grad_scale": (2, 2),
}
"""Which of (output, input, ...) is taken, and of how many inputs it is a choice."""


def constrained(constraint: Constraint | None, *scales: Number) -> tuple[Number, ...]:
    r"""The factors of an operation's output and of the gradients of its inputs, made one.

    Gradients that meet, where a value is used twice, may only be added if the products of
    $\text{backward} / \text{forward}$ along their ways are the same. With one factor for both
    passes that quotient is 1. Without a constraint each pass has its own factor, which is right
    where a value is used once.

    **Arguments:**

    - `constraint`: `"to_output_scale"`, `"to_grad_input_scale"` (of operations with one input),
        `"to_left_grad_scale"`, `"to_right_grad_scale"` (with two), a mean of all: `"gmean"`,
        `"hmean"`, `"amean"`; or `None`.
    - `scales`: of the output, and of each input's gradient.

    **Returns:** as many factors.
    """
    if constraint is None:
        return scales
    if constraint in _MEANS:
        return (_MEANS[constraint](scales),) * len(scales)
    place, inputs = _CHOICES.get(constraint, (None, None))
    if place is None:
        known = ", ".join(map(repr, (*_CHOICES, *_MEANS)))
        raise ValueError(f"constraint is {constraint!r}; expected one of {known}, or None")
    if inputs is not None and inputs != len(scales) - 1:
        raise ValueError(
            f"constraint is {constraint!r}, which is for operations with {inputs} inputs, and this "
            f"one has {len(scales) - 1}"
        )
    return (scales[place],) * len(scales)
