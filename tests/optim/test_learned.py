"""Learned rules: the published features, what scales they bear, and the files they come in."""

import json
import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx.optim import FeatureSet, LearnedRule, load_rule, save_rule, scale_by_learned
from scalex_eqx.optim._learned._features import FLOOR, Moments, tensor_features
from scalex_eqx.optim._learned._files import pinned
from scalex_eqx.optim._learned._rule import _loaded

RNG = np.random.default_rng(0)
STEPS = 4
SHAPE = (5, 7)
GRADIENTS = RNG.normal(size=(STEPS, *SHAPE)) * np.exp(RNG.normal(size=SHAPE))
START = RNG.normal(size=SHAPE)
ULP = 2.0**-24
# Means of 35 entries, sums over 39 features and 16 ReLUs, each after a handful of roundings.
TOLERANCE = 256 * ULP
TIMES = np.array([1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5])


def rule(seed: int = 0, hidden: int = 16, **options: Any) -> LearnedRule:
    """A random one, whose biases and decay rates aren't zero either."""
    found: Any = LearnedRule(hidden, key=jax.random.key(seed), **options)
    draws = np.random.default_rng(seed)
    biases = [jnp.asarray(0.3 * draws.normal(size=x.bias.shape), jnp.float32) for x in found.layers]
    decays = jnp.asarray(0.03 * draws.normal(size=found.decays.shape), jnp.float32)
    return eqx.tree_at(
        lambda r: (*(layer.bias for layer in r.layers), r.decays), found, (*biases, decays)
    )


@eqx.filter_jit
def step(phi: LearnedRule, gradient, state, params):
    return scale_by_learned(phi).update(gradient, state, params)


def run(phi: LearnedRule, gradients, make, start=START) -> list[Any]:
    params = make(start)
    state, found = scale_by_learned(phi).init(params), []
    for gradient in gradients:
        update: Any
        update, state = step(phi, make(gradient), state, params)
        found.append(update.value)
    return found


# The rule by its formula in float64. Features are in the order of the published list.


def _unit(x, floor=0.0):
    size = np.sqrt(np.mean(x**2) + floor)
    return x / size if size else x


def _inverse(root, floor=FLOOR):
    least = floor * np.sqrt(np.mean(root**2))
    return np.where(root == 0, 0, 1 / np.where(root == 0, 1, np.maximum(root, least)))


def oracle(phi: LearnedRule, gradients, w, *, floor: float = 0.0) -> list[np.ndarray]:
    """`floor` is that of the published normaliser, which is added to a feature's mean square."""
    first = 1 - np.array(phi.features.decays)
    steps = np.minimum(first * np.exp(10 * np.asarray(phi.decays, np.float64)), 1)
    of_mean, of_v, of_factored = steps[:3], steps[3], steps[4:]
    is_matrix = w.ndim == 2
    m, v = np.zeros((3, *w.shape)), np.zeros(w.shape)
    rows = np.zeros((3, w.shape[0], 1) if is_matrix else (3, *w.shape))
    columns = np.zeros((3, 1, w.shape[1]) if is_matrix else (3, *w.shape))
    found = []
    for t, g in enumerate(gradients, start=1):
        q = g**2
        v = v + of_v * (q - v)
        for i in range(3):
            m[i] += of_mean[i] * (g - m[i])
            row, column = (
                (q.mean(1, keepdims=True), q.mean(0, keepdims=True)) if is_matrix else (q, q)
            )
            rows[i] += of_factored[i] * (row - rows[i])
            columns[i] += of_factored[i] * (column - columns[i])
        by_row, by_column = ([_inverse(np.sqrt(x)) for x in y] for y in (rows, columns))
        size = [r * c if is_matrix else r for r, c in zip(by_row, by_column, strict=True)]
        inverse = _inverse(np.sqrt(v))
        features = [w, g, *m, v, *(x * inverse for x in m), inverse]
        features += [g * s for s in size] + [x * s for x, s in zip(m, size, strict=True)]
        features += [*rows, *columns, *by_row, *by_column]
        stacked = [np.broadcast_to(_unit(x, floor), w.shape) for x in features]
        stacked += [np.full(w.shape, x) for x in np.tanh(t / TIMES - 1)]
        x = np.stack(stacked, -1)
        for i, layer in enumerate(phi.layers):
            x = x @ np.asarray(layer.weight, np.float64).T + np.asarray(layer.bias, np.float64)
            x = np.maximum(x, 0) if i < 2 else x
        found.append(x[..., 0] * np.exp(1e-3 * x[..., 1]))
    return found


def assert_near(found, expected, tolerance=TOLERANCE):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), b, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize(("hidden", "count"), [(4, 197), (16, 953), (32, 2409)])
def test_it_has_as_many_parameters_as_the_published_ones(hidden: int, count: int):
    shapes = eqx.filter_eval_shape(lambda: LearnedRule(hidden, key=jax.random.key(0)))
    assert shapes.parameters == count
    assert FeatureSet().count == 39
    assert FeatureSet().normalised == 28


