"""Trains a model at several widths for a few steps, and measures what a coordinate check needs."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..._traced import traced
from ..._weight import Weight, weights_with_paths
from ...optim._muon import as_matrix
from .._alignment import MeasuredAlignment, MeasuredAlignments, with_alignment
from .._capture import NotFollowed
from ._models import Build, Number, Over, folded, named_weights, stacked_paths
from ._positions import placed, positions

Batch = Callable[[PRNGKeyArray], tuple[Any, ...]]
Advance = Callable[[Any, int, int], None]

# A gradient that is so much smaller than the largest of all is what rounding leaves of zero.
_NO_GRADIENT = 1e-6


@dataclasses.dataclass(frozen=True)
class Measurements:
    """What was measured at every width and seed.

    **Arguments:**

    - `widths`, `seeds`, `steps`: at which, and after which steps.
    - `uses`: by step, width and seed, the uses of weights by name.
    - `gradients`, `last_gradients`, `moved`, `decay`, `entries`: by width and seed, by the weights'
        names: the root mean square of the first gradient, and of that of the last step; the share
        of the entries that the first update changed; the share of the weight that is taken off by
        a step without gradient; and the number of entries.
    - `peaks`: by width and seed, of weights whose updates are judged by their largest singular
        value: that of the first update as a share of its norm.
    - `losses`: (widths, seeds, steps + 1) on the batch that the activations are looked at on.
    - `models`: a model's shapes for each width.
    - `not_followed`: weights whose uses were not all found.
    - `order`: the names of the uses in the order in which the model reaches them.
    - `flow`: as in `Captured`.
    - `over`: what the numbers of `widths` are.
    """

    widths: tuple[Number, ...]
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    uses: dict[int, list[list[dict[str, MeasuredAlignment]]]]
    gradients: list[list[dict[str, float]]]
    last_gradients: list[list[dict[str, float]]]
    moved: list[list[dict[str, float]]]
    decay: list[list[dict[str, float]]]
    entries: list[dict[str, int]]
    peaks: list[list[dict[str, float]]]
    losses: np.ndarray
    models: list[PyTree]
    not_followed: tuple[NotFollowed, ...]
    order: tuple[str, ...]
    flow: tuple[tuple[str, str], ...]
    over: Over = "width"


def measure(
    build: Build,
    loss: Callable[..., Array],
    tx: optax.GradientTransformation,
    batch: Batch,
    *,
    widths: Sequence[Any],
    models: Sequence[PyTree],
    seeds: Sequence[int],
    steps: Sequence[int],
    spectral: frozenset[str] = frozenset(),
    advance: Advance | None = None,
    over: Over = "width",
) -> Measurements:
    """Everything, width after width; `advance(width, done, total)` is called between steps.

    `models` are the model's `shapes` at the widths, or at depths, `spectral` the paths of the
    weights of whose first update the largest singular value is taken.
    """
    found = []
    for index, width in enumerate(widths):
        told = functools.partial(_tell, advance, width, index, len(widths))
        found.append(_at_width(build, loss, tx, batch, width, seeds, steps, spectral, told))
    if over == "depth":
        found = _at_one_place(found, models)
    firsts = [one["first"] for one in found]
    return Measurements(
        widths=tuple(widths),
        seeds=tuple(seeds),
        steps=tuple(steps),
        uses={step: [one["uses"][step] for one in found] for step in steps},
        gradients=[[seed["gradient"] for seed in first] for first in firsts],
        last_gradients=[one["last_gradients"] for one in found],
        moved=[[seed["moved"] for seed in first] for first in firsts],
        decay=[[seed["decay"] for seed in first] for first in firsts],
        entries=[_entries(weights) for weights in named_weights(models, over)],
        peaks=[[seed["peak"] for seed in first] for first in firsts],
        losses=np.stack([one["losses"] for one in found]),
        models=list(models),
        not_followed=tuple(dict.fromkeys(lost for one in found for lost in one["not_followed"])),
        order=found[-1]["order"],
        flow=tuple(dict.fromkeys(pair for one in found for pair in one["flow"])),
        over=over,
    )


def _at_one_place(found: Sequence[dict[str, Any]], models: Sequence[PyTree]) -> list[Any]:
    """What was measured at each depth, of the layers that are compared, by their common names."""
    of_weights = positions([stacked_paths(model) for model in models])
    of_uses = positions([one["order"] for one in found])
    return [
        {
            **one,
            "uses": {
                step: [placed(seed, uses) for seed in seeds] for step, seeds in one["uses"].items()
            },
            "first": [
                {kind: placed(sizes, weights) for kind, sizes in seed.items()}
                for seed in one["first"]
            ],
            "last_gradients": [placed(seed, weights) for seed in one["last_gradients"]],
            "order": tuple(
                shown for name in one["order"] for shown, own in uses.items() if own == name
            ),
        }
        for one, weights, uses in zip(found, of_weights, of_uses, strict=True)
    ]


def _tell(advance: Advance | None, width: Any, index: int, widths: int, share: float) -> None:
    if advance is not None:
        advance(width, round(100 * (index + share)), 100 * widths)


def _at_width(build, loss, tx, batch, width, seeds, steps, spectral, told) -> dict[str, Any]:
    # What is no array in a model, an activation or a flag, stays as it is.
    every = eqx.if_array(0)
    start = eqx.filter_jit(eqx.filter_vmap(functools.partial(_start, build, tx, width)))
    step = eqx.filter_jit(
        eqx.filter_vmap(
            functools.partial(_step, loss, tx, batch, spectral), in_axes=(every, every, None)
        )
    )
    look = eqx.filter_jit(eqx.filter_vmap(functools.partial(_look, loss, batch)))
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    told(0.0)
    with traced("build"):
        initial, state = start(keys)
    model, losses, uses, first, lost, order, value = initial, [], {}, [], (), (), None
    pairs, last = (), []
    for count in range(1, max(steps) + 1):
        with traced("loss"):
            (model, state), (value, sizes) = step((model, state), keys, jnp.asarray(count - 1))
        losses.append(np.asarray(value))
        if count == 1:
            first = by_seed(sizes, len(seeds))
        if count == max(steps):
            last = [by_layer(one) for one in by_seed(sizes["gradient"], len(seeds))]
        if count in steps:
            value, measured = look(initial, model, keys)
            lost, order, pairs = measured.not_followed, measured.order, measured.flow
            uses[count] = [one.by_layer() for one in by_seed(measured, len(seeds))]
        told(0.9 * count / max(steps))
    losses.append(np.asarray(value))
    return {
        "uses": uses,
        "first": [{kind: by_layer(tree) for kind, tree in one.items()} for one in first],
        "losses": np.stack(losses, axis=1),
        "not_followed": lost,
        "order": _in_order(order, list(uses[max(steps)][0])),
        "flow": pairs,
        "last_gradients": last,
    }


def _in_order(paths: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The names of uses as the model reaches them; within a scan, layer by layer."""
    layers = {path: [name for name in names if _is_layer(name, path)] for path in paths}
    found: list[str] = []
    for _, group in itertools.groupby(paths, key=lambda path: len(layers[path])):
        for turn in zip(*(layers[path] for path in group), strict=True):
            found += turn
    return tuple(found)


