"""Low-rank adapters on layers of the library and of Equinox, against NumPy in float64."""

import re
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx.nn import LoRA
from scalex_eqx.optim._catalogue import catalogue

from .._statistics import with_statistics

KEY = jax.random.key(0)
PARAMETERIZATIONS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)
RANK = 3


def is_lora(node) -> bool:
    return isinstance(node, LoRA)


def adapted(model: eqx.nn.MLP, **options) -> eqx.nn.MLP:
    """All layers; one of them with a factor."""
    keys = jax.random.split(jax.random.key(1), 3)
    layers = tuple(
        LoRA(layer, RANK, scale=scale, key=key, **options)
        for layer, scale, key in zip(model.layers, (1.0, 0.5, 1.0), keys, strict=True)
    )
    return eqx.tree_at(lambda model: model.layers, model, layers)


def make(width: int) -> eqx.nn.MLP:
    return adapted(eqx.nn.MLP(5, 4, width, 2, key=KEY))


def build(parameterization=sx.mup, width: int = 48, **options):
    options = {"trained": make(width), "frozen": lambda path, _: "lora" not in path, **options}
    return sx.parameterize(
        make, width=width, base_width=16, parameterization=parameterization, **options
    )


def with_b(model):
    """A `B` that is not zero, as if it had been trained."""

    def on_lora(node):
        if not is_lora(node):
            return node
        value = jax.random.normal(KEY, node.lora_b.value.shape, node.lora_b.value.dtype)
        return eqx.tree_at(lambda lora: lora.lora_b.value, node, value)

    return jtu.tree_map(on_lora, model, is_leaf=is_lora)


def merged(model):
    return jtu.tree_map(
        lambda node: node.merged() if is_lora(node) else node, model, is_leaf=is_lora
    )


def wide(weight) -> np.ndarray:
    """An effective weight, from value and exponents alone."""
    if not isinstance(weight, sx.Weight):
        return np.asarray(weight, np.float64)
    spec = weight.spec
    factor = 1.0
    if spec.parameterization is not None:
        assert spec.role is not None and spec.width_ratio is not None
        factor = float(spec.width_ratio) ** -float(spec.parameterization.a[spec.role])
    return np.asarray(weight.value, np.float64) * factor


def reference(model, x) -> np.ndarray:
    y = np.asarray(x, np.float64)
    for number, lora in enumerate(model.layers):
        weight = wide(lora.layer.weight)
        weight = weight + lora.scale * wide(lora.lora_b) @ wide(lora.lora_a)
        y = y @ weight.T + wide(lora.layer.bias)
        y = np.maximum(y, 0) if number < 2 else y
    return y


def test_at_the_start_it_computes_what_the_layer_does():
    plain, x = eqx.nn.MLP(5, 4, 48, 2, key=KEY), jax.random.normal(KEY, (9, 5))
    found = jax.vmap(sx.resolve(adapted(plain)))(x)
    assert np.array_equal(found, jax.vmap(plain)(x))
    # The control: with another B it computes something else.
    other = jax.vmap(sx.resolve(with_b(adapted(plain))))(x)
    assert np.abs(other - found).max() > 0.1


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_it_is_a_product_of_two_matrices_and_merges_into_one(parameterization):
    """At r = 3. Sums over at most 48 terms in float32."""
    model, x = with_b(build(parameterization)), jax.random.normal(KEY, (9, 5))
    expected = reference(model, x)
    tolerance = 48 * 2.0**-24 * np.abs(expected).max() * 8
    one = merged(model)
    found, together = (jax.vmap(sx.resolve(m))(x) for m in (model, one))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(together, expected, rtol=0, atol=tolerance)
    assert jtu.tree_structure(sx.resolve(one)) == jtu.tree_structure(
        eqx.nn.MLP(5, 4, 48, 2, key=KEY)
    )
    before = model.layers[1].layer.weight
    assert one.layers[1].weight.spec is before.spec
    # The control: what merges nothing is elsewhere.
    without = eqx.tree_at(lambda m: m.layers[1].weight, one, before)
    assert np.abs(jax.vmap(sx.resolve(without))(x) - expected).max() > 1000 * tolerance