@pytest.mark.parametrize("shape", [(5, 7), (7,)])
def test_it_is_its_formula(weight, shape: tuple[int, ...]):
    gradients, start = GRADIENTS[:, 0] if len(shape) == 1 else GRADIENTS, START
    start = START[0] if len(shape) == 1 else START
    role = "vector" if len(shape) == 1 else "hidden"
    found = run(rule(), gradients, lambda x: weight(x, role), start)
    expected = oracle(rule(), np.float32(gradients).astype(float), np.float32(start).astype(float))
    assert_near(found, expected)
    other = oracle(rule(1), gradients, start)
    assert max(np.abs(a - b).max() for a, b in zip(expected, other, strict=True)) > 0.1


@pytest.mark.parametrize("power", [-90, -20, 20, 60])
def test_no_scale_of_gradients_or_weights_changes_it(weight, power: int):
    """Bitwise, by powers of two."""
    found = run(rule(), GRADIENTS, weight)
    scaled = run(rule(), np.ldexp(GRADIENTS, power), weight, np.ldexp(START, power // 2))
    for a, b in zip(found, scaled, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_absolute_floor_would_make_it_another_rule_where_gradients_are_small():
    """The published one is 1e-5 in the mean square of each feature."""
    small = np.ldexp(GRADIENTS, -12)
    assert_near(oracle(rule(), small, START), oracle(rule(), GRADIENTS, START), 1e-12)
    one, other = (oracle(rule(), x, START, floor=1e-5)[-1] for x in (GRADIENTS, small))
    assert np.abs(one - other).max() > 0.05


@pytest.mark.parametrize("form", ["direction", "matched"])
def test_the_forms(weight, form: str):
    update = np.asarray(run(rule(form=form), GRADIENTS, weight)[-1], np.float64)
    size = np.sqrt(np.mean(update**2))
    assert abs(size - 1) < TOLERANCE
    plain = np.asarray(run(rule(), GRADIENTS, weight)[-1], np.float64)
    assert abs(np.sqrt(np.mean(plain**2)) - 1) > 0.1


def test_stacked_weights_are_several(weight):
    values = np.stack([GRADIENTS, 30 * GRADIENTS[::-1]], 1)
    starts = np.stack([START, 2 * START])
    together = run(rule(), values, weight, starts)
    for i in range(2):
        apart = run(rule(), values[:, i], weight, starts[i])
        assert_near([x[i] for x in together], apart)
    mixed = oracle(rule(), values.reshape(STEPS, 10, 7), starts.reshape(10, 7))
    assert np.abs(mixed[-1].reshape(2, 5, 7) - together[-1]).max() > 0.05


def test_what_never_had_a_gradient_stays(weight):
    gradients = GRADIENTS.copy()
    gradients[:, 1] = gradients[:, :, 2] = 0
    gradients[:2, 3, 3] = 0
    found = run(rule(), gradients, weight)
    assert np.array_equal(np.asarray(found[1]) == 0, gradients[:2].any(0) == 0)
    assert np.all(np.asarray(found[-1])[3, 3] != 0)
    assert_near(run(rule(), 0 * GRADIENTS, weight), 0 * GRADIENTS)


def test_a_gradient_that_is_not_finite_is_not_hidden(weight):
    gradients = GRADIENTS.copy()
    gradients[0, 2, 2] = np.inf
    assert np.isnan(run(rule(), gradients[:1], weight)[0]).all()


def test_a_single_large_gradient_moves_nothing_far(weight):
    """No feature of an entry is larger than the root of the number of entries."""
    gradients = GRADIENTS.copy()
    gradients[0, 0, 0] = 1e12
    row, column = (
        jnp.asarray(np.sqrt((gradients[:3] ** 2).mean(axis, keepdims=True)), jnp.float32)
        for axis in (2, 1)
    )
    means, root = (jnp.asarray(x, jnp.float32) for x in (gradients[:3], np.abs(gradients[0])))
    moments = Moments(means, root, row, column, None)
    w, g = jnp.asarray(START, jnp.float32), jnp.asarray(gradients[0], jnp.float32)
    groups = eqx.filter_jit(tensor_features)(FeatureSet(), w, g, moments)
    assert sorted(place for group in groups for place in group.places) == list(range(28))
    for group in groups:
        assert np.abs(group.values).max() <= np.sqrt(35) * (1 + TOLERANCE)


def test_other_features(weight):
    features = FeatureSet(factored=(), parameter=False)
    phi = LearnedRule(4, features=features, key=jax.random.key(0))
    assert phi.layers[0].weight.shape == (4, 20)
    found = run(phi, GRADIENTS, weight)
    assert np.isfinite(found).all()
    # It doesn't see the weights, which the published one does.
    assert np.array_equal(found, run(phi, GRADIENTS, weight, START[::-1]))
    assert not np.array_equal(
        run(rule(), GRADIENTS, weight), run(rule(), GRADIENTS, weight, START[::-1])
    )


def test_it_can_be_differentiated_where_nothing_has_moved(weight):
    """Roots of zero have an infinite derivative, and gradients are zero at first."""
    gradients, start = GRADIENTS[:2, 0].copy(), START[0]
    gradients[0] = gradients[1, :2] = 0

    def total(phi):
        return sum(jnp.sum(x**2) for x in run(phi, gradients, lambda x: weight(x, "vector"), start))

    found = eqx.filter_jit(eqx.filter_grad(total))(rule())
    leaves = jax.tree.leaves(eqx.filter(found, eqx.is_array))
    assert all(np.isfinite(x).all() for x in leaves)
    # By differences in float64.
    phi, step, sums = rule(), 1e-6, []
    bias = np.asarray(phi.layers[0].bias, np.float64)
    for moved in (bias + step * (np.arange(16) == 3), bias - step * (np.arange(16) == 3)):
        updates = oracle(eqx.tree_at(lambda r: r.layers[0].bias, phi, moved), gradients, start)
        sums.append(np.sum(updates[1][2:] ** 2))
    expected = (sums[0] - sums[1]) / (2 * step)
    np.testing.assert_allclose(float(found.layers[0].bias[3]), expected, rtol=1e-4)


def test_a_rule_comes_back_from_its_file(tmp_path):
    features = FeatureSet(times=(5.0, 50.0))
    path, phi = tmp_path / "rule.npz", rule(hidden=4, form="direction", features=features)
    save_rule(phi, path, {"command": "by hand"})
    stored = load_rule(path)
    assert stored.made == {"command": "by hand"}
    assert eqx.tree_equal(stored.rule, phi)


def test_a_file_is_named_with_what_is_in_it(tmp_path):
    path = str(tmp_path / "rule.npz")
    save_rule(rule(hidden=4), path, {"date": "one"})
    name = pinned(path)
    assert re.fullmatch(re.escape(path) + "#[0-9a-f]{8}", name) and pinned(name) == name
    assert eqx.tree_equal(load_rule(name).rule, rule(hidden=4))
    # How it was made is not the rule.
    save_rule(rule(hidden=4), path, {"date": "another"})
    assert pinned(path) == name
    for other in (rule(1, hidden=4), rule(hidden=4, form="matched")):
        save_rule(other, path)
        assert pinned(path) != name
        with pytest.raises(ValueError, match="have changed since, and are another rule"):
            load_rule(name)


def test_what_is_shipped_stays_what_it_is():
    """Stored runs are found by its name."""
    assert load_rule("default").digest[:8] == "e530ca0f"


def test_what_is_no_rule_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected 'default' or a file"):
        load_rule("defualt")
    with pytest.raises(ValueError, match="can't be read"):
        load_rule(tmp_path / "none.npz")
    path = tmp_path / "rule.npz"
    path.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="are no learned rule"):
        load_rule(path)
    save_rule(rule(hidden=4), path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "decays": np.array([None] * 7)})
    with pytest.raises(ValueError, match="allow_pickle"):
        load_rule(path)
    np.savez(path, **{**arrays, "decays": np.full(7, np.nan, np.float32)})
    with pytest.raises(ValueError, match=r"decays is .*; expected finite numbers"):
        load_rule(path)
    about = json.loads(str(arrays["about"]))
    np.savez(path, **{**arrays, "about": np.array(json.dumps({**about, "hidden": 5}))})
    with pytest.raises(ValueError, match=r"layer0_weight is float32\[4, 39\]"):
        load_rule(path)
    with pytest.raises(ValueError, match="expected 'default', a path"):
        _loaded(3)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="form is 'size'"):
        LearnedRule(4, form="size", key=jax.random.key(0))
    with pytest.raises(ValueError, match="as many factored ones or none"):
        FeatureSet(factored=(0.9,))
    with pytest.raises(ValueError, match="a decay rate is 1"):
        FeatureSet(momentum=(0.9, 0.99, 1.0))


def test_it_needs_the_weights(weight):
    tx = scale_by_learned(rule())
    with pytest.raises(ValueError, match="looks at the weights"):
        tx.update(weight(START), tx.init(weight(START)))


def test_it_follows_the_law_of_adam(weight):
    params = weight(START)
    state = jax.eval_shape(sx.learned(weights=rule()).init, params)
    rules = [x.rule for x in state if isinstance(getattr(x, "rule", None), sx.optim.Rule)]
    (family,) = [x.family for x in rules if x.family is not None]
    assert family == sx.theory.as_family("adam")
    (row,) = sx.plan({"w": params}, sx.learned(weights=rule())).rows
    assert row.learning_rate_factor == 0.25
