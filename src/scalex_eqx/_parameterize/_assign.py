"""Axes and role of each array of a model: chosen, declared, known or inferred."""

import dataclasses
from collections.abc import Callable, Mapping, Set
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from .._pages import Section, extended, see
from .._spec import WeightSpec
from .._uses import Reading
from .._weight import is_weight, path_string
from ..theory import Role
from ..theory._power import GROWING, growing_fans
from ..theory._rational import exact
from ._from_use import check_uses, no_law, not_followed, read_layout
from ._growth import Growth, growth
from ._layouts import inferred_layout, known_layout, parse_layout
from ._names import named_layout
from ._nnx import is_adapters_inner
from ._nodes import Node, Path
from ._readings import OR_USE, Layout, fan_axes, growing_axes
from ._select import Choices, as_choices, select
from ._statistics import untrained
from ._wrapped import is_wrapped, refused


@dataclasses.dataclass(frozen=True)
class Options:
    """What the caller of `parameterize` says of some arrays; see there."""

    roles: Choices | None
    layouts: Choices | None
    factors: Choices | None
    frozen: Any
    force: bool
    branches: Any = None
    keep_values: bool = False
    use: Any = None
    parts: Choices | None = None


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The options, resolved: what they say of each path.

    `drawn` holds the paths of arrays of one axis that nothing says anything of; see `find_drawn`.
    """

    roles: Mapping[Path, Role]
    layouts: Mapping[Path, Layout]
    factors: Mapping[Path, Fraction]
    frozen: Set[Path]
    branches: Set[Path]
    force: bool
    parts: Mapping[Path, Any]
    drawn: Set[Path] = frozenset()

    def speaks_of(self, path: Path) -> bool:
        """Whether an option says something of the path's law."""
        said = (self.roles, self.layouts, self.factors, self.branches, self.parts)
        return any(path in paths for paths in said)


