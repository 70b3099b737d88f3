"""One use of a weight: what meets it, and what comes out."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num, Shaped

from ..._spec import WeightSpec
from ...ops._wide import wide
from ...theory import Role
from ._operation import Kind, Operation
from ._program import NotFollowed, Site
from ._run import Meeting
from ._sizes import by_member, divided, mean_square, spread_out
from ._stack import Stack, stack_of
from ._step import Step, members, repeated


class Use(eqx.Module):
    r"""One place where the forward pass uses a weight: $z = W x$.

    The arrays are laid out as the program computes them, which may be the transpose of what the
    layer returns. Within a `scan` each has a leading axis for its turns; only a weight that is
    the same in every turn, as in a recurrent network, has none. A multiplier is part of `weight`.

    **Arguments:**

    - `weight`: $W$ as it meets the input. Of members that are chosen from a stack, by the inputs
        or as a slice, it is the whole stack.
    - `input`: $x$; for a lookup the indices.
    - `output`: $z$, before any bias and any factor behind the product, as a tied readout has.
    - `fan_in_grows`: whether the sum runs over an axis that grows with the width.
    """

    weight: Shaped[Array, "..."]
    input: Shaped[Array, "..."]
    output: Shaped[Array, "..."]
    _others: tuple[tuple[Array, ...], ...]
    _rest: tuple[Array, ...]
    fan_in_grows: bool = eqx.field(static=True)
    _operation: Operation = eqx.field(static=True)
    _steps: tuple[Step, ...] = eqx.field(static=True)
    _scans: tuple[bool, ...] = eqx.field(static=True)
    _stack: Stack = eqx.field(static=True)
    _density: Fraction | None = eqx.field(static=True, default=None)

    @property
    def kind(self) -> Kind:
        """`"contraction"`, a product with a sum; `"lookup"`, of rows; or `"elementwise"`."""
        return self._operation.kind

    @property
    def turns(self) -> tuple[bool, ...]:
        """For each `scan` that it stands in whether the weight is another one in every turn."""
        return self._scans

    @property
    def fan_in(self) -> int:
        """How many terms the sum has; for a lookup, which is one with one-hot inputs, the rows.

        1 for an elementwise use, and for vectors that are chosen from a stack. Of a masked weight
        those that its mask keeps, on average.
        """
        return round(self._operation.fan_in * (self._density or 1))

    @property
    def is_chosen(self) -> bool:
        """Whether it is of some members of a stack, such as those that the inputs choose."""
        return bool(self._steps) or self._operation.groups is not None

    def contract(
        self, weight: Shaped[Array, "..."], input: Shaped[Array, "..."]
    ) -> Num[Array, "..."]:
        """What would come out of this use for another weight and input of the same shapes.

        Where the inputs choose among the members of a stack, the choice stays what it was.

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

        def once(weight, x, others, rest):
            return self._operation(repeated(self._steps, others, weight), x, rest)

        for own in reversed(self._scans):
            if self._operation.groups is None:
                once = jax.vmap(once, in_axes=(0 if own else None, 0, 0, 0))
            else:
                once = _in_turns(once, own)
        return once(weight, input, self._others, self._rest)

    def ratio(
        self, weight: Float[Array, "..."], input: Shaped[Array, "..."]
    ) -> Float[Array, "*stack"]:
        r"""$\|W x\| / (\|W\| \|x\|)$ in root mean squares: between 0 and the fan-in.

        That of a masked weight is over the entries that its mask keeps.

        NaN where $W$ or $x$ is zero, and for members of a stack that the inputs don't choose. Each
        factor is divided by its size before the product, so that a small change neither underflows
        nor overflows in a short dtype.

        **Arguments:** those of `contract`.

        **Raises:** `ValueError` as `contract` does.
        """
        weight_size, input_size = self.weight_size(weight), self.input_size(input)
        weight = divided(weight, self._weight_places).astype(self.weight.dtype)
        left = input_size
        if self.kind != "lookup":
            apart = tuple(x for _, x, _ in self._stack.along if x is not None)
            input = divided(input, apart).astype(self.input.dtype)
            # Where members have parts of the input, all parts were divided by one number.
            left = self.input_size(input) if self._stack.members else jnp.ones_like(input_size)
        size = self.output_size(self.contract(weight, input))
        known = (weight_size > 0) & (input_size > 0) & (left > 0)
        ratio = jnp.where(known, size / jnp.where(known, left, 1), jnp.nan)
        return ratio * self._kept if self._density is not None else ratio

    def weight_size(self, weight: Shaped[Array, "..."]) -> Float[Array, "*stack"]:
        """The root mean square of `weight`, or of a change of it, for each member of a stack.

        Of a masked weight over the entries that its mask keeps.
        """
        size = jnp.sqrt(mean_square(weight, self._weight_places))
        return size / self._kept if self._density is not None else size

    @property
    def _kept(self) -> float:
        """The root mean square over all entries, as a share of that over those that are kept."""
        return math.sqrt(self._density or 1)

    def input_size(self, input: Shaped[Array, "..."]) -> Float[Array, "*stack"]:
        """The same of `input`; for a lookup that of the one-hot vectors."""
        shape = tuple(self.output.shape[z] for _, z in self._places)
        if self.kind == "lookup":
            square = jnp.ones(shape, wide(self.weight).dtype) / self.fan_in
        else:
            kept = tuple(x for x, _ in self._places)
            square = mean_square(input, tuple(x for x in kept if x is not None))
            square = spread_out(square, kept, shape)
        return jnp.sqrt(self._each(square))

    def output_size(self, output: Shaped[Array, "..."]) -> Float[Array, "*stack"]:
        """The same of `output`."""
        return jnp.sqrt(self._each(mean_square(output, tuple(z for _, z in self._places))))

    @property
    def _weight_places(self) -> tuple[int, ...]:
        """The axes of `weight` that number members."""
        shift = sum(self._scans)
        along = (w for w, _, _ in self._stack.along)
        return (*along, *(axis + shift for axis in self._stack.members))

    @property
    def _places(self) -> tuple[tuple[int | None, int], ...]:
        """The axes of input and output whose indices belong to one member each."""
        scans = len(self._scans)
        turns = [(i, i) for i in range(scans)]
        if self._stack.told == "groups":
            return (*turns, (scans, scans))
        if self._stack.told == "apart":
            shared = [(x, z) for _, x, z in self._operation.shared]
            return (*turns, *((x if x is None else x + scans, z + scans) for x, z in shared))
        return tuple((x, z) for _, x, z in self._stack.along)

    def _each(self, square: Float[Array, "..."]) -> Float[Array, "*stack"]:
        """For each member of the stack the mean over the places that belong to it."""
        shift = sum(self._scans)
        sizes = tuple(self.weight.shape[axis + shift] for axis in self._stack.members)
        if not sizes:
            return square
        if self._stack.told is None:
            places = (*range(square.ndim), *(None for _ in sizes))
            return spread_out(square, places, (*square.shape, *sizes))
        numbers = self._numbers
        for _ in self._scans:
            numbers = jax.vmap(numbers)
        turns = tuple(z for _, _, z in self._stack.along)
        owners = jnp.broadcast_to(numbers(self._others, self._rest), square.shape)
        found = by_member(square, owners, turns, math.prod(sizes))
        return found.reshape(*found.shape[:-1], *sizes)

    def _numbers(
        self, others: tuple[tuple[Array, ...], ...], rest: tuple[Array, ...]
    ) -> Int[Array, "..."]:
        """The number of the member that each place belongs to, within a turn of all scans."""
        if self._stack.told == "groups":
            rows = jnp.arange(self.output.shape[len(self._scans)])
            return jnp.searchsorted(jnp.cumsum(rest[0]), rows, side="right").astype(jnp.int32)
        shape = self.weight.shape[sum(self._scans) :]
        whole = members(self._steps, others, shape, self._stack.members)
        places = [w for w, _, _ in self._operation.shared]
        whole = jnp.moveaxis(whole, places, range(len(places)))
        return whole[(..., *(0 for _ in range(whole.ndim - len(places))))]