def test_merging_plain_arrays_and_stacks():
    keys = jax.random.split(KEY, 2)
    layers = eqx.filter_vmap(lambda key: eqx.nn.Linear(6, 4, key=key))(keys)
    stack = eqx.filter_vmap(lambda layer, key: LoRA(layer, 2, scale=0.5, key=key))(layers, keys)
    stack = with_b(stack)
    assert stack.lora_a.value.shape == (2, 2, 6)
    found = stack.merged()
    expected = wide(layers.weight) + 0.5 * wide(stack.lora_b) @ wide(stack.lora_a)
    np.testing.assert_allclose(found.weight, expected, rtol=1e-5, atol=1e-5)
    assert type(found) is eqx.nn.Linear and found.bias is not None and layers.bias is not None
    assert np.array_equal(found.bias, layers.bias)
    own = sx.nn.Linear(6, 4, use_bias=True, key=KEY)
    spec = LoRA(own, 2, key=KEY).merged().weight.spec
    assert spec is own.weight.spec


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_roles_and_rates(parameterization):
    """The exponents of LoRA+: effective steps of A fall as its fan-in, those of B stay."""
    model = build(parameterization)
    assert not any(w.spec.is_trained for p, w in weights(model).items() if "lora" not in p)
    specs = {path: w.spec for path, w in weights(model).items() if "lora" in path}
    # A constant's own width is the model's, and is asked for nothing.
    ratios = ("fan_in", "fan_out")
    roles = {
        path: (str(spec.role), *(spec.size_ratio(size) for size in ratios))
        for path, spec in specs.items()
    }
    assert roles == {
        "layers/0/lora_a": ("hidden", 1, 1),
        "layers/0/lora_b": ("embedding", 1, 3),
        "layers/1/lora_a": ("hidden", 3, 1),
        "layers/1/lora_b": ("embedding", 1, 3),
        "layers/2/lora_a": ("hidden", 3, 1),
        "layers/2/lora_b": ("constant", 1, 1),
    }
    rows = {row.path: row for row in sx.plan(model, sx.adam(1.0)).rows}
    steps = {path: rows[path].multiplier * (rows[path].learning_rate or 0.0) for path in specs}
    expected = {path: 1 / 3 if path[7:] in ("1/lora_a", "2/lora_a") else 1.0 for path in specs}
    assert steps == pytest.approx(expected, rel=1e-6)
    # The control: as its shapes look, A of an inner layer is a readout, which vanishes in muP.
    forced = build(parameterization, roles={"layers/1/lora_a": "readout"}, force=True)
    ends = weights(forced)["layers/1/lora_a"].spec
    assert ends.role is sx.Role.readout
    if parameterization in (sx.mup, sx.mean_field):
        assert ends.multiplier == pytest.approx(3**-0.5 * specs["layers/1/lora_a"].multiplier)


def weights(model) -> dict[str, sx.Weight]:
    return sx.weights_with_paths(model)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_the_spread_of_a_fresh_one_is_the_laws(parameterization):
    """Whether the model is trained or fresh: effective entries of A go as fan-in^-1/2."""
    fresh = sx.parameterize(make, width=48, base_width=16, parameterization=parameterization)
    for model in (fresh, build(parameterization)):
        for path, fan_in in (("layers/0/lora_a", 5), ("layers/1/lora_a", 48)):
            drawn = np.asarray(sx.weights_with_paths(make(48))[path].value, np.float64)
            np.testing.assert_allclose(wide(weights(model)[path]), drawn, rtol=1e-5)
            # 15 and 144 normal numbers.
            deviation = np.sqrt(np.mean(drawn**2) * fan_in)
            assert abs(deviation - 1) < 4 / np.sqrt(2 * drawn.size)
        assert not np.any(weights(model)["layers/1/lora_b"].value)


