import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from .._wide import wide
from ._constraint import Constraint, Number
from ._factors import attention_factors, softmax_factors
from ._scale import scale


def softmax(
    x: Float[Array, "*shape"],
    mult: Number = 1.0,
    *,
    axis: int = -1,
    constraint: Constraint | None = "to_output_scale",
) -> Float[Array, "*shape"]:
    r"""$s \operatorname{softmax}(m x)$; see [`scalex_eqx.ops.scaled.softmax_factors`][].

    The sum is taken in float32 at least.

    **Arguments:**

    - `x`: of size one.
    - `mult`: $m$.
    - `axis`: along which the entries sum to $s$.
    - `constraint`: of output and gradient.
    """
    forward, (backward,), _ = softmax_factors(x.shape[axis], mult, constraint=constraint)
    y = jax.nn.softmax(mult * wide(scale(x, backward=backward)), axis=axis).astype(x.dtype)
    return scale(y, forward=forward)


def attention(
    query: Float[Array, "*batch seq heads d"],
    key: Float[Array, "*batch seq shared d"],
    value: Float[Array, "*batch seq shared d"],
    mult: Number = 1.0,
    *,
    causal: bool = True,
    dropout: Number = 0.0,
    dropout_key: PRNGKeyArray | None = None,
) -> Float[Array, "*batch seq heads d"]:
    r"""$s \operatorname{softmax}(m\, q k^\top / d)\, v$, one factor for both passes.

    $s$ is that of [`scalex_eqx.ops.scaled.attention_factors`][]. Query heads share key-value
    heads, as many to each. Logits and softmax are in float32 at least.

    The gradients of queries and keys are about $m / \sqrt d$, and not one: a factor of their own
    would make them meet the values' in another proportion than they have.

    **Arguments:**

    - `query`, `key`, `value`: of size one.
    - `mult`: $m$.
    - `causal`: whether a position attends to itself and those before only.
    - `dropout`, `dropout_key`: the share of the attention's weights that are left out, and the key
        that draws which.
    """
    *_, length, heads, d = query.shape
    shared = key.shape[-2]
    if heads % shared:
        raise ValueError(
            f"{heads} query heads are not a multiple of {shared} key-value heads; each key-value "
            "head serves as many query heads"
        )
    scale_of_all = attention_factors(length, d, mult, causal=causal, dropout=dropout).output
    grouped = query.reshape(*key.shape[:-1], heads // shared, d)
    logits = wide(jnp.einsum("...qhgd,...khd->...hgqk", grouped, key)) * (mult / d)
    weights = _weights(logits, causal=causal) * scale_of_all
    if dropout:
        weights = _dropped(weights, dropout, dropout_key)
    mixed = jnp.einsum("...hgqk,...khd->...qhgd", weights.astype(value.dtype), value)
    return mixed.reshape(query.shape)


def _weights(logits: Float[Array, "*batch q k"], *, causal: bool) -> Float[Array, "*batch q k"]:
    if causal:
        seen: Bool[Array, "q k"] = jnp.tril(jnp.ones(logits.shape[-2:], bool))
        logits = jnp.where(seen, logits, jnp.finfo(logits.dtype).min)
    return jax.nn.softmax(logits, axis=-1)


def _dropped(weights: Array, rate: Number, key: PRNGKeyArray | None) -> Array:
    if key is None:
        raise ValueError(f"dropout is {rate} and there is no dropout_key; give one, or dropout=0")
    kept = jax.random.bernoulli(key, 1 - rate, weights.shape)
    return jnp.where(kept, weights / (1 - rate), jnp.zeros((), weights.dtype))
