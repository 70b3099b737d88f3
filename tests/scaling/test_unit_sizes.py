"""Every size in a unit-scaled Transformer at the start, and the exceptions by name and number."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx

from ._unit_sizes import differences, layers

WIDTH, DEPTH, D, LENGTH, BATCH, VOCABULARY = 128, 3, 16, 64, 8, 256


@functools.cache
def found():
    """The root mean squares by kind and weight, a number for each layer; one program."""

    def make(width):
        return sx.nn.unit.Transformer(
            vocabulary_size=VOCABULARY,
            width=width,
            depth=DEPTH,
            head_dimension=D,
            key=jax.random.key(0),
        )

    model = sx.parameterize(make, width=WIDTH, parameterization=sx.u_mup)
    tokens = jnp.asarray(np.random.default_rng(3).integers(0, VOCABULARY, (BATCH, LENGTH + 1)))
    measured = sx.diagnostics.scales(
        lambda model, batch: model.loss(batch[:, :-1], batch[:, 1:], mapped=1),
        model,
        sx.adam(1.0),
        lambda key: tokens,
        steps=1,
        at=[0],
        key=jax.random.key(1),
    )
    return {(row.kind, row.weight): row.size for row in measured.rows}


def sizes(kind, name):
    return np.array([found()[kind, f"blocks/attention/{name}/weight[{i}]"] for i in range(DEPTH)])


def test_all_sizes_are_about_one_but_for_those_behind_attention():
    """What comes out of a product before its factor, which no format holds, is left out."""
    outside = {key for key, size in found().items() if key[0] != "output" and not 0.5 <= size <= 2}
    attention = "blocks/attention/{}/weight[{}]"
    expected = {("input", attention.format("output", 2))}
    for name in ("query", "key"):
        expected |= {("output gradient", attention.format(name, i)) for i in range(DEPTH)}
        expected |= {("weight gradient", attention.format(name, 2))}
    assert outside == expected
    # Five kinds at 7 weights of 3 layers and the readout; nothing goes into an embedding.
    assert len(found()) == 5 * (7 * DEPTH + 1) + 4


def test_what_attention_puts_out_is_as_large_as_correlated_positions_make_it():
    """In the limit 1.07, 1.91 and 2.72: 8 x 64 positions of 128 features are within a tenth."""
    expected = [size for size, _ in layers(LENGTH, DEPTH, same=1 / VOCABULARY)]
    np.testing.assert_allclose(sizes("input", "output"), expected, rtol=0.1)
    np.testing.assert_allclose(expected, [1.07, 1.91, 2.72], atol=0.01)


@pytest.mark.parametrize("name", ["query", "key"])
def test_gradients_of_queries_and_keys_fall_with_the_differences_of_values(name):
    """m / sqrt(d) times how much of the values differs, of a gradient that has its own size."""
    of_differences = np.array(
        [differences(inner) for _, inner in layers(LENGTH, DEPTH, same=1 / VOCABULARY)]
    )
    np.testing.assert_allclose(of_differences, [0.84, 0.66, 0.53], atol=0.01)
    back = sizes("output gradient", "output")
    np.testing.assert_allclose(
        sizes("output gradient", name), back * of_differences * D**-0.5, rtol=0.15
    )
    # The weights' are brought back by sqrt(d) / m.
    np.testing.assert_allclose(sizes("weight gradient", name), back * of_differences, rtol=0.2)


def test_independent_positions_would_be_of_size_one_at_any_length():
    """The control: without what later layers have in common nothing grows with the length."""
    first = [layers(length, 1, same=0)[0][0] for length in (64, 256)]
    # The sum of 1 / t is ln S + 0.577, for which the factor has ln S alone.
    expected = [
        ((np.log(s) + 0.577) / s) ** 0.5 * (np.log(s) / s) ** (-0.5 * (1 - 1 / 65))
        for s in (64, 256)
    ]
    np.testing.assert_allclose(first, expected, rtol=1e-2)
    grown = [layers(length, DEPTH, same=0)[-1][0] for length in (64, 256)]
    assert grown[1] > 1.5 * grown[0] > 3
