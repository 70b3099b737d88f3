"""How the gradient of every weight scales with the width, beside the theory."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._spec import WeightSpec
from .._traced import traced
from .._weight import require_complete
from ..theory import Role
from ._columns import columns
from ._coordinates._growth import sloped, slopes
from ._coordinates._law import SYMBOLS
from ._coordinates._models import (
    Number,
    Over,
    folded,
    named_weights,
    plural,
    sizes_of,
    stacked_paths,
)
from ._coordinates._positions import placed, positions
from ._coordinates._run import (
    by_layer,
    by_seed,
    inputs_of,
    layer_size,
    map_layers,
    without_gradient,
)
from ._exponent import Exponent, fit_exponent
from ._results import Table


@dataclasses.dataclass(frozen=True)
class GradientExponent:
    r"""A weight's gradient, whose entries go as $n^p$ with the width $n$.

    **Arguments:**

    - `name`, `role`: of the weight.
    - `size`: its root mean square at the smallest width, geometric mean over seeds; 0 where it has
        no exponent.
    - `measured`: $p$ as measured; `None` where a gradient is zero up to rounding.
    - `relative`: $p$ without that of the logits' cotangent.
    - `expected`: $-g$, what theory says of `relative`.
    """

    name: str
    role: Role
    size: float
    measured: Exponent | None
    relative: Exponent | None
    expected: float


@dataclasses.dataclass(frozen=True)
class GradientExponents:
    """The gradients of a model at initialisation; printed, a table.

    **Arguments:**

    - `weights`: by the name of the weight, layers of a stack by themselves.
    - `cotangent`: the exponent of the objective's gradient with respect to the model's output,
        which the theory takes to be 0.
    - `widths`, `seeds`: at which.
    - `over`: what grows: `"width"`, `"depth"` or `"density"`; then the numbers of `widths` are
        depths, or densities.
    """

    weights: Mapping[str, GradientExponent]
    cotangent: Exponent
    widths: tuple[Number, ...]
    seeds: tuple[int, ...]
    over: Over = "width"

    def at(self, width: int) -> dict[str, float]:
        """Each gradient's root mean square at a width, by the exponent that was measured.

        What Adam's epsilon has to stay below, and `scalex stress` has as the lower edge. Weights
        whose gradient has no exponent, `None` in `weights` and a dash in the table, are not in it.
        """
        ratio = width / self.widths[0]
        return {
            name: weight.size * ratio**weight.measured.value
            for name, weight in self.weights.items()
            if weight.measured is not None
        }

    def __str__(self) -> str:
        header = ["weight", "role", "size", "gradient", "relative", "theory"]
        rows = [[name, str(weight.role), *_cells(weight)] for name, weight in self.weights.items()]
        head = (
            f"{plural(self.over)} {', '.join(map(str, self.widths))}, {len(self.seeds)} seeds: "
            f"exponents of gradients that go as {SYMBOLS[self.over]}^p; the output's cotangent has "
            f"{self.cotangent}"
        )
        return "\n".join([head, columns([header, *rows], text=2)])

    def table(self, name: str = "gradients") -> Table:
        """The weights as a table that can be stored and compared."""
        rows = [
            {
                "weight": name,
                "role": str(weight.role),
                "size": weight.size,
                "gradient": None if weight.measured is None else weight.measured.value,
                "relative": None if weight.relative is None else weight.relative.value,
                "theory": weight.expected,
            }
            for name, weight in self.weights.items()
        ]
        return Table(name, ("weight",), tuple(rows[0]), rows, tolerance=0.1)


def gradient_exponents(
    build: Callable[[int, PRNGKeyArray], PyTree],
    apply: Callable[..., Array],
    objective: Callable[..., Array],
    batch: Callable[[PRNGKeyArray], tuple[Any, ...]],
    *,
    widths: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    densities: Sequence[Fraction | int | float | str] | None = None,
    size: Over = "width",
    seeds: Sequence[int] = (0, 1, 2, 3),
) -> GradientExponents:
    r"""Measures the exponents of all gradients at initialisation.

    The loss is `objective(apply(model, *inputs), *inputs)`. The theory's exponents $g$ are those
    under a cotangent $\partial \text{loss} / \partial \text{output}$ of order one. The real one's
    exponent is measured as well, and taken off: softmax's shrinks or grows a little with the width,
    as the logits do.

    **Arguments:**

    - `build`, `batch`, `widths`, `depths`, `densities`, `size`, `seeds`: as in
        [`scalex_eqx.diagnostics.coordinate_check`][].
    - `apply`: `apply(model, *inputs)`, the model's output.
    - `objective`: `objective(output, *inputs)`, a scalar.

    **Returns:** a `GradientExponents`.

    **Raises:** `ValueError` for fewer than two widths and for a model with arrays without a scaling
    law.
    """
    ordered = sizes_of(size, {"width": widths, "depth": depths, "density": densities})
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    with traced("build, apply or objective"):
        found = [_at_width(build, apply, objective, batch, width, keys) for width in ordered]
        models = [eqx.filter_eval_shape(build, width, jax.random.key(0)) for width in ordered]
    require_complete(models[0])
    if size == "depth":
        found = _at_one_place(found, models)
    cotangent = fit_exponent(ordered, [[size for _, size in row] for row in found])
    if cotangent is None:
        raise ValueError(
            "the objective's gradient with respect to the model's output is zero or not finite; "
            "the exponents of weights' gradients can't be told from it"
        )
    idle = without_gradient([[gradients for gradients, _ in row] for row in found])
    by_width = named_weights(models, size)
    weights = {}
    for name, (_, weight) in by_width[0].items():
        role = weight.spec.role
        if weight.spec.is_trained and role is not None:
            expected = _expected(ordered, [one[name][1].spec for one in by_width])
            weights[name] = (
                GradientExponent(name, role, 0.0, None, None, expected)
                if name in idle
                else _exponent(name, weight.spec, ordered, found, expected)
            )
    return GradientExponents(weights, cotangent, ordered, tuple(seeds), size)


def _at_one_place(found: Sequence[Any], models: Sequence[PyTree]) -> list[Any]:
    """Of the layers of each model those that are compared, by their common names."""
    names = positions([stacked_paths(model) for model in models])
    return [
        [(placed(gradients, own), cotangent) for gradients, cotangent in row]
        for row, own in zip(found, names, strict=True)
    ]


_Found = Sequence[Sequence[tuple[dict[str, float], float]]]
"""By width and seed: the size of every weight's gradient, and the cotangent's."""


def _at_width(
    build, apply, objective, batch, width, keys
) -> Sequence[tuple[dict[str, float], float]]:
    def one(key):
        model = build(width, jax.random.fold_in(key, folded(width)))
        inputs = inputs_of(batch, jax.random.fold_in(key, 0))
        params, static = eqx.partition(model, eqx.is_inexact_array)
        output, pull_back = jax.vjp(
            lambda params: apply(eqx.combine(params, static), *inputs), params
        )
        cotangent = jax.grad(functools.partial(_first, objective, inputs))(output)
        (gradient,) = pull_back(cotangent)
        return map_layers(layer_size, gradient, masked=0.5), layer_size(cotangent, 0)

    return [
        (by_layer(gradients), float(cotangent))
        for gradients, cotangent in by_seed(jax.jit(jax.vmap(one))(keys), len(keys))
    ]


def _first(objective, inputs, output):
    return objective(output, *inputs)


def _exponent(
    name: str, spec: WeightSpec, widths: Sequence[int], found: _Found, expected: float
) -> GradientExponent:
    sizes = np.array([[gradients[name] for gradients, _ in row] for row in found])
    relative = sizes / np.array([[size for _, size in row] for row in found])
    measured = fit_exponent(widths, sizes.tolist())
    assert spec.role is not None
    return GradientExponent(
        name,
        spec.role,
        float(np.exp(np.mean(np.log(sizes[0])))) if measured is not None else 0.0,
        measured,
        fit_exponent(widths, relative.tolist()),
        expected,
    )


def _expected(widths: Sequence[int], specs: Sequence[WeightSpec]) -> float:
    return 0.0 - sloped(specs[-1].gradient_power, slopes(widths, specs))


def _cells(weight: GradientExponent) -> list[str]:
    shown = ["-" if one is None else str(one) for one in (weight.measured, weight.relative)]
    return [f"{weight.size:.2g}", *shown, f"{weight.expected:+.2f}"]
