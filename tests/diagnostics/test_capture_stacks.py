"""Members of a stack keep their own sizes, whoever chooses them, against NumPy."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import alignment, capture

EXPERTS, IN, OUT, TOKENS = 4, 3, 5, 6
# The last one is chosen by nobody.
INDEX = np.asarray([[0, 1], [1, 0], [2, 1], [2, 0], [1, 2], [0, 2]])
MET = [0, 1, 2]
RNG = np.random.default_rng(0)
MATRICES = RNG.normal(size=(EXPERTS, OUT, IN)) * np.arange(1, EXPERTS + 1)[:, None, None]
MOVED = MATRICES + 0.1 * RNG.normal(size=MATRICES.shape)
VECTORS = RNG.normal(size=(EXPERTS, OUT))
X = RNG.normal(size=(TOKENS, IN))
# Sums of at most 15 products in double precision, of sizes below 100.
EXACT = 1e-11


def matrices(values: Any = MATRICES) -> dict[str, sx.Weight]:
    spec = sx.WeightSpec((-1,), (-2,), role=sx.Role.hidden)
    return {"w": sx.Weight(jnp.asarray(values), spec)}


def vectors() -> dict[str, sx.Weight]:
    spec = sx.WeightSpec((), (-1,), role=sx.Role.vector)
    return {"w": sx.Weight(jnp.asarray(VECTORS), spec)}


def rms(x: Any, axis: Any = None) -> Any:
    return np.sqrt(np.mean(np.square(x), axis=axis))


def by_index(model: Any, x: Any, index: Any) -> Any:
    """Two members for each token, each with the whole token."""

    def token(x, i):
        return jnp.einsum("koi,i->ko", model["w"].value[i], x)

    return jax.vmap(token)(x, index)


def by_take(model: Any, x: Any, index: Any) -> Any:
    return jnp.einsum("tkoi,ti->tko", jnp.take(model["w"].value, index, axis=0), x)


def by_dynamic_index(model: Any, x: Any, index: Any) -> Any:
    def one(x, i):
        return jax.lax.dynamic_index_in_dim(model["w"].value, i, keepdims=False) @ x

    return jax.vmap(jax.vmap(one, (None, 0)))(x, index)


def by_modules(model: Any, x: Any, index: Any) -> Any:
    """As a layer of equinox, of which the arrays are indexed."""
    layer = eqx.filter_vmap(lambda w: eqx.tree_at(lambda m: m.weight, LAYER, w))(model["w"].value)

    def token(x, i):
        some = jax.tree.map(lambda a: a[i] if eqx.is_array(a) else a, layer)
        return eqx.filter_vmap(lambda layer: layer(x))(some)

    return jax.vmap(token)(x, index)


LAYER = eqx.nn.Linear(IN, OUT, use_bias=False, key=jax.random.key(0))


def in_a_scan(model: Any, x: Any, index: Any) -> Any:
    def turn(_, token):
        x, i = token
        return None, jnp.einsum("koi,i->ko", model["w"].value[i], x)

    return jax.lax.scan(turn, None, (x, index))[1]


def scaled_behind(model: Any, x: Any, index: Any) -> Any:
    """What is done behind the choice belongs to the weight as well."""
    return jnp.einsum("tkoi,ti->tko", jnp.swapaxes(model["w"].value, 1, 2)[index].mT, x)


CHOOSERS = [by_index, by_take, by_dynamic_index, by_modules, in_a_scan, scaled_behind]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("apply", CHOOSERS, ids=lambda f: f.__name__)
def test_members_that_the_inputs_choose(apply: Any):
    model, moved = matrices(), matrices(MOVED)
    captured = capture(apply, model, jnp.asarray(X), jnp.asarray(INDEX))
    assert captured.not_followed == ()
    [use] = captured.uses["w"]
    assert (use.kind, use.fan_in, use.fan_in_grows) == ("contraction", IN, True)
    z = np.einsum("tkoi,ti->tko", MATRICES[INDEX], X)
    np.testing.assert_allclose(captured.result, z, EXACT, EXACT)
    change = MOVED - MATRICES
    dz = np.einsum("tkoi,ti->tko", change[INDEX], X)
    np.testing.assert_allclose(use.weight_size(use.weight).ravel(), rms(MATRICES, (1, 2)), EXACT)
    sizes = use.input_size(use.input), use.output_size(use.output)
    [found] = alignment(apply, model, moved, jnp.asarray(X), jnp.asarray(INDEX)).uses.values()
    assert found.alpha is not None
    for e in MET:
        tokens, slots = np.argwhere(INDEX - e == 0).T
        into, out, alpha = rms(X[tokens]), rms(z[tokens, slots]), rms(dz[tokens, slots])
        np.testing.assert_allclose([size[e] for size in sizes], [into, out], EXACT)
        expected = np.log(alpha / into / rms(change[e])) / np.log(IN)
        np.testing.assert_allclose(found.alpha[e], expected, rtol=1e-9)
        np.testing.assert_allclose(found.output_change[e], alpha, rtol=1e-9)
    assert all(np.isnan(size[EXPERTS - 1]) for size in (*sizes, found.alpha))


@pytest.mark.usefixtures("x64")
def test_another_choice_is_no_change_of_a_weight():
    """The second model chooses other members: only what the first one chose is compared."""

    def apply(model, x, index):
        return by_index({"w": model["w"]}, x, (index + model["shift"].value[None]) % EXPERTS)

    shift = sx.WeightSpec((), (-1,), role=sx.Role.buffer)
    models = [
        {**matrices(values), "shift": sx.Weight(jnp.asarray([by, by]), shift)}
        for values, by in ((MATRICES, 0), (MATRICES, 1))
    ]
    found = alignment(apply, *models, jnp.asarray(X), jnp.asarray(INDEX)).uses["w"]
    np.testing.assert_array_equal(found.weight_change, 0)
    np.testing.assert_array_equal(found.output_change[jnp.asarray(MET)], 0)


@pytest.mark.usefixtures("x64")
def test_members_by_one_hot_products():
    """Which member an output is from can't be told: all have what all have together."""

    def apply(model, x, index):
        shares = jax.nn.one_hot(index, EXPERTS, dtype=x.dtype)
        return jnp.einsum("toi,ti->to", jnp.einsum("te,eoi->toi", shares, model["w"].value), x)

    first = INDEX[:, 0]
    captured = capture(apply, matrices(), jnp.asarray(X), jnp.asarray(first))
    [use] = captured.uses["w"]
    assert captured.not_followed == () and use.fan_in == IN
    z = np.einsum("toi,ti->to", MATRICES[first], X)
    np.testing.assert_allclose(use.weight_size(use.weight), rms(MATRICES, (1, 2)), EXACT)
    np.testing.assert_allclose(use.output_size(use.output), [rms(z)] * EXPERTS, EXACT)
    np.testing.assert_allclose(use.input_size(use.input), [rms(X)] * EXPERTS, EXACT)


