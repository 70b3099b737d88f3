import dataclasses
import io
import pickle

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx import Weight, WeightSpec

SPEC = WeightSpec(fan_in=(-1,), fan_out=(-2,), std=0.5)
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def _count_traces_from_zero():
    chex.clear_trace_counter()


def mlp(width: int = 8, base_width: int = 4, parameterization=sx.ntk, seed: int = 0) -> sx.nn.MLP:
    """A model whose hidden weight has a multiplier other than one."""
    return sx.parameterize(
        lambda w: sx.nn.MLP(w, w, 2, use_bias=True, key=jax.random.key(seed)),
        width=width,
        base_width=base_width,
        parameterization=parameterization,
    )


def loss(model, x):
    return jnp.mean(jnp.square(model(x)))


def specs(tree) -> dict[str, WeightSpec]:
    return {path: weight.spec for path, weight in sx.weights_with_paths(tree).items()}


def assert_equal(tree, other):
    assert jtu.tree_structure(tree) == jtu.tree_structure(other)
    for a, b in zip(jtu.tree_leaves(tree), jtu.tree_leaves(other), strict=True):
        assert np.array_equal(a, b) if eqx.is_array(a) else a == b


# The node


def test_it_has_one_leaf_and_its_spec_is_structure():
    weight = Weight(jnp.ones((2, 3)), SPEC)
    leaves, structure = jtu.tree_flatten(weight)
    assert len(leaves) == 1
    assert leaves[0] is weight.value
    rebuilt = jtu.tree_unflatten(structure, leaves)
    assert type(rebuilt) is Weight
    assert (rebuilt.value, rebuilt.spec) == (weight.value, weight.spec)
    other = Weight(weight.value, dataclasses.replace(SPEC, std=1.0))
    assert structure == jtu.tree_structure(Weight(jnp.zeros(5), SPEC))
    assert structure != jtu.tree_structure(other)


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Weight(jnp.ones(2), SPEC).value = jnp.zeros(2)  # pyright: ignore[reportAttributeAccessIssue]


def test_it_can_be_pickled():
    weight = pickle.loads(pickle.dumps(Weight(np.arange(3.0), SPEC)))
    assert weight.spec is SPEC
    assert weight.value.tolist() == [0, 1, 2]


def test_it_prints_short():
    assert "f32[2,3]" in eqx.tree_pformat(Weight(jnp.ones((2, 3)), SPEC))


@pytest.mark.parametrize(
    "use",
    [
        lambda w: w + 1.0,
        lambda w: 2.0 * w,
        lambda w: w @ jnp.ones(3),
        lambda w: jnp.ones(2) @ w,
        lambda w: w[0],
        lambda w: jnp.sin(w),
        lambda w: np.asarray(w),
        lambda w: w.T,
        lambda w: w.shape,
        lambda w: w.astype(float),
    ],
)
def test_use_as_an_array_is_refused_with_the_remedy(use):
    weight = Weight(jnp.ones((2, 3)), SPEC)
    with pytest.raises((TypeError, AttributeError), match=r"`model = scalex_eqx\.resolve\(model\)"):
        use(weight)


def test_an_unknown_attribute_is_an_ordinary_error():
    weight = Weight(jnp.ones(2), SPEC)
    assert not hasattr(weight, "shape")
    with pytest.raises(AttributeError, match="'Weight' object has no attribute 'colour'"):
        _ = weight.colour  # pyright: ignore[reportAttributeAccessIssue]


# Transformations


def test_gradients_have_the_same_nodes():
    model = mlp()
    gradient = eqx.filter_grad(loss)(model, jnp.ones(8))
    assert specs(gradient) == specs(model) != {}


@pytest.mark.parametrize("rounds", [1, 3])
def test_models_with_equal_specs_share_a_trace(rounds: int):
    @eqx.filter_jit
    @chex.assert_max_traces(1)
    def step(model):
        return jtu.tree_map(lambda x: 2 * x, eqx.filter(model, eqx.is_array))

    for seed in range(rounds):
        model = mlp(seed=seed)
        assert specs(step(model)) == specs(model)


@pytest.mark.parametrize("other", [mlp(parameterization=sx.mup), mlp(base_width=2)])
def test_models_with_different_specs_do_not(other):
    @eqx.filter_jit
    @chex.assert_max_traces(1)
    def step(model):
        return loss(model, jnp.ones(8))

    step(mlp())
    with pytest.raises(AssertionError, match="traced > 1 times"):
        step(other)


def test_an_ensemble_by_vmap():
    def make(key):
        return sx.nn.Linear(3, 2, key=key)

    keys = jax.random.split(KEY, 4)
    models = eqx.filter_vmap(make)(keys)
    x = jnp.arange(3.0)
    assert models.weight.value.shape == (4, 2, 3)
    assert models.weight.spec is make(KEY).weight.spec
    together = eqx.filter_vmap(lambda model: model(x))(models)
    alone = jnp.stack([make(key)(x) for key in keys])
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_scan_over_stacked_layers():
    layers = [sx.nn.Linear(4, 4, key=key) for key in jax.random.split(KEY, 3)]
    stacked = jtu.tree_map(lambda *xs: jnp.stack(xs), *layers)
    x, _ = jax.lax.scan(lambda x, layer: (layer(x), None), jnp.ones(4), stacked)
    expected = np.ones(4)
    for layer in layers:
        expected = np.asarray(layer.weight.value, np.float64) @ expected
    np.testing.assert_allclose(x, expected, rtol=1e-5)


def test_serialisation_round_trip():
    model, other = mlp(seed=1), mlp(seed=2)
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, model)
    file.seek(0)
    loaded = eqx.tree_deserialise_leaves(file, other)
    assert_equal(loaded, model)
    assert not np.array_equal(other.up.weight.value, model.up.weight.value)