def test_only_the_adapters_are_trained():
    def trained(model):
        tx = sx.adam(1e-2)
        state = tx.init(eqx.filter(model, eqx.is_inexact_array))
        x = jax.random.normal(KEY, (9, 5))

        @eqx.filter_jit
        def step(model, state):
            gradient = eqx.filter_grad(lambda m: jnp.mean(jax.vmap(sx.resolve(m))(x) ** 2))(model)
            updates, state = tx.update(gradient, state, model)
            return eqx.apply_updates(model, updates), state

        for _ in range(3):
            model, state = step(model, state)
        return model, state

    def moved(before, after) -> set[str]:
        old = weights(before)
        return {p for p, w in weights(after).items() if not np.array_equal(w.value, old[p].value)}

    model = build()
    adapters = {path for path in weights(model) if "lora" in path}
    after, state = trained(model)
    assert moved(model, after) == adapters
    adam: Any = state
    moments = {path for path, w in weights(adam[0].mu).items() if w.value is not None}
    assert moments == adapters
    # The control.
    free = build(frozen=None)
    assert moved(free, trained(free)[0]) == set(weights(free))


@pytest.mark.parametrize("name", sorted({*catalogue} - {"adam"}))
def test_every_rule_trains_it(name):
    """Also those whose steps are relative to a weight that is zero at first."""
    given: dict[str, Any] = {"weight_decay": 1e-4} if catalogue[name].decays else {}
    tx = with_statistics(catalogue[name].optimizer(1e-2, sx.full_alignment, **given))
    model, x = build(), jax.random.normal(KEY, (9, 5))
    start = weights(model)
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state):
        gradient = eqx.filter_grad(lambda m: jnp.mean(jax.vmap(sx.resolve(m))(x) ** 2))(model)
        updates, state = tx.update(gradient, state, model)
        return eqx.apply_updates(model, updates), state

    for _ in range(2):
        model, state = step(model, state)
    for path, weight in weights(model).items():
        moved = np.asarray(weight.value - start[path].value)
        assert np.isfinite(moved).all() and moved.any() == ("lora" in path)


