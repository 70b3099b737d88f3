"""Edges at which gradients of different factors are added."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import unequal_edges
from scalex_eqx.nn import unit
from scalex_eqx.ops import scaled

WIDTH = 16


def transformer():
    def make(width):
        return unit.Transformer(
            vocabulary_size=8, width=width, depth=3, head_dimension=8, key=jax.random.key(0)
        )

    return sx.parameterize(make, width=WIDTH, parameterization=sx.u_mup)


def loss(model, tokens):
    return model.loss(tokens[:, :-1], tokens[:, 1:], mapped=1)


TOKENS = jnp.zeros((2, 9), int)


def constrained(layer_of, constraint):
    model = transformer()
    object.__setattr__(layer_of(model), "constraint", constraint)
    return unequal_edges(loss, model, TOKENS)


def test_the_transformer_has_none():
    assert unequal_edges(loss, transformer(), TOKENS) == ()


def test_a_way_out_that_does_not_take_back_is_named():
    edges = constrained(lambda model: model.blocks.mlp.down, "to_output_scale")
    assert {edge.through for edge in edges} != set()
    # The branch's gradient is halved: its way in has 1 / sqrt(4) and its way out no longer 2.
    assert all(min(edge.ratio, 1 / edge.ratio) == pytest.approx(0.5) for edge in edges)
    assert any("blocks/mlp" in name for edge in edges for name in edge.through)


def test_one_of_two_parallel_ways_is_named():
    edges = constrained(lambda model: model.blocks.mlp.gate, "to_output_scale")
    assert {"blocks/mlp/up/weight", "blocks/mlp/gate/weight"} in [
        set(edge.through) for edge in edges
    ]
    assert "meet" in str(edges[0]) and "to_output_scale" in str(edges[0])


class Twice(eqx.Module):
    """A weight that is used twice, behind each other."""

    layer: unit.Linear
    out: unit.Readout
    constraint: str | None = eqx.field(static=True)

    def __call__(self, x):
        x = self.layer(x, mapped=1)
        if self.constraint:
            x = scaled.scale(x, backward=0.25)
        return jnp.sum(self.out(self.layer(x, mapped=1), mapped=1))


@pytest.mark.parametrize("constraint", [None, "other"])
def test_a_weight_that_is_used_twice(constraint):
    def make(width):
        keys = jax.random.split(jax.random.key(0))
        layer = unit.Linear(width, width, key=keys[0])
        return Twice(layer, unit.Readout(width, 3, key=keys[1]), constraint)

    model = sx.parameterize(make, width=WIDTH, parameterization=sx.u_mup)
    edges = unequal_edges(lambda model, x: model(x), model, jnp.ones((2, WIDTH)))
    assert len(edges) == (constraint is not None)


def test_factors_that_are_arrays_are_compared_by_how_they_are_computed():
    def through(model, x, tau, other):
        branch, skip = scaled.residual_split(x, tau)
        return jnp.sum(scaled.residual_add(jnp.tanh(branch), skip, other) * model)

    x, tau = jnp.ones(3), jnp.asarray(0.5)
    assert unequal_edges(lambda m, x, t: through(m, x, t, t), x, x, tau) == ()
    assert len(unequal_edges(lambda m, x, t: through(m, x, t, 2 * t), x, x, tau)) == 1
