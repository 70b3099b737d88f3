"""Rules whose numbers are known are told rightly, whatever they are called."""

import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import MeasuredFamily, family
from scalex_eqx.theory import Power, Role


def leafwise(f: Callable[..., Any]) -> optax.GradientTransformation:
    """A rule without state, of gradient and weight."""
    return optax.stateless(lambda g, w: jax.tree.map(f, g, w))


def root_mean_square(x: Any, axis: Any = None) -> Any:
    return jnp.sqrt(jnp.mean(jnp.square(x), axis, keepdims=axis is not None))


def normal(x: Any) -> Any:
    return x / jnp.linalg.norm(x)


def numbers(found: MeasuredFamily) -> tuple[Any, ...]:
    return found.gradient.together, found.gradient.between, found.weight.together


def padam(k: float, eps: float) -> optax.GradientTransformation:
    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return zeros, zeros

    def update(g: Any, state: Any, params: Any = None) -> Any:
        del params
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state[0], g)
        v = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g**2, state[1], g)
        moved = jax.tree.map(lambda m, v: -1e-3 * m / (v**k + eps), m, v)
        return moved, (m, v)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def test_a_power_of_the_second_moment_and_its_hidden_floor():
    """Padam with k = 1/4 is of degree 1 - 2 k down to gradients of about its epsilon's square."""
    found = family(padam(1 / 4, 5e-3))
    assert numbers(found) == (Fraction(1, 2), Fraction(1, 2), 0) and found.gradient.scope == "entry"
    assert found.family == sx.UpdateFamily("p 1/2, q 0", "1/2", 0)
    assert found.reach.below.startswith(("goes as g^0.9", "goes as g^1"))
    # v is 0.12 to 0.3 mean squares of 1.3 in the steps that count; half is lost at v^(1/4) = eps.
    low, high = 5e-3**2 / np.sqrt(1.3 * np.asarray([0.3, 0.12]))
    assert 0.8 * low < found.reach.low < 1.25 * high
    assert any("below gradients" in note for note in found.notes)
    assert found.state_bytes == 8 and found.without_gradient == "nothing"


def test_one_number_for_the_whole_tree_is_no_family():
    """What makes all gradients larger together doesn't see it."""

    def update(g, w):
        del w
        size = optax.tree.norm(g)
        return jax.tree.map(lambda g: -0.1 * g / size, g)

    found = family(optax.stateless(update))
    assert numbers(found) == (0, 1, 0) and found.gradient.scope == "tree"
    assert found.family is None and "between layers" in found.reasons[0]
    assert found.zero_first == "NaN for good" and found.without_gradient == "makes them NaN"
    assert json.loads(found.to_json())["gradient"]["between"] == "1"
    assert "between layers" in str(found)


def test_rows_and_a_law_of_the_fan():
    """Each row by its own size, and all divided by the root of the fan-in, which is axis 1."""

    def update(g, w):
        del w
        size = root_mean_square(g, -1)
        return -1e-3 * g / size / jnp.sqrt(g.shape[-1] if g.ndim == 2 else 1)

    found = family(leafwise(update))
    assert numbers(found) == (0, 0, 0)
    assert found.gradient.scope == found.shape.scope == "row"
    half = Power(fan_in="1/2")
    assert found.family is not None and found.family.of_role(Role.hidden).norm == "entries"
    offsets = {
        role: found.family.of_role(role).offset_power(role) for role in Role if role.is_matrix
    }
    assert offsets == {Role.embedding: Power(), Role.hidden: half, Role.readout: half}
    c = sx.theory.learning_rate_exponents(sx.standard, found.family, sx.full_alignment)
    assert c[Role.hidden] == Fraction(1, 2)


def test_decay_a_schedule_and_every_third_step_are_no_matter():
    """They are measured by themselves, and an argument of another name is handed on."""

    def init(w: Any) -> Any:
        del w
        return ()

    def update(g: Any, state: Any, w: Any, *, temperature: Any, **_: Any) -> Any:
        del temperature
        return jax.tree.map(lambda g, w: -0.1 * g - 0.003 * w, g, w), state

    rule = optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore
    tx = optax.chain(rule, optax.scale_by_schedule(lambda t: (t + 1) / 40), optax.apply_every(3))
    with pytest.raises(ValueError, match=r"temperature.*given by extra"):
        family(tx)
    found = family(tx, extra=lambda params, gradients, value: {"temperature": value})
    assert numbers(found) == (1, 1, 0) and found.family == sx.theory.sgd
    assert found.period == 3
    assert np.isclose(found.decay, 0.003 * (1 + 2 + 3) / 40, rtol=1e-3)


def test_singular_values_of_one():
    """A largest singular value of one is Muon's family; vectors are moved by their size."""

    def update(g, w):
        if g.ndim < 2:
            return -1e-3 * jnp.sign(g) * root_mean_square(w)
        v = jnp.ones(g.shape[1])
        v = jax.lax.fori_loop(0, 30, lambda _, v: normal(g.T @ (g @ v)), v)
        return -1e-3 * g / jnp.linalg.norm(g @ v)

    found = family(leafwise(update))
    assert found.shape.norm == "spectral" and found.gradient.scope == "tensor"
    assert found.family is not None
    assert found.family.of_role(Role.hidden) == sx.theory.muon
    assert found.family.of_role(Role.vector) == sx.theory.adafactor


def test_degrees_without_a_name():
    """A power of the weight, and one of the gradient that no simple fraction is near."""

    def update(g, w):
        return -1e-3 * jnp.sign(g) * jnp.abs(g) ** 0.37 * jnp.sqrt(root_mean_square(w) + 1e-20)

    found = family(leafwise(update))
    p, between, q = numbers(found)
    assert abs(p - 0.37) < 1e-3 and abs(between - 0.37) < 1e-3 and isinstance(p, float)
    assert q == Fraction(1, 2) and found.weight.scope == "tensor"
    assert any("0.370" in note for note in found.notes)
    assert found.zero_weight == "3.2e-10 times as far at first"
    # As scale_by_width takes it.
    assert found.family is not None
    sx.scale_by_width(found.family, sx.full_alignment)


def test_what_is_no_rule():
    with pytest.raises(ValueError, match="no init and no update"):
        family(optax.adam)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="expected 'out, in' or 'in, out'"):
        family(optax.sgd(1.0), layout="rows")  # pyright: ignore[reportArgumentType]
