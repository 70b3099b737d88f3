"""Units, ways, and what is refused."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx import per_example
from scalex_eqx.per_example._turns import in_turns

KEY = jax.random.key(0)
# Float64, sums of some hundred terms.
EXACT = 1e-11


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def statistics(loss: Any, model: Any, batch: Any, **options: Any) -> sx.GradientStatistics:
    return eqx.filter_jit(
        lambda model, batch: sx.gradient_statistics(loss, model, batch, **options)
    )(model, batch)


def gradients(loss: Any, model: Any, batch: Any) -> list[Any]:
    """Of each example, by `vmap(grad)`."""
    found = eqx.filter_jit(eqx.filter_vmap(eqx.filter_grad(loss), in_axes=(None, 0)))
    return [np.asarray(g, np.float64) for g in jax.tree.leaves(found(model, batch))]


def squared_norms(gradients: list[Any]) -> Any:
    return sum(np.sum(g**2, axis=tuple(range(1, g.ndim))) for g in gradients)


def assert_leaves(found: Any, expected: list[Any], rtol: float = EXACT) -> None:
    for x, value in zip(jax.tree.leaves(found), expected, strict=True):
        np.testing.assert_allclose(x, value, rtol=rtol, atol=rtol * np.max(np.abs(value)))


def mlp() -> Any:
    return sx.nn.MLP(3, 4, 2, use_bias=True, key=KEY)


def squared_error(model: Any, example: Any) -> Any:
    x, y = example
    return jnp.mean((model(x) - y) ** 2)


def pairs(examples: int = 6) -> Any:
    return random(examples, 3), random(examples, 2, seed=1)


# What follows the units.


@pytest.mark.parametrize("method", [None, "vmap"])
def test_microbatches(x64: None, method: str | None):
    batch = pairs()
    units = [g.reshape(2, 3, *g.shape[1:]).mean(1) for g in gradients(squared_error, mlp(), batch)]
    norms = squared_norms(units)
    names = ("square", "norm", "clipped")
    found = statistics(squared_error, mlp(), batch, of=3, statistics=names, clip=0.5, method=method)
    assert found.count == 2
    assert found.examples == 3
    assert_leaves(found.gradient, [g.mean(0) for g in units])
    assert_leaves(found.square, [(g**2).mean(0) for g in units])
    assert_leaves(found.norm, [norms])
    factors = np.minimum(1, 0.5 / np.sqrt(norms))
    assert_leaves(found.clipped, [np.tensordot(factors, g, 1) / 2 for g in units])


def mixing(weights: Any, tokens: Any) -> Any:
    """The loss of each position of a layer of attention; each weight with a copy for each."""
    table, positions, gain, queries, out, bias = weights
    x = jax.vmap(lambda table, i: table[i])(table, tokens) + positions
    x = jnp.tanh(x) * gain
    q = jnp.einsum("ti,toi->to", x, queries)
    x = x + jax.nn.softmax(q @ x.T) @ x
    y = jnp.einsum("ti,toi->to", x, out) + bias
    return jnp.sum(y**3, axis=-1)


def test_tokens_by_the_use_at_each_position(x64: None):
    length, width = 5, 3
    shapes = [(4, width), (length, width), (width,), (width, width), (2, width), (2,)]
    weights = [0.5 * random(*shape, seed=i) for i, shape in enumerate(shapes)]
    tokens = np.random.default_rng(9).integers(0, 4, size=(3, length))
    own = 1  # The positions' rows are each used at one place already.

    def loss(weights: Any, tokens: Any) -> Any:
        table, positions, gain, queries, out, bias = weights
        x = jnp.tanh(table[tokens] + positions) * gain
        x = x + jax.nn.softmax(x @ queries.T @ x.T) @ x
        return jnp.sum((x @ out.T + bias) ** 3, axis=-1)

    copies = [
        jnp.asarray(w) if i == own else jnp.broadcast_to(w, (length, *w.shape))
        for i, w in enumerate(weights)
    ]
    of_copies = jax.jit(jax.vmap(jax.grad(lambda w, t: jnp.sum(mixing(w, t))), in_axes=(None, 0)))(
        copies, tokens
    )
    names = ("square", "norm", "sign", "fourth")
    with jax.numpy_rank_promotion("allow"):
        found = statistics(
            loss, [jnp.asarray(w) for w in weights], tokens, of="token", statistics=names
        )
        sums = jax.jit(jax.vmap(jax.grad(lambda w, t: jnp.mean(loss(w, t))), in_axes=(None, 0)))(
            [jnp.asarray(w) for w in weights], tokens
        )
    units = []
    for i, g in enumerate(np.asarray(g) for g in of_copies):
        # (examples, positions, ...): of the table of positions one row each.
        units.append(np.einsum("btd,ts->btsd", g, np.eye(length)) if i == own else g)
    assert found.count == 3 * length
    assert_leaves(found.gradient, [u.mean((0, 1)) for u in units])
    assert_leaves(found.square, [(u**2).mean((0, 1)) for u in units])
    assert_leaves(found.sign, [np.sign(u).mean((0, 1)) for u in units])
    assert_leaves(found.fourth, [(u**4).mean((0, 1)) for u in units])
    norms = [np.sum(u**2, axis=tuple(range(2, u.ndim))) for u in units]
    assert_leaves(found.norms, norms)
    assert_leaves(found.norm, [sum(norms)])
    assert set(found.method.values()) == {"surgery"}
    # Negative control: they are not the statistics of examples.
    of_examples = [np.mean(np.asarray(g) ** 2, axis=0) for g in sums]
    pairs = list(zip(jax.tree.leaves(found.square), of_examples, strict=True))
    distance = sum(np.sum(np.abs(square - other)) for square, other in pairs)
    assert distance > 0.3 * sum(np.sum(other) for _, other in pairs)


# Ways.


def test_norms_of_sequences_by_inner_products(x64: None):
    model = eqx.nn.Linear(12, 10, use_bias=False, key=KEY)
    batch = random(4, 3, 12)

    def loss(model: Any, x: Any) -> Any:
        return jnp.sum(jax.vmap(model)(x) ** 3)

    expected = squared_norms(gradients(loss, model, batch))
    found = statistics(loss, model, batch, statistics=("norm",))
    assert found.method == {"weight": "gram"}
    assert_leaves(found.norm, [expected])
    # Two at a time.
    found = statistics(loss, model, batch, statistics=("norm",), memory=2 * 2 * 8 * 9)
    assert_leaves(found.norm, [expected])


def test_what_has_no_room_for_copies_takes_a_pass_of_its_own(x64: None):
    weights = {"shared": random(3, 3), "plain": random(3, 3, seed=1)}
    weights = jax.tree.map(jnp.asarray, weights)

    def loss(weights: Any, x: Any) -> Any:
        x = jnp.tanh(weights["shared"] @ x)
        return jnp.sum(jnp.tanh(weights["plain"] @ weights["shared"] @ x))

    each, names = gradients(loss, weights, random(5, 3)), ("square", "norm", "clipped")
    norms = squared_norms(each)
    factors = np.minimum(1, 0.2 / np.sqrt(norms))
    assert np.any(factors < 1)
    for memory in (None, 1):
        found = statistics(loss, weights, random(5, 3), statistics=names, clip=0.2, memory=memory)
        assert found.method["shared"] == "vmap"
        assert_leaves(found.gradient, [g.mean(0) for g in each])
        assert_leaves(found.square, [(g**2).mean(0) for g in each])
        assert_leaves(found.norm, [norms])
        assert_leaves(found.clipped, [np.tensordot(factors, g, 1) / 5 for g in each])


@pytest.mark.parametrize("at_once", [1, 3, 7, 9])
def test_turns_see_every_unit_once_and_in_order(at_once: int):
    units = jnp.arange(7.0)
    seen = []

    def some(units: Any) -> Any:
        seen.append(units.shape[0])
        return jnp.sum(units * units), units + units

    total, each = jax.jit(lambda units: in_turns(some, units, at_once))(units)
    assert max(seen) <= at_once
    assert float(total) == np.sum(np.arange(7) ** 2)
    np.testing.assert_array_equal(each, 2 * np.arange(7))


# Values.


def test_bfloat16_parameters():
    model = sx.nn.MLP(8, 16, 4, dtype=jnp.bfloat16, key=KEY)
    x = random(6, 8).astype(jnp.bfloat16)

    def loss(model: Any, x: Any) -> Any:
        return jnp.mean(model(x).astype(jnp.float32) ** 2)

    each = gradients(loss, model, x)
    found = statistics(loss, model, x, statistics=("square", "norm"))
    assert {g.dtype for g in jax.tree.leaves(found.gradient)} == {jnp.dtype(jnp.bfloat16)}
    assert {g.dtype for g in jax.tree.leaves(found.square)} == {jnp.dtype(jnp.float32)}
    # The reference rounds each gradient to 2^-9, and ours are of cotangents that were rounded
    # alike: squares differ by 2 x 2 x 2^-9 at most.
    assert_leaves(found.square, [(g**2).mean(0) for g in each], rtol=2**-7)
    assert_leaves(found.norm, [squared_norms(each)], rtol=2**-7)


@pytest.mark.parametrize("method", [None, "vmap"])
def test_an_example_that_is_not_finite_is_never_dropped(method: str | None):
    x, y = pairs()
    x[2] = np.nan
    batch = x.astype(np.float32), y.astype(np.float32)
    names = ("square", "norm", "sign", "clipped")
    found = statistics(squared_error, mlp(), batch, statistics=names, clip=1.0, method=method)
    np.testing.assert_array_equal(np.isnan(np.asarray(found.norm)), np.arange(6) == 2)
    for name in ("gradient", "square", "sign", "clipped"):
        for leaf in jax.tree.leaves(getattr(found, name)):
            assert np.all(np.isnan(leaf)), name


def test_one_example_and_leaves_that_are_not_trained():
    model = {"layer": mlp(), "count": jnp.arange(3), "name": "x"}

    def loss(model: Any, example: Any) -> Any:
        x, y = example
        return jnp.mean((model["layer"](x) - y) ** 2) * jnp.sum(model["count"]).astype(x.dtype)

    batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), pairs(1))
    found = sx.gradient_statistics(loss, model, batch)
    assert found.gradient["count"] is None
    assert found.norm is None
    assert jax.tree.structure(found.gradient) == jax.tree.structure(
        eqx.filter_grad(loss)(model, jax.tree.map(lambda x: x[0], batch))
    )
    for g, square in zip(*map(jax.tree.leaves, (found.gradient, found.square)), strict=True):
        np.testing.assert_allclose(square, np.square(g), rtol=1e-5)
    with pytest.raises(ValueError, match="one unit has no variance"):
        per_example.signal_to_noise(found)


def test_update_rules_take_the_means_and_members_of_an_ensemble_are_apart():
    def make(key: Any) -> Any:
        return sx.parameterize(
            lambda n: sx.nn.MLP(3, n, 2, use_bias=True, key=key),
            width=4,
            base_width=2,
            parameterization=sx.mup,
        )

    batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), pairs())
    tx = sx.adam(1e-2)

    @eqx.filter_jit
    def step(model: Any) -> Any:
        found = sx.gradient_statistics(squared_error, model, batch)
        state = tx.init(eqx.filter(model, eqx.is_inexact_array))
        updates, _ = tx.update(found.gradient, state, eqx.filter(model, eqx.is_inexact_array))
        assert found.square is not None
        tx.update(found.square, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), found.square

    models = [make(key) for key in jax.random.split(KEY, 2)]
    both = jax.tree.map(lambda *xs: jnp.stack(xs), *models)
    _, squares = eqx.filter_vmap(step)(both)
    for i, model in enumerate(models):
        for x, y in zip(*map(jax.tree.leaves, (squares, step(model)[1])), strict=True):
            np.testing.assert_allclose(x[i], y, rtol=1e-5, atol=1e-7)


# What follows from the means.


def test_ratios_and_the_noise_scale():
    def loss(w: Any, x: Any) -> Any:
        return jnp.sum(w * x)

    x = np.array([[1.0, 1.0, 0.0], [3.0, -1.0, 0.0], [5.0, 1.0, 0.0], [3.0, -1.0, 4.0]], np.float32)
    names = ("square", "sign", "fourth")
    found = sx.gradient_statistics(loss, jnp.zeros(3), x, statistics=names)
    mean, std = x.mean(0), x.std(0, ddof=1)
    np.testing.assert_allclose(per_example.signal_to_noise(found), mean / std, rtol=1e-6)
    by_weight = np.linalg.norm(mean) / np.linalg.norm(std)
    np.testing.assert_allclose(per_example.signal_to_noise_by_weight(found), by_weight, rtol=1e-6)
    np.testing.assert_allclose(per_example.sign_agreement(found), [1, 0, 0.25], rtol=1e-6)
    moments = np.mean(x**4, 0) / np.mean(x**2, 0) ** 2
    np.testing.assert_allclose(per_example.kurtosis(found), moments, rtol=1e-6)
    assert moments[2] == 4  # One of four alone has a gradient.
    trace = np.trace(np.cov(x.T))
    scale = trace / (mean @ mean - trace / 4)
    np.testing.assert_allclose(per_example.noise_scale(found), scale, rtol=1e-5)
    pairs = sx.gradient_statistics(loss, jnp.zeros(3), x, of=2, statistics=("norm",))
    halves = x.reshape(2, 2, 3).mean(1)
    trace = 2 * np.trace(np.cov(halves.T))
    scale = trace / (mean @ mean - trace / 4)
    np.testing.assert_allclose(per_example.noise_scale(pairs), scale, rtol=1e-5)
    with pytest.raises(ValueError, match="has no 'sign'; ask for it"):
        per_example.sign_agreement(pairs)


# What is refused.

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "method": ({"method": "magic"}, "method is 'magic'; expected None"),
    "statistic": ({"statistics": ("median",)}, "unknown statistics: 'median'"),
    "string": ({"statistics": "norm"}, r"expected a tuple: \('norm',\)"),
    "clip": ({"statistics": ("clipped",)}, "give both or neither"),
    "no clip": ({"clip": 1.0}, "give both or neither"),
    "negative": ({"statistics": ("clipped",), "clip": -1.0}, "a norm greater than 0"),
    "unit": ({"of": "sentence"}, "expected 'example', 'token', or"),
    "true": ({"of": True}, "expected 'example', 'token', or"),
    "divisor": ({"of": 4}, "a divisor of 6, such as 2"),
    "memory": ({"memory": 0}, "expected a number of bytes"),
    "vmap of tokens": ({"of": "token", "method": "vmap"}, "knows examples only"),
    "clipped tokens": (
        {"of": "token", "statistics": ("clipped",), "clip": 1.0},
        "'clipped' is of examples",
    ),
    "number for tokens": ({"of": "token"}, "expected a vector with the loss of each token"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_options(case: str):
    options, message = WRONG[case]
    batch = jax.tree.map(lambda x: x.astype(np.float32), pairs())
    with pytest.raises(ValueError, match=message):
        sx.gradient_statistics(squared_error, mlp(), batch, **options)


BATCHES: dict[str, tuple[Any, str]] = {
    "empty": ((np.zeros((0, 3)), np.zeros((0, 2))), "the batch is empty"),
    "nothing": ((), "the batch has no arrays"),
    "sizes": ({"x": np.zeros((2, 3)), "y": np.zeros((3, 2))}, "x has 2, y has 3"),
    "number": ({"x": np.zeros((2, 3)), "y": 1.0}, "no leading axis.*: y"),
}


@pytest.mark.parametrize("case", BATCHES)
def test_wrong_batches(case: str):
    batch, message = BATCHES[case]
    with pytest.raises(ValueError, match=message):
        sx.gradient_statistics(squared_error, mlp(), batch)


def test_wrong_models_and_losses():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="has no floating-point array"):
        sx.gradient_statistics(lambda m, x: jnp.sum(x), {"n": 1}, x)
    with pytest.raises(ValueError, match=r"complex parameters.*: w"):
        sx.gradient_statistics(lambda m, x: jnp.sum(x), {"w": jnp.zeros(1, jnp.complex64)}, x)
    with pytest.raises(ValueError, match="expected a number"):
        sx.gradient_statistics(lambda w, x: w * x, jnp.ones(3), x)


def test_tokens_refuse_what_is_used_twice_or_as_a_whole():
    weights = {"twice": jnp.ones((3, 3)), "whole": jnp.ones(3)}

    def loss(weights: Any, x: Any) -> Any:
        y = jnp.tanh(x @ weights["twice"]) @ weights["twice"]
        return jnp.sum(y, axis=-1) * jnp.sum(jnp.tanh(weights["whole"]))

    with pytest.raises(ValueError, match="twice: a second use; whole: tanh") as error:
        sx.gradient_statistics(loss, weights, np.zeros((2, 4, 3), np.float32), of="token")
    assert "of='example'" in str(error.value)


# Losses of whole batches.


def entropy(model: Any, batch: Any) -> Any:
    return jnp.mean(
        optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(batch[0]), batch[1])
    )


def outputs(model: Any, batch: Any) -> Any:
    return jax.vmap(model)(batch[0])


ACCEPTED: dict[str, Any] = {
    "mean": entropy,
    "sum": lambda m, b: jnp.sum(outputs(m, b) ** 2),
    "and a penalty": lambda m, b: jnp.mean(outputs(m, b) ** 2) + jnp.sum(m.up.weight.value**2),
}
LABELS = np.arange(6) % 2


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_mean_or_a_sum_over_examples(case: str):
    loss = ACCEPTED[case]
    batch = (jnp.asarray(pairs()[0], jnp.float32), LABELS)
    found = per_example.from_batch_loss(loss, mlp(), batch, statistics=("norm",))
    of_mean = 6 if case == "sum" else 1
    for g, expected in zip(
        *map(jax.tree.leaves, (found.gradient, eqx.filter_grad(loss)(mlp(), batch))), strict=True
    ):
        np.testing.assert_allclose(of_mean * g, expected, rtol=1e-4, atol=1e-6)


def normed(model: Any, batch: Any) -> Any:
    y = outputs(model, batch)
    return jnp.mean((y - jnp.mean(y, axis=0, keepdims=True)) ** 2)


REFUSED: dict[str, tuple[Any, str]] = {
    "batch norm": (normed, "sub.*a sum over the examples meets each of them"),
    "contrastive": (
        lambda m, b: jnp.mean(jax.nn.logsumexp(outputs(m, b) @ outputs(m, b).T, axis=1)),
        "dot_general.*examples meet",
    ),
    "softmax": (lambda m, b: jnp.mean(jax.nn.softmax(outputs(m, b), axis=0)), "reduce_max"),
    "largest": (lambda m, b: jnp.max(outputs(m, b)), "reduce_max"),
    "neighbours": (lambda m, b: jnp.mean(outputs(m, b) * outputs(m, b)[::-1]), "rev"),
    "square of the mean": (lambda m, b: jnp.mean(outputs(m, b)) ** 2, "not linear in a sum"),
    "weights that are summed": (
        lambda m, b: jnp.sum(b[0][:, 0] * outputs(m, b)[:, 0]) / jnp.sum(b[0][:, 0]),
        "div.*not linear",
    ),
    "root of the count": (
        lambda m, b: jnp.sum(outputs(m, b)) / np.sqrt(len(b[1])),
        "expected them as 1 / size",
    ),
    "places": (
        lambda m, b: jnp.mean(outputs(m, b)[:, 0] * jnp.arange(len(b[1]), dtype=jnp.float32)),
        "something else for each place",
    ),
    "noise of one key": (
        lambda m, b: jnp.mean(outputs(m, b) * jax.random.normal(KEY, (len(b[1]), 2))),
        "something else for each place",
    ),
    "penalty of a sum": (
        lambda m, b: jnp.sum(outputs(m, b)) + jnp.sum(m.up.weight.value**2),
        "added to a sum",
    ),
    "one after the other": (
        lambda m, b: jax.lax.scan(
            lambda c, x: (jnp.tanh(c + jnp.sum(m(x))), None), jnp.zeros(()), b[0]
        )[0],
        "scan.*one after the other",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_where_examples_meet(case: str):
    loss, message = REFUSED[case]
    batch = (jnp.asarray(pairs()[0], jnp.float32), LABELS)
    with pytest.raises(ValueError, match=message):
        per_example.from_batch_loss(loss, mlp(), batch)
