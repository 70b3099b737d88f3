"""Masks that change in training, which the law of the density doesn't reach."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Bool, Float, Inexact, PyTree

from .._weight import (
    Masked,
    Weight,
    is_weight,
    kept_entries,
    path_string,
    weights_with_paths,
)
from ..ops._sharded import gathered, placed_like
from ..theory import Role

# The mean of which power an entry of a state is that had no gradient yet, by the field's name.
_SIZES = {"nu": 1, "root": 2, "full": 2}


def magnitude_masks(model: PyTree, density: Any) -> dict[str, Bool[Array, "..."]]:
    r"""Masks that keep the largest entries of each matrix of the trunk.

    **Arguments:**

    - `model`: from `parameterize`, masked or not.
    - `density`: the share that is kept, a number or a traced scalar. It is rounded to a number of
        entries, in each layer of a stack the same.

    **Returns:** by the weights' paths, what [`scalex_eqx.with_masks`][] and
    [`scalex_eqx.remasked`][] take. Works under `jit`.
    """
    return {
        path: _largest(weight, density)
        for path, weight in weights_with_paths(model).items()
        if weight.spec.role is Role.hidden and weight.value is not None
    }


def _largest(weight: Weight, density: Any) -> Bool[Array, "..."]:
    layers = len(weight.spec.stack_axes(weight.value.ndim))
    size = gathered(jnp.abs(weight.value), layers)
    stack = size.shape[:layers]
    flat = size.reshape(*stack, -1)
    entries = flat.shape[-1]
    count = jnp.clip(jnp.round(jnp.asarray(density, float) * entries), 1, entries).astype(int)
    ordered = jnp.argsort(jnp.argsort(-flat, axis=-1), axis=-1)
    kept = (ordered < count.astype(ordered.dtype)).reshape(size.shape)
    return placed_like(weight.value, kept)


def cubic_density(step: Any, *, begin: int, end: int, final: float) -> Float[Array, "..."]:
    r"""The density of gradual magnitude pruning: dense until `begin`, `final` from `end` on.

    $$\rho = \rho_f + (1 - \rho_f) (1 - \tau)^3, \qquad \tau = \frac{t - t_0}{t_1 - t_0}$$

    ??? cite "Source"

        Zhu and Gupta, *To prune, or not to prune* (2017),
        [arXiv:1710.01878](https://arxiv.org/abs/1710.01878).
    """
    if not (begin < end and 0 < final <= 1):
        raise ValueError(
            f"begin is {begin}, end {end} and final {final}; expected begin before end, and a "
            "density above 0 and at most 1"
        )
    time = (jnp.asarray(step, float) - begin) / (end - begin)
    return final + (1 - final) * (1 - jnp.clip(time, 0, 1)) ** 3


def remasked(
    model: PyTree, masks: Mapping[str, Any], state: PyTree = None, *, warm: bool = True
) -> tuple[PyTree, PyTree]:
    r"""A model in training with other masks, and the state of its optimizer to go on with.

    What is left out from now on is zero in the weights and in every array of the state; with old
    moments an update rule would move it on. What is taken in starts at zero.

    Adam divides by the root of a mean of squares that knows nothing yet of what is taken in, while
    its correction for the start is long gone: the first update there is
    $(1 - \beta_1) / \sqrt{1 - \beta_2}$, more than three times a usual one with
    $\beta_2 = 0.999$, in every such entry. With `warm` the mean of squares of an entry that is
    taken in is that of what the mask has kept so far in the same matrix.

    The law stays that of the density that the model was made with, as `spec.density` says: laws
    are for random masks that stay. No parameterization is known to transfer across densities where
    masks follow the weights.

    **Arguments:**

    - `model`: with [`scalex_eqx.Masked`][] weights; `sparsify(model, 1)` makes them of a dense one.
    - `masks`: by the weights' paths, of their shapes; those that are not named stay.
    - `state`: of the optimizer, or `None`.
    - `warm`: whether means of squares are filled in.

    **Returns:** the model and the state. Works under `jit`, without another compilation.

    **Raises:** `ValueError` for a path at which there is no masked weight, or another shape.
    """
    weights = weights_with_paths(model)
    for path, mask in masks.items():
        weight = weights.get(path)
        if type(weight) is not Masked:
            raise ValueError(
                f"masks[{path!r}] has no masked weight; expected one of "
                f"{', '.join(p for p, w in weights.items() if type(w) is Masked) or 'none'}: make "
                "them with scalex_eqx.sparsify(model, 1, key=key)"
            )
        if jnp.shape(mask) != weight.value.shape:
            raise ValueError(
                f"masks[{path!r}] has the shape {jnp.shape(mask)}; expected {weight.value.shape}"
            )

    masks = {
        path: placed_like(weights[path].value, jnp.asarray(mask)) for path, mask in masks.items()
    }

    def on_weight(path: Any, leaf: Any) -> Any:
        mask = masks.get(path_string(path))
        if mask is None or not isinstance(leaf, Masked):
            return leaf
        return Masked(kept_entries(leaf.value, mask & leaf.mask), leaf.spec, mask)

    def on_state(path: Any, leaf: Any) -> Any:
        found = _named(path_string(path), masks)
        if found is None or not is_weight(leaf) or leaf.value is None:
            return leaf
        old = weights[found]
        assert type(old) is Masked
        new = masks[found]
        if leaf.value.shape != new.shape:
            return leaf
        field = path_string(path).removesuffix(f"/{found}").rpartition("/")[2]
        kept = kept_entries(leaf.value, new & old.mask)
        if warm and field in _SIZES:
            kept = jnp.where(new & ~old.mask, _mean(leaf, old.mask, _SIZES[field]), kept)
        return Weight(kept, leaf.spec)

    new_model = jtu.tree_map_with_path(on_weight, model, is_leaf=is_weight)
    return new_model, jtu.tree_map_with_path(on_state, state, is_leaf=is_weight)


def _named(path: str, masks: Mapping[str, Any]) -> str | None:
    """The weight that an array of the state belongs to."""
    return next((name for name in masks if path == name or path.endswith(f"/{name}")), None)


def _mean(leaf: Weight, mask: Bool[Array, "*shape"], power: int) -> Inexact[Array, "..."]:
    """The mean, or root mean square, of what is kept, of each layer of a stack by itself."""
    x = leaf.value
    axes = tuple(range(len(leaf.spec.stack_axes(x.ndim)), x.ndim))
    count = jnp.sum(mask, axis=axes, keepdims=True).astype(x.dtype)
    total = jnp.sum(kept_entries(x, mask) ** power, axis=axes, keepdims=True)
    return placed_like(x, jnp.broadcast_to((total / count) ** (1 / power), x.shape))


def pruned(
    model: PyTree, density: Any, state: PyTree = None, *, warm: bool = True
) -> tuple[PyTree, PyTree]:
    """`remasked` with `magnitude_masks`: a step of gradual magnitude pruning.

    ```python
    model = sx.sparsify(model, 1, key=key)
    density = sx.cubic_density(step, begin=100, end=1000, final=0.1)
    model, state = sx.pruned(model, density, state)
    ```

    **Arguments:** those of both.
    """
    weights = weights_with_paths(model)
    masks = {
        path: mask
        for path, mask in magnitude_masks(model, density).items()
        if type(weights[path]) is Masked
    }
    return remasked(model, masks, state, warm=warm)