def test_on_a_model_that_has_its_laws():
    """Trained under a law, and given it again together with its adapters."""
    plain = sx.parameterize(
        lambda width: eqx.nn.MLP(5, 4, width, 2, key=KEY),
        width=48,
        base_width=16,
        parameterization=sx.mean_field,
    )
    both: Any = adapted(plain)
    with pytest.raises(ValueError, match="spec is not completed"):
        sx.adam(1e-2).init(both)
    model = build(trained=both)
    x = jax.random.normal(KEY, (9, 5))
    found, expected = (jax.vmap(sx.resolve(m))(x) for m in (model, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    trained = {path for path, w in weights(model).items() if w.spec.is_trained}
    assert trained == {path for path in weights(model) if "lora" in path}


def test_it_computes_in_its_own_dtype_and_gives_the_layers():
    plain = sx.nn.Linear(6, 4, dtype=jnp.bfloat16, key=KEY)
    x = jnp.ones(6, jnp.bfloat16)
    assert LoRA(plain, 2, key=KEY).lora_a.value.dtype == jnp.bfloat16
    lora = with_b(LoRA(plain, 2, dtype=jnp.float32, key=KEY))
    assert lora(x).dtype == jnp.bfloat16
    assert lora.merged().weight.value.dtype == jnp.bfloat16
    exact = wide(plain.weight) @ np.ones(6) + wide(lora.lora_b) @ (wide(lora.lora_a) @ np.ones(6))
    # A sum over six numbers in bfloat16, and two roundings of what is added.
    np.testing.assert_allclose(
        np.asarray(lora(x), np.float64), exact, rtol=0, atol=8 * 2.0**-8 * np.abs(exact).max()
    )


def test_it_hands_a_key_to_the_layer():
    class Noisy(eqx.Module):
        weight: jax.Array

        def __call__(self, x, *, key):
            return self.weight @ x + jax.random.normal(key, (4,))

    lora = LoRA(Noisy(jnp.ones((4, 6))), 2, key=KEY)
    expected = 6 + jax.random.normal(KEY, (4,))
    np.testing.assert_allclose(lora(jnp.ones(6), key=KEY), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: eqx.nn.Embedding(7, 4, key=KEY), "a Embedding with a weight of shape (7, 4)"),
        (lambda: sx.nn.Embedding(7, 4, key=KEY), "a Embedding with a weight of shape (7, 4)"),
        (lambda: eqx.nn.Conv1d(2, 3, 1, key=KEY), "a Conv1d with a weight of shape (3, 2, 1)"),
        (lambda: eqx.nn.Dropout(), "a Dropout with no weight"),
        (
            lambda: eqx.filter_vmap(lambda key: eqx.nn.Linear(3, 3, key=key))(
                jax.random.split(KEY)
            ),
            "Wrap those in a stack by equinox.filter_vmap",
        ),
    ],
)
def test_layers_that_are_no_matrix(layer, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LoRA(layer(), 2, key=KEY)


def test_a_rank_of_zero():
    with pytest.raises(ValueError, match="rank is 0"):
        LoRA(eqx.nn.Linear(3, 3, key=KEY), 0, key=KEY)


def test_a_rank_that_grows_with_the_width():
    """Then both are what they look like, and B has the smaller rate as well."""

    def make(width: int):
        layer = LoRA(sx.nn.Linear(width, width, key=KEY), width // 8, key=KEY)
        return {"first": sx.nn.Linear(5, width, key=KEY), "layer": layer}

    model = sx.parameterize(make, width=48, base_width=16, parameterization=sx.standard)
    found = {p: (w.spec.role, w.spec.width_ratio) for p, w in weights(model).items()}
    assert found["layer/lora_a"] == found["layer/lora_b"] == (sx.Role.hidden, Fraction(3))


def test_in_attention_of_equinox():
    plain = eqx.nn.MultiheadAttention(2, 8, key=KEY)
    x = jax.random.normal(KEY, (3, 8))
    lora = with_b(LoRA(plain.query_proj, 2, key=KEY))
    found = eqx.tree_at(lambda m: m.query_proj, plain, lora)
    one = eqx.tree_at(lambda m: m.query_proj, plain, lora.merged())
    outputs = [sx.resolve(m)(x, x, x) for m in (plain, found, one)]
    np.testing.assert_allclose(outputs[1], outputs[2], rtol=1e-4, atol=1e-5)
    assert np.abs(outputs[1] - outputs[0]).max() > 0.01


def blocks(width: int, depth: int = 2) -> sx.nn.Transformer:
    """Adapters in stacked blocks: on the queries, and where a branch ends."""
    model = sx.nn.Transformer(
        vocabulary_size=7, sequence_length=4, width=width, depth=depth, head_dimension=4, key=KEY
    )
    keys = jax.random.split(KEY, depth)
    wrap = eqx.filter_vmap(lambda layer, key: LoRA(layer, 2, key=key))
    for where in (lambda m: m.blocks.attention.query, lambda m: m.blocks.attention.output):
        model = eqx.tree_at(where, model, replace_fn=lambda layer: wrap(layer, keys))
    return model


def test_in_a_stack_of_blocks_and_at_the_end_of_a_branch():
    model = sx.parameterize(
        blocks,
        width=16,
        base_width=8,
        depth=4,
        base_depth=2,
        parameterization=sx.mup.deep(1),
        trained=blocks(16, 4),
        frozen=lambda path, _: "lora" not in path,
    )
    specs = {path: w.spec for path, w in weights(model).items()}
    ends = {path for path, spec in specs.items() if spec.ends_branch}
    assert ends == {
        "blocks/attention/output/layer/weight",
        "blocks/attention/output/lora_b",
        "blocks/mlp/down/weight",
    }
    # muP's embedding at r = 2, times 1 / L.
    assert specs["blocks/attention/query/lora_b"].multiplier == pytest.approx(2**0.5)
    assert specs["blocks/attention/output/lora_b"].multiplier == pytest.approx(2**0.5 / 2)
    tokens = jnp.arange(4)
    plain = sx.nn.Transformer(
        vocabulary_size=7, sequence_length=4, width=16, depth=4, head_dimension=4, key=KEY
    )
    np.testing.assert_allclose(model(tokens), plain(tokens), rtol=1e-4, atol=1e-5)
    changed = with_b(model)
    one = merged(changed)
    assert jtu.tree_structure(sx.resolve(one)) == jtu.tree_structure(sx.resolve(plain))
    np.testing.assert_allclose(one(tokens), changed(tokens), rtol=1e-4, atol=1e-4)
    assert np.abs(one(tokens) - plain(tokens)).max() > 0.1
