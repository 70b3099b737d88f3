"""Which axis of a mesh splits which axis of a weight."""

import types
from collections.abc import Mapping, Sequence

from jax.sharding import AbstractMesh, Mesh, PartitionSpec

AnyMesh = Mesh | AbstractMesh
Rules = Mapping[str, Sequence[str]]

SHARDING_RULES: Rules = types.MappingProxyType(
    {
        "batch": ("data", "shard"),
        "width": ("shard",),
        "inner": ("tensor",),
        "heads": ("tensor",),
        "vocabulary": ("tensor",),
        "experts": ("expert",),
    }
)
"""The axes of a mesh that split a logical axis, those that the mesh has.

| mesh axis | what it splits |
|---|---|
| `data` | the batch: every device has all weights |
| `shard` | the batch, and every weight along the model's width: fully sharded |
| `tensor` | heads, inner layers and vocabulary: one product over several devices |
| `expert` | the experts of a mixture |

What stands in no rule is whole everywhere: stacks, positions, routers.
"""


def mesh_axes(name: str, mesh: AnyMesh, rules: Rules) -> tuple[str, ...]:
    """The mesh's axes that split a logical axis."""
    return tuple(axis for axis in rules.get(name, ()) if axis in mesh.axis_names)


def partition(names: Sequence[str], mesh: AnyMesh, rules: Rules) -> PartitionSpec:
    """How an array whose axes have these names is split."""
    found = [mesh_axes(name, mesh, rules) for name in names]
    return PartitionSpec(*(axes if len(axes) > 1 else next(iter(axes), None) for axes in found))


def check_rules(rules: Rules) -> None:
    """Refuses rules of which none can be meant.

    **Raises:** `ValueError` for a name that is one text instead of several.
    """
    for name, axes in rules.items():
        if isinstance(axes, str):
            raise ValueError(
                f"the rule for {name!r} is {axes!r}; expected names of mesh axes, as ({axes!r},)"
            )