def _is_layer(name: str, path: str) -> bool:
    rest = name.removeprefix(f"{path}/")
    return name == path or (rest != name and rest.replace("/", "").isdigit())


def _start(build, tx, width, key):
    model = build(width, jax.random.fold_in(key, folded(width)))
    return model, tx.init(eqx.filter(model, eqx.is_inexact_array))


def _step(loss, tx, batch, spectral, carry, key, count):
    model, state = carry
    params = eqx.filter(model, eqx.is_inexact_array)
    inputs = inputs_of(batch, jax.random.fold_in(key, count))
    value, gradient = eqx.filter_value_and_grad(loss)(model, *inputs)
    update, new_state = tx.update(gradient, state, params)
    still, _ = tx.update(jtu.tree_map(jnp.zeros_like, gradient), state, params)
    sizes = {
        "gradient": map_layers(layer_size, gradient, masked=0.5),
        "moved": map_layers(lambda u, kept: _mean(u != 0, kept), update, masked=1.0),
        "decay": map_layers(_share, still, params),
        "peak": _peaks(update, spectral),
    }
    return (eqx.apply_updates(model, update), new_state), (value, sizes)


def _look(loss, batch, initial, model, key) -> tuple[Array, MeasuredAlignments]:
    inputs = inputs_of(batch, jax.random.fold_in(key, 0))
    return with_alignment(loss, initial, model, *inputs)


