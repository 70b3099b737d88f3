"""The models of a check: of several widths, or of several depths, and all else alike."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from ..._pages import Section, see
from ..._traced import traced
from ..._weight import Weight, require_complete, weights_with_paths
from ...theory import Role
from ._positions import placed, positions

Over = Literal["width", "depth"]
"""The size that grows over the models of a check."""

Build = Callable[[int, PRNGKeyArray], PyTree]

_USUAL: dict[Over, tuple[int, ...]] = {"width": (64, 128, 256, 512), "depth": (2, 4, 8, 16)}


def sizes_of(
    over: Over, widths: Sequence[int] | None, depths: Sequence[int] | None
) -> tuple[int, ...]:
    """The widths or depths at which models are built, the smallest first.

    **Raises:** `ValueError` if they are fewer than two, or those of another size are given.
    """
    if over not in _USUAL:
        raise ValueError(f"size is {over!r}; expected 'width' or 'depth'")
    own, other = (widths, depths) if over == "width" else (depths, widths)
    if other is not None:
        wrong = "depths" if over == "width" else "widths"
        raise ValueError(
            f"{wrong} are given, but size is {over!r}, which is what grows; give {over}s, or "
            f"size={wrong[:-1]!r}"
        )
    sizes = tuple(_USUAL[over] if own is None else own)
    if len(set(sizes)) < 2 or len(set(sizes)) < len(sizes):
        raise ValueError(f"{over}s are {list(sizes)}; expected at least two different ones")
    return tuple(sorted(sizes))


def shapes(build: Build, widths: Sequence[int], over: Over = "width") -> list[PyTree]:
    """The model at each width or depth, of which nothing is computed.

    **Raises:** `ValueError` for arrays without a scaling law, and if the models don't have the same
    base width, or depth.
    """
    with traced("build"):
        models = [eqx.filter_eval_shape(build, width, jax.random.key(0)) for width in widths]
    for model in models:
        require_complete(eqx.filter(model, lambda x: isinstance(x, jax.ShapeDtypeStruct)))
    (_check_bases if over == "width" else _check_base_depths)(widths, models)
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
    if over == "width":
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
