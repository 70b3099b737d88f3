"""Adam's least epsilon, and gradients whose squares underflow."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.optim._adam_rule import effective_eps

TINY = 2.0**-126
# sqrt(tiny / (1 - b2)).
LEAST = {0.95: 4.848e-19, 0.999: 3.428e-18, 0.99999: 3.428e-17}
NORMALS = np.random.default_rng(0).normal(size=(60, 1, 256)).astype(np.float32)


@pytest.mark.parametrize("b2", LEAST)
def test_the_least_epsilon(weight, b2: float):
    spec = weight([[1.0]], ratio=1).spec
    for eps in (0.0, 1e-30, 1e-19):
        found = effective_eps(spec, eps, "constant", b2, jnp.float32)
        assert found == pytest.approx(LEAST[b2], rel=1e-3)
    assert effective_eps(spec, 1e-12, "constant", b2, jnp.float32) == 1e-12


def test_it_is_compared_with_the_scaled_epsilon(weight):
    """muP's hidden gradient exponent is 1."""
    spec = weight([[1.0]], ratio=1024).spec
    assert effective_eps(spec, 1e-12, "gradient", 0.999, jnp.float32) == 1e-12 / 1024
    least = effective_eps(spec, 1e-15, "gradient", 0.999, jnp.float32)
    assert least == pytest.approx(LEAST[0.999], rel=1e-3)
    assert effective_eps(spec, 1e-15, "constant", 0.999, jnp.float32) == 1e-15


def test_double_precision_has_room(weight, x64):
    spec = weight([[1.0]], ratio=1).spec
    assert effective_eps(spec, 1e-30, "constant", 0.999, jnp.float64) == 1e-30


@pytest.mark.parametrize("traced", [(), ("eps",), ("b2",), ("eps", "b2")])
def test_traced_ones_are_clamped_too(weight, traced: tuple[str, ...]):
    spec = weight([[1.0]], ratio=1).spec
    numbers: dict[str, Any] = {"eps": 1e-30, "b2": 0.999}
    numbers |= {name: jnp.asarray(numbers[name]) for name in traced}

    def eps_of(numbers):
        return jnp.asarray(
            effective_eps(spec, numbers["eps"], "constant", numbers["b2"], jnp.float32)
        )

    assert float(eps_of(numbers)) == pytest.approx(LEAST[0.999], rel=1e-3)
    assert float(eps_of(numbers | {"eps": 1e-9})) == pytest.approx(1e-9)


@pytest.mark.parametrize("b2", [0.95, 0.999])
@pytest.mark.parametrize("eps", [0.0, 1e-30, 1e-12])
def test_no_gradient_makes_a_large_update(weight, b2: float, eps: float):
    """At every scale that float32 has, not even twice what it is at scale one."""
    tx: Any = sx.scale_by_adam(0.9, b2, eps)

    @jax.jit
    def largest(scale):
        def step(state, gradient):
            update, state = tx.update(weight(gradient * scale), state)
            return state, jnp.max(jnp.abs(update.value))

        state = tx.init(weight(NORMALS[0]))
        return jnp.max(jax.lax.scan(step, state, jnp.asarray(NORMALS))[1])

    sizes = {k: float(largest(jnp.float32(2.0**k))) for k in range(-149, 60, 2)}
    assert max(sizes.values()) <= 1.5 * sizes[-1]


def test_without_the_clamp_they_explode(weight):
    """The second moment of a gradient near 1e-19 is zero, and epsilon all there is to divide by."""
    tiny = weight([[1e-20]])
    with jax.numpy_dtype_promotion("standard"):
        tx: Any = optax.scale_by_adam(eps=1e-30)
        update, _ = tx.update(tiny, tx.init(tiny))
    assert update.value.item() > 1e9


def test_epsilon_may_be_a_function_of_the_spec(weight):
    def eps(spec: sx.WeightSpec) -> float:
        return 1e-3 if spec.role == "hidden" else 1e-2

    tx: Any = sx.scale_by_adam(eps=eps)
    gradient = {"w": weight([[1e-3]]), "b": weight([1e-3], "constant")}
    update, _ = tx.update(gradient, tx.init(gradient))
    assert update["w"].value.item() == pytest.approx(1 / (1 + 1 / 4), rel=1e-5)
    assert update["b"].value.item() == pytest.approx(1 / (1 + 10), rel=1e-5)


@pytest.mark.parametrize("beta", [0.9, 0.999, 0.99999])
def test_the_weights_of_a_moment_add_up(weight, beta: float):
    """A constant gradient: after a thousand steps the second moment has not drifted from
    1 - beta^t times its square, where the usual form is off by 0.1 % at 0.99999."""
    tx: Any = sx.scale_by_adam(beta, beta)
    gradient = weight([[0.3]])
    steps = 1000

    @jax.jit
    def run(state):
        return jax.lax.fori_loop(0, steps, lambda _, s: tx.update(gradient, s)[1], state)

    state = run(tx.init(gradient))
    mass = -np.expm1(steps * np.log(beta))
    # A rounding of half an ulp in every step, of the increments' sum and of the mean.
    tolerance = steps * 2.0**-25 * 2
    assert state.mu.value.item() == pytest.approx(mass * np.float32(0.3), rel=tolerance)
    assert state.nu.value.item() == pytest.approx(mass * np.float32(0.3) ** 2, rel=tolerance)
