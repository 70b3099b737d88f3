"""Models of any build: third-party modules, containers, stacks, parameter dictionaries, state."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx import Role

KEY = jax.random.key(0)
BASE, WIDTH = 8, 32


def scaled(make, parameterization=sx.mup, width: int = WIDTH, **options):
    return sx.parameterize(
        make, width=width, base_width=BASE, parameterization=parameterization, **options
    )


def roles(model) -> dict[str, Role | None]:
    return {path: weight.spec.role for path, weight in sx.weights_with_paths(model).items()}


# A third-party module


class Gate(eqx.Module):
    """Arrays of its own beside layers in lists and dictionaries, and things that are no weights."""

    mix: jax.Array
    scale: jax.Array
    temperature: jax.Array
    layers: dict[str, list[eqx.nn.Linear]]
    norm: "Norm"
    count: jax.Array
    key: jax.Array
    name: str

    def __init__(self, width: int, *, key: Any = KEY):
        keys = jax.random.split(key, 4)
        self.mix = jax.random.normal(keys[0], (width, width)) / width**0.5
        self.scale = jnp.ones(width)
        self.temperature = jnp.ones(())
        self.layers = {
            "down": [eqx.nn.Linear(width, 3, key=keys[1])],
            "up": [eqx.nn.Linear(3, width, key=k) for k in keys[2:]],
        }
        self.norm = Norm(width)
        self.count = jnp.asarray(3)
        self.key = jax.random.key(7)
        self.name = "gate"

    def __call__(self, x):
        first, second = self.layers["up"]
        h = self.norm(self.scale * jnp.tanh(self.mix @ first(x)) + second(x))
        return self.layers["down"][0](h) / self.temperature


class Norm(eqx.nn.LayerNorm):
    """A subclass, with an array more."""

    shift: jax.Array

    def __init__(self, width: int):
        super().__init__(width, use_bias=False)
        self.shift = jnp.zeros(width)

    def __call__(self, x):  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().__call__(x) + self.shift


GATE = {
    "mix": Role.hidden,
    "scale": Role.vector,
    "temperature": Role.constant,
    "layers/down/0/weight": Role.readout,
    "layers/down/0/bias": Role.constant,
    "layers/up/0/weight": Role.embedding,
    "layers/up/0/bias": Role.vector,
    "layers/up/1/weight": Role.embedding,
    "layers/up/1/bias": Role.vector,
    "norm/weight": Role.vector,
    "norm/shift": Role.vector,
}


def test_an_unmodified_module_of_someone_else():
    model = scaled(Gate)
    assert roles(model) == GATE
    assert (int(model.count), model.name) == (3, "gate")
    assert jnp.array_equal(jax.random.key_data(model.key), jax.random.key_data(jax.random.key(7)))
    resolved = sx.resolve(model)
    assert type(resolved) is Gate
    assert jtu.tree_structure(resolved) == jtu.tree_structure(Gate(WIDTH))
    assert np.all(np.isfinite(eqx.filter_jit(resolved)(jnp.ones(3))))


def test_at_the_base_width_it_is_the_original():
    x = jnp.arange(3.0)
    assert np.array_equal(sx.resolve(scaled(Gate, width=BASE))(x), Gate(BASE)(x))


def test_it_trains_and_what_is_no_weight_stays():
    def loss(model, x):
        return jnp.mean(jnp.square(sx.resolve(model)(x) - 1))

    model, x = scaled(Gate), jnp.ones(3)
    tx = sx.adam(1e-2)
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state):
        value, gradient = eqx.filter_value_and_grad(loss)(model, x)
        updates, state = tx.update(gradient, state)
        return eqx.apply_updates(model, updates), state, value

    values = []
    for _ in range(20):
        model, state, value = step(model, state)
        values.append(float(value))
    assert values[-1] < 0.1 * values[0]
    assert roles(model) == GATE
    assert int(model.count) == 3


class Pair(NamedTuple):
    left: Any
    right: Any


def test_containers_and_own_layers_mix():
    def make(width: int):
        own = sx.nn.Linear(width, width, key=KEY)
        return Pair([own, (eqx.nn.Linear(width, 2, key=KEY), None)], {"b": jnp.zeros(width)})

    assert roles(scaled(make)) == {
        "left/0/weight": Role.hidden,
        "left/1/0/weight": Role.readout,
        "left/1/0/bias": Role.constant,
        "right/b": Role.vector,
    }


# Stacks


class Block(eqx.Module):
    attention: eqx.nn.MultiheadAttention
    norm: eqx.nn.LayerNorm
    conv: eqx.nn.Conv1d
    out: eqx.nn.Linear

    def __init__(self, width: int, key: Any):
        keys = jax.random.split(key, 3)
        self.attention = eqx.nn.MultiheadAttention(width // 4, width, key=keys[0])
        self.norm = eqx.nn.LayerNorm(width)
        self.conv = eqx.nn.Conv1d(width, width, 3, padding=1, key=keys[1])
        self.out = eqx.nn.Linear(width, width, key=keys[2])

    def __call__(self, x):
        y = jax.vmap(self.norm)(x)
        x = x + self.attention(y, y, y)
        return x + jax.vmap(self.out)(self.conv(x.T).T)


def stack(width: int, key: Any = KEY) -> Block:
    return eqx.filter_vmap(lambda key: Block(width, key))(jax.random.split(key, 3))


def run(blocks: Block, x):
    arrays, static = eqx.partition(blocks, eqx.is_array)
    return jax.lax.scan(lambda x, a: (eqx.combine(a, static)(x), None), x, arrays)[0]


def test_stacked_layers_have_stack_axes_and_scan():
    model = scaled(stack, sx.ntk)
    for path, weight in sx.weights_with_paths(model).items():
        matrix = weight.value.ndim > 2 and not path.endswith("bias")
        assert weight.spec.role is (Role.hidden if matrix else Role.vector)
        assert weight.spec.stack_axes(weight.value.ndim) == (0,)
    resolved, x = sx.resolve(model), jnp.linspace(-1.0, 1.0, 5 * WIDTH).reshape(5, WIDTH)
    found = eqx.filter_jit(run)(resolved, x)
    for i in range(3):
        x = jtu.tree_map(lambda a, i=i: a[i] if eqx.is_array(a) else a, resolved)(x)
    np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-4)


def test_a_bare_stack_of_vectors_is_ambiguous():
    def make(width: int):
        return {"gains": jnp.ones((3, width))}

    with pytest.raises(ValueError, match=r'a stack of vectors with layouts=\{"gains": \("out",\)'):
        scaled(make)
    spec = scaled(make, layouts={"gains": ("out",)})["gains"].spec
    assert (spec.role, spec.stack_axes(2)) == (Role.vector, (0,))


# A parameter dictionary, as Flax has them


def flax_parameters(width: int, key: Any = KEY) -> dict[str, Any]:
    """Kernels are stored as (in, out); flax.linen draws them with variance 1 / in."""
    keys = jax.random.split(key, 3)
    sizes = [(5, width), (width, width), (width, 2)]
    return {
        "params": {
            f"Dense_{i}": {
                "kernel": jax.random.normal(k, size) / size[0] ** 0.5,
                "bias": jnp.zeros(size[1]),
            }
            for i, (k, size) in enumerate(zip(keys, sizes, strict=True))
        }
    }


def apply(variables: dict[str, Any], x):
    for i in range(3):
        layer = variables["params"][f"Dense_{i}"]
        x = x @ layer["kernel"] + layer["bias"]
        x = jax.nn.relu(x) if i < 2 else x
    return x


@pytest.mark.parametrize("options", [{}, {"layouts": {"*/kernel": ("in", "out")}}])
def test_a_parameter_dictionary(options):
    """Its names say what the axes are, and may be overruled."""
    model = scaled(flax_parameters, **options)
    assert roles(model) == {
        "params/Dense_0/bias": Role.vector,
        "params/Dense_0/kernel": Role.embedding,
        "params/Dense_1/bias": Role.vector,
        "params/Dense_1/kernel": Role.hidden,
        "params/Dense_2/bias": Role.constant,
        "params/Dense_2/kernel": Role.readout,
    }
    x = jnp.linspace(-1.0, 1.0, 5)
    assert apply(sx.resolve(model), x).shape == (2,)
    assert sx.weights_with_paths(model)["params/Dense_0/kernel"].spec.fan_in == (-2,)
    base = scaled(flax_parameters, width=BASE, layouts={"*/kernel": ("in", "out")})
    assert np.array_equal(apply(sx.resolve(base), x), apply(flax_parameters(BASE), x))


def test_without_layouts_every_ambiguous_matrix_is_listed():
    def make(width: int):
        layers = flax_parameters(width)["params"].values()
        return {f"{i}": {"matrix": x["kernel"], "bias": x["bias"]} for i, x in enumerate(layers)}

    with pytest.raises(ValueError) as caught:
        scaled(make)
    message = str(caught.value)
    assert "0/matrix: shape (5, 8) at the base width and (5, 16) at" in message
    assert 'an embedding with layouts={"0/matrix": ("in", "out")}' in message
    assert 'a readout with layouts={"2/matrix": ("in", "out")}' in message
    assert message.count("or pass use=, which is what the training does with a model") == 2
    assert "1/matrix" not in message


# State


class Normalised(eqx.Module):
    linear: eqx.nn.Linear
    norm: eqx.nn.BatchNorm

    def __init__(self, width: int, mode: Any):
        self.linear = eqx.nn.Linear(3, width, key=KEY)
        self.norm = eqx.nn.BatchNorm(width, "batch", mode=mode)

    def __call__(self, x, state):
        return self.norm(self.linear(x), state)


@pytest.mark.parametrize("mode", ["ema", "batch"])
def test_running_statistics_are_left_alone(mode: str):
    model, state = scaled(lambda n: eqx.nn.make_with_state(Normalised)(n, mode))
    names = ["linear/weight", "linear/bias", "norm/weight", "norm/bias"]
    assert list(roles(model)) == names
    assert roles(state) == {}
    sx.require_complete(model)
    x = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)

    @eqx.filter_jit
    def run(model, state):
        call = jax.vmap(sx.resolve(model), axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        return call(x, state)

    y, after = run(model, state)
    assert y.shape == (4, WIDTH)
    assert not eqx.tree_equal(after, state)


def test_a_stateful_model_may_be_parameterized_before_its_state_is_taken():
    def make():
        return scaled(lambda n: Normalised(n, "batch"))

    model, state = eqx.nn.make_with_state(make)()
    assert roles(model) == roles(make())
    assert jnp.all(state.get(model.norm.batch_state_index)[1] == 1)


# Scalings that hold of the whole


def change(model: Block, width: int) -> float:
    """How much the blocks move a random input."""
    x = jax.random.normal(jax.random.key(1), (5, width))
    return float(jnp.std(eqx.filter_jit(run)(model, x) - x))


def test_outputs_at_initialisation_do_not_grow():
    """A stack of unmodified layers; NTK's values without their multipliers are the control."""
    narrow, wide = (change(sx.resolve(scaled(stack, sx.ntk, n)), n) for n in (32, 256))
    assert wide / narrow == pytest.approx(1, abs=0.3)
    values = sx.map_weights(lambda weight: weight.value, scaled(stack, sx.ntk, 256))
    assert change(values, 256) / narrow > 2


def test_optax_rules_of_ones_own_run_on_it():
    model = scaled(Gate)
    tx = optax.chain(
        optax.scale_by_adam(),
        sx.scale_by_width("adam", sx.full_alignment),
        optax.scale(-1e-2),
    )
    params = eqx.filter(model, eqx.is_inexact_array)
    # Optax's bias correction takes a power of mixed dtypes.
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = tx.update(params, tx.init(params))
    assert roles(updates) == GATE
