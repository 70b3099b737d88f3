"""Layers whose weights carry their scaling law.

Each is an ordinary `equinox.Module` for a single example. A layer declares its weights' axes and
initial spread and contains no width formula: that comes from `scalex_eqx.parameterize`.
"""

from . import unit as unit
from ._attention import CausalSelfAttention as CausalSelfAttention
from ._decoder import Decoder as Decoder, DecoderBlock as DecoderBlock
from ._embedding import Embedding as Embedding, TiedReadout as TiedReadout
from ._experts import (
    MixtureOfExperts as MixtureOfExperts,
    Routing as Routing,
    load_loss as load_loss,
)
from ._gated import GatedMLP as GatedMLP
from ._grouped_attention import GroupedQueryAttention as GroupedQueryAttention
from ._init import ends_branch as ends_branch, named_axes as named_axes
from ._linear import Linear as Linear, Readout as Readout
from ._lora import LoRA as LoRA
from ._mlp import MLP as MLP
from ._norm import HeadNorm as HeadNorm, LayerNorm as LayerNorm, RMSNorm as RMSNorm
from ._recompute import recompute_blocks as recompute_blocks
from ._rotary import rotary as rotary
from ._transformer import Block as Block, Transformer as Transformer
