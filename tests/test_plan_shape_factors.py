"""Optax's factors for a weight's shape: whose axes they take, and whether a law counts them too."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import scalex_eqx as sx

TOLD = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=0)
TURNED = "takes axis 0 for the inputs of first/weight, readout/weight, whose laws"
TWICE = "follows the width by itself, and learning rates do once more"


def make(width: int) -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(0), 3)
    return {
        "first": sx.nn.Linear(4, width, key=keys[0]),
        "square": sx.nn.Linear(width, width, key=keys[1]),
        "readout": sx.nn.Readout(width, 2, key=keys[2]),
    }


def model(width: int) -> Any:
    return sx.parameterize(make, width=width, base_width=16, parameterization=sx.standard)


def told(params: Any) -> Any:
    return jax.tree.map(lambda x: TOLD if x.ndim == 2 else None, params)


def scaled(*parts: Any) -> Any:
    return optax.chain(*parts, sx.scale_by_width("muon", sx.full_alignment))


# What of the two is wrong, and of which weights the second.
CASES: dict[str, tuple[Any, bool, str | None]] = {
    "plain": (optax.contrib.muon(0.02), True, None),
    "with dimension numbers": (
        optax.contrib.muon(0.02, muon_weight_dimension_numbers=told),
        False,
        None,
    ),
    # Its factor is the same for a weight and its transpose.
    "as large as Adam's": (optax.contrib.muon(0.02, consistent_rms=0.2), False, None),
    "plain, scaled": (scaled(optax.contrib.muon(0.02)), True, "(readout/weight)"),
    "told, scaled": (
        scaled(optax.contrib.muon(0.02, muon_weight_dimension_numbers=told)),
        False,
        "(first/weight)",
    ),
    "as large as Adam's, scaled": (
        scaled(optax.contrib.muon(0.02, consistent_rms=0.2)),
        False,
        "(first/weight, readout/weight, square/weight)",
    ),
    "ours": (sx.muon(0.02), False, None),
}


@pytest.mark.parametrize("name", CASES)
def test_the_plan_sees_axes_and_double_scaling(name: str):
    tx, turned, twice = CASES[name]
    warnings = sx.plan(jax.eval_shape(lambda: model(64)), tx).warnings
    assert any(TURNED in w for w in warnings) == turned
    found = [w for w in warnings if TWICE in w]
    assert len(found) == (twice is not None)
    if twice is not None:
        assert found[0].endswith(twice)


def exponents(tx: Any) -> dict[str, float]:
    """Of the first update's entries, over widths."""
    widths, sizes = (64, 256), []
    for width in widths:
        params = model(width)
        gradient = jax.tree.map(lambda x: jax.random.normal(jax.random.key(1), x.shape), params)
        with jax.numpy_dtype_promotion("standard"):
            updates, _ = tx.update(gradient, tx.init(params), params)
        found = sx.weights_with_paths(updates)
        sizes.append({path: float(jnp.std(w.value)) for path, w in found.items()})
    return {path: np.log(sizes[1][path] / sizes[0][path]) / np.log(4) for path in sizes[0]}


def test_what_comes_of_it():
    """The readout's update falls as n^-1/2 where n^-1 is meant.

    Two rows keep singular values of Newton-Schulz, 0.7 to 1.2: an exponent of 0.2 between widths.
    """
    meant = exponents(scaled(sx.scale_by_muon()))
    assert meant["readout/weight"] == pytest.approx(-1, abs=0.2)
    found = exponents(scaled(optax.contrib.muon(1.0)))
    assert found["readout/weight"] == pytest.approx(-0.5, abs=0.2)
