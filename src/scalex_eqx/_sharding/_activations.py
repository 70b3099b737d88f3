"""Where the activations of a model lie: a hint to the compiler, inside `jax.set_mesh`."""

import math

import jax
from jax.sharding import AxisType
from jaxtyping import Array

from ._rules import SHARDING_RULES, mesh_axes, partition


def constrained(x: Array, *names: str) -> Array:
    """`x`, split over the mesh that is set as the rules split its axes.

    Weights that are split along the width would otherwise split the features alike, and every
    device would compute all examples. Without a mesh of automatic axes that the rules know, `x` is
    returned as it is; so is an axis that the mesh doesn't divide.

    **Arguments:**

    - `x`: activations.
    - `names`: of its axes, `batch` for one that numbers examples; empty for what isn't split.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not all(kind == AxisType.Auto for kind in mesh.axis_types):
        return x
    known = {axis for axes in SHARDING_RULES.values() for axis in axes}
    if not known & set(mesh.axis_names):
        return x
    parts = [
        math.prod(mesh.shape[axis] for axis in mesh_axes(name, mesh, SHARDING_RULES))
        for name in names
    ]
    even = [
        name if size % part == 0 else ""
        for size, name, part in zip(x.shape, names, parts, strict=True)
    ]
    return jax.lax.with_sharding_constraint(x, partition(even, mesh, SHARDING_RULES))


def of_sequences(x: Array, features: str = "") -> Array:
    """`x` of shape `(*batch, seq, features)`, constrained so that devices share the examples."""
    lead = ("batch",) + ("",) * (x.ndim - 3) if x.ndim > 2 else ()
    return constrained(x, *lead, "", features)
