from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ...ops import scaled
from ...ops.scaled import Mapped, Number
from ...theory import Role
from .._grouped_attention import query_head_count
from .._init import check_positive
from .._rotary import check_even, rotary
from ._linear import Linear


class GroupedQueryAttention(eqx.Module):
    r"""Causal attention with rotary positions, whose query heads share key-value heads.

    The projections are [`scalex_eqx.nn.unit.Linear`][], and what is between them
    [`scalex_eqx.ops.scaled.attention`][]. The gradients of queries and keys are about
    $m / \sqrt d$ of those of values, and where $g$ query heads share a key-value head those of keys
    and values $\sqrt g$ times what they would be; the gradients of their weights are brought back
    to one.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    head_dimension: int = eqx.field(static=True)
    rotary_base: float | None = eqx.field(static=True)
    mult: Number = eqx.field(static=True)

    def __init__(
        self,
        width: int,
        *,
        head_dimension: int,
        key_value_heads: int | None = None,
        rotary_base: float | None = 10_000.0,
        mult: Number = 1.0,
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `width`: how many features each position has.
        - `head_dimension`: $d$, the size of one head.
        - `key_value_heads`: how many heads keys and values have; as many as there are query heads
            if not given.
        - `rotary_base`: of the rotary positions' angles; `None` for none.
        - `mult`: $m$, of the logits, which are $m\\, q k^\\top / d$.
        - `dtype`: of the weights.
        - `key`: for the initial draw.
        """
        check_positive(width=width, head_dimension=head_dimension)
        shared = width // head_dimension if key_value_heads is None else key_value_heads
        check_positive(key_value_heads=shared)
        heads = query_head_count(width, head_dimension, None, shared)
        if rotary_base is not None:
            check_even(head_dimension)
        q, k, v, o = jax.random.split(key, 4)
        size, inner = heads * head_dimension, shared * head_dimension
        self.query = Linear(width, size, dtype=dtype, key=q)
        self.key, self.value = (
            Linear(width, inner, role=Role.hidden, dtype=dtype, key=key) for key in (k, v)
        )
        self.output = Linear(size, width, dtype=dtype, key=o)
        self.head_dimension = head_dimension
        self.rotary_base = rotary_base
        self.mult = mult

    def __call__(
        self, x: Float[Array, "*batch seq width"], *, mapped: Mapped
    ) -> Float[Array, "*batch seq width"]:
        """**Arguments:**

        - `x`: the features of each position of one sequence, or of several along leading axes.
        - `mapped`: how many sequences are mapped over outside; see
            [`scalex_eqx.ops.scaled.mapped_size`][].
        """
        heads, shared = (layer.weight.value.shape[-2] for layer in (self.query, self.key))
        of_group = (shared / heads) ** 0.5
        of_logits = self.head_dimension**0.5 / self.mult
        q = self._heads(self.query(x, mapped=mapped, gradient_scale=of_logits))
        k = self._heads(self.key(x, mapped=mapped, gradient_scale=of_logits * of_group))
        v = self._heads(self.value(x, mapped=mapped, gradient_scale=of_group))
        if self.rotary_base is not None:
            q, k = rotary(q, self.rotary_base), rotary(k, self.rotary_base)
        mixed = scaled.attention(q, k, v, self.mult)
        return self.output(mixed.reshape(*x.shape[:-1], -1), mapped=mapped)

    def _heads(self, x: Float[Array, "*batch size"]) -> Float[Array, "*batch heads d"]:
        return x.reshape(*x.shape[:-1], -1, self.head_dimension)