@pytest.mark.usefixtures("x64")
def test_members_by_groups_of_rows():
    sizes = np.asarray([1, 3, 2, 0])

    def apply(model, x, sizes):
        return jax.lax.ragged_dot(x, model["w"].value.mT, sizes)

    captured = capture(apply, matrices(), jnp.asarray(X), jnp.asarray(sizes))
    [use] = captured.uses["w"]
    assert (captured.not_followed, use.kind, use.fan_in) == ((), "contraction", IN)
    rows = np.split(X, np.cumsum(sizes)[:-1])
    for e in MET:
        np.testing.assert_allclose(use.input_size(use.input)[e], rms(rows[e]), EXACT)
        out = rms(rows[e] @ MATRICES[e].T)
        np.testing.assert_allclose(use.output_size(use.output)[e], out, EXACT)
    assert np.isnan(use.output_size(use.output)[EXPERTS - 1])


@pytest.mark.usefixtures("x64")
def test_members_by_groups_of_rows_in_every_turn():
    """Sequence after sequence, each with groups of its own."""
    sizes = np.asarray([[1, 3, 2, 0], [2, 0, 0, 4]])

    def apply(model, x, sizes):
        def turn(each):
            rows, sizes = each
            return jax.lax.ragged_dot(rows, model["w"].value.mT, sizes)

        return jax.lax.map(turn, (x, sizes))

    x = np.stack([X, -X])
    captured = capture(apply, matrices(), jnp.asarray(x), jnp.asarray(sizes))
    [use] = captured.uses["w"]
    rows = [np.split(x[i], np.cumsum(sizes[i])[:-1]) for i in range(2)]
    out = [np.concatenate([r @ w.T for r, w in zip(own, MATRICES, strict=True)]) for own in rows]
    found = use.contract(2 * use.weight, use.input)
    np.testing.assert_allclose(found, 2 * np.stack(out), EXACT, EXACT)
    for e, size in enumerate(use.input_size(use.input)):
        np.testing.assert_allclose(size, rms(np.concatenate([own[e] for own in rows])), EXACT)


