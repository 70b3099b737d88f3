from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._spec import WeightSpec
from .._weight import Weight, effective, from_effective, is_array, is_weight
from ..theory import Role
from ._init import check_positive, named_axes, normal

_Layer = TypeVar("_Layer", bound=eqx.Module)


class LoRA(eqx.Module):
    r"""A linear layer with a low-rank adapter beside it: $y = f(x) + s\, B A x$.

    $$A \sim \mathcal N(0, 1 / \text{in}), \qquad B = 0,$$

    so that at the start it computes what the layer does. $A$ sums over features inside the model,
    and its rank stays: it declares the role `hidden`, whatever its shapes look like. $B$ is what
    its shapes show: an embedding in front of features that grow, a constant in front of logits.
    Under Adam and full alignment the learning rate of $A$ then falls as its fan-in grows, and that
    of $B$ stays. Where a residual branch ends in the layer, it ends in $B$ as well.

    It takes the layer's place in any model:

    ```python
    adapted = eqx.tree_at(
        lambda model: model.layers[1],
        model,
        replace_fn=lambda layer: sx.nn.LoRA(layer, rank=4, key=key),
    )
    ```

    Layers that are stacked for a `scan` are wrapped by `equinox.filter_vmap`, with a key for each.
    The layer itself is trained too, unless it is frozen: every path of an adapter has `lora` in it,
    so that `frozen=lambda path, _: "lora" not in path` leaves the adapters.

    ??? cite "Source"

        Hu et al. (2021), [arXiv:2106.09685](https://arxiv.org/abs/2106.09685). The two learning
        rates: Hayou et al., *LoRA+* (2024), [arXiv:2402.12354](https://arxiv.org/abs/2402.12354).
    """

    layer: eqx.Module
    lora_a: Weight[Float[Array, "rank in"]]
    lora_b: Weight[Float[Array, "out rank"]]
    scale: float = eqx.field(static=True)

    def __init__(
        self,
        layer: eqx.Module,
        rank: int,
        *,
        scale: float = 1.0,
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        r"""**Arguments:**

        - `layer`: maps the features of one example by its `weight` of shape `(out, in)`, as
            [`scalex_eqx.nn.Linear`][], [`scalex_eqx.nn.Readout`][] and `equinox.nn.Linear` do.
        - `rank`: the number of rows of $A$ and columns of $B$; the same at every width.
        - `scale`: $s$, often written as $\alpha / \text{rank}$.
        - `dtype`: of the adapter, which is computed in it; the layer's if not given.
        - `key`: for the initial draw of $A$.
        """
        check_positive(rank=rank)
        out_features, in_features, own = _matrix(layer)
        dtype = own if dtype is None else dtype
        self.layer = layer
        own_weight: Any = getattr(layer, "weight", None)
        named = is_weight(own_weight) and len(own_weight.spec.axes) == 2
        out, into = own_weight.spec.axes if named else ("", "")
        lora_a = normal(
            (rank, in_features), in_features**-0.5, role=Role.hidden, dtype=dtype, key=key
        )
        self.lora_a = named_axes(lora_a, "rank", into)
        ends = is_weight(own_weight) and own_weight.spec.ends_branch
        spec = WeightSpec((-1,), (-2,), std=0.0, ends_branch=ends, axes=(out, "rank"))
        self.lora_b = Weight(jnp.zeros((out_features, rank), dtype), spec)
        self.scale = scale

    def __check_init__(self):
        _check(self.lora_a, self.lora_b)

    def __call__(
        self, x: Float[Array, " in"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " out"]:
        """**Arguments:**

        - `x`: one example's features; use `jax.vmap` for more.
        - `key`: handed to the layer, if it is given.
        """
        layer: Any = self.layer
        y = layer(x) if key is None else layer(x, key=key)
        a, b = effective(self.lora_a), effective(self.lora_b)
        return y + (self.scale * (x.astype(a.dtype) @ a.T @ b.T)).astype(y.dtype)

    def merged(self) -> Any:
        r"""The layer by itself, with $W + s\, B A$ as its effective weight.

        It computes what the two did, up to rounding. A `Weight` keeps its law, and stays frozen if
        it is. All adapters of a model, stacked ones too, are merged by

        ```python
        is_lora = lambda node: isinstance(node, sx.nn.LoRA)
        merged = jax.tree.map(
            lambda node: node.merged() if is_lora(node) else node, model, is_leaf=is_lora
        )
        ```
        """
        layer: Any = self.layer
        own = layer.weight
        a, b = effective(self.lora_a), effective(self.lora_b)
        array = effective(own)
        array = array + (self.scale * jnp.matmul(b, a)).astype(array.dtype)
        new = from_effective(array, own.spec) if is_weight(own) else array
        return eqx.tree_at(lambda layer: layer.weight, layer, new, is_leaf=is_weight)


def _matrix(layer: Any) -> tuple[int, int, Any]:
    """The sizes of a layer's matrix, and its dtype."""
    weight: Any = getattr(layer, "weight", None)
    array: Any = weight.value if is_weight(weight) else weight
    fits = is_array(array) and array.ndim == 2 and not isinstance(layer, eqx.nn.Embedding)
    if fits and is_weight(weight):
        fits = (weight.spec.fan_out, weight.spec.fan_in) == ((-2,), (-1,))
    if not fits:
        found = f"a weight of shape {array.shape}" if is_array(array) else "no weight"
        raise ValueError(
            f"layer is a {type(layer).__name__} with {found}; expected a layer that is applied as "
            "weight @ x to one example, such as a Linear. Wrap those in a stack by "
            "equinox.filter_vmap"
        )
    return (*array.shape, array.dtype)


def _check(
    lora_a: Weight[Float[Array, "rank in"]], lora_b: Weight[Float[Array, "out rank"]]
) -> None:
    """Runtime type checkers look at arguments, not at fields."""
