"""The check over the density: right models pass, planted faults are rejected and named.

At a reduced size: two masked layers of width 32 that keep 4 and 32 of 32 inputs, three seeds
and two steps. `tests/scaling/density_exponents.py` measures the exponents of one layer.
"""

import functools
import re
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import (
    CoordinateCheck,
    coordinate_check,
    coordinate_figure,
    prescribe,
)

from ._checks import checked

WIDTH, DENSITIES = 32, ("1/8", 1)
ADAM = sx.adam(0.01)


def build(
    density: Any, key: Any, *, spread: float = 0.0, largest: bool = False, **options: Any
) -> Any:
    model = sx.parameterize(
        lambda width: eqx.nn.MLP(8, 4, width, 3, activation=jnp.tanh, key=key),
        width=WIDTH,
        base_width=WIDTH,
        parameterization=sx.mup,
    )
    options = {"pattern": "balanced", **options}
    found = sx.sparsify(model, density, key=jax.random.fold_in(key, 1), **options)
    return of_the_largest(found, model) if largest else scaled(found, spread)


def of_the_largest(masked: Any, dense: Any) -> Any:
    """The masked model with as many of the largest entries of the dense one in place of its own."""

    def one(weight: Any, whole: Any) -> Any:
        if type(weight) is not sx.Masked:
            return weight
        density, value = float(weight.spec.density or 1), whole.value
        least = jnp.sort(jnp.abs(value).ravel())[-round(density * value.size)]
        mask = jnp.abs(value) >= least
        return sx.Masked(jnp.where(mask, value * density**-0.5, 0), weight.spec, mask)

    return sx.map_weights(one, masked, dense)


def scaled(tree: Any, exponent: float) -> Any:
    """Masked weights, or their updates, times a power of their density."""

    def one(x: Any) -> Any:
        density = x.spec.density if isinstance(x, sx.Weight) else None
        if density is None:
            return x
        return jax.tree.map(
            lambda v: v * float(density) ** exponent if eqx.is_inexact_array(v) else v, x
        )

    return jax.tree.map(one, tree, is_leaf=lambda x: isinstance(x, sx.Weight))


def by_density(exponent: float) -> optax.GradientTransformation:
    """What no rule here does: updates that follow the density once more."""
    return optax.chain(
        sx.scale_by_adam(),
        sx.scale_by_width("adam", sx.full_alignment),
        optax.stateless(lambda updates, _: scaled(updates, exponent)),
        optax.scale(-0.01),
    )


def loss(model: Any, x: Any, y: Any) -> Any:
    return jnp.mean(jnp.square(jax.vmap(sx.resolve(model))(x) - y))


def batch(key: Any) -> Any:
    x = jax.random.normal(key, (32, 8))
    return x, x[:, :4]


def check(tx: Any, *, densities: Any = DENSITIES, **options: Any) -> CoordinateCheck:
    made = functools.partial(build, **options)
    return checked(made, loss, tx, batch, size="density", densities=densities)


def test_right_models_pass():
    found = check(ADAM)
    assert found.verdict == "passes", str(found)
    assert found.widths == (Fraction(1, 8), 1)
    assert str(found).startswith("densities 1/8, 1, 3 seeds, 2 steps: exponents of sizes")
    row = next(row for row in found.rows if row.name == "layers/1/weight")
    assert row.initial is not None and row.update is not None and row.alpha is not None
    # Of what is kept: it starts as density^-1/2 and moves as density^-1, and the sums over it grow
    # as the density: by less than 1 as far as updates are not quite aligned.
    assert row.initial.value == pytest.approx(-0.5, abs=0.1)
    assert row.update.value == pytest.approx(-1, abs=0.01)
    assert 0.5 < row.alpha.value < 1.1
    assert coordinate_figure(found).axes[0].get_xlabel() == "density"
    with pytest.raises(ValueError, match="one over the density"):
        prescribe(found)


@pytest.mark.parametrize(
    ("tx", "options", "text"),
    [
        pytest.param(
            ADAM,
            {"base_density": None},
            r"learning rate that goes as rho\^\+0\.00, not rho\^-1\.00: under full",
            id="the density left out",
        ),
        pytest.param(
            by_density(2.0),
            {},
            r"moved at first by an amount that goes as rho\^\+1\.00 instead of rho\^-1\.00",
            id="the wrong sign of the rate",
        ),
        pytest.param(
            by_density(-1.0),
            {},
            r"moved at first by an amount that goes as rho\^-2\.00 instead of rho\^-1\.00",
            id="the density counted twice",
        ),
        pytest.param(
            ADAM,
            {"spread": 0.5},
            r"starts with a size that goes as rho\^[-+]0\.0\d instead of rho\^-0\.50",
            id="the spread left out",
        ),
        pytest.param(
            ADAM,
            # Of uniform entries the largest quarter has 1.52 times the root mean square of all.
            {"largest": True, "densities": ("1/4", 1)},
            r"starts with a size that goes as rho\^-0\.(7|8)\d instead of rho\^-0\.50",
            id="masks by magnitude",
        ),
    ],
)
def test_faults_are_rejected_by_name(tx: Any, options: Any, text: str):
    found = check(tx, **options)
    assert found.verdict == "rejected", str(found)
    worst = found.findings[0]
    assert worst.weight in ("layers/1/weight", "layers/2/weight"), str(found)
    assert re.search(text, worst.text), worst.text


def test_models_that_differ_in_more_are_refused():
    def own_base(density: Any, key: Any) -> Any:
        return build(density, key, base_density=Fraction(density) ** 2)

    def dense(density: Any, key: Any) -> Any:
        return sx.parameterize(
            lambda width: eqx.nn.MLP(8, 4, width, 3, key=key),
            width=WIDTH,
            base_width=WIDTH,
            parameterization=sx.mup,
        )

    for wrong, message in (
        (own_base, "layers/1/weight has different base densities, 1/64, 1"),
        (dense, "no weight is masked at the density 1/8"),
    ):
        with pytest.raises(ValueError, match=message):
            coordinate_check(wrong, loss, ADAM, batch, size="density", densities=DENSITIES)
    with pytest.raises(ValueError, match="densities are given, but size is 'width'"):
        coordinate_check(build, loss, ADAM, batch, densities=DENSITIES)