@dataclasses.dataclass(frozen=True)
class Triple:
    """The same node in the model at the base, the probe and the wanted width.

    **Arguments:**

    - `base`, `probe`, `wanted`: the nodes.
    - `depth`: the ratio of the depths of the stack that it stands in; 1 outside of one.
    - `in_stack`: whether it stands in one.
    - `deep_axes`: those of its axes that number the blocks of the stack, counted from the front.
    - `read`: what its uses say, where they are known.
    """

    base: Node
    probe: Node
    wanted: Node
    depth: Fraction = Fraction(1)
    in_stack: bool = False
    deep_axes: tuple[int, ...] = ()
    read: Reading | None = None

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The shapes, of as many stacked blocks in the wanted model as in the others."""
        base, wanted = self.base.array.shape, self.wanted.array.shape
        if len(base) == len(wanted):
            wanted = tuple(
                base[axis] if axis in self.deep_axes else size for axis, size in enumerate(wanted)
            )
        return base, self.probe.array.shape, wanted


def choose(
    options: Options, nodes: Mapping[Path, Node], uses: Mapping[Path, Node]
) -> tuple[Chosen, list[str]]:
    """Matches the options with a model's nodes, and with second uses of weights.

    **Returns:** the choices, and everything that is wrong with them.
    """
    both = {**nodes, **uses}
    frozen, frozen_errors = select("frozen", as_choices("frozen", options.frozen), both, bool)
    roles, role_errors = select("roles", options.roles, both, _parse_role)
    layouts, layout_errors = select("layouts", options.layouts, both, parse_layout)
    factors, factor_errors = select("factors", options.factors, nodes, _parse_factor)
    branches, branch_errors = select(
        "branches", as_choices("branches", options.branches), nodes, bool
    )
    parts, part_errors = select("parts", options.parts, nodes, _parse_parts)
    errors = [*frozen_errors, *role_errors, *layout_errors, *factor_errors, *branch_errors]
    errors += part_errors
    chosen = Chosen(roles, layouts, factors, frozen.keys(), branches.keys(), options.force, parts)
    return chosen, errors


def likeness(path: Path, triple: Triple, chosen: Chosen) -> Any:
    """What `assign` looks at: arrays that share it have one spec, or each an error."""
    nodes = (triple.base, triple.probe, triple.wanted)
    said = (chosen.roles.get(path), chosen.layouts.get(path), chosen.factors.get(path))
    wanted = triple.wanted
    own = known(triple), is_adapters_inner(wanted), untrained(wanted), refused(wanted, told=False)
    # A spec may be anything until it is looked at.
    specs = tuple(id(node.leaf.spec) if is_weight(node.leaf) else None for node in nodes)
    kinds = tuple(
        (type(x), getattr(x, "dtype", None), getattr(x, "shape", None))
        for x in (node.array for node in nodes)
    )
    of_depth = triple.depth, triple.deep_axes, path in chosen.branches
    return (
        *(said, path in chosen.frozen, path in chosen.drawn, own, specs, kinds, of_depth),
        triple.read,
    )


def known(triple: Triple) -> Layout | None:
    """The layout that the type of the module says, or names with which the shapes agree.

    A `Weight` declares its own.
    """
    if any(is_weight(node.leaf) for node in (triple.base, triple.probe, triple.wanted)):
        return None
    layout = known_layout(triple.wanted)
    return named_layout(triple.base, triple.probe) if layout is None else layout


def assign(
    path: Path, triple: Triple, chosen: Chosen, probe_ratio: Fraction, ratio: Fraction
) -> WeightSpec:
    """The spec of an array with its axes and its role; everything but the law's exponents.

    **Raises:** `ValueError` if the array has no law, or not this one.
    """
    if len({is_weight(node.leaf) for node in (triple.base, triple.probe, triple.wanted)}) > 1:
        raise ValueError(
            "a Weight in one of the models and an array in another; make it the same in all"
        )
    declared, frozen = _declared(triple.wanted.leaf), path in chosen.frozen
    is_buffer = Role.buffer in (chosen.roles.get(path), declared and declared.role)
    read = triple.read
    if read is not None and not read.is_trained and declared is None:
        # Its spread matters where it is summed over; statistics and tables are what they are.
        frozen = True
        is_buffer |= not read.summed and not chosen.speaks_of(path)
    untold = untrained(triple.wanted) if path not in chosen.roles else None
    if is_buffer or untold or (frozen and is_wrapped(triple.wanted)):
        reason = f"{untold}, which is not trained" if untold else "not trained"
        if path in chosen.factors:
            raise ValueError(f"{reason}, so that it has no scaling law, but factors gives it one")
        if path in chosen.branches:
            raise ValueError(f"{reason}, so that it has no scaling law, but branches names it")
        return _explained(_buffer(declared, ratio), read)
    try:
        spec = _with_role(path, triple, declared, chosen, (probe_ratio, ratio))
    except ValueError as error:
        if not frozen:
            raise
        if declared is None and not chosen.speaks_of(path):
            # Nobody says what its axes are, and it is to be left alone.
            return _explained(_buffer(None, ratio), read)
        remedy = '; or give it the role "buffer", which leaves it as it is, without a law'
        raise ValueError(extended(str(error), remedy)) from None
    return _explained(dataclasses.replace(spec, frozen=spec.frozen or frozen), read)


def _explained(spec: WeightSpec, read: Reading | None) -> WeightSpec:
    return spec if read is None else dataclasses.replace(spec, why=read.why)


def _buffer(declared: WeightSpec | None, ratio: Fraction) -> WeightSpec:
    return dataclasses.replace(
        declared or WeightSpec((), ()), role=Role.buffer, width_ratio=ratio, frozen=False
    )


def _with_role(
    path: Path,
    triple: Triple,
    declared: WeightSpec | None,
    chosen: Chosen,
    ratios: tuple[Fraction, Fraction],
) -> WeightSpec:
    """The spec of an array that has a law."""
    if jnp.issubdtype(triple.wanted.array.dtype, jnp.complexfloating):
        raise ValueError(
            "a complex array, for which the update rules are not made; keep real and imaginary "
            "part apart, or freeze it"
        )
    given, layout = chosen.roles.get(path), chosen.layouts.get(path)
    read = triple.read
    if read is not None and read.wrong:
        raise ValueError(no_law(read.wrong))
    is_told = given is not None or layout is not None or (read is not None and read.layout)
    reason = refused(triple.wanted, told=bool(is_told))
    if reason is not None and triple.shapes[0] != triple.shapes[1]:
        raise ValueError(reason)
    if declared is None:
        spec = _undeclared(path, triple, chosen, ratios)
    elif layout is None or fan_axes(layout) == (declared.fan_in, declared.fan_out):
        spec = declared
    else:
        raise ValueError(
            f"layouts gives {layout}, but this is a Weight that declares fan_in {declared.fan_in} "
            f"and fan_out {declared.fan_out} itself; drop the entry"
        )
    check_uses(spec, read, triple.shapes, "layouts gives" if layout is not None else "declares")
    _check_depth(spec, triple)
    shown, rates = growth(spec, triple.shapes, *ratios)
    role = _checked_role(
        shown, given, spec.role, triple, has_fan_in=bool(spec.fan_in), force=chosen.force
    )
    if given is None and spec.role is None and read is not None and read.role is not None:
        role = read.role if _fits(read.role, shown, has_fan_in=bool(spec.fan_in)) else role
    factor, said = chosen.factors.get(path, spec.factor_exponent), spec.role is not None
    spec = dataclasses.replace(
        spec,
        role=role,
        factor_exponent=factor,
        forced=not _fits(role, shown, has_fan_in=bool(spec.fan_in)),
        ends_branch=spec.ends_branch or path in chosen.branches,
        declared=said or given is not None,
    )
    forced = chosen.force and path in chosen.roles
    return _with_sizes(spec, rates, ratios[1], triple.depth, forced=forced)


def _check_depth(spec: WeightSpec, triple: Triple) -> None:
    """Holds what grows with the depth to be the axes in front of the spec's own."""
    shape = triple.base.array.shape
    stack = spec.stack_axes(len(shape))
    own = [str(axis) for axis in triple.deep_axes if axis not in stack]
    if own:
        raise ValueError(
            f"axis {', '.join(own)} of shape {shape} grows with the depth, and is one that the "
            "weight sums over or produces; only axes in front of those may, which number blocks"
            f"{see(Section.depth)}"
        )


