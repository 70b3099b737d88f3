"""One use of a weight: what meets it, and what comes out."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, Shaped

from ..._spec import WeightSpec
from ...ops._wide import wide
from ...theory import Role
from ._operation import Kind, Operation, SharedAxes
from ._program import Site
from ._run import Meeting


class Use(eqx.Module):
    r"""One place where the forward pass uses a weight: $z = W x$.

    The arrays are laid out as the program computes them, which may be the transpose of what the
    layer returns. Within a `scan` each has a leading axis for its turns; only a weight that is
    the same in every turn, as in a recurrent network, has none. A multiplier is part of `weight`.

    **Arguments:**

    - `weight`: $W$ as it meets the input.
    - `input`: $x$; for a lookup the indices.
    - `output`: $z$, before any bias and any factor behind the product, as a tied readout has.
    - `fan_in_grows`: whether the sum runs over an axis that grows with the width.
    """

    weight: Shaped[Array, "..."]
    input: Shaped[Array, "..."]
    output: Shaped[Array, "..."]
    fan_in_grows: bool = eqx.field(static=True)
    _operation: Operation = eqx.field(static=True)
    _scans: tuple[bool, ...] = eqx.field(static=True)
    _stack: tuple[SharedAxes, ...] = eqx.field(static=True)

    @property
    def kind(self) -> Kind:
        """`"contraction"`, a product with a sum; `"lookup"`, of rows; or `"elementwise"`."""
        return self._operation.kind

    @property
    def fan_in(self) -> int:
        """How many terms the sum has; for a lookup, which is one with one-hot inputs, the rows.

        1 for an elementwise use.
        """
        return self._operation.fan_in

    def contract(
        self, weight: Shaped[Array, "..."], input: Shaped[Array, "..."]
    ) -> Num[Array, "..."]:
        """What would come out of this use for another weight and input of the same shapes.

        **Arguments:**

        - `weight`: in the place of `weight`.
        - `input`: in the place of `input`.

        **Raises:** `ValueError` if the use is elementwise.
        """
        if self.kind == "elementwise":
            raise ValueError(
                f"contract: this use is elementwise ({self._operation.name}) and sums over "
                "nothing; look at its weight, input and output, or choose uses by their kind"
            )
        operation = self._operation
        for own in reversed(self._scans):
            operation = jax.vmap(operation, in_axes=(0 if own else None, 0))
        return operation(weight, input)

    def ratio(
        self, weight: Float[Array, "..."], input: Shaped[Array, "..."]
    ) -> Float[Array, "*stack"]:
        r"""$\|W x\| / (\|W\| \|x\|)$ in root mean squares: between 0 and the fan-in.

        NaN where $W$ or $x$ is zero. Each factor is divided by its size before the product, so
        that a small change neither underflows nor overflows in a short dtype.

        **Arguments:** those of `contract`.

        **Raises:** `ValueError` as `contract` does.
        """
        weight_size, input_size = self.weight_size(weight), self.input_size(input)
        weight = _divided(weight, self._places(0)).astype(self.weight.dtype)
        if self.kind != "lookup":
            input = _divided(input, self._places(1)).astype(self.input.dtype)
        size = self.output_size(self.contract(weight, input))
        size = size / input_size if self.kind == "lookup" else size
        return jnp.where((weight_size > 0) & (input_size > 0), size, jnp.nan)

    def weight_size(self, weight: Shaped[Array, "..."]) -> Float[Array, "*stack"]:
        """The root mean square of `weight`, or of a change of it, for each layer of a stack."""
        return root_mean_square(weight, self._places(0))

    def input_size(self, input: Shaped[Array, "..."]) -> Float[Array, "*stack"]:
        """The same of `input`; for a lookup that of the one-hot vectors."""
        stack = [self.output.shape[axis] for axis in self._places(2)]
        if self.kind == "lookup":
            return jnp.full(stack, self.fan_in**-0.5, wide(self.weight).dtype)
        size = root_mean_square(input, self._places(1))
        absent = [i for i, axes in enumerate(self._stack) if axes[1] is None]
        return jnp.broadcast_to(jnp.expand_dims(size, absent), stack)

    def output_size(self, output: Shaped[Array, "..."]) -> Float[Array, "*stack"]:
        """The same of `output`."""
        return root_mean_square(output, self._places(2))

    def _places(self, which: int) -> tuple[int, ...]:
        return tuple(axis for axes in self._stack if (axis := axes[which]) is not None)


def root_mean_square(x: Shaped[Array, "..."], kept: tuple[int, ...]) -> Float[Array, "*kept"]:
    """The root mean square over all axes but those `kept`, which come out in that order."""
    y = wide(x) if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)
    y = jnp.moveaxis(y, kept, range(len(kept)))
    return jnp.sqrt(jnp.mean(jnp.square(y), axis=tuple(range(len(kept), y.ndim))))


def _divided(x: Float[Array, "..."], kept: tuple[int, ...]) -> Float[Array, "..."]:
    """`x` divided by its size for each index of the axes `kept`; zeros stay."""
    size = root_mean_square(x, kept)
    divisor = jnp.where(size > 0, size, jnp.ones_like(size))
    divisor = divisor.reshape(*size.shape, *(1,) * (x.ndim - size.ndim))
    divisor = jnp.moveaxis(divisor, range(len(kept)), kept)
    return wide(x) / divisor


def use_at(site: Site, meeting: Meeting, spec: WeightSpec, ndim: int) -> Use:
    """The use at a site, of a weight with `ndim` axes."""
    scans = tuple(loop in site.origin.loops for loop in range(site.depth))
    stack = _stack(site, scans, spec.stack_axes(ndim))
    return Use(*meeting, _fan_in_grows(site, spec, ndim), site.operation, scans, stack)


def _stack(
    site: Site, scans: tuple[bool, ...], stack_axes: tuple[int, ...]
) -> tuple[SharedAxes, ...]:
    """Where the layers of a stack are numbered: in scans, and in axes of the operation itself."""
    # A weight without stack axes that differs from turn to turn is one weight in pieces.
    own = [loop for loop, varies in enumerate(scans) if varies and stack_axes]
    turns: list[SharedAxes] = [(i, loop, loop) for i, loop in enumerate(own)]
    axes: list[SharedAxes] = [
        (w + sum(scans), None if x is None else x + site.depth, z + site.depth)
        for w, x, z in site.operation.shared
        if site.origin.axes[w] in stack_axes
    ]
    return (*turns, *axes)


def _fan_in_grows(site: Site, spec: WeightSpec, ndim: int) -> bool:
    """Whether a summed axis is one that grows; for unknown axes what is usual for the role."""
    summed = [site.origin.axes[axis] for axis in site.operation.summed]
    if None in summed:
        return spec.role in (Role.hidden, Role.readout, None)
    growing = {Role.embedding: spec.fan_out, Role.readout: spec.fan_in, Role.constant: ()}
    every = (*spec.fan_in, *spec.fan_out)
    axes = every if spec.role is None else growing.get(spec.role, every)
    return any(axis is not None and axis - ndim in axes for axis in summed)
