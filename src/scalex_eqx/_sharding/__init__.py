from ._activations import constrained as constrained, of_sequences as of_sequences
from ._api import (
    batch_partition as batch_partition,
    batch_shards as batch_shards,
    shard as shard,
    shardings as shardings,
)
from ._axes import logical_axes as logical_axes
from ._rules import SHARDING_RULES as SHARDING_RULES, Rules as Rules
