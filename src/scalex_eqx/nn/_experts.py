import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from .._weight import Weight, map_weights
from ..theory import Role
from ._gated import GatedMLP
from ._init import check_positive, named_axes, wide
from ._linear import Linear

Gates = Literal["chosen", "all"]


def _of_experts(weight: Weight) -> Weight:
    """With the axis that numbers the experts called so."""
    spec = weight.spec
    return Weight(weight.value, dataclasses.replace(spec, axes=("experts", *spec.axes)))


class Routing(eqx.Module):
    """Which experts a router has chosen, for one position or for many along leading axes.

    **Arguments:**

    - `probabilities`: the softmax over all experts, in float32 at least.
    - `chosen`: whether an expert is among the best.
    """

    probabilities: Float[Array, "*positions experts"]
    chosen: Bool[Array, "*positions experts"]


def load_loss(routing: Routing) -> Float[Array, ""]:
    r"""How unevenly experts are chosen.

    $$L = E \sum_e f_e\, \bar p_e,$$

    with $E$ experts, $f_e$ the share that expert $e$ has of all choices and $\bar p_e$ the mean of
    its probability, both over all positions. It is 1 where all are chosen alike, and $E / k$ where
    the same $k$ are chosen everywhere, with certainty. Gradients go through the probabilities.
    Add it to the loss with a small factor, 0.01 for instance.

    **Arguments:**

    - `routing`: of all positions that are to be balanced together, along leading axes.

    ??? cite "Source"

        Fedus et al. (2021), [arXiv:2101.03961](https://arxiv.org/abs/2101.03961), equations 4 to 6;
        for more than one expert the shares are those of all choices.
    """
    positions = tuple(range(routing.chosen.ndim - 1))
    probability = jnp.mean(routing.probabilities, axis=positions)
    share = jnp.mean(routing.chosen.astype(probability.dtype), axis=positions)
    return routing.chosen.shape[-1] * jnp.sum(share / jnp.sum(share) * probability)


class MixtureOfExperts(eqx.Module):
    r"""The gated MLPs that a router chooses: $y = \sum_{e \in \text{top } k} p_e\, f_e(x)$.

    $$p = \operatorname{softmax}(R x),$$

    over the chosen experts alone, or over all. The router $R$ is an inner layer: its number of
    outputs is fixed, and it declares the role `hidden`. So do the experts' gate and up, whose size
    may stay. The experts are stacked: each of their weights has a leading axis of size `experts`,
    and the law of the expert's own layer.

    The gates of the chosen experts sum to one. So the output's change in training is of the same
    order for any number of experts, and for any $k$; its initial size falls as $k^{-1/2}$. Under
    Adam neither number asks for another rate.

    Every position is handed to every expert, and the gates of those that are not chosen are zero:
    no position is ever dropped, everything works under `vmap`, and the cost is that of all experts.

    ??? cite "Source"

        Shazeer et al. (2017), [arXiv:1701.06538](https://arxiv.org/abs/1701.06538), without noise.
    """

    router: Linear
    experts: GatedMLP
    top_k: int = eqx.field(static=True)
    gates: Gates = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        hidden_features: int,
        *,
        experts: int,
        top_k: int,
        gates: Gates = "chosen",
        activation: Callable[[Array], Array] = jax.nn.silu,
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `features`: the size of input and output.
        - `hidden_features`: the inner size of each expert.
        - `experts`: how many there are.
        - `top_k`: how many of them a position has.
        - `gates`: `"chosen"` for a softmax over the chosen experts, `"all"` for one over all of
            them, which is what trains the router if `top_k` is 1.
        - `activation`: of the experts' gates.
        - `dtype`: of the weights; JAX's default float if not given.
        - `key`: for the initial draw.
        """
        check_positive(experts=experts, top_k=top_k)
        if top_k > experts:
            raise ValueError(f"top_k is {top_k}, of {experts} experts; expected at most that many")
        if gates not in ("chosen", "all"):
            raise ValueError(f"gates is {gates!r}; expected 'chosen' or 'all'")
        if top_k == 1 < experts and gates == "chosen":
            raise ValueError(
                "top_k is 1, and gates='chosen' makes the gate of a single expert 1 whatever the "
                "router says, so that the loss doesn't train it; take gates='all', or a top_k of "
                "at least 2"
            )
        router_key, expert_key = jax.random.split(key)
        router = Linear(features, experts, role=Role.hidden, dtype=dtype, key=router_key)
        self.router = named_axes(router, "router", "width")
        stacked = eqx.filter_vmap(
            lambda key: GatedMLP(
                features,
                hidden_features,
                features,
                activation=activation,
                role=Role.hidden,
                dtype=dtype,
                key=key,
            )
        )(jax.random.split(expert_key, experts))
        self.experts = map_weights(_of_experts, stacked)
        self.top_k = top_k
        self.gates = gates

    def __call__(
        self, x: Float[Array, " features"], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, " features"], Routing]:
        """**Arguments:**

        - `x`: one position's features; use `jax.vmap` for more.
        - `key`: ignored.

        **Returns:** the output, and the router's choice, for [`scalex_eqx.nn.load_loss`][].
        """
        logits = wide(self.router(x))
        _, best = jax.lax.top_k(logits, self.top_k)
        chosen = jnp.zeros(logits.shape, bool).at[best].set(True)
        probabilities = jax.nn.softmax(logits)
        if self.gates == "chosen":
            gates = jax.nn.softmax(jnp.where(chosen, logits, -jnp.inf))
        else:
            gates = jnp.where(chosen, probabilities, 0)
        of_each = eqx.filter_vmap(lambda expert: expert(x))(self.experts)
        return gates.astype(x.dtype) @ of_each, Routing(probabilities, chosen)
