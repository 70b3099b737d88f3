"""The gradient of a step, with what an update rule needs to know of single examples' gradients."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from ._parts import blank_state, parts
from .optim._statistics import needed
from .per_example import gradient_statistics

Loss = Callable[[PyTree, Any], Any]


def statistics_needed(tx: Any, params: PyTree) -> dict[str, Any]:
    """What `gradient_statistics` is to be asked for beside the gradient, so that `tx` can move.

    **Arguments:**

    - `tx`: an optimizer.
    - `params`: what it moves, or the shapes.

    **Returns:** its arguments `statistics` and, if it clips, `clip`; nothing for a rule that needs
    the gradient alone.
    """
    rules = [part.rule for part in parts(blank_state(tx, params))]
    names = sorted(frozenset().union(*map(needed, rules)))
    clips = {dict(rule.settings)["clip"] for rule in rules if rule and "clipped" in needed(rule)}
    if len(clips) > 1:
        raise ValueError(
            f"the optimizer's parts clip at {', '.join(map(str, clips))}; expected one norm, as "
            "the statistics of a batch have one"
        )
    asked: dict[str, Any] = {"statistics": tuple(names)} if names else {}
    return {**asked, "clip": clips.pop()} if clips else asked


def step_gradient(
    loss: Loss, of_example: Loss, model: PyTree, batch: Any, asked: Mapping[str, Any]
) -> tuple[Float[Array, ""], PyTree, dict[str, Any]]:
    """The loss of a batch, its gradient, and the further arguments of the optimizer's `update`.

    **Arguments:**

    - `loss`, `of_example`: of a batch and of one example; the first is the mean of the others.
    - `asked`: what `statistics_needed` returned of the optimizer.
    """
    if not asked:
        return *eqx.filter_value_and_grad(loss)(model, batch), {}
    found = gradient_statistics(of_example, model, batch, **asked)
    return found.loss, found.gradient, {"statistics": found}
