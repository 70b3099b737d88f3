import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..._sharding import of_sequences
from ...ops import scaled
from ...ops.scaled import Mapped, Number
from .._init import check_positive
from .._recompute import Stack, run_blocks
from ._attention import GroupedQueryAttention
from ._embedding import Embedding
from ._linear import Readout
from ._mlp import GatedMLP
from ._norm import RMSNorm
from ._weights import in_stack


@dataclasses.dataclass(frozen=True)
class Multipliers:
    r"""The hyperparameters of a unit-scaled Transformer beside the learning rate; 1 by default.

    **Arguments:**

    - `activation`: of the gates' argument, $x\, g\, \sigma(m g)$.
    - `attention`: of the attention's logits, $m\, q k^\top / d$.
    - `residual`: all residual branches together over the embedding.
    - `residual_attention_ratio`: attention's branches over the MLPs'.
    - `loss`: of the logits in the loss.
    """

    activation: Number = 1.0
    attention: Number = 1.0
    residual: Number = 1.0
    residual_attention_ratio: Number = 1.0
    loss: Number = 1.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0 < value < float("inf"):
                raise ValueError(f"{field.name} is {value}; expected a positive number")


class Block(eqx.Module):
    r"""A pre-norm residual block of attention and a gated MLP."""

    attention_norm: RMSNorm
    attention: GroupedQueryAttention
    mlp_norm: RMSNorm
    mlp: GatedMLP

    def __init__(
        self,
        width: int,
        *,
        hidden_features: int,
        head_dimension: int,
        key_value_heads: int | None,
        rotary_base: float | None,
        use_gain: bool,
        multipliers: Multipliers,
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:** those of [`scalex_eqx.nn.unit.Transformer`][]."""
        attention, mlp = jax.random.split(key)
        self.attention_norm = RMSNorm(width, use_gain=use_gain, dtype=dtype)
        self.attention = GroupedQueryAttention(
            width,
            head_dimension=head_dimension,
            key_value_heads=key_value_heads,
            rotary_base=rotary_base,
            mult=multipliers.attention,
            dtype=dtype,
            key=attention,
        )
        self.mlp_norm = RMSNorm(width, use_gain=use_gain, dtype=dtype)
        self.mlp = GatedMLP(
            width, hidden_features, width, mult=multipliers.activation, dtype=dtype, key=mlp
        )

    def __call__(
        self,
        x: Float[Array, "*batch seq width"],
        taus: Float[Array, "2"],
        *,
        mapped: Mapped,
    ) -> Float[Array, "*batch seq width"]:
        r"""**Arguments:**

        - `x`: the residual stream.
        - `taus`: the shares $\tau$ of attention and MLP.
        - `mapped`: how many sequences are mapped over outside.
        """
        branch, skip = scaled.residual_split(x, taus[0])
        normed = self.attention_norm(branch, mapped=mapped)
        x = scaled.residual_add(self.attention(normed, mapped=mapped), skip, taus[0])
        branch, skip = scaled.residual_split(x, taus[1])
        normed = self.mlp_norm(branch, mapped=mapped)
        return scaled.residual_add(self.mlp(normed, mapped=mapped), skip, taus[1])


class Transformer(Stack):
    """A decoder-only language model whose activations, weights and gradients are of size one.

    Rotary positions, pre-norm blocks without gains, gated MLPs, an untied readout. The blocks are
    stacked: each of their weights has a leading axis of size `depth`, which a `scan` runs over.
    Build it with [`scalex_eqx.parameterize`][] and `scalex_eqx.u_mup`:

    ```python
    def make(width):
        return sx.nn.unit.Transformer(
            vocabulary_size=256, width=width, depth=2, head_dimension=16, key=key
        )

    model = sx.parameterize(make, width=64, parameterization=sx.u_mup)
    loss = model.loss(tokens[:, :-1], tokens[:, 1:], mapped=1)
    ```
    """

    token_embedding: Embedding
    blocks: Block
    final_norm: RMSNorm
    readout: Readout
    multipliers: Multipliers = eqx.field(static=True)
    unroll: int = eqx.field(static=True)
    recomputes: bool = eqx.field(static=True)

    def __init__(
        self,
        *,
        vocabulary_size: int,
        width: int,
        depth: int,
        head_dimension: int,
        hidden_features: int | None = None,
        key_value_heads: int | None = None,
        rotary_base: float | None = 10_000.0,
        use_gain: bool = False,
        multipliers: Multipliers | None = None,
        unroll: int = 1,
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `vocabulary_size`: how many tokens there are.
        - `width`: of the residual stream; a multiple of `head_dimension`.
        - `depth`: the number of blocks.
        - `head_dimension`: the size of one attention head; their number grows with the width.
        - `hidden_features`: of the MLPs; four times the width if not given.
        - `key_value_heads`: how many heads keys and values have; one for each query head if not
            given.
        - `rotary_base`: of the rotary positions' angles; `None` for none.
        - `use_gain`: whether the norms have gains.
        - `multipliers`: the hyperparameters; all one if not given.
        - `unroll`: how many blocks of the `scan` are compiled as one.
        - `dtype`: of the weights; JAX's default float if not given.
        - `key`: for the initial draw.
        """
        check_positive(depth=depth, unroll=unroll)
        token_key, readout_key, block_key = jax.random.split(key, 3)
        multipliers = Multipliers() if multipliers is None else multipliers
        self.token_embedding = Embedding(vocabulary_size, width, dtype=dtype, key=token_key)
        stacked = eqx.filter_vmap(
            lambda key: Block(
                width,
                hidden_features=4 * width if hidden_features is None else hidden_features,
                head_dimension=head_dimension,
                key_value_heads=key_value_heads,
                rotary_base=rotary_base,
                use_gain=use_gain,
                multipliers=multipliers,
                dtype=dtype,
                key=key,
            )
        )(jax.random.split(block_key, depth))
        self.blocks = in_stack(stacked, depth)
        self.final_norm = RMSNorm(width, use_gain=use_gain, dtype=dtype)
        self.readout = Readout(width, vocabulary_size, dtype=dtype, key=readout_key)
        self.multipliers = multipliers
        self.unroll = unroll
        self.recomputes = False

    def __call__(
        self, tokens: Int[Array, "*batch seq"], *, mapped: Mapped
    ) -> Float[Array, "*batch seq vocabulary"]:
        """The logits of the next token at each position.

        **Arguments:**

        - `tokens`: one sequence, or a batch of them along leading axes.
        - `mapped`: how many sequences are mapped over outside, 1 if none are; see
            [`scalex_eqx.ops.scaled.mapped_size`][].
        """
        x = self.token_embedding(tokens, mapped=mapped)
        blocks = (self.blocks, jnp.asarray(self.taus, x.dtype))

        def step(block: tuple[Block, Array], x: Array) -> tuple[Array, None]:
            layers, taus = block
            return layers(x, taus, mapped=mapped), None

        x, _ = run_blocks(self, blocks, step, x)
        logits = self.readout(self.final_norm(x, mapped=mapped), mapped=mapped)
        return of_sequences(logits, "vocabulary")

    def loss(
        self,
        tokens: Int[Array, "*batch seq"],
        targets: Int[Array, "*batch seq"],
        *,
        mapped: Mapped,
    ) -> Float[Array, ""]:
        """The mean cross-entropy, in nats; see [`scalex_eqx.ops.scaled.cross_entropy`][].

        **Arguments:**

        - `tokens`, `mapped`: those of a call.
        - `targets`: the next token at each position.
        """
        logits = self(tokens, mapped=mapped)
        return scaled.cross_entropy(logits, targets, self.multipliers.loss, mapped=mapped)

    @property
    def taus(self) -> tuple[tuple[float, float], ...]:
        """The shares of attention and MLP in each block."""
        depth = self.blocks.mlp.up.weight.value.shape[0]
        return scaled.residual_taus(
            depth,
            residual=self.multipliers.residual,
            attention_ratio=self.multipliers.residual_attention_ratio,
        )
