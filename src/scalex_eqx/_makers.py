"""Which functions an optimizer was made by, as far as Python lets it be seen."""

import collections
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import PyTree

from ._parts import Lives
from ._weight import weights_with_paths


class Maker(NamedTuple):
    """The function that a transformation was made by, and its package."""

    name: str
    package: str


class ShapeFactor(NamedTuple):
    r"""A factor of Optax's that follows a weight's shape.

    **Arguments:**

    - `axes`: by the weight's path, those that it takes for the inputs and for the outputs.
    - `is_rms`: whether it is $\sqrt{\max(\text{fan-in}, \text{fan-out})}$, and not
        $\sqrt{\max(1, \text{fan-out} / \text{fan-in})}$.
    """

    axes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    is_rms: bool


class Makers(NamedTuple):
    """What the closures of an optimizer's functions show, by the name of the state's part."""

    names: dict[str, Maker]
    lives: dict[str, frozenset[str]]
    shape_factors: dict[str, ShapeFactor]


def makers(tx: Any, state: Any, params: PyTree) -> Makers:
    """Looks into the functions of an optimizer.

    Optax keeps no names and no masks, so they are those that Python knows its functions by, where
    its wrappers let them be seen. What they don't show is left out.
    """
    found = Makers({}, {}, {})
    _look(tx, state, params, "state", found)
    return found


def masks(tx: Any, state: Any, params: PyTree) -> Lives:
    """The weights that each mask in an optimizer leaves over, where that can be seen."""
    return makers(tx, state, params).lives


def _look(tx: Any, state: Any, params: PyTree, name: str, found: Makers) -> None:
    update = getattr(tx, "update", tx)
    inside = _closure(update)
    chained = inside.get("update_fns", ())
    if type(state) is tuple and isinstance(chained, tuple | list) and len(chained) == len(state):
        for i, (inner, one) in enumerate(zip(state, chained, strict=True)):
            _look(one, inner, params, f"{name}[{i}]", found)
    elif type(state) is collections.OrderedDict and "transforms" in inside:
        for key, one in inside["transforms"]:
            _look(one, state[key], params, f"{name}[{key!r}]", found)
    elif isinstance(state, optax.MultiStepsState):
        inner = getattr(tx, "_opt", getattr(getattr(update, "__self__", None), "_opt", None))
        _look(inner, state.inner_opt_state, params, f"{name}.inner_opt_state", found)
    elif isinstance(state, optax.MaskedState | optax.ApplyIfFiniteState) and "inner" in inside:
        if "mask" in inside:
            params = _masked(inside["mask"], params, name, found)
        _look(inside["inner"], state.inner_state, params, f"{name}.inner_state", found)
    elif isinstance(state, optax.transforms.PartitionState) and "transforms" in inside:
        _look_into_groups(inside, state, params, name, found)
    # What optax.chain makes of a transformation that takes no further arguments.
    elif "tx" in inside and _qualified(update).startswith("with_extra_args_support"):
        _look(inside["tx"], state, params, name, found)
    elif "f" in inside and _qualified(update).startswith("stateless"):
        found.names[name] = _maker(inside["f"], tx)
    else:
        found.names[name] = _maker(update, tx)
        if found.names[name] == Maker("scale_by_shape", "optax"):
            found.shape_factors[name] = _shape_factor(inside, params)


def _look_into_groups(
    inside: Mapping[str, Any], state: Any, params: PyTree, name: str, found: Makers
) -> None:
    labels = inside.get("param_labels")
    for group, inner in state.inner_states.items():

        def mask(tree, group=group):
            named = labels(tree) if callable(labels) else labels
            return jax.tree.map(lambda label: label == group, named)

        within = f"{name}.inner_states[{group!r}]"
        left = _masked(mask, params, within, found)
        tx = inside["transforms"].get(group)
        _look(tx, inner.inner_state, left, f"{within}.inner_state", found)


def _masked(mask: Any, params: PyTree, name: str, found: Makers) -> PyTree:
    """The weights behind a mask; as they were if it can't be asked."""
    try:
        chosen = mask(params) if callable(mask) else mask
        left = jax.tree.map(lambda m, p: p if m else optax.MaskedNode(), chosen, params)
    # A mask is a function of the user's, which may ask for anything but shapes.
    except Exception:
        return params
    found.lives[name] = frozenset(
        path
        for path, weight in weights_with_paths(left).items()
        if not isinstance(weight.value, optax.MaskedNode)
    )
    return left


def _shape_factor(inside: Mapping[str, Any], params: PyTree) -> ShapeFactor:
    numbers = inside.get("weight_dimension_numbers")
    axes = {}
    try:
        named = weights_with_paths(numbers(params) if callable(numbers) else numbers)
        for path, weight in named.items():
            if hasattr(weight.value, "reduction_axis"):
                pair = weight.value.reduction_axis, weight.value.output_axis
                axes[path] = tuple((x,) if isinstance(x, int) else tuple(x) for x in pair)
    # They are a function of the user's, as a mask is.
    except Exception:
        axes = {}
    return ShapeFactor(axes, inside.get("consistent_rms") is not None)


def _maker(function: Any, tx: Any) -> Maker:
    outer = _qualified(function).split(".<locals>.")[:-1]
    package = str(getattr(function, "__module__", "")).partition(".")[0]
    return Maker(outer[-1] if outer else type(tx).__name__, package)


def _qualified(function: Any) -> str:
    return getattr(function, "__qualname__", "")


def _closure(function: Any) -> dict[str, Any]:
    """The variables that a function has from the functions around it."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    found = {}
    for name, cell in zip(getattr(code, "co_freevars", ()), cells or (), strict=False):
        try:
            found[name] = cell.cell_contents
        # Of a variable that was not given a value.
        except ValueError:
            continue
    return found