def _in_turns(once: Callable[..., Array], own: bool) -> Callable[..., Array]:
    """`once` for one turn of a scan after the other, each with a weight of its `own` or with one.

    For products of groups of rows, of which JAX has no rule for turns that are side by side.
    """

    def all_turns(weight: Array, *rest: Any) -> Array:
        if own:
            return jax.lax.map(lambda turn: once(*turn), (weight, *rest))
        return jax.lax.map(lambda turn: once(weight, *turn), rest)

    return all_turns


def stack_at(site: Site, spec: WeightSpec, ndim: int) -> Stack | str:
    """How the members of a stack of weights meet the input at a site, or why that isn't known."""
    return stack_of(site.origin, site.operation, _scans(site), spec.stack_axes(ndim))


def _scans(site: Site) -> tuple[bool, ...]:
    return tuple(loop in site.origin.loops for loop in range(site.depth))


def use_at(site: Site, meeting: Meeting, spec: WeightSpec, ndim: int) -> Use | NotFollowed:
    """The use at a site, of a weight with `ndim` axes, or why it is none."""
    stack = stack_at(site, spec, ndim)
    if isinstance(stack, str):
        return NotFollowed(site.path, stack)
    return Use(
        meeting.weight,
        meeting.input,
        meeting.output,
        meeting.others,
        meeting.rest,
        _fan_in_grows(site, spec, ndim),
        site.operation,
        site.origin.steps,
        _scans(site),
        stack,
        spec.density,
    )


def _fan_in_grows(site: Site, spec: WeightSpec, ndim: int) -> bool:
    """Whether a summed axis is one that grows; for unknown axes what is usual for the role."""
    summed = [site.origin.axes[axis] for axis in site.operation.summed]
    if None in summed:
        return spec.role in (Role.hidden, Role.readout, None)
    growing = {Role.embedding: spec.fan_out, Role.readout: spec.fan_in, Role.constant: ()}
    every = (*spec.fan_in, *spec.fan_out)
    axes = every if spec.role is None else growing.get(spec.role, every)
    return any(axis is not None and axis - ndim in axes for axis in summed)