def map_layers(
    f: Callable[..., Array], tree: PyTree, *rest: PyTree, masked: float = 0.0
) -> dict[str, Array]:
    """`f` of each weight's value, with its stack axes as the last argument, by path.

    That of a masked weight is divided by the power `masked` of its density: a mean over all entries
    is then one over those that are kept.
    """
    others = [weights_with_paths(other) for other in rest]
    found = {}
    for path, weight in weights_with_paths(tree).items():
        if eqx.is_inexact_array(weight.value):
            values = (other[path].value for other in others)
            one = f(weight.value, *values, len(weight.spec.stack_axes(weight.value.ndim)))
            density = weight.spec.density
            found[path] = one if density is None else one * float(density) ** -masked
    return found


def _peaks(update: PyTree, spectral: frozenset[str]) -> dict[str, Array]:
    """The largest singular value over the norm, of each layer's matrix."""
    found = {}
    for path, weight in weights_with_paths(update).items():
        if path in spectral:
            matrix = as_matrix(weight.spec, weight.value.astype(jnp.float32))
            unit = jnp.max(jnp.abs(matrix), axis=(-2, -1), keepdims=True)
            values = jnp.linalg.svd(matrix / jnp.where(unit > 0, unit, 1), compute_uv=False)
            norm = jnp.sqrt(jnp.sum(jnp.square(values), axis=-1))
            # The largest singular value is that of the whole matrix, also of a masked one.
            kept = math.sqrt(weight.spec.density or 1)
            found[path] = kept * values[..., 0] / jnp.where(norm > 0, norm, 1)
    return found


def _mean(x: Array, kept: int) -> Array:
    return jnp.mean(x.astype(jnp.float32), axis=tuple(range(kept, x.ndim)))


def layer_size(x: Array, kept: int) -> Array:
    """The root mean square of each layer, in units of its largest entry."""
    x = x.astype(jnp.float32)
    axes = tuple(range(kept, x.ndim))
    unit = jnp.max(jnp.abs(x), axis=axes, keepdims=True)
    unit = jnp.where(unit > 0, unit, 1)
    return jnp.squeeze(unit, axes) * jnp.sqrt(_mean(jnp.square(x / unit), kept))


def _share(update: Array, weight: Array, kept: int) -> Array:
    part, whole = layer_size(update, kept), layer_size(weight, kept)
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), 0)


def without_gradient(gradients: Sequence[Sequence[Mapping[str, float]]]) -> list[str]:
    """Weights whose gradient is zero up to rounding at some width.

    `gradients` are the sizes by width and seed, by the weights' names.
    """
    idle = []
    for name in gradients[0][0]:
        shares = [
            max(seed[name] / (max(seed.values()) or 1.0) for seed in width) for width in gradients
        ]
        if not min(shares) > _NO_GRADIENT:
            idle.append(name)
    return idle


def inputs_of(batch: Batch, key: PRNGKeyArray) -> tuple[Any, ...]:
    """What `batch` makes.

    **Raises:** `ValueError` if it is no tuple, and would be taken apart along an array's axis.
    """
    inputs = batch(key)
    if not isinstance(inputs, tuple | list):
        raise ValueError(
            f"batch(key) is a {type(inputs).__name__}; expected the tuple of the inputs behind the "
            "model, as in loss(model, *inputs): return (x,) for a single one"
        )
    return tuple(inputs)


def by_seed(tree: PyTree, count: int) -> list[PyTree]:
    """A tree for each index of the leading axis."""
    tree = jax.device_get(tree)
    return [jtu.tree_map(lambda x, i=i: x[i], tree) for i in range(count)]


def by_layer(sizes: dict[str, Any]) -> dict[str, float]:
    """Stacked layers apart, numbered behind the path."""
    return {
        "/".join([path, *map(str, index)]): float(np.asarray(array)[index])
        for path, array in sizes.items()
        for index in np.ndindex(np.shape(array))
    }


def _entries(weights: Mapping[str, tuple[str, Weight]]) -> dict[str, int]:
    found = {}
    for name, (_, weight) in weights.items():
        shape = weight.value.shape
        stack = len(weight.spec.stack_axes(len(shape)))
        found[name] = round(int(np.prod(shape[stack:])) * (weight.spec.density or 1))
    return found
