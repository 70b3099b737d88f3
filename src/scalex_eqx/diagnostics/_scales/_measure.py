"""The sizes of all weights, of what goes into them and comes out, and of all their gradients."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._weight import weights_with_paths
from .._capture import Captured, Use, capture
from .._capture._api import captured
from ._sizes import Sizes, sizes_of

KINDS = ("weight", "input", "output", "output gradient", "weight gradient")
"""What is measured at each weight."""

Found = dict[str, dict[str, Sizes]]
"""By kind and by the weight's path, of each member of a stack."""


def measured(loss: Callable[..., Any], model: PyTree, batch: Any) -> Found:
    """The sizes at one step.

    The gradient of what comes out of a weight is that of zeros which are added to it.

    **Arguments:**

    - `loss`: of a model with weights, and a batch.
    - `model`, `batch`: what it is called with.
    """
    shapes = eqx.filter_eval_shape(lambda *given: capture(loss, *given), model, batch)
    taps = {
        path: tuple(jnp.zeros(use.output.shape, use.output.dtype) for use in uses)
        for path, uses in shapes.uses.items()
    }
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def tapped(params: PyTree, taps: dict[str, tuple[Array, ...]]) -> tuple[Array, Captured]:
        found = captured(loss, eqx.combine(params, static), (batch,), taps)
        return found.result, found

    (gradient, of_outputs), run = jax.grad(tapped, (0, 1), has_aux=True)(params, taps)
    found: Found = {kind: {} for kind in KINDS}
    for path, uses in run.uses.items():
        for number, (use, back) in enumerate(zip(uses, of_outputs[path], strict=True), start=1):
            name = path if number == 1 else f"{path} (use {number})"
            for kind, (x, stacked) in _arrays(use, back).items():
                if jnp.issubdtype(x.dtype, jnp.inexact):
                    found[kind][name] = sizes_of(x, stacked)
    for path, weight in weights_with_paths(gradient).items():
        if weight.value is not None and weight.spec.is_trained:
            stacked = len(weight.spec.stack_axes(weight.value.ndim))
            found["weight gradient"][path] = sizes_of(weight.value, stacked)
    return found


def _arrays(use: Use, back: Array) -> dict[str, tuple[Array, int]]:
    """By kind an array of a use, and how many of its axes number turns of scans."""
    turns = len(use.turns)
    return {
        "weight": (use.weight, sum(use.turns)),
        "input": (use.input, turns),
        "output": (use.output, turns),
        "output gradient": (back, turns),
    }
