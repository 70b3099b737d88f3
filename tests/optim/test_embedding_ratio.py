"""Another embedding rate, as an optimizer takes it."""

from typing import Any

import equinox as eqx
import jax
import pytest

import scalex_eqx as sx
from scalex_eqx.theory import with_embedding_ratio

RATE = 2.0**-7


def make(width: int) -> list[Any]:
    """Inner layers of another rate of growth: 6 -> 16 where the width goes 4 -> 16."""
    inner = {4: 6, 8: 10, 16: 16}[width]
    first, second, third, fourth = jax.random.split(jax.random.key(0), 4)
    return [
        sx.nn.Embedding(5, width, key=first),
        sx.nn.Linear(width, inner, key=second),
        sx.nn.Linear(inner, width, key=third),
        sx.nn.Readout(width, 5, key=fourth),
    ]


@pytest.fixture(scope="module", params=[sx.standard, sx.mup], ids=lambda law: law.name)
def model(request: Any) -> Any:
    def build() -> Any:
        return sx.parameterize(
            make, width=16, base_width=4, parameterization=request.param, probe_width=8
        )

    return eqx.filter_eval_shape(build)


def rates_of(model: Any, rates: Any) -> dict[str, float | None]:
    tx = sx.adam(RATE, rates)
    return {row.path: row.learning_rate_factor for row in sx.plan(model, tx).rows}


def test_sizes_that_grow_at_other_rates_keep_theirs(model):
    specs = {path: w.spec for path, w in sx.weights_with_paths(model).items()}
    assert any(spec.sizes for spec in specs.values())
    law = specs["0/weight"].parameterization
    assert law is not None
    full = rates_of(model, sx.full_alignment)
    assert rates_of(model, with_embedding_ratio(law, "adam", sx.full_alignment, ratio=1)) == full
    half = rates_of(model, with_embedding_ratio(law, "adam", sx.full_alignment, ratio="1/2"))
    # r = 4: the root of the width less.
    one, other = full.pop("0/weight"), half.pop("0/weight")
    assert one is not None and other == one / 2
    assert half == full


def test_a_path_goes_before_the_role(model):
    rates = with_embedding_ratio(sx.standard, "adam", sx.full_alignment, ratio="1/2")
    assert rates_of(model, {**rates, "0/weight": 0})["0/weight"] == 1
