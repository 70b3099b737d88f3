"""How many examples a batch has where some of its axes are mapped over and not seen."""

from collections.abc import Sequence

import jax

Mapped = int | str | Sequence[str]
"""The examples along axes that `vmap` or `shard_map` hide: their number, or the axes' names."""


def mapped_size(mapped: Mapped) -> int:
    """The number of examples that stand behind one, for all that sums over a batch.

    Inside `jax.vmap` an operation sees a single example, and its weight's gradient is summed over
    examples that it does not know of. Their number has to be said, since nothing tells a batch
    from members of an ensemble, each of which has weights of its own.

    **Arguments:**

    - `mapped`: the number; 1 if all examples are in the array. Or the name of an axis, or several
        names, as `vmap(..., axis_name="batch")` and `shard_map` have them.
    """
    if isinstance(mapped, bool) or not isinstance(mapped, int | str | Sequence):
        raise ValueError(
            f"mapped is {mapped!r}; expected the number of examples that are mapped over, 1 if "
            "none are, or the names of the axes"
        )
    if isinstance(mapped, int):
        if mapped < 1:
            raise ValueError(f"mapped is {mapped}; expected at least 1")
        return mapped
    names = [mapped] if isinstance(mapped, str) else list(mapped)
    size = 1
    for name in names:
        try:
            size *= jax.lax.axis_size(name)
        except NameError:
            raise ValueError(
                f"mapped names the axis {name!r}, over which nothing is mapped here; give "
                f"jax.vmap its axis_name={name!r}, or mapped the number of examples"
            ) from None
    return size
