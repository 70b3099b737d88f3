"""One update family for each role: Muon on the trunk's matrices, Adam on the rest."""

import dataclasses
from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx import theory
from scalex_eqx.theory import Power, Role, UpdateFamily
from scalex_eqx.theory._role import TRAINED

HALF = Fraction(1, 2)
# The entries of a matrix of spectral norm 1 and rank 1, on which its input is aligned.
MUON = UpdateFamily("muon", 0, 0, {"hidden": Power(fan_in=HALF, fan_out=HALF)})
MIXED = dict.fromkeys(TRAINED, "adam") | {Role.hidden: MUON}
PARAMETERIZATIONS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_each_role_has_the_exponent_of_its_family(parameterization):
    """Adam's and Muon's updates don't depend on each other."""
    mixed = theory.learning_rate_exponents(parameterization, MIXED, sx.full_alignment)
    adam = theory.learning_rate_exponents(parameterization, "adam", sx.full_alignment)
    # A hidden matrix of spectral norm 1, whatever its width, changes its output by order one.
    assert mixed == adam | {Role.hidden: -parameterization.a.hidden}


@pytest.mark.parametrize("family", ["sgd", "adam", "adafactor"])
def test_the_same_family_for_all_is_that_family(family: str):
    assert theory.as_family(dict.fromkeys(TRAINED, family)) is theory.as_family(family)


def test_a_readout_is_kept_small_for_what_follows_the_gradient_before_it():
    """Under SGD the readout's update is bounded for the sake of the others, whatever its own."""
    sgd_before = dict.fromkeys(TRAINED, "sgd") | {Role.readout: theory.adam}
    layers = {
        layer.role: layer for layer in theory.solve(sx.mup, sgd_before, sx.no_alignment).layers
    }
    assert layers[Role.readout].update == layers[Role.readout].a + layers[Role.readout].b == 1
    free = theory.solve(sx.mup, "adam", sx.no_alignment).layers[-1]
    assert free.update == HALF


def test_families_by_role_print_and_compare():
    family = theory.as_family(MIXED)
    assert family.name == "muon of hidden, else adam"
    assert family == theory.as_family(dict(reversed(MIXED.items())))
    assert hash(family) == hash(theory.as_family(MIXED))
    assert family.of_role(Role.hidden) is MUON


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hidden": "adam"}, "lack embedding, readout, vector, constant; expected one for each"),
        (MIXED | {"buffer": "adam"}, "name 'buffer'"),
        (MIXED | {Role.hidden: "adm"}, "family 'adm' is unknown"),
    ],
)
def test_what_is_no_family_by_role(given, message: str):
    with pytest.raises(ValueError, match=message):
        theory.as_family(given)


def test_an_offset_is_exponents_or_powers():
    with pytest.raises(ValueError, match=r"offset of family 'x'.*mapping from role to Power"):
        UpdateFamily("x", 0, 0, {"buffer": Power(fan_in=HALF)})
    assert dataclasses.replace(MUON, name="muon") == MUON


def model(width: int):
    """A trunk with an inner width that grows by another rate."""
    inner = {32: 48, 64: 112, 128: 224}[width]
    keys = jax.random.split(jax.random.key(0), 4)
    sizes = ((8, width), (width, inner), (inner, width), (width, 4))
    return [
        eqx.nn.Linear(*size, use_bias=False, key=key) for size, key in zip(sizes, keys, strict=True)
    ]


def test_an_offset_counts_each_size_by_itself():
    """The rate of a matrix of spectral norm 1 is (out / in)^1/2, whatever the two ratios."""
    scaled = sx.parameterize(model, width=128, base_width=32, parameterization=sx.standard)
    tx = optax.chain(
        optax.scale_by_sign(), sx.scale_by_width(MIXED, sx.full_alignment), optax.scale(-1.0)
    )
    params = eqx.filter(scaled, eqx.is_inexact_array)
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(ones, tx.init(params), params)
    found = {path: -float(w.value[0, 0]) for path, w in sx.weights_with_paths(updates).items()}
    width, inner = 4.0, 224 / 48
    assert found == pytest.approx(
        {
            "0/weight": 1.0,
            "1/weight": (inner / width) ** 0.5,
            "2/weight": (width / inner) ** 0.5,
            "3/weight": 1 / width,
        }
    )
    rows = {row.path: row.learning_rate_factor for row in sx.plan(scaled, tx).rows}
    assert rows == pytest.approx(found)
    assert "family muon of hidden, else adam" in str(sx.plan(scaled, tx))
    exported = sx.export_laws(jax.eval_shape(tx.init, params))
    sx.check_laws(jax.eval_shape(tx.init, params), exported)
    (rule,) = [rule for rule in exported["rules"].values() if "family" in rule]
    assert rule["family"]["hidden"]["offset"] == [["hidden", {"fan_in": "1/2", "fan_out": "1/2"}]]
