"""Where arrays lie that meshes split: what is computed from one goes where that is."""

from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped


def gathered(x: Shaped[Array, "*shape"], kept: int) -> Shaped[Array, "*shape"]:
    """`x` whole on its devices but for its first `kept` axes, where explicit sharding splits it.

    Products, sorts and reshapes need that.
    """
    sharding = jax.typeof(x).sharding
    axes = sharding.spec
    if all(axis is None for axis in axes[kept:]):
        return x
    whole = PartitionSpec(*axes[:kept], *(None,) * (x.ndim - kept))
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, whole))


def placed_like(x: Shaped[Array, "*shape"], y: Any) -> Any:
    """`y` on the devices of `x`, split as that is; both have one shape."""
    if isinstance(x, Tracer) or isinstance(y, Tracer):
        sharding = jax.typeof(x).sharding
        if jax.typeof(y).sharding.spec == sharding.spec:
            return y
        return jax.sharding.reshard(y, NamedSharding(sharding.mesh, sharding.spec))
    known = isinstance(x, jax.Array) and x.committed
    return jax.device_put(y, x.sharding) if known else y
