"""Layers of unit-scaled muP: weights, activations and gradients of size one.

Their weights carry the law of `scalex_eqx.u_mup`, and the layers scale by it themselves, forwards
and backwards apart, through [`scalex_eqx.ops.scaled`][]. They take batches along leading axes, and
are told how many examples are mapped over besides.
"""

from ._attention import GroupedQueryAttention as GroupedQueryAttention
from ._conv import Conv as Conv, ConvBlock as ConvBlock
from ._embedding import Embedding as Embedding
from ._linear import Linear as Linear, Readout as Readout
from ._mlp import MLP as MLP, GatedMLP as GatedMLP
from ._norm import LayerNorm as LayerNorm, RMSNorm as RMSNorm
from ._transformer import (
    Block as Block,
    Multipliers as Multipliers,
    Transformer as Transformer,
)