@pytest.mark.usefixtures("x64")
def test_a_branch_that_does_not_run_meets_nothing():
    def apply(model, x, i):
        w = model["w"].value
        return jax.lax.switch(i, [lambda x, e=e: x @ w[e].T for e in range(EXPERTS)], x)

    captured = capture(apply, matrices(), jnp.asarray(X), jnp.asarray(2))
    assert captured.not_followed == ()
    np.testing.assert_allclose(captured.result, X @ MATRICES[2].T, EXACT, EXACT)
    sizes = np.stack([use.output_size(use.output) for use in captured.uses["w"]])
    expected = np.full((EXPERTS, EXPERTS), np.nan)
    expected[2, 2] = rms(X @ MATRICES[2].T)
    np.testing.assert_allclose(sizes, expected, EXACT)


@pytest.mark.usefixtures("x64")
def test_vectors_that_the_inputs_choose_are_what_comes_out():
    def apply(model, x, index):
        return x[:, :1] + model["w"].value[index]

    captured = capture(apply, vectors(), jnp.asarray(X), jnp.asarray(INDEX[:, 0]))
    [use] = captured.uses["w"]
    assert (captured.not_followed, use.kind, use.fan_in) == ((), "lookup", 1)
    assert not use.fan_in_grows
    np.testing.assert_allclose(use.output_size(use.output)[:3], rms(VECTORS, 1)[:3], EXACT)
    assert np.isnan(use.output_size(use.output)[3])


@pytest.mark.usefixtures("x64")
def test_slices_of_a_stack_keep_their_numbers():
    """A position table whose first row is joined to the tokens, and the rest added to them."""

    def apply(model, x):
        w = model["w"].value
        return jnp.concatenate([w[:1], x + w[1:]])

    x = RNG.normal(size=(EXPERTS - 1, OUT))
    captured = capture(apply, vectors(), jnp.asarray(x))
    uses = sorted(captured.uses["w"], key=lambda use: use.output.shape)
    first, rest = (use.output_size(use.output) for use in uses)
    assert captured.not_followed == ()
    np.testing.assert_allclose(first, [rms(VECTORS[0]), *[np.nan] * 3], EXACT)
    np.testing.assert_allclose(rest, [np.nan, *rms(x + VECTORS[1:], 1)], EXACT)


@pytest.mark.usefixtures("x64")
def test_experts_in_the_layers_of_a_scan():
    layers = RNG.normal(size=(2, EXPERTS, IN, IN))

    def apply(model, x, index):
        def layer(x, w):
            return jnp.tanh(jax.vmap(lambda x, i: w[i] @ x)(x, index)), None

        return jax.lax.scan(layer, x, model["w"].value)[0]

    first = INDEX[:, 0]
    captured = capture(apply, matrices(layers), jnp.asarray(X), jnp.asarray(first))
    [use] = captured.uses["w"]
    assert captured.not_followed == ()
    found, h = use.output_size(use.output), X
    np.testing.assert_allclose(use.weight_size(use.weight), rms(layers, (2, 3)), EXACT)
    for layer in range(2):
        z = np.einsum("toi,ti->to", layers[layer][first], h)
        expected = [rms(z[first == e]) for e in MET]
        np.testing.assert_allclose(found[layer, :3], expected, EXACT)
        h = np.tanh(z)
    assert np.isnan(found[:, 3]).all()


def test_rows_of_a_table_in_every_member_are_a_lookup():
    spec = sx.WeightSpec((-2,), (-1,), role=sx.Role.embedding)
    model = {"w": sx.Weight(jnp.ones((EXPERTS, 7, OUT)), spec)}

    def apply(model, tokens):
        return jax.vmap(lambda table: table[tokens])(model["w"].value)

    captured = capture(apply, model, jnp.asarray([1, 2]))
    [use] = captured.uses["w"]
    assert (use.kind, use.fan_in, captured.not_followed) == ("lookup", 7, ())
    assert use.output_size(use.output).shape == (EXPERTS,)


def test_what_can_not_be_told_apart_is_named():
    spec = sx.WeightSpec((-2,), (-1,), role=sx.Role.embedding)
    tables = {"w": sx.Weight(jnp.ones((EXPERTS, 7, OUT)), spec)}
    found = capture(lambda m, i, j: m["w"].value[i, j], tables, jnp.asarray(1), jnp.asarray(2))
    assert found.not_followed == (
        ("w", "meets the inputs in dynamic_slice, where it is not followed"),
    )
    mixed = capture(
        lambda m, x: x @ jnp.cumsum(m["w"].value, 0)[0].T,
        matrices(MATRICES.astype("float32")),
        jnp.asarray(X, "float32"),
    )
    assert mixed.not_followed == (("w", "loses its members in cumsum"),)
    joined = capture(
        lambda m, x: x @ jnp.concatenate([m["w"].value[1:], m["w"].value[:1]])[0].T,
        matrices(MATRICES.astype("float32")),
        jnp.asarray(X, "float32"),
    )
    [(_, reason)] = joined.not_followed
    assert reason == "is put together from its pieces before it meets the inputs"
