"""The models of a check: of several widths, or of several depths, and all else alike."""

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from ..._pages import Section, see
from ..._traced import traced
from ..._weight import Weight, require_complete, weights_with_paths
from ...theory import Role
from ...theory._density import parse_density
from ._positions import placed, positions

Over = Literal["width", "depth", "density"]
"""The size that grows over the models of a check."""

Number = int | Fraction
"""A width or depth, or a density."""

Build = Callable[[Any, PRNGKeyArray], PyTree]

_USUAL: dict[Over, tuple[Number, ...]] = {
    "width": (64, 128, 256, 512),
    "depth": (2, 4, 8, 16),
    "density": tuple(Fraction(1, 4**i) for i in (2, 1, 0)),
}


def plural(over: Over) -> str:
    """`widths`, `depths`, `densities`."""
    return "densities" if over == "density" else f"{over}s"


def sizes_of(over: Over, given: Mapping[Over, Sequence[Any] | None]) -> tuple[Any, ...]:
    """The sizes at which models are built, the smallest first.

    **Raises:** `ValueError` if they are fewer than two, or those of another size are given.
    """
    if over not in _USUAL:
        raise ValueError(f"size is {over!r}; expected {' or '.join(map(repr, _USUAL))}")
    for other, sizes in given.items():
        if other != over and sizes is not None:
            raise ValueError(
                f"{plural(other)} are given, but size is {over!r}, which is what grows; give "
                f"{plural(over)}, or size={other!r}"
            )
    own = given.get(over)
    sizes = tuple(_USUAL[over] if own is None else own)
    if over == "density":
        sizes = tuple(parse_density(size, "one of densities") for size in sizes)
    if len(set(sizes)) < 2 or len(set(sizes)) < len(sizes):
        shown = ", ".join(map(str, sizes))
        raise ValueError(f"{plural(over)} are [{shown}]; expected at least two different ones")
    return tuple(sorted(sizes))


def folded(size: Any) -> int:
    """A whole number that stands for a size, to draw from a key of its own at each."""
    return int(size) if isinstance(size, int | np.integer) else round(size * 2**20)


def shapes(build: Build, widths: Sequence[Any], over: Over = "width") -> list[PyTree]:
    """The model at each width or depth, of which nothing is computed.

    **Raises:** `ValueError` for arrays without a scaling law, and if the models don't have the same
    base width, or depth.
    """
    with traced("build"):
        models = [eqx.filter_eval_shape(build, width, jax.random.key(0)) for width in widths]
    for model in models:
        require_complete(eqx.filter(model, lambda x: isinstance(x, jax.ShapeDtypeStruct)))
    _CHECKS[over](widths, models)
    return models


def _check_bases(widths: Sequence[int], models: Sequence[PyTree]) -> None:
    """Holds every fan to be its ratio times one size at the base width, the same in all models."""
    by_path: dict[str, list[Weight]] = {}
    for model in models:
        for path, weight in weights_with_paths(model).items():
            by_path.setdefault(path, []).append(weight)
    for weights in by_path.values():
        ratios = [weight.spec.width_ratio for weight in weights]
        fans = _own_fans(weights)
        # A role that is forced on axes that stay has the width's ratio.
        sizes = fans if len(set(fans)) > 1 or set(ratios) == {1} else widths
        bases = {size / ratio for size, ratio in zip(sizes, ratios, strict=True) if ratio}
        if len(bases) > 1:
            shown = sorted({w / ratio for w, ratio in zip(widths, ratios, strict=True) if ratio})
            raise ValueError(
                f"the models at widths {', '.join(map(str, widths))} have different base widths, "
                f"{', '.join(map(str, shown))}; give parameterize the same base_width at every "
                f"width{see(Section.base_widths)}"
            )


