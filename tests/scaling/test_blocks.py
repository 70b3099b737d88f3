"""Gated blocks with fixed key-value heads, rounded inner sizes and experts as the width grows.

At a reduced size; `block_checks.py`, `feature_changes.py` and `expert_sizes.py` beside this file
measure more.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx import nn
from scalex_eqx.diagnostics import gradient_exponents

from . import feature_changes
from ._blocks import BASE, LENGTH, VOCABULARY, batch, build, check
from ._measure import FAST_COMPILE


def test_the_coordinate_check_passes():
    found = check(sx.mup)
    assert found.verdict == "passes", str(found)
    roles = {row.name: row.law.role for row in found.rows}
    inner = ("attention/key/weight/0", "attention/value/weight/0", "mlp/router/weight/0")
    assert {roles[f"blocks/{name}"] for name in inner} == {sx.Role.hidden}
    # What is in front of few features is changed along the rows that they have.
    omegas = {row.name: row.omega for row in found.rows}
    values, queries = (omegas[f"blocks/attention/{name}/weight/0"] for name in ("value", "query"))
    assert values is not None and queries is not None
    assert values.value > queries.value + 0.1


def test_values_that_are_taken_for_a_readout_are_rejected():
    """By the shapes they are one: in muP what comes out of them vanishes."""
    found = check(sx.mup, role=None)
    assert found.verdict == "rejected"
    assert found.findings[0].weight == "blocks/attention/value/weight"
    assert "roles={'blocks/attention/value/weight': 'hidden'}" in found.findings[0].text


def test_a_router_whose_rate_leaves_out_its_fan_in_is_rejected():
    """And nothing else is: the others pass in the standard parameterization."""
    exponents = sx.theory.learning_rate_exponents(sx.standard, "adam", sx.full_alignment)
    found = check(sx.standard, sx.adam(0.01, {**exponents, "*/router/weight": 0}))
    assert found.verdict == "rejected"
    assert {finding.weight for finding in found.findings} == {"blocks/mlp/router/weight/0"}


def test_gradients_of_what_is_fixed_inside():
    """Of fixed key-value heads and the router, by the law: their fan-out has the ratio 1.

    The exponents of six seeds have standard errors of 0.05 or less.
    """
    found = gradient_exponents(
        functools.partial(build, sx.mup),
        lambda model, tokens, cotangent: model(tokens),
        lambda logits, tokens, cotangent: jnp.sum(logits * cotangent),
        lambda key: (
            batch(key)[0],
            jax.random.normal(jax.random.fold_in(key, 1), (8, LENGTH, VOCABULARY)),
        ),
        widths=(BASE, 16 * BASE),
        seeds=range(6),
    ).weights
    names = ("attention/key/weight", "attention/value/weight", "attention/key_norm/gain")
    for name in (*names, "mlp/router/weight"):
        weight = found[f"blocks/{name}/0"]
        assert weight.expected == -0.5
        assert weight.measured is not None
        assert weight.measured.value == pytest.approx(-0.5, abs=0.2), name
    # One whose fan-out grows is told apart.
    query = found["blocks/attention/query/weight/0"].measured
    assert query is not None and query.value == pytest.approx(-1, abs=0.2)


def test_changes_of_gated_blocks_are_of_one_size():
    """The furthest of the command's exponents is 0.16; a global rate has 0.65 and more here."""
    make, widths = feature_changes.MODELS["experts"], (64, 256)
    found = feature_changes.exponents(make, sx.mup, sx.full_alignment, widths, 3)
    assert max(map(abs, found.values())) < 0.3
    wrong = feature_changes.exponents(make, sx.mup, sx.global_rate, widths, 1)
    assert min(wrong.values()) > 0.5


def test_the_output_of_a_mixture_keeps_its_size_for_any_number_of_experts():
    """With two of them to a token; with half of all, it falls as the root of the number."""

    def size(experts: int, top_k: int, seed) -> jax.Array:
        key = jax.random.key(seed)
        mixture = nn.MixtureOfExperts(24, 24, experts=experts, top_k=top_k, key=key)
        x = jax.random.normal(jax.random.fold_in(key, 1), (16, 24))
        return jnp.sqrt(jnp.mean(jax.vmap(mixture)(x)[0] ** 2))

    def exponent(numbers) -> float:
        sizes = [
            np.mean(
                np.log2(
                    jax.jit(jax.vmap(functools.partial(size, *own)), compiler_options=FAST_COMPILE)(
                        jnp.arange(8)
                    )
                )
            )
            for own in numbers
        ]
        return (sizes[1] - sizes[0]) / np.log2(numbers[1][0] / numbers[0][0])

    assert abs(exponent([(4, 2), (32, 2)])) < 0.1
    assert abs(exponent([(4, 2), (32, 16)]) + 0.5) < 0.1
