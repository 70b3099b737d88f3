"""Layers whose weights carry their scaling law.

Each is an ordinary `equinox.Module` for a single example. A layer declares its weights' axes and
initial spread and contains no width formula: that comes from `scalex_eqx.parameterize`.
"""

from ._attention import CausalSelfAttention as CausalSelfAttention
from ._embedding import Embedding as Embedding, TiedReadout as TiedReadout
from ._init import ends_branch as ends_branch
from ._linear import Linear as Linear, Readout as Readout
from ._mlp import MLP as MLP
from ._norm import LayerNorm as LayerNorm, RMSNorm as RMSNorm
from ._transformer import Block as Block, Transformer as Transformer
