import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx.nn import Transformer

KEY = jax.random.key(0)
BASE, HEAD, RATIO = 8, 4, 2
TOKENS = np.asarray([3, 1, 6, 6])
# r^-a at r = 2: embedding, hidden, readout.
MULTIPLIERS = {
    "standard": (1, 1, 1),
    "ntk": (1, 2**-0.5, 2**-0.5),
    "mup": (2**0.5, 1, 2**-0.5),
    "mean_field": (1, 2**-0.5, 2**-1),
}


def make(width: int, depth: int = 2, **arguments) -> Transformer:
    return Transformer(
        vocabulary_size=7,
        sequence_length=5,
        width=width,
        depth=depth,
        head_dimension=HEAD,
        key=KEY,
        **arguments,
    )


def scaled(parameterization, **arguments) -> Transformer:
    """Twice the base width."""
    return sx.parameterize(
        lambda width: make(width, **arguments),
        width=RATIO * BASE,
        base_width=BASE,
        parameterization=parameterization,
    )


def logits(model: Transformer, tokens=TOKENS):
    return eqx.filter_jit(model)(jnp.asarray(tokens))


def oracle(model: Transformer, multipliers, scale: float, tie: float | None = None) -> np.ndarray:
    """The logits in NumPy, position by position."""
    embedding, hidden, readout = multipliers
    w = {
        path: np.asarray(weight.value, np.float64)
        for path, weight in sx.weights_with_paths(model).items()
    }

    def norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=1, keepdims=True)
        return gain * centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)

    def attend(x: np.ndarray, q, k, v, o) -> np.ndarray:
        out = np.zeros_like(x)
        for start in range(0, x.shape[1], HEAD):
            head = slice(start, start + HEAD)
            queries, keys, values = (hidden * x @ m[head].T for m in (q, k, v))
            for i in range(len(x)):
                weights = np.exp(scale * keys[: i + 1] @ queries[i])
                out[i, head] = weights @ values[: i + 1] / weights.sum()
        return hidden * out @ o.T

    def gelu(x: np.ndarray) -> np.ndarray:
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    table = embedding * w["token_embedding/weight"]
    x = table[TOKENS] + embedding * w["position_embedding/weight"][: len(TOKENS)]
    for layer in range(2):
        block = {p.removeprefix("blocks/"): a[layer] for p, a in w.items() if "blocks" in p}
        projections = (block[f"attention/{n}/weight"] for n in ("query", "key", "value", "output"))
        x = x + attend(norm(x, block["attention_norm/gain"]), *projections)
        inner = gelu(hidden * norm(x, block["mlp_norm/gain"]) @ block["mlp/up/weight"].T)
        x = x + hidden * inner @ block["mlp/down/weight"].T
    x = norm(x, w["final_norm/gain"])
    return tie * x @ table.T if tie is not None else readout * x @ w["readout/weight"].T


@pytest.mark.parametrize("parameterization", [sx.standard, sx.ntk, sx.mup, sx.mean_field])
def test_logits(parameterization, draw, x64):
    model = draw(lambda: scaled(parameterization))
    expected = oracle(model, MULTIPLIERS[parameterization.name], HEAD**-0.5)
    np.testing.assert_allclose(logits(model), expected, rtol=1e-11, atol=1e-11)


def test_logits_with_the_other_logit_scale(draw, x64):
    model = draw(lambda: scaled(sx.standard, logit_scale="1/d"))
    expected = oracle(model, (1, 1, 1), 1 / HEAD)
    np.testing.assert_allclose(logits(model), expected, rtol=1e-11, atol=1e-11)
    assert np.max(np.abs(oracle(model, (1, 1, 1), HEAD**-0.5) - expected)) > 1e-4


@pytest.mark.parametrize("parameterization", [sx.standard, sx.mup])
def test_logits_of_a_tied_model(parameterization, draw, x64):
    """The tie's factor is 1 / sqrt(width) at the base width and falls as the width grows."""
    model = draw(lambda: scaled(parameterization, tied=True))
    expected = oracle(model, MULTIPLIERS[parameterization.name], HEAD**-0.5, tie=BASE**-0.5 / RATIO)
    np.testing.assert_allclose(logits(model), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("position", [0, 2])
def test_a_logit_depends_on_its_position_and_those_before(position: int, draw):
    model = draw(lambda: make(8))

    def logit(rows):
        return jnp.sum(
            eqx.tree_at(lambda m: m.position_embedding.weight.value, model, rows)(
                jnp.asarray(TOKENS)
            )[position]
        )

    gradient = np.asarray(jax.jit(jax.grad(logit))(model.position_embedding.weight.value))
    assert np.any(gradient != 0, axis=1).tolist() == [j <= position for j in range(5)]


@pytest.mark.parametrize("batch", [(2,), (2, 2)])
@pytest.mark.parametrize("tied", [False, True])
def test_leading_axes_equal_vmap(batch: tuple[int, ...], tied: bool, draw):
    model = draw(lambda: make(8, tied=tied))
    tokens = jax.random.randint(KEY, (*batch, 4), 0, 7)
    mapped = model
    for _ in batch:
        mapped = jax.vmap(mapped)
    np.testing.assert_allclose(
        jax.jit(model)(tokens), jax.jit(mapped)(tokens), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_it_keeps_the_dtype(dtype: str, draw):
    model = draw(lambda: make(8, dtype=dtype))
    assert {w.value.dtype for w in sx.weights_with_paths(model).values()} == {jnp.dtype(dtype)}
    assert jax.eval_shape(model, jnp.asarray(TOKENS)).dtype == jnp.dtype(dtype)


def test_a_resolved_model_is_the_same_function(draw):
    model = draw(lambda: scaled(sx.mup))
    resolved = sx.resolve(model)
    assert sx.weights_with_paths(resolved) == {}
    np.testing.assert_allclose(logits(resolved), logits(model), rtol=1e-6, atol=1e-6)


def test_a_sequence_that_is_too_long_is_refused():
    def run(count: int):
        return eqx.filter_eval_shape(lambda: make(8)(jnp.zeros(count, jnp.int32)))

    with pytest.raises(ValueError, match=r"6 tokens are more than the 5 positions .* larger sequ"):
        run(6)
    assert run(5).shape == (5, 7)


def test_a_width_that_no_number_of_heads_fills_is_refused():
    with pytest.raises(ValueError, match="width 10 is not a positive multiple of head_dimension 4"):
        make(10)


def test_no_layers_are_refused():
    with pytest.raises(ValueError, match="depth is 0; expected a positive integer"):
        make(8, depth=0)
