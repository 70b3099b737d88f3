"""A batch's loss, taken apart into those of its examples."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ._api import gradient_statistics
from ._batch import batch_size
from ._mixing import Along, MixingError, Shared, Summed, follow
from ._result import GradientStatistics

# Of factors in float32 that were divided by the number of examples.
_ROUNDING = 1e-5


def from_batch_loss(
    loss: Callable[[Any, Any], Array], model: PyTree, batch: PyTree, **options: Any
) -> GradientStatistics:
    r"""[`scalex_eqx.gradient_statistics`][] of a loss that takes a whole batch.

    $$L = \frac1B \sum_i \ell(\theta, x_i) + R(\theta) \quad \text{or} \quad
    L = \sum_i \ell(\theta, x_i), \qquad g_i = \nabla (\ell(\theta, x_i) + R(\theta))$$

    That the loss is one of these is shown on its traced program and on that of its derivative: the
    axis that numbers the examples is followed from the batch to the final sum, and on the way every
    equation has to make each example's part from that example alone. $\ell$ is then the loss of a
    batch of one, which may not be a case of its own in the code. Of a sum the result is still of
    the mean.

    **Arguments:**

    - `loss`: of the model and the batch, a number.
    - `model`, `batch`, `options`: as of `gradient_statistics`; `of` is examples or microbatches.

    **Raises:** `ValueError` that names the equation in which examples meet: statistics of the batch
    (batch norm), losses that compare examples, a softmax over them, a weighted mean whose weights
    are summed over the batch; an equation that isn't known; noise that is drawn for the whole batch
    with one key; functions with a `custom_vjp`, whose derivative is not in the program.
    """
    if options.get("of") == "token":
        raise ValueError(
            "of='token' needs the loss of each token of one example; give it to gradient_statistics"
        )
    size = batch_size(batch)
    batch = jax.tree.map(jnp.asarray, batch)
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def of_params(params: PyTree, batch: PyTree) -> Array:
        return loss(eqx.combine(params, static), batch)

    if size > 1:
        try:
            _check_same(of_params, params, batch, size)
        except MixingError as error:
            raise ValueError(
                f"the loss of the batch is no mean or sum of its examples' losses: {error}. "
                "Give the loss of one example to gradient_statistics, or leave out what examples "
                "have to do with each other"
            ) from None
    return gradient_statistics(
        lambda model, example: loss(model, jax.tree.map(lambda x: x[None], example)),
        model,
        batch,
        **options,
    )


def _sums(
    loss: Callable[[PyTree, PyTree], Array], params: PyTree, batch: PyTree, size: int
) -> list[Summed]:
    """Of what the loss and its derivative are sums, at a size of the batch."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), batch)

    def derivative(params: PyTree, tangents: PyTree, batch: PyTree) -> Any:
        return jax.jvp(lambda params: loss(params, batch), (params,), (tangents,))

    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    closed = jax.make_jaxpr(derivative)(like, like, shapes)
    count = len(jax.tree.leaves(like))
    of_model = [Shared(is_model=True)] * (2 * count)
    values = [*of_model, *(Along(0, size) for _ in jax.tree.leaves(shapes))]
    found = follow(closed.jaxpr, values, closed.consts)
    if len(found) != 2 or closed.jaxpr.outvars[0].aval.shape:
        raise MixingError("it is not a number")
    for value in found:
        if not isinstance(value, Summed):
            raise MixingError("it is not summed over the examples")
    return [value for value in found if isinstance(value, Summed)]


def _check_same(
    loss: Callable[[PyTree, PyTree], Array], params: PyTree, batch: PyTree, size: int
) -> None:
    """Refuses what is neither a mean nor a sum: the factors at two sizes say which."""
    # Not at one, where axes of size one leave other programs.
    other = 3 if size == 2 else 2
    many, few = (_sums(loss, params, batch, n) for n in (size, other))
    for of_many, of_few in zip(many, few, strict=True):
        if len(of_many.factors) != len(of_few.factors):
            raise MixingError(f"it has other terms for {other} examples than for the batch")
        ratios = [a / b for a, b in zip(of_many.factors, of_few.factors, strict=True)]
        is_mean = all(abs(ratio * size / other - 1) < _ROUNDING for ratio in ratios)
        is_sum = all(abs(ratio - 1) < _ROUNDING for ratio in ratios)
        if not is_mean and not is_sum:
            raise MixingError(
                f"its sums have factors {of_many.factors} for {size} examples and "
                f"{of_few.factors} for {other}; expected them as 1 / size, or the same"
            )
        if of_many.more and not is_mean:
            raise MixingError("something is added to a sum over the examples, not to a mean")
