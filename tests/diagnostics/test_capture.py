"""What is captured of a use is the weight, its input and its output, and the result stays."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import Captured, capture

from ..foreign._layers import BASE, LAYERS
from ..scaling._measure import FAST_COMPILE
from ._transformer import forward

KEY = jax.random.key(0)
WIDTH, DEPTH = 16, 2
# Sums of at most 4 * WIDTH products in double precision, through at most 3 blocks.
EXACT = 1e-11


def scaled(make: Any, parameterization: sx.Parameterization = sx.ntk, **options: Any) -> Any:
    """Width ratio 2: the multipliers of ntk and mup are not 1."""
    return sx.parameterize(
        make, width=WIDTH, base_width=WIDTH // 2, parameterization=parameterization, **options
    )


def drawn(make: Any) -> Any:
    """The model that `make` returns with values drawn by NumPy: nothing is compiled."""
    rng = np.random.default_rng(0)

    def fill(weight: sx.Weight) -> sx.Weight:
        spread = 1.0 if weight.spec.std is None else weight.spec.std
        value = jnp.asarray(spread * rng.normal(size=weight.value.shape), weight.value.dtype)
        return sx.Weight(value, weight.spec)

    return sx.map_weights(fill, eqx.filter_eval_shape(make))


def normal(*shape: int) -> Any:
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.result_type(float))


def transformer(*, tied: bool = False, unroll: int = 1) -> Any:
    def make(width: int) -> sx.nn.Transformer:
        return sx.nn.Transformer(
            vocabulary_size=7,
            sequence_length=5,
            width=width,
            depth=DEPTH,
            head_dimension=4,
            tied=tied,
            unroll=unroll,
            key=KEY,
        )

    return drawn(lambda: scaled(make, sx.mup))


def fast(f: Any) -> Any:
    return jax.jit(f, compiler_options=FAST_COMPILE)


TOKENS = jnp.asarray([[1, 0, 6, 3], [2, 2, 5, 4]])


def call(model: Any, *inputs: Any) -> Any:
    return sx.resolve(model)(*inputs)


def each(model: Any, x: Any) -> Any:
    return jax.vmap(sx.resolve(model))(x)


def close(found: Any, expected: Any) -> bool:
    return found.shape == expected.shape and np.allclose(found, expected, EXACT, EXACT)


# Values.


@pytest.mark.usefixtures("x64")
def test_weights_inputs_and_outputs_of_an_mlp():
    model = drawn(lambda: scaled(lambda n: eqx.nn.MLP(3, 2, n, depth=2, key=KEY)))
    x = normal(5, 3)
    captured = fast(lambda x: capture(each, model, x))(x)
    weights = sx.weights_with_paths(model)
    h = np.asarray(x)
    for i in range(3):
        spec = weights[f"layers/{i}/weight"].spec
        matrix = spec.multiplier * np.asarray(weights[f"layers/{i}/weight"].value)
        [use], [bias] = captured.uses[f"layers/{i}/weight"], captured.uses[f"layers/{i}/bias"]
        # vmap of equinox's linear layers puts the examples last.
        z = h @ matrix.T
        assert close(use.weight, matrix)
        assert close(use.input, h)
        assert close(use.output.T, z)
        assert close(use.contract(2 * use.weight, use.input).T, 2 * z)
        assert (use.kind, use.fan_in, use.fan_in_grows) == ("contraction", h.shape[1], i > 0)
        assert bias.kind == "elementwise"
        assert close(bias.input, z)
        h = np.maximum(bias.output, 0)
    assert close(captured.result, np.asarray(captured.uses["layers/2/bias"][0].output))


@pytest.mark.usefixtures("x64")
def test_a_transposed_contraction_is_seen():
    model = drawn(lambda: scaled(lambda n: eqx.nn.Linear(n, n, use_bias=False, key=KEY)))
    x = normal(5, WIDTH)
    [use] = fast(functools.partial(capture, each))(model, x).uses["weight"]
    expected = np.asarray(x) @ np.asarray(sx.effective(model.weight)).T
    assert close(use.contract(use.weight, use.input).T, expected)
    assert not close(use.contract(use.weight.T, use.input).T, expected)
    assert not close(use.output, expected)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("unroll", [1, DEPTH])
def test_every_layer_of_a_scanned_transformer(tied: bool, unroll: int):
    model = transformer(tied=tied, unroll=unroll)
    captured = fast(functools.partial(capture, sx.nn.Transformer.__call__))(model, TOKENS)
    factor = model.readout.multiplier.factor if tied else 1.0
    logits, seen = forward(model, TOKENS, factor)
    assert close(captured.result, logits)
    assert captured.not_followed == ()
    assert len(seen) == 7
    for path, expected in seen.items():
        weights, inputs, outputs = (np.stack(arrays) for arrays in zip(*expected, strict=True))
        *before, use = captured.uses[path]
        assert len(before) == (path == "token_embedding/weight")
        assert use.fan_in_grows
        if not path.startswith("blocks/"):
            weights, inputs, outputs = weights[0], inputs[0], outputs[0]
        # The layers see all positions of all sequences in one axis, and W.T.
        flat = (*inputs.shape[:-3], -1)
        assert close(use.weight, np.swapaxes(weights, -1, -2))
        assert close(use.input, inputs.reshape(*flat, inputs.shape[-1]))
        assert close(use.output, outputs.reshape(*flat, outputs.shape[-1]))
        assert close(use.contract(use.weight, use.input), np.asarray(use.output))


def test_lookups_and_elementwise_uses_of_a_transformer():
    model = transformer()
    uses = fast(functools.partial(capture, sx.nn.Transformer.__call__))(model, TOKENS).uses
    [tokens], [positions] = uses["token_embedding/weight"], uses["position_embedding/weight"]
    assert (tokens.kind, tokens.fan_in, tokens.fan_in_grows) == ("lookup", 7, False)
    rows = np.asarray(sx.effective(model.token_embedding.weight))[TOKENS]
    np.testing.assert_array_equal(tokens.output.reshape(rows.shape), rows)
    assert positions.kind == "elementwise"
    expected = np.asarray(sx.effective(model.position_embedding.weight))[:4]
    np.testing.assert_array_equal(positions.weight, np.broadcast_to(expected, (2, 4, WIDTH)))
    for name in ("attention_norm", "mlp_norm"):
        [gain] = uses[f"blocks/{name}/gain"]
        assert gain.kind == "elementwise"
        assert gain.output.shape == (DEPTH, TOKENS.size, WIDTH)


def layer_at(name: str) -> Any:
    return sx.parameterize(
        lambda n: LAYERS[name].make(n, KEY),
        width=2 * BASE,
        base_width=BASE,
        parameterization=sx.ntk,
    )


def call_layer(name: str, model: Any, *inputs: Any) -> Any:
    return LAYERS[name].call(sx.resolve(model), *inputs)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_of_equinox(name: str):
    """By shapes alone; other tests look at values."""
    layer = LAYERS[name]
    apply = functools.partial(call_layer, name)
    inputs = layer.inputs(2 * BASE)
    captured = eqx.filter_eval_shape(lambda: capture(apply, layer_at(name), *inputs))
    assert captured.not_followed == ()
    assert {path: len(uses) for path, uses in captured.uses.items()} == dict.fromkeys(
        layer.roles, 1
    )
    for path, [use] in captured.uses.items():
        role = layer.roles[path]
        is_matrix = role in (sx.Role.hidden, sx.Role.readout, sx.Role.embedding)
        assert (use.kind == "elementwise") == (not is_matrix)
        assert use.fan_in_grows == (role in (sx.Role.hidden, sx.Role.readout))


def moved(weight: sx.Weight) -> sx.Weight:
    x = weight.value
    return sx.Weight(x + jnp.cos(jnp.arange(1.0 * x.size)).reshape(x.shape), weight.spec)


@pytest.mark.parametrize("name", ["conv1d", "transposed conv1d", "attention", "gru", "embedding"])
def test_a_change_of_the_weight_changes_the_output_as_contract_says(name: str):
    apply = functools.partial(call_layer, name)
    inputs = LAYERS[name].inputs(2 * BASE)

    @fast
    def measure():
        model = layer_at(name)
        changed = sx.map_weights(moved, model)
        before, now = capture(apply, model, *inputs), capture(apply, changed, *inputs)
        pairs = ((path, use, now.uses[path][0]) for path, [use] in before.uses.items())
        return {
            path: (use.contract(other.weight - use.weight, use.input), use, other)
            for path, use, other in pairs
            if use.kind != "elementwise"
        }

    contractions = 0
    for found, use, other in measure().values():
        if not np.array_equal(use.input, other.input):
            continue
        contractions += 1
        expected = np.asarray(other.output, np.float64) - np.asarray(use.output, np.float64)
        # Sums of at most 48 products of size up to about 10, rounded in float32.
        np.testing.assert_allclose(found, expected, atol=48 * 10 * 2**-23)
        assert np.abs(expected).max() > 0.1
    assert contractions >= 1


# Programs.


def same(found: Captured, expected: Captured) -> bool:
    """To rounding: the operations are the same, but may be compiled together with others."""
    leaves, others = jax.tree.leaves(found), jax.tree.leaves(expected)
    return len(leaves) == len(others) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-5)
        for a, b in zip(leaves, others, strict=True)
    )


X = normal(5, WIDTH)


def linear() -> Any:
    return drawn(lambda: scaled(lambda n: LAYERS["linear hidden"].make(n, KEY)))


@functools.partial(jax.custom_vjp)
def with_own_derivative(weight, x):
    return x @ weight.T


with_own_derivative.defvjp(lambda w, x: (x @ w.T, (w, x)), lambda r, g: (g.T @ r[1], g @ r[0]))


def hidden(model: Any, x: Any) -> Any:
    return x @ sx.effective(model.weight).T


WRAPPED = {
    "jit": jax.jit(hidden),
    "checkpoint": jax.checkpoint(hidden),
    "custom_vjp": lambda model, x: with_own_derivative(sx.effective(model.weight), x),
    "jit in checkpoint": jax.checkpoint(jax.jit(hidden)),
    "barrier": lambda model, x: hidden(*jax.lax.optimization_barrier((model, x))),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_functions_are_followed(name: str):
    model = linear()
    captured = fast(functools.partial(capture, WRAPPED[name]))(model, X)
    assert captured.not_followed == (("bias", "is not used"),)
    assert same(captured, capture(hidden, model, X))


def test_capture_under_jit():
    model = linear()
    assert same(jax.jit(functools.partial(capture, each))(model, X), capture(each, model, X))


def test_capture_under_vmap_is_apply_under_vmap():
    model = linear()
    mapped = jax.vmap(lambda x: capture(call, model, x))(X)
    [use], [whole] = mapped.uses["weight"], capture(each, model, X).uses["weight"]
    np.testing.assert_allclose(use.output, whole.output.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(use.input, whole.input)
    assert use.weight.shape == (5, *whole.weight.shape)


def test_capture_can_be_differentiated():
    model = linear()

    def loss(model, run):
        return jnp.sum(jnp.square(run(model)))

    found = jax.grad(loss)(model, lambda model: capture(each, model, X).result)
    expected = jax.grad(loss)(model, lambda model: each(model, X))
    np.testing.assert_allclose(found.weight.value, expected.weight.value, rtol=1e-5)


def test_a_recurrent_weight_is_captured_once_and_its_inputs_at_every_step():
    model = drawn(lambda: scaled(lambda n: eqx.nn.GRUCell(3, n, key=KEY)))
    sequence = normal(4, 3)

    def apply(model, sequence):
        cell = sx.resolve(model)
        return jax.lax.scan(lambda h, x: (cell(x, h),) * 2, jnp.zeros(WIDTH), sequence)[1]

    captured = fast(functools.partial(capture, apply))(model, sequence)
    [hidden], [inputs] = captured.uses["weight_hh"], captured.uses["weight_ih"]
    np.testing.assert_array_equal(hidden.weight, sx.effective(model.weight_hh))
    np.testing.assert_array_equal(inputs.input, sequence)
    states = np.concatenate([np.zeros((1, WIDTH)), captured.result[:-1]])
    np.testing.assert_array_equal(hidden.input, states)
    matrix = np.asarray(sx.effective(model.weight_hh), np.float64)
    expected = states @ matrix.T
    np.testing.assert_allclose(hidden.output, expected, atol=1e-5)
    np.testing.assert_allclose(hidden.contract(hidden.weight, hidden.input), expected, atol=1e-5)


def test_a_shared_layer_has_two_uses():
    def make(n):
        embedding = eqx.nn.Embedding(3, n, key=KEY)
        readout = eqx.nn.Linear(n, 3, use_bias=False, key=KEY)
        where, get = (lambda pair: pair[1].weight), (lambda pair: pair[0].weight)
        return eqx.nn.Shared((embedding, readout), where, get)

    def apply(model, token):
        embedding, readout = sx.resolve(model)()
        return readout(embedding(token))

    captured = eqx.filter_eval_shape(lambda: capture(apply, scaled(make), jnp.asarray(1)))
    [uses] = captured.uses.values()
    assert [use.kind for use in uses] == ["lookup", "contraction"]
    assert [use.fan_in_grows for use in uses] == [False, True]


def test_uses_stand_in_the_order_of_the_forward_pass():
    """Not in that of the model, nor of the alphabet."""

    def make(width):
        keys = jax.random.split(KEY, 3)
        return {
            "a_last": sx.nn.Readout(width, 2, key=keys[2]),
            "b_unused": sx.nn.Linear(width, width, key=keys[1]),
            "c_first": sx.nn.Linear(3, width, key=keys[0]),
        }

    model = scaled(make)
    captured = capture(
        lambda m, x: m["a_last"](m["c_first"](x)), model, normal(3).astype("float32")
    )
    assert list(captured.uses) == ["c_first/weight", "a_last/weight", "b_unused/weight"]


def _matrix(role: str, *shape: int) -> sx.Weight:
    return sx.Weight(jnp.ones(shape), sx.WeightSpec((-1,), (-2,), role=sx.Role(role)))


def test_the_flow_says_whose_output_another_matrix_takes_in():
    """Through branches and from turn to turn of a scan, but not to the result or the loss."""
    model = {
        "a": _matrix("embedding", 4, 3),
        "b": _matrix("hidden", 4, 4),
        "gain": sx.Weight(jnp.ones(4), sx.WeightSpec((), (-1,), role=sx.Role.vector)),
        "left": _matrix("hidden", 4, 4),
        "out": _matrix("readout", 2, 4),
        "other": _matrix("readout", 2, 4),
    }

    def apply(model, x):
        def turn(h, _):
            return jnp.tanh(model["b"].value @ h), h.sum()

        h, _ = jax.lax.scan(turn, model["a"].value @ x, length=2)
        h = jax.lax.cond(x[0] > 0, lambda h: model["left"].value @ h, lambda h: h, h)
        h = model["gain"].value * h
        first, second = model["out"].value @ h, model["other"].value @ h
        return first + jnp.tanh(second)

    found = capture(apply, model, jnp.ones(3)).flow
    behind = {("b", other) for other in ("b", "left", "out", "other")}
    behind |= {("left", other) for other in ("out", "other")}
    assert set(found) == behind | {("a", "b"), ("a", "left"), ("a", "out"), ("a", "other")}
