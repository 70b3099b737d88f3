"""Sums that stay of size one, and the residual stream's shares of its branches."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._constraint import Constraint, Number
from ._factors import add_factors, residual_factors
from ._scale import scale

Tau = float | int | Float[Array, ""]


def add(
    left: Float[Array, "*left"],
    right: Float[Array, "*right"] | Number,
    *,
    constraint: Constraint | None = "to_output_scale",
) -> Float[Array, "*shape"]:
    r"""$s\,(x + y)$; see [`scalex_eqx.ops.scaled.add_factors`][].

    **Arguments:**

    - `left`: of size one.
    - `right`: of size one, of a shape that can be broadcast; or a number, which is added as it is.
    - `constraint`: of output and both gradients.
    """
    if not isinstance(right, jax.Array):
        return left + right
    forward, (of_left, of_right), _ = add_factors(left.shape, right.shape, constraint=constraint)
    shape = jnp.broadcast_shapes(left.shape, right.shape)
    left, right = scale(left, backward=of_left), scale(right, backward=of_right)
    whole = jnp.broadcast_to(left, shape) + jnp.broadcast_to(right, shape)
    return scale(whole, forward=forward)


def residual_split(
    x: Float[Array, "*shape"], tau: Tau
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    r"""The inputs of branch and skip of $\left(\tau f(x) + x\right) / \sqrt{1 + \tau^2}$.

    Both are $x$. Their gradients are multiplied here and not where they are added, so that the
    branch sees one of size one, however small its share:

    $$\bar x = \frac{\tau\, \bar x_\text{branch} + \bar x_\text{skip}}{\sqrt{1 + \tau^2}}.$$

    Inside the branch forward and backward factors must have equal products.

    **Arguments:**

    - `x`: the residual stream.
    - `tau`: $\tau$; the same as in [`scalex_eqx.ops.scaled.residual_add`][].

    **Returns:** what goes into the branch, and the skip.
    """
    branch, skip = _shares(tau)
    return scale(x, backward=branch), scale(x, backward=skip)


def residual_add(
    branch: Float[Array, "*shape"], skip: Float[Array, "*shape"], tau: Tau
) -> Float[Array, "*shape"]:
    r"""$\left(\tau\, \text{branch} + \text{skip}\right) / \sqrt{1 + \tau^2}$.

    The gradient passes to both as it is; see [`scalex_eqx.ops.scaled.residual_split`][].

    **Arguments:**

    - `branch`, `skip`: of size one.
    - `tau`: $\tau$.
    """
    of_branch, of_skip = _shares(tau)
    return scale(branch, forward=of_branch) + scale(skip, forward=of_skip)


def _shares(tau: Any) -> tuple[Any, Any]:
    if not isinstance(tau, jax.Array):
        return residual_factors(tau)
    norm = jax.lax.rsqrt(1 + jnp.square(tau))
    return tau * norm, norm


def residual_taus(
    depth: int, *, residual: Number = 1.0, attention_ratio: Number = 1.0
) -> tuple[tuple[float, float], ...]:
    r"""The shares $\tau$ of attention and MLP in each of $L$ Transformer layers.

    Without the factors that keep it at size one, the stream would be the embedding plus all
    branches, $x_{k + 1} = x_k + \alpha_k f_k$, the attentions with $\alpha_A / \sqrt L$ and the
    MLPs with $\alpha_F / \sqrt L$. Each $\tau$ is the branch's factor over the size that the stream
    has in front of it,

    $$\tau_k = \frac{\alpha_k}{\sqrt{L + \sum_{j < k} \alpha_j^2}}, \qquad
    \alpha_F = \alpha \sqrt{\frac{2}{1 + \rho^2}}, \qquad \alpha_A = \rho\, \alpha_F.$$

    **Arguments:**

    - `depth`: $L$.
    - `residual`: $\alpha$, all branches together over the embedding.
    - `attention_ratio`: $\rho$, the attentions over the MLPs.

    **Returns:** $\tau$ of attention and MLP, by layer.

    ??? cite "Source"

        Blake et al. (2024), [arXiv:2407.17465](https://arxiv.org/abs/2407.17465), appendix G.
    """
    for name, value in (("residual", residual), ("attention_ratio", attention_ratio)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}; expected a positive number")
    of_mlp = residual * math.sqrt(2 / (1 + attention_ratio**2))
    of_attention = attention_ratio * of_mlp
    taus, square = [], float(depth)
    for _ in range(depth):
        first = of_attention / math.sqrt(square)
        square += of_attention**2
        taus.append((first, of_mlp / math.sqrt(square)))
        square += of_mlp**2
    return tuple(taus)
