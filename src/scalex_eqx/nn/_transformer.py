from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._sharding import constrained, of_sequences
from .._weight import effective
from ._attention import CausalSelfAttention, LogitScale
from ._embedding import Embedding, TiedReadout
from ._init import check_positive, each, ends_branch, named_axes
from ._linear import Readout
from ._mlp import MLP
from ._norm import LayerNorm
from ._recompute import Stack, run_blocks


class Block(eqx.Module):
    r"""A pre-norm residual block: $x + \text{attention}(\text{norm}\, x)$, then an MLP alike."""

    attention_norm: LayerNorm
    attention: CausalSelfAttention
    mlp_norm: LayerNorm
    mlp: MLP

    def __init__(
        self,
        width: int,
        *,
        head_dimension: int,
        logit_scale: LogitScale = "1/sqrt(d)",
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:** those of [`scalex_eqx.nn.Transformer`][]."""
        attention_key, mlp_key = jax.random.split(key)
        self.attention_norm = LayerNorm(width, dtype=dtype)
        attention = CausalSelfAttention(
            width,
            head_dimension=head_dimension,
            logit_scale=logit_scale,
            dtype=dtype,
            key=attention_key,
        )
        self.attention = eqx.tree_at(lambda x: x.output, attention, replace_fn=ends_branch)
        self.mlp_norm = LayerNorm(width, dtype=dtype)
        mlp = MLP(width, 4 * width, width, dtype=dtype, key=mlp_key)
        self.mlp = eqx.tree_at(lambda x: x.down, mlp, replace_fn=ends_branch)

    def __call__(
        self, x: Float[Array, "*batch seq width"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*batch seq width"]:
        """**Arguments:**

        - `x`: the features of each position of one sequence, or of several along leading axes.
        - `key`: ignored; with it the layer fits into `equinox.nn.Sequential`.
        """
        x = x + self.attention(each(self.attention_norm, x))
        return x + each(self.mlp, each(self.mlp_norm, x))


class Transformer(Stack):
    """A decoder-only language model, as in Everett et al. (2024).

    Learned positions, pre-norm blocks with gains, GELU, an inner layer of four times the width,
    no biases. The blocks are stacked: each of their weights has a leading axis of size `depth`,
    which a `scan` runs over.
    """

    token_embedding: Embedding
    position_embedding: Embedding
    blocks: Block
    final_norm: LayerNorm
    readout: Readout | TiedReadout
    unroll: int = eqx.field(static=True)
    recomputes: bool = eqx.field(static=True)

    def __init__(
        self,
        *,
        vocabulary_size: int,
        sequence_length: int,
        width: int,
        depth: int,
        head_dimension: int,
        logit_scale: LogitScale = "1/sqrt(d)",
        tied: bool = False,
        unroll: int = 1,
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `vocabulary_size`: how many tokens there are.
        - `sequence_length`: the longest sequence.
        - `width`: of the residual stream; a multiple of `head_dimension`.
        - `depth`: the number of blocks.
        - `head_dimension`: the size of one attention head; their number grows with the width.
        - `logit_scale`: of the attention, `"1/sqrt(d)"` or `"1/d"`.
        - `tied`: whether the token embedding is also the readout.
        - `unroll`: how many blocks of the `scan` are compiled as one. With `unroll=depth` a shallow
            model runs faster, because nothing is copied into stacks; a deep one compiles slowly.
        - `dtype`: of the weights; JAX's default float if not given.
        - `key`: for the initial draw.
        """
        check_positive(depth=depth, unroll=unroll)
        token_key, position_key, readout_key, block_key = jax.random.split(key, 4)
        self.token_embedding = Embedding(vocabulary_size, width, dtype=dtype, key=token_key)
        positions = Embedding(sequence_length, width, dtype=dtype, key=position_key)
        self.position_embedding = named_axes(positions, "positions", "width")
        self.blocks = eqx.filter_vmap(
            lambda key: Block(
                width,
                head_dimension=head_dimension,
                logit_scale=logit_scale,
                dtype=dtype,
                key=key,
            )
        )(jax.random.split(block_key, depth))
        self.unroll = unroll
        self.recomputes = False
        self.final_norm = LayerNorm(width, dtype=dtype)
        self.readout = (
            TiedReadout(width)
            if tied
            else Readout(width, vocabulary_size, dtype=dtype, key=readout_key)
        )

    def __call__(
        self, tokens: Int[Array, "*batch seq"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*batch seq vocabulary"]:
        """The logits of the next token at each position.

        **Arguments:**

        - `tokens`: one sequence, no longer than `sequence_length`, or a batch of them along
            leading axes, which is faster than `jax.vmap` over them.
        - `key`: ignored; with it the layer fits into `equinox.nn.Sequential`.
        """
        positions = constrained(effective(self.position_embedding.weight), "", "")
        if tokens.shape[-1] > positions.shape[0]:
            raise ValueError(
                f"{tokens.shape[-1]} tokens are more than the {positions.shape[0]} positions that "
                "the model was built with; shorten them or build with a larger sequence_length"
            )
        embedded = jax.vmap(self.token_embedding)(tokens.reshape(-1))
        embedded = embedded.reshape(*tokens.shape, -1)
        x = embedded + jnp.broadcast_to(positions[: tokens.shape[-1]], embedded.shape)
        x, _ = run_blocks(self, self.blocks, lambda block, x: (block(x), None), x)
        x = each(self.final_norm, x)
        if isinstance(self.readout, TiedReadout):
            tied = self.readout
            return each(lambda x: tied(x, self.token_embedding), x)
        return of_sequences(each(self.readout, x), "vocabulary")
