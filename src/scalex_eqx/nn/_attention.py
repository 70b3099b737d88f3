import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._pages import Section, see
from ._init import each, named_axes, wide
from ._linear import Linear
from ._lora import LoRA

LogitScale = Literal["1/sqrt(d)", "1/d"]


class CausalSelfAttention(eqx.Module):
    r"""Causal multi-head self-attention.

    $$y = O\, \operatorname{concat}_h \operatorname{softmax}(s\, q_h k_h^\top) v_h, \qquad
    s = 1/\sqrt d \ \text{or}\ 1/d,$$

    with $d$ the head's dimension. The heads' dimension is fixed and their number grows with the
    width, so the choice between the two scales is one of a constant, not of a scaling law.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    head_dimension: int = eqx.field(static=True)
    logit_scale: LogitScale = eqx.field(static=True)

    def __init__(
        self,
        width: int,
        *,
        head_dimension: int,
        logit_scale: LogitScale = "1/sqrt(d)",
        use_bias: bool = False,
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `width`: how many features each position has; a multiple of `head_dimension`.
        - `head_dimension`: the size of one head.
        - `logit_scale`: `"1/sqrt(d)"` or `"1/d"`.
        - `use_bias`: whether the four projections have biases.
        - `dtype`: of the weights; JAX's default float if not given.
        - `key`: for the initial draw.
        """
        if head_dimension < 1 or width < 1 or width % head_dimension:
            raise ValueError(
                f"width {width} is not a positive multiple of head_dimension {head_dimension}; "
                f"the number of heads is their ratio{see(Section.width)}"
            )
        checked_scale(logit_scale, head_dimension)
        keys = jax.random.split(key, 4)
        *inner, output = (Linear(width, width, use_bias=use_bias, dtype=dtype, key=k) for k in keys)
        self.query, self.key, self.value = (named_axes(x, "heads", "width") for x in inner)
        self.output = named_axes(output, "width", "heads")
        self.head_dimension = head_dimension
        self.logit_scale = logit_scale

    def __call__(
        self, x: Float[Array, "*batch seq width"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*batch seq width"]:
        """**Arguments:**

        - `x`: the features of each position of one sequence, or of several along leading axes; a
            position attends to itself and those before.
        - `key`: ignored; with it the layer fits into `equinox.nn.Sequential`.
        """

        def heads(projection: Linear | LoRA) -> Float[Array, "*batch seq heads d"]:
            return each(projection, x).reshape(*x.shape[:-1], -1, self.head_dimension)

        q, k, v = heads(self.query), heads(self.key), heads(self.value)
        scale = checked_scale(self.logit_scale, self.head_dimension)
        logits = scale * jnp.einsum("...qhd,...khd->...hqk", q, k)
        mixed = jnp.einsum("...hqk,...khd->...qhd", causal_softmax(logits), v)
        return each(self.output, mixed.reshape(*x.shape[:-1], -1))


def causal_softmax(logits: Float[Array, "*heads seq seq"]) -> Float[Array, "*heads seq seq"]:
    """How much each position takes of itself and of each one before."""
    causal = jnp.tri(logits.shape[-1], dtype=bool)
    logits = jnp.where(jnp.broadcast_to(causal, logits.shape), logits, -jnp.inf)
    # One in bfloat16 loses what many positions add up to.
    return jax.nn.softmax(wide(logits), axis=-1).astype(logits.dtype)


def checked_scale(logit_scale: str, head_dimension: int) -> float:
    """The factor of the logits."""
    if logit_scale not in ("1/sqrt(d)", "1/d"):
        raise ValueError(f"logit_scale is {logit_scale!r}; expected '1/sqrt(d)' or '1/d'")
    return 1 / math.sqrt(head_dimension) if logit_scale == "1/sqrt(d)" else 1 / head_dimension
