from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Inexact, PyTree

from .._spec import WeightSpec
from ..ops._wide import wide
from ._checked import checked
from ._rule import Rule
from ._sizes import own_axes
from ._tree import map_values

_BEHIND = ("scale_by_learning_rate", "scale_by_width", "add_weight_decay")
"""What turns or shifts updates, so that their signs no longer tell where the rule goes."""


class CautiousState(NamedTuple):
    """The wrapped rule's state, and what the rule is."""

    inner_state: PyTree
    rule: PyTree


def cautious(rule: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    r"""Moves only entries whose update goes along with this step's gradient.

    $$u \leftarrow \frac{1}{s}\, u \cdot [u\, g > 0], \qquad
    s = \frac{\#\{u\, g > 0\}}{\#\{g \ne 0\}}$$

    $s$ is the share of a weight's entries that are moved, at least 1e-3, so that on average the
    update stays as large as it was: the rule keeps its family and its learning rates. Each of
    several stacked weights has a share of its own. It goes around the rule alone:

    ```python
    tx = optax.chain(
        sx.optim.cautious(sx.scale_by_adam()),
        sx.scale_by_width("adam", sx.full_alignment),
        sx.optim.scale_by_learning_rate(3e-3),
    )
    ```

    Entries without a gradient stay and are not counted. In the paper they are, which would
    multiply the update of an embedding by the vocabulary over the tokens of the batch.

    A rule that has no memory, `scale_by_sign` say, goes along with the gradient everywhere and
    stays as it is. Of an orthogonalised update, Muon's, what is left is not orthogonal.

    **Arguments:**

    - `rule`: an update rule without learning rate and weight decay, of this library or another,
        which puts out updates along the gradient.

    **Returns:** an `optax.GradientTransformation` over trees of weights. An update that is not
    finite stays.

    **Raises:** `ValueError`, from `init`, around a rule of this library that has its learning rate
    or weight decay already.

    ??? cite "Source"

        Liang et al., *Cautious Optimizers: Improving Training with One Line of Code* (2024),
        [arXiv:2411.16085](https://arxiv.org/abs/2411.16085).
    """
    inside = optax.with_extra_args_support(rule)
    own = Rule("cautious", settings=(("moves", "what goes along with the gradient"),))

    def init(params: optax.Params) -> CautiousState:
        inner = inside.init(params)
        _check_bare(inner)
        return CautiousState(inner, own)

    def update(updates, state, params=None, **extra):
        moved, inner = inside.update(updates, state.inner_state, params, **extra)
        return map_values(_along, moved, updates), CautiousState(inner, own)

    return optax.with_extra_args_support(
        checked(own, CautiousState, init, update, keeps_all=False, takes_extra=True)
    )


def _along(
    spec: WeightSpec, u: Inexact[Array, "*shape"], g: Inexact[Array, "*shape"]
) -> Inexact[Array, "*shape"]:
    # By their signs, since the product of small numbers is zero. A NaN is kept, and seen.
    agrees = jnp.sign(u).astype(g.dtype) * jnp.sign(g)
    x, axes = wide(u), own_axes(spec, u)
    moved, counted = (
        jnp.sum(one, axis=axes, keepdims=True, dtype=x.dtype) for one in (agrees > 0, g != 0)
    )
    share = jnp.maximum(moved / jnp.maximum(counted, 1), 1e-3)
    return jnp.where(agrees <= 0, 0, x / share).astype(u.dtype)


def _check_bare(state: PyTree) -> None:
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, Rule))
    behind = [node.name for node in nodes if isinstance(node, Rule) and node.name in _BEHIND]
    if behind:
        raise ValueError(
            f"cautious is around {', '.join(dict.fromkeys(behind))}, which changes the signs by "
            "which it tells where the rule goes; put it around the rule alone: optax.chain("
            "cautious(scale_by_adam()), scale_by_width('adam'), scale_by_learning_rate(...))"
        )