def _check_base_depths(depths: Sequence[int], models: Sequence[PyTree]) -> None:
    """Holds depths to be their ratios times one base depth, and all else to stay."""
    shown = ", ".join(map(str, depths))
    first, *others = named_weights(models, "depth")
    for name, (path, weight) in first.items():
        weights = [weight, *(other[name][1] for other in others)]
        if len({(one.spec.width_ratio, _own_fan(one)) for one in weights}) > 1:
            raise ValueError(
                f"{path} has other sizes, or another width ratio, at some of the depths {shown}; "
                "build(depth, key) must make models of one width and base width"
            )
        ratios = [one.spec.size_ratio("depth") for one in weights]
        bases = {depth / ratio for depth, ratio in zip(depths, ratios, strict=True)}
        if len(bases) > 1 and set(ratios) != {1}:
            raise ValueError(
                f"the models at depths {shown} have different base depths, "
                f"{', '.join(map(str, sorted(bases)))}; give parameterize the same base_depth at "
                f"every depth{see(Section.depth)}"
            )


def _check_base_densities(densities: Sequence[Any], models: Sequence[PyTree]) -> None:
    """Holds each weight's density to be its ratio times one of the base, and all else to stay."""
    shown = ", ".join(map(str, densities))
    by_model = [weights_with_paths(model) for model in models]
    masked = False
    for path, first in by_model[0].items():
        specs = [weights[path].spec for weights in by_model]
        shapes = {weights[path].value.shape for weights in by_model}
        if len(shapes) > 1 or len({spec.width_ratio for spec in specs}) > 1:
            raise ValueError(
                f"{path} has other sizes, or another width ratio, at some of the densities "
                f"{shown}; build(density, key) must make models of one width and base width"
            )
        if first.spec.density is None:
            continue
        masked = True
        ratios = [spec.size_ratio("density") for spec in specs]
        pairs = zip(specs, ratios, strict=True)
        bases = {spec.density / ratio for spec, ratio in pairs if spec.density is not None}
        if len(bases) > 1 and set(ratios) != {1}:
            raise ValueError(
                f"{path} has different base densities, {', '.join(map(str, sorted(bases)))}, at "
                f"the densities {shown}; give sparsify the same base_density at every density"
            )
    if not masked:
        raise ValueError(
            f"no weight is masked at the density {densities[0]}; build(density, key) must return "
            "scalex_eqx.sparsify(model, density, key=key)"
        )


_CHECKS: dict[Over, Callable[..., None]] = {
    "width": _check_bases,
    "depth": _check_base_depths,
    "density": _check_base_densities,
}


def _own_fans(weights: Sequence[Weight]) -> list[int]:
    """Of a vector with several axes that grow, as `parameterize` reads it, the last of them."""
    spec = weights[0].spec
    shapes = [weight.value.shape for weight in weights]
    growing = [axis for axis in spec.fan_out if len({shape[axis] for shape in shapes}) > 1]
    if spec.fan_in or len(growing) < 2:
        return [_own_fan(weight) for weight in weights]
    return [shape[growing[-1]] for shape in shapes]


def _own_fan(weight: Weight) -> int:
    spec, shape = weight.spec, weight.value.shape
    axes = spec.fan_in if spec.role in (Role.hidden, Role.readout) else spec.fan_out
    return math.prod(shape[axis] for axis in axes)


def named_weights(models: Sequence[PyTree], over: Over) -> list[dict[str, tuple[str, Weight]]]:
    """The path and the weight behind each name that the models are compared by."""
    found = [stacked_paths(model) for model in models]
    if over != "depth":
        return found
    return [placed(weights, own) for weights, own in zip(found, positions(found), strict=True)]


def stacked_paths(model: PyTree) -> dict[str, tuple[str, Weight]]:
    """The path and the weight behind each name, layers of a stack by themselves."""
    found = {}
    for path, weight in weights_with_paths(model).items():
        shape = weight.value.shape
        for index in np.ndindex(shape[: len(weight.spec.stack_axes(len(shape)))]):
            found["/".join([path, *map(str, index)])] = (path, weight)
    return found