def _with_sizes(
    spec: WeightSpec, rates: Growth, ratio: Fraction, depth: Fraction, *, forced: bool
) -> WeightSpec:
    """The spec with its own width's ratio, and with its fans that grow at another rate."""
    assert spec.role is not None
    growing = GROWING[spec.role]
    own = rates.fan_in if "fan_in" in growing else rates.fan_out
    is_inner = spec.role is Role.hidden and rates.fan_out != 1
    # A role that is forced on axes that stay says that the width is what they grow with.
    own = ratio if (own == 1 and forced and not is_inner) or not growing else own
    other = rates.fan_out if spec.role is Role.hidden else own
    sizes = (("fan_out", other),) if other != own else ()
    sizes += (("depth", depth),) if depth != 1 else ()
    return dataclasses.replace(spec, width_ratio=own, sizes=sizes)


def _declared(leaf: Any) -> WeightSpec | None:
    """The spec of a `Weight` that is in order; `None` for an array."""
    if not is_weight(leaf):
        return None
    if not eqx.is_inexact_array(leaf.value) or not isinstance(leaf.spec, WeightSpec):
        raise ValueError(
            f"a Weight of {type(leaf.value).__name__} and {type(leaf.spec).__name__}; expected a "
            "floating-point array and a WeightSpec"
        )
    if leaf.spec.is_complete:
        raise ValueError("this Weight is completed already; give parameterize a fresh model")
    return leaf.spec


def _undeclared(
    path: Path, triple: Triple, chosen: Chosen, ratios: tuple[Fraction, Fraction]
) -> WeightSpec:
    layout, role = chosen.layouts.get(path), chosen.roles.get(path)
    base, probe, _ = triple.shapes
    read = triple.read
    if layout is None:
        said = known(triple)
        layout = read_layout(read, triple.shapes, said) or said
    if layout is None and read is not None and read.is_lost:
        raise ValueError(not_followed(read, base))
    if layout is None:
        behind = max(triple.deep_axes, default=-1) + 1
        base, probe, wanted = (shape[behind:] for shape in triple.shapes)
        try:
            layout = inferred_layout(
                path_string(path), (base, probe, wanted), ratios, role, drawn=path in chosen.drawn
            )
        except ValueError as error:
            if read is None or not read.why:
                raise
            # It was passed.
            told = str(error).replace(OR_USE, "")
            raise ValueError(f"{read.why}; {told}") from None
    if len(layout) > min(len(base), len(probe)):
        raise ValueError(
            f"the layout {layout} is for at least {len(layout)} axes, but the shapes are "
            f"{', '.join(map(str, triple.shapes))}; name the last axes only, those that are there"
        )
    inner = is_adapters_inner(triple.wanted) and growing_axes(*triple.shapes[:2]) == [-2]
    return WeightSpec(*fan_axes(layout), role=Role.hidden if inner else None)


def _checked_role(
    role: Role,
    given: Role | None,
    declared: Role | None,
    triple: Triple,
    *,
    has_fan_in: bool,
    force: bool,
) -> Role:
    """`role`, which the shapes show, unless what is said goes with fans that stay, or is forced."""
    if given is not None and force:
        return given
    said = given or declared
    if said is not None and _fits(said, role, has_fan_in=has_fan_in):
        return said
    base, probe, _ = triple.shapes
    shown = (
        f"but its shapes, {base} at the base width and {probe} at the probe width, are those of "
        f"{role}"
    )
    if given not in (None, role):
        raise ValueError(
            f"roles says {given}, {shown}; correct the entry, or pass force=True if the shapes "
            f"mislead{see(Section.contradiction)}"
        )
    if given is None and declared not in (None, role):
        raise ValueError(
            f"declared as {declared}, {shown}; change the role or the fan axes"
            f"{see(Section.contradiction)}"
        )
    return role


def _fits(said: Role, shown: Role, *, has_fan_in: bool) -> bool:
    """Whether no fan grows that shouldn't. One that stays is that of a layer of a fixed size."""
    if not said.is_trained or said.is_matrix != has_fan_in:
        return False
    return growing_fans(shown) <= growing_fans(said)


def _parse_role(value: Any) -> Role:
    if value not in list(Role):
        raise ValueError(f"{value!r} is no role; expected one of {', '.join(Role)}")
    return Role(value)


def _parse_factor(value: Any) -> Fraction:
    return exact(value, "the exponent")


def _parse_parts(value: Any) -> Callable[[int], Any]:
    """**Raises:** `ValueError` for what is no function."""
    if not callable(value):
        raise ValueError(
            f"{value!r} is no function; expected one of the length of the fan-out, such as "
            "lambda rows: (rows - 64, 32, 32)"
        )
    return value
