import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .._parameterize import parameterize
from .._spec import WeightSpec
from .._usage import UsageError
from .._weight import resolve, weights_with_paths
from ..experiments import Setting
from ..problems import Problem
from ..problems._functions import parameterizing
from ..theory import Parameterization

_BATCHES = 4


def gradient_sizes(
    problem: Problem, parameterization: Parameterization, base_width: int, *, width: int
) -> dict[str, tuple[WeightSpec, float]]:
    """The root mean square of every weight's first gradient in a problem's model.

    At the base width, with the mean loss of a few batches.

    **Arguments:**

    - `width`: which the sizes are for; nothing is built there but shapes.

    **Returns:** for each weight, by path, its spec and the size.

    **Raises:** `UsageError` if the model takes no law, a gradient is not finite, or all are 0.
    """
    key = jax.random.key(0)
    setting = Setting(base_width, 1).of(problem)

    def built(width: int) -> PyTree:
        return parameterize(
            lambda width: problem.build(setting.sizes(width), key),
            width=width,
            base_width=base_width,
            parameterization=parameterization,
        )

    problem.check_growth(setting.sizes(width), setting.sizes(base_width))
    with parameterizing():
        at_base, _ = (eqx.filter_eval_shape(lambda n=n: built(n)) for n in (base_width, width))
    problem.check(eqx.filter_eval_shape(resolve, at_base))
    data = jax.tree.map(jnp.asarray, problem.data)

    def gradient(model: PyTree, batch: Any) -> PyTree:
        return eqx.filter_grad(lambda model: problem.mean_loss(resolve(model), batch))(model)

    def batch(step: int) -> Any:
        if problem.read is not None:
            return problem.host_batch(0, step)
        return problem.drawn(data, jax.random.fold_in(key, step))

    model, compiled = built(base_width), eqx.filter_jit(gradient)
    found = [compiled(model, batch(step)) for step in range(_BATCHES)]
    mean = jax.tree.map(lambda *x: sum(x) / _BATCHES, *found)
    sizes = {
        path: (weight.spec, float(jnp.sqrt(jnp.mean(jnp.square(jnp.abs(weight.value))))))
        for path, weight in weights_with_paths(mean).items()
    }
    for path, (_, size) in sizes.items():
        if not math.isfinite(size):
            raise UsageError(
                f"the first gradient of {path} at width {base_width} is not finite; see the loss "
                "and the data of the problem"
            )
    if not any(size > 0 for _, size in sizes.values()):
        raise UsageError(
            f"every first gradient at width {base_width} is 0: the problem's loss does not depend "
            "on the weights there"
        )
    return sizes
