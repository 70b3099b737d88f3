"""The scaling law is in the constants of the compiled step: it adds no operation to it."""

import functools
import re
from collections import Counter
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx

BASE, WIDTH, HEAD, DEPTH, VOCABULARY, LENGTH = 8, 16, 4, 2, 7, 5
RATE, B1, B2, EPS = 0.01, 0.9, 0.999, 1e-12
# muP at r = 2 under Adam and full alignment: multiplier, learning rate and epsilon factors.
FACTORS = {
    "embedding": (2**0.5, 2**-0.5, 2**-0.5),
    "hidden": (1.0, 2**-1.0, 2**-1.0),
    "readout": (2**-0.5, 2**-0.5, 2**-0.5),
    "vector": (1.0, 1.0, 2**-1.0),
}
TOKENS = jnp.asarray([[3, 1, 6, 6], [0, 2, 4, 6]])


def operations(step, *arguments) -> Counter[str]:
    """How often each StableHLO operation stands in the lowered step, its functions put in place.

    XLA does that before anything else; calls of the same function count each.
    """
    text = jax.jit(step).lower(*arguments).as_text()
    functions = dict(re.findall(r"func\.func \w+ @(\w+)(.*?)(?=func\.func|\Z)", text, re.DOTALL))

    @functools.cache
    def of(name: str) -> Counter[str]:
        own = Counter(re.findall(r"\bstablehlo\.(?!return)\w+", functions[name]))
        called = re.findall(r"\bcall @(\w+)", functions[name])
        return sum(map(of, called), own)

    return of("main")


def normal(x: Any) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=x.shape) * 0.1, x.dtype)


def transformer() -> sx.nn.Transformer:
    def make(width: int):
        return sx.nn.Transformer(
            vocabulary_size=VOCABULARY,
            sequence_length=LENGTH,
            width=width,
            depth=DEPTH,
            head_dimension=HEAD,
            key=jax.random.key(0),
        )

    def scaled():
        return sx.parameterize(make, width=WIDTH, base_width=BASE, parameterization=sx.mup)

    return jax.tree.map(normal, eqx.filter_eval_shape(scaled))


def step(model, state):
    """What a user writes."""

    def loss(model):
        return jnp.mean(jnp.square(model(TOKENS)))

    value, grads = jax.value_and_grad(loss)(model)
    updates, state = sx.adam(RATE, b1=B1, b2=B2, eps=EPS).update(grads, state, model)
    return value, optax.apply_updates(model, updates), state


# The twin: the same Transformer and Adam over a dictionary of arrays, with numbers written in.


def role(name: str) -> str:
    if "embedding" in name or "readout" in name:
        return name.split("/")[0].split("_")[-1]
    return "vector" if "gain" in name else "hidden"


def scaled_by(factor: float, x: jax.Array) -> jax.Array:
    return x if factor == 1 else factor * x


def twin_forward(w: dict[str, jax.Array], tokens: jax.Array) -> jax.Array:
    def linear(name: str):
        return lambda x: x @ scaled_by(FACTORS[role(name)][0], w[name]).T

    def norm(gain):
        def apply(x):
            centred = x - jnp.mean(x)
            return centred / jnp.sqrt(jnp.mean(jnp.square(centred)) + 1e-5) * gain

        return apply

    def each(f, x):
        y = jax.vmap(f)(x.reshape(-1, x.shape[-1]))
        return y.reshape(*x.shape[:-1], -1)

    def block(x, b):
        h = each(norm(b["attention_norm/gain"]), x)
        q, k, v = (
            each(lambda row, m=b[f"attention/{n}/weight"]: row @ m.T, h).reshape(
                *x.shape[:-1], -1, HEAD
            )
            for n in ("query", "key", "value")
        )
        logits = HEAD**-0.5 * jnp.einsum("...qhd,...khd->...hqk", q, k)
        causal = jnp.broadcast_to(jnp.tri(x.shape[-2], dtype=bool), logits.shape)
        weights = jax.nn.softmax(jnp.where(causal, logits, -jnp.inf), axis=-1)
        mixed = jnp.einsum("...hqk,...khd->...qhd", weights, v).reshape(*x.shape[:-1], -1)
        x = x + each(lambda row: row @ b["attention/output/weight"].T, mixed)

        def mlp(row):
            inner = jax.checkpoint(jax.nn.gelu)(row @ b["mlp/up/weight"].T)
            return inner @ b["mlp/down/weight"].T

        return x + each(mlp, each(norm(b["mlp_norm/gain"]), x)), None

    embedding = FACTORS["embedding"][0]
    positions = embedding * w["position_embedding/weight"]
    rows = jax.vmap(lambda t: (embedding * w["token_embedding/weight"])[t])(tokens.reshape(-1))
    x = rows.reshape(*tokens.shape, -1)
    x = x + jnp.broadcast_to(positions[: tokens.shape[-1]], x.shape)
    blocks = {n.removeprefix("blocks/"): x for n, x in w.items() if n.startswith("blocks/")}
    x, _ = jax.lax.scan(block, x, blocks)
    return each(linear("readout/weight"), each(norm(w["final_norm/gain"]), x))


def twin_step(w, count: Any, mu, nu):
    def loss(w):
        return jnp.mean(jnp.square(twin_forward(w, TOKENS)))

    value, grads = jax.value_and_grad(loss)(w)
    count = jnp.asarray(optax.safe_increment(count))
    mu = {n: mu[n] + (1 - B1) * (g - mu[n]) for n, g in grads.items()}
    nu = {n: nu[n] + (1 - B2) * (jnp.square(g) - nu[n]) for n, g in grads.items()}
    mass1, mass2 = (-jnp.expm1(np.log(b) * count.astype(float)) for b in (B1, B2))
    new = {}
    for n, x in w.items():
        _, rate, eps = FACTORS[role(n)]
        update = mu[n] / mass1 / (jnp.sqrt(nu[n] / mass2) + eps * EPS)
        new[n] = x + -RATE * scaled_by(rate, update)
    return value, new, count, mu, nu


def twin_arguments(model):
    arrays = {path: weight.value for path, weight in sx.weights_with_paths(model).items()}
    zeros = {path: jnp.zeros_like(x) for path, x in arrays.items()}
    return arrays, jnp.zeros((), jnp.int32), zeros, zeros


@pytest.fixture(scope="module")
def model() -> sx.nn.Transformer:
    return transformer()


def test_the_twin_takes_the_same_step(model):
    state = sx.adam(RATE).init(model)
    value, after, _ = jax.jit(step)(model, state)
    expected_value, expected, *_ = jax.jit(twin_step)(*twin_arguments(model))
    assert float(value) == pytest.approx(float(expected_value), rel=1e-5)
    for path, weight in sx.weights_with_paths(after).items():
        np.testing.assert_allclose(weight.value, expected[path], rtol=1e-4, atol=1e-6)


def test_a_step_has_the_operations_of_its_twin(model):
    found = operations(step, model, sx.adam(RATE).init(model))
    expected = operations(twin_step, *twin_arguments(model))
    assert found - expected == Counter()
    assert found.total() == expected.total() > 300


def test_one_operation_more_is_counted(model):
    def more(model, state):
        value, model, state = step(model, state)
        return 2.0 * value, model, state

    state = sx.adam(RATE).init(model)
    added = operations(more, model, state) - operations(step, model, state)
    assert added["stablehlo.multiply"] == 1
