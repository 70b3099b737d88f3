"""What a weight more costs the host: counted, since times depend on the machine."""

import cProfile
import pstats
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx

KEY = jax.random.key(0)
RULES: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adamw": lambda: sx.adamw(1e-3, 1e-4, decay_mode="independent"),
    "sgd": lambda: sx.sgd(1e-3, momentum=0.9),
}


def model(count: int, width: int = 8):
    drawn = {n: jax.random.normal(KEY, (n, n)) for n in (4, 8, 16)}

    def make(width: int):
        # New arrays that cost nothing to make.
        return {str(i): drawn[width] for i in range(count)}

    return sx.parameterize(make, width=width, base_width=4, parameterization=sx.mup)


def calls(f: Callable[[], Any]) -> int:
    """How many of JAX's Python functions are called; type checkers call none of them."""
    f()  # What is done once a shape is done here.
    profile = cProfile.Profile()
    profile.runcall(f)
    counts: dict[tuple[str, int, str], Any] = vars(pstats.Stats(profile))["stats"]
    return sum(row[1] for (file, _, _), row in counts.items() if "/jax/_src/" in file)


def per_weight(f: Callable[[int], Callable[[], Any]]) -> tuple[float, float]:
    """Calls for each further weight, of few and of many; a trace takes 32 at a time."""
    few, more, many = (calls(f(count)) for count in (32, 64, 128))
    return (more - few) / 32, (many - more) / 64


def traced(name: str) -> Callable[[int], Callable[[], Any]]:
    def at(count: int):
        tx, params = RULES[name](), model(count)
        state = tx.init(params)
        return lambda: jax.make_jaxpr(lambda *args: tx.update(*args))(params, state, params)

    return at


def test_parameterize_costs_the_same_for_each_weight():
    few, many = per_weight(lambda count: lambda: model(count))
    assert many == pytest.approx(few, rel=0.1)
    assert many < 150


@pytest.mark.parametrize("name", RULES)
def test_a_traced_update_costs_the_same_for_each_weight(name):
    few, many = per_weight(traced(name))
    assert many == pytest.approx(few, rel=0.1)
    plain = jax.tree.map(jnp.ones_like, [jnp.ones((8, 8))] * 40)
    twin = optax.adamw(1e-3)
    state = twin.init(plain)
    with jax.numpy_dtype_promotion("standard"):
        optax_calls = calls(
            lambda: jax.make_jaxpr(lambda *args: twin.update(*args))(plain, state, plain)
        )
    assert many < optax_calls / 40


@pytest.mark.parametrize("name", RULES)
def test_init_costs_the_same_for_each_weight(name):
    def at(count: int):
        tx, params = RULES[name](), model(count)
        return lambda: tx.init(params)

    few, many = per_weight(at)
    assert many == pytest.approx(few, rel=0.1)
    x = jnp.ones((8, 8))
    # Adam keeps two arrays for each weight.
    zeros = calls(lambda: [jnp.zeros_like(x, dtype=jnp.float32) for _ in range(10)]) / 10
    assert many < 2 * zeros


class Box:
    """A module that counts how often it is taken apart."""

    count = 0

    def __init__(self, weight: Any):
        self.weight = weight

    def children(self) -> tuple[tuple[Any], None]:
        Box.count += 1
        return (self.weight,), None


jax.tree_util.register_pytree_node(Box, Box.children, lambda _, children: Box(*children))


def test_a_chain_takes_each_of_its_trees_apart_once():
    params: Any = {"box": Box(model(1)["0"])}
    tx = sx.adamw(1e-3, 1e-4, decay_mode="independent")

    def counted(f: Callable[[], Any]) -> tuple[int, Any]:
        Box.count = 0
        result = f()
        return Box.count, result

    count, state = counted(lambda: tx.init(params))
    assert count == 1
    # The gradients, the weights and two moments.
    count, (updates, state) = counted(lambda: tx.update(params, state, params))
    assert count == 4
    assert isinstance(updates["box"], Box) and isinstance(state[0].mu["box"], Box)
    # One rule by itself takes some of them apart again.
    rule = sx.scale_by_adam()
    assert counted(lambda: rule.update(params, rule.init(params), params))[0] > 4


def test_states_share_no_memory():
    tx, params = sx.adam(1e-3), model(3)
    arrays = [x for x in jax.tree.leaves(tx.init(params)) if x.ndim]
    assert len({x.unsafe_buffer_pointer() for x in arrays}) == len(arrays) == 6


def test_formulas_of_equal_shapes_keep_their_own_numbers():
    """One shape under two laws, and a multiplier that is traced."""
    wide, narrow = model(1), model(1, width=4)
    narrow = jax.tree.map(lambda x: jnp.tile(x, (2, 2)), narrow)
    params = [wide, narrow, wide]

    def step(gamma) -> Any:
        tx = sx.adam(1e-3, role_multipliers={"hidden": gamma})
        return tx.update(params, tx.init(params), params)[0]

    def rms(tree) -> float:
        return float(jnp.sqrt(jnp.mean(jnp.square(jax.tree.leaves(tree)[0]))))

    found = list(map(rms, jax.jit(step)(3.0)))
    np.testing.assert_allclose(found, [1.5e-3, 3e-3, 1.5e-3], rtol=1e-4)
    np.testing.assert_allclose(found, list(map(rms, step(3.0))), rtol=1e-5)


def test_an_error_about_a_shared_factor_names_the_weight():
    spec = sx.WeightSpec((-1,), (-2,), 1.0, sx.Role.hidden, sx.mup, Fraction(2**20))
    params: Any = {"block": {"w": sx.Weight(jnp.ones((2, 2)), spec)}}
    tx = sx.scale_by_width("adam", {"hidden": "6"})
    with pytest.raises(ValueError, match="the learning rate of block/w: the factor"):
        tx.init(params)
    state: Any = tx.init({})
    with pytest.raises(ValueError, match="the learning rate of block/w: the factor"):
        tx.update(params, state, params)