def test_optax_leaves_the_nodes_in_place():
    model = eqx.filter(mlp(), eqx.is_array)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.trace(0.9), optax.scale(-0.1))
    updates, state = tx.update(model, tx.init(model), model)
    updated = eqx.apply_updates(model, updates)
    momentum = state[1].trace  # pyright: ignore
    assert specs(updates) == specs(updated) == specs(momentum) == specs(model) != {}


def test_partition_and_combine():
    model = mlp()
    arrays, rest = eqx.partition(model, eqx.is_array)
    assert rest.up.weight.value is None
    assert specs(rest) == specs(arrays) == specs(model)
    assert_equal(eqx.combine(arrays, rest), model)


# Paths, effective, resolve, map_weights, require_complete


def test_paths_have_slashes_and_no_trailing_value():
    model = {"blocks": [mlp(), mlp()], "n": jnp.ones(2)}
    expected = [
        f"blocks/{i}/{layer}/{leaf}"
        for i in range(2)
        for layer in ("up", "down")
        for leaf in ("weight", "bias")
    ]
    assert list(sx.weights_with_paths(model)) == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_the_effective_weight_has_the_weights_dtype(dtype: str, x64):
    spec = dataclasses.replace(mlp(base_width=2).up.weight.spec)
    assert spec.multiplier == 0.5
    value = jnp.asarray([[3.0, -1.0]], dtype)
    result = sx.effective(Weight(value, spec))
    assert result.dtype == value.dtype
    assert result.tolist() == [[1.5, -0.5]]


def test_an_array_is_its_own_effective_weight():
    x = jnp.ones(3)
    assert sx.effective(x) is x


@pytest.mark.parametrize(("parameterization", "multiplies"), [(sx.standard, 0), (sx.ntk, 1)])
def test_a_multiplier_of_one_costs_no_operation(parameterization, multiplies: int):
    weight = mlp(parameterization=parameterization).up.weight
    equations = jax.make_jaxpr(sx.effective)(weight).eqns
    assert [str(equation.primitive) for equation in equations] == ["mul"] * multiplies


def test_resolve_replaces_every_weight_and_nothing_else():
    model = mlp()
    tree = {"model": model, "x": jnp.ones(2), "name": "n", "none": None}
    resolved = sx.resolve(tree)
    assert sx.weights_with_paths(resolved) == {}
    assert (resolved["name"], resolved["none"]) == ("n", None)
    assert resolved["x"] is tree["x"]
    up = np.asarray(model.up.weight.value, np.float64) * 2**-0.5
    np.testing.assert_allclose(resolved["model"].up.weight, up, rtol=1e-6)
    assert_equal(sx.resolve(resolved), resolved)


def test_a_buffer_is_its_value_without_a_gradient():
    spec = dataclasses.replace(mlp().up.weight.spec, role=sx.Role.buffer)
    buffer = Weight(jnp.arange(3.0), spec)
    assert np.array_equal(sx.effective(buffer), buffer.value)
    gradient = jax.grad(lambda weight: jnp.sum(sx.effective(weight) ** 2))(buffer)
    assert gradient.spec is spec
    assert not np.any(gradient.value)
    lowered = jax.jit(sx.effective).lower(buffer).as_text()
    assert "stablehlo" not in lowered.partition("func.func public @main")[2]


def test_resolve_passes_a_filtered_weight():
    _, rest = eqx.partition(mlp(), eqx.is_array)
    assert sx.resolve(rest).up.weight is None


def test_map_weights():
    tree = {"w": Weight(jnp.ones(2), SPEC), "x": jnp.ones(3)}
    mapped = sx.map_weights(lambda w, v, n: (w.spec, v.value + n), tree, tree, {"w": 5.0, "x": 0})
    assert mapped["x"] is tree["x"]
    assert mapped["w"][0] is SPEC
    assert mapped["w"][1].tolist() == [6, 6]


def test_require_complete_lists_every_path():
    tree = {
        "done": mlp(),
        "bare": [jnp.ones(2), jnp.ones(3)],
        "fresh": sx.nn.Linear(2, 2, use_bias=True, key=KEY),
        "count": jnp.zeros((), jnp.int32),
        "name": "n",
    }
    with pytest.raises(ValueError) as caught:
        sx.require_complete(tree)
    message = str(caught.value)
    assert "arrays without a scaling law: bare/0, bare/1. Make each a Weight" in message
    assert "not completed: fresh/weight, fresh/bias. Build the model with scalex_eqx.par" in message
    assert "done" not in message
    assert "count" not in message


def test_require_complete_passes_a_complete_tree():
    sx.require_complete({"model": mlp(), "count": jnp.zeros((), jnp.int32)})


# Modules that know nothing of weights


def foreign() -> eqx.nn.MLP:
    return sx.parameterize(
        lambda width: eqx.nn.MLP(4, 2, width, depth=1, key=KEY),
        width=8,
        base_width=8,
        parameterization=sx.ntk,
    )


def test_forgetting_resolve_is_an_error_that_says_so():
    with pytest.raises(TypeError, match="resolve"):
        foreign()(jnp.ones(4))


def test_a_resolved_foreign_module_runs_and_its_gradients_are_weights():
    plain = eqx.nn.MLP(4, 2, width_size=8, depth=1, key=KEY)
    model, x = foreign(), jnp.arange(4.0)
    assert np.array_equal(sx.resolve(model)(x), plain(x))
    gradient = eqx.filter_grad(lambda model: loss(sx.resolve(model), x))(model)
    expected = eqx.filter_grad(loss)(plain, x)
    assert specs(gradient) == specs(model) != {}
    assert_equal(jtu.tree_leaves(gradient), jtu.tree_leaves(expected))
