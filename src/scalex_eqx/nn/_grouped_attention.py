from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._pages import Section, see
from ..theory import Role
from ._attention import LogitScale, causal_softmax, checked_scale
from ._init import check_positive, each, named_axes, wide
from ._linear import Linear
from ._lora import LoRA
from ._norm import HeadNorm
from ._rotary import check_even, rotary

QueryKeyNorm = Literal["plain", "gain"]


class GroupedQueryAttention(eqx.Module):
    r"""Causal attention whose query heads share key-value heads, $g$ to each.

    $$y = O\, \operatorname{concat}_h \operatorname{softmax}(s\, \tilde q_h
    \tilde k_{\lfloor h / g \rfloor}^\top)\, v_{\lfloor h / g \rfloor}, \qquad
    s = 1/\sqrt d \ \text{or}\ 1/d,$$

    with $\tilde q$ and $\tilde k$ the queries and keys, normalised if that is asked for and turned
    by rotary positions. The head dimension $d$ is fixed and the number of query heads grows with
    the width. Key-value heads may grow with it, or their number may stay: their projections declare
    the role `hidden`, whose law is that of an inner layer either way.

    ??? cite "Source"

        Ainslie et al. (2023), [arXiv:2305.13245](https://arxiv.org/abs/2305.13245).
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    query_norm: HeadNorm | None
    key_norm: HeadNorm | None
    head_dimension: int = eqx.field(static=True)
    logit_scale: LogitScale = eqx.field(static=True)
    rotary_base: float | None = eqx.field(static=True)

    def __init__(
        self,
        width: int,
        *,
        head_dimension: int,
        key_value_heads: int,
        query_heads: int | None = None,
        logit_scale: LogitScale = "1/sqrt(d)",
        rotary_base: float | None = 10_000.0,
        query_key_norm: QueryKeyNorm | None = None,
        use_bias: bool = False,
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `width`: how many features each position has.
        - `head_dimension`: the size of one head.
        - `key_value_heads`: how many heads keys and values have; as many as there are query heads
            for ordinary attention, 1 for multi-query attention.
        - `query_heads`: a multiple of `key_value_heads`; `width // head_dimension` if not given.
        - `logit_scale`: `"1/sqrt(d)"` or `"1/d"`.
        - `rotary_base`: of the rotary positions' angles; `None` for attention that knows no
            positions.
        - `query_key_norm`: `"plain"` to normalise each head's queries and keys, `"gain"` with a
            gain for each head and feature.
        - `use_bias`: whether query, key and value have biases. The output never has.
        - `dtype`: of the weights; JAX's default float if not given.
        - `key`: for the initial draw.
        """
        check_positive(width=width, head_dimension=head_dimension, key_value_heads=key_value_heads)
        heads = query_head_count(width, head_dimension, query_heads, key_value_heads)
        checked_scale(logit_scale, head_dimension)
        if rotary_base is not None:
            check_even(head_dimension)
        q, k, v, o = jax.random.split(key, 4)
        size, shared = heads * head_dimension, key_value_heads * head_dimension
        query = Linear(width, size, use_bias=use_bias, dtype=dtype, key=q)
        self.query = named_axes(query, "heads", "width")
        # Their features stay inside the model, whether or not their number grows.
        self.key, self.value = (
            named_axes(
                Linear(width, shared, use_bias=use_bias, role=Role.hidden, dtype=dtype, key=key),
                "key_value_heads",
                "width",
            )
            for key in (k, v)
        )
        self.output = named_axes(Linear(size, width, dtype=dtype, key=o), "width", "heads")
        self.query_norm, self.key_norm = (
            _norm(count, head_dimension, query_key_norm, dtype)
            for count in (heads, key_value_heads)
        )
        self.head_dimension = head_dimension
        self.logit_scale = logit_scale
        self.rotary_base = rotary_base

    def __call__(
        self, x: Float[Array, "*batch seq width"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*batch seq width"]:
        """**Arguments:**

        - `x`: the features of each position of one sequence, or of several along leading axes; a
            position attends to itself and those before.
        - `key`: ignored; with it the layer fits into `equinox.nn.Sequential`.
        """
        q = self._heads(self.query, self.query_norm, x)
        k = self._heads(self.key, self.key_norm, x)
        if self.rotary_base is not None:
            q, k = rotary(q, self.rotary_base), rotary(k, self.rotary_base)
        v = self._heads(self.value, None, x)
        q = q.reshape(*k.shape[:-1], -1, self.head_dimension)
        logits = jnp.einsum("...qhgd,...khd->...hgqk", q, k)
        # A softmax in bfloat16 loses what many positions add up to.
        logits = checked_scale(self.logit_scale, self.head_dimension) * wide(logits)
        mixed = jnp.einsum("...hgqk,...khd->...qhgd", causal_softmax(logits).astype(x.dtype), v)
        return each(self.output, mixed.reshape(*x.shape[:-1], -1))

    def _heads(
        self,
        projection: Linear | LoRA,
        norm: HeadNorm | None,
        x: Float[Array, "*batch seq width"],
    ) -> Float[Array, "*batch seq heads d"]:
        projected, d = each(projection, x), self.head_dimension
        heads = projected.reshape(-1, projected.shape[-1] // d, d)
        heads = heads if norm is None else jax.vmap(norm)(heads)
        return heads.reshape(*x.shape[:-1], *heads.shape[1:])


def query_head_count(width: int, d: int, query_heads: int | None, key_value_heads: int) -> int:
    if query_heads is None and width % d:
        raise ValueError(
            f"width {width} is not a positive multiple of head_dimension {d}; their ratio is the "
            f"number of query heads, unless query_heads is given{see(Section.width)}"
        )
    heads = width // d if query_heads is None else query_heads
    check_positive(query_heads=heads)
    if heads % key_value_heads:
        raise ValueError(
            f"{heads} query heads are not a multiple of key_value_heads {key_value_heads}; each "
            f"key-value head serves as many query heads{see(Section.width)}"
        )
    return heads


def _norm(heads: int, d: int, kind: QueryKeyNorm | None, dtype: Any) -> HeadNorm | None:
    if kind not in (None, "plain", "gain"):
        raise ValueError(f"query_key_norm is {kind!r}; expected 'plain', 'gain' or None")
    return None if kind is None else HeadNorm(heads, d, use_gain=kind == "gain", dtype=dtype)
