from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._sharding import of_sequences
from ._attention import CausalSelfAttention
from ._embedding import Embedding, TiedReadout
from ._experts import MixtureOfExperts, load_loss
from ._gated import GatedMLP
from ._grouped_attention import GroupedQueryAttention
from ._init import check_positive, each, ends_branch
from ._linear import Readout
from ._mlp import MLP
from ._norm import RMSNorm
from ._recompute import Stack, run_blocks


class DecoderBlock(eqx.Module):
    r"""A pre-norm residual block of modules of your choice.

    $$h = x + \text{attention}(\text{norm}\, x), \qquad y = h + \text{mlp}(\text{norm}\, h)$$

    The last layers of this library's attention and MLPs are declared to be those in which a
    residual branch ends; a module of your own declares its own.
    """

    attention_norm: Callable[..., Any]
    attention: Callable[..., Any]
    mlp_norm: Callable[..., Any]
    mlp: Callable[..., Any]

    def __init__(
        self,
        *,
        attention_norm: Callable[..., Any],
        attention: Callable[..., Any],
        mlp_norm: Callable[..., Any],
        mlp: Callable[..., Any],
    ):
        """**Arguments:**

        - `attention_norm`, `mlp_norm`: of one position's features, such as
            [`scalex_eqx.nn.RMSNorm`][].
        - `attention`: of a sequence, such as [`scalex_eqx.nn.GroupedQueryAttention`][].
        - `mlp`: of one position's features, [`scalex_eqx.nn.GatedMLP`][],
            [`scalex_eqx.nn.MLP`][] or [`scalex_eqx.nn.MixtureOfExperts`][].
        """
        self.attention_norm = attention_norm
        self.attention = _ending(attention)
        self.mlp_norm = mlp_norm
        self.mlp = _ending(mlp)

    def __call__(
        self, x: Float[Array, "*batch seq width"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*batch seq width"]:
        """**Arguments:**

        - `x`: the features of each position of one sequence, or of several along leading axes.
        - `key`: ignored; with it the layer fits into `equinox.nn.Sequential`.
        """
        return self.with_load(x)[0]

    def with_load(
        self, x: Float[Array, "*batch seq width"]
    ) -> tuple[Float[Array, "*batch seq width"], Float[Array, ""] | None]:
        """The output, and the load loss of its experts over all positions of `x`.

        **Arguments:** those of a call.

        **Returns:** both; `None` for the loss if the `mlp` has no experts.
        """
        x = x + self.attention(each(self.attention_norm, x))
        y = each(self.mlp, each(self.mlp_norm, x))
        if not isinstance(y, tuple):
            return x + y, None
        y, routing = y
        return x + y, load_loss(routing)


_LAST = {
    CausalSelfAttention: lambda module: module.output,
    GroupedQueryAttention: lambda module: module.output,
    MLP: lambda module: module.down,
    GatedMLP: lambda module: module.down,
    MixtureOfExperts: lambda module: module.experts.down,
}


def _ending(module: Any) -> Any:
    """The module, with the weights of its last layer declared to end a residual branch."""
    last = _LAST.get(type(module))
    return module if last is None else eqx.tree_at(last, module, replace_fn=ends_branch)


class Decoder(Stack):
    """A decoder-only language model of blocks of your choice, as Llama's family are.

    Pre-norm blocks without positions of their own in the residual stream, a last RMS norm, and a
    readout. The blocks are stacked: each of their weights has a leading axis of size `depth`, which
    a `scan` runs over.

    ```python
    def make(width):
        def block(key):
            attention, mlp = jax.random.split(key)
            inner = -(-8 * width // 3 // 64) * 64
            return nn.DecoderBlock(
                attention_norm=nn.RMSNorm(width),
                attention=nn.GroupedQueryAttention(
                    width, head_dimension=64, key_value_heads=2, key=attention
                ),
                mlp_norm=nn.RMSNorm(width),
                mlp=nn.GatedMLP(width, inner, width, key=mlp),
            )

        return nn.Decoder(vocabulary_size=256, width=width, depth=4, block=block, key=key)
    ```
    """

    token_embedding: Embedding
    blocks: DecoderBlock
    final_norm: RMSNorm
    readout: Readout | TiedReadout
    unroll: int = eqx.field(static=True)
    recomputes: bool = eqx.field(static=True)

    def __init__(
        self,
        *,
        vocabulary_size: int,
        width: int,
        depth: int,
        block: Callable[[PRNGKeyArray], DecoderBlock],
        tied: bool = False,
        unroll: int = 1,
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `vocabulary_size`: how many tokens there are.
        - `width`: of the residual stream.
        - `depth`: the number of blocks.
        - `block`: `block(key)` makes one of them.
        - `tied`: whether the token embedding is also the readout.
        - `unroll`: how many blocks of the `scan` are compiled as one.
        - `dtype`: of embedding, last norm and readout; JAX's default float if not given.
        - `key`: for the initial draw.
        """
        check_positive(depth=depth, unroll=unroll)
        token_key, readout_key, block_key = jax.random.split(key, 3)
        self.token_embedding = Embedding(vocabulary_size, width, dtype=dtype, key=token_key)
        self.blocks = eqx.filter_vmap(block)(jax.random.split(block_key, depth))
        self.final_norm = RMSNorm(width, dtype=dtype)
        self.readout = (
            TiedReadout(width)
            if tied
            else Readout(width, vocabulary_size, dtype=dtype, key=readout_key)
        )
        self.unroll = unroll
        self.recomputes = False

    def __call__(
        self, tokens: Int[Array, "*batch seq"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*batch seq vocabulary"]:
        """The logits of the next token at each position.

        **Arguments:**

        - `tokens`: one sequence, or a batch of them along leading axes, which is faster than
            `jax.vmap` over them.
        - `key`: ignored; with it the layer fits into `equinox.nn.Sequential`.
        """
        return self._run(tokens)[0]

    def with_load(
        self, tokens: Int[Array, "*batch seq"]
    ) -> tuple[Float[Array, "*batch seq vocabulary"], Float[Array, " depth"]]:
        """The logits, and each block's load loss over all positions of `tokens`.

        **Arguments:** those of a call.

        **Raises:** `ValueError` if the blocks have no experts.
        """
        logits, load = self._run(tokens)
        if load is None:
            raise ValueError("the blocks have no experts, and so no load loss; call the model")
        return logits, load

    def _run(self, tokens: Int[Array, "*batch seq"]) -> tuple[Array, Array | None]:
        x = jax.vmap(self.token_embedding)(tokens.reshape(-1)).reshape(*tokens.shape, -1)
        x, load = run_blocks(self, self.blocks, lambda block, x: block.with_load(x), x)
        x = each(self.final_norm, x)
        if isinstance(self.readout, TiedReadout):
            tied = self.readout
            return each(lambda x: tied(x, self.token_embedding), x), load
        return of_sequences(each(self.readout, x), "vocabulary"), load
