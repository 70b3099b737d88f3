"""Muon on the trunk's matrices, Adam elsewhere: `sx.muon` as a whole."""

from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.theory import Role

PARAMETERIZATIONS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)
HALF = Fraction(1, 2)


def make(width: int) -> list[Any]:
    keys = jax.random.split(jax.random.key(0), 4)
    layer, inner = sx.nn.Linear, 3 * width // 2
    return [
        layer(4, width, use_bias=True, key=keys[0]),
        layer(width, inner, key=keys[1]),
        layer(inner, width, key=keys[2]),
        sx.nn.Readout(width, 2, key=keys[3]),
    ]


def model(parameterization: sx.Parameterization = sx.standard, width: int = 16) -> Any:
    return sx.parameterize(make, width=width, base_width=8, parameterization=parameterization)


def values(tree: Any) -> dict[str, np.ndarray]:
    return {path: np.asarray(w.value) for path, w in sx.weights_with_paths(tree).items()}


def gradients(params: Any, seed: int) -> Any:
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return treedef.unflatten(
        [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    )


def updates(tx: Any, params: Any, steps: int = 2) -> tuple[dict[str, np.ndarray], Any]:
    state, moved = tx.init(params), None
    for seed in range(steps):
        moved, state = tx.update(gradients(params, seed), state, params)
    return values(moved), state


@pytest.fixture(scope="module")
def found() -> tuple[dict[str, np.ndarray], Any]:
    return updates(sx.muon(1.0), model())


def test_hidden_matrices_are_muons_and_the_rest_adams(found):
    muon, adam = found[0], updates(sx.adam(1.0), model())[0]
    params = model()
    trunk = {path for path, w in sx.weights_with_paths(params).items() if w.spec.role == "hidden"}
    assert trunk == {"1/weight", "2/weight"}
    for path in muon.keys() - trunk:
        np.testing.assert_array_equal(muon[path], adam[path])
    # The Newton-Schulz steps leave singular values from 0.5 to 1.2; 1.5 is fan-out over fan-in.
    for path, factor in {"1/weight": 1.5**0.5, "2/weight": 1.5**-0.5}.items():
        s = np.linalg.svd(muon[path], compute_uv=False) / factor
        assert s.min() > 0.5 and s.max() < 1.21


def test_the_state_has_an_array_for_what_each_rule_needs(found):
    muon, adam, *_ = found[1]
    for path, weight in sx.weights_with_paths(model()).items():
        hidden = weight.spec.role is Role.hidden
        assert (sx.weights_with_paths(muon.mean)[path].value is not None) == hidden
        assert (sx.weights_with_paths(adam.nu)[path].value is not None) != hidden
    assert all(eqx.is_array(leaf) for leaf in jax.tree.leaves(found[1]))
    assert muon.rule.roles == ("hidden",)
    assert "hidden" not in adam.rule.roles


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_rates_of_each_role(parameterization: sx.Parameterization):
    """Without a multiplier a hidden matrix needs no factor: the rest is what that takes away."""
    plan = sx.plan(model(parameterization), sx.muon(0.02))
    rows = {row.path: row for row in plan.rows}
    adam = {r.path: r for r in sx.plan(model(parameterization), sx.adam(0.02)).rows}
    for path, row in rows.items():
        if row.role == "hidden":
            a = float(parameterization.a.hidden)
            assert row.learning_rate_factor == pytest.approx(2**a)
            assert row.eps is None
        else:
            assert (row.learning_rate_factor, row.eps) == (
                adam[path].learning_rate_factor,
                adam[path].eps,
            )
    assert plan.warnings == ()
    assert "family muon of hidden, else adam" in plan.to_json()
    assert "scale_by_muon: momentum 0.95, nesterov True, scale spectral" in str(plan)


def test_unequal_growth_follows_both_fans():
    """From 32 and 48 to 64 and 112, as by rounding: the rate is the root of fan-out over fan-in."""

    def grown(width: int) -> Any:
        inner = {32: 48, 64: 112}[width]
        one, other = jax.random.split(jax.random.key(0))
        return [
            sx.nn.Linear(4, width, key=one),
            sx.nn.Linear(width, inner, key=one),
            sx.nn.Linear(inner, width, key=other),
            sx.nn.Readout(width, 2, key=other),
        ]

    params = sx.parameterize(grown, width=64, base_width=32, parameterization=sx.standard)
    for scale, base in {"spectral": (1.5**0.5, 1.5**-0.5), "shape": (1.5**0.5, 1.0)}.items():
        tx = sx.muon(1.0, scale=scale, method="minimax", steps=7)  # pyright: ignore
        moved = updates(tx, params, 1)[0]
        for path, k, ratio in (("1/weight", base[0], 7 / 6), ("2/weight", base[1], 6 / 7)):
            s = np.linalg.svd(moved[path], compute_uv=False)
            np.testing.assert_allclose(s, k * ratio**0.5, rtol=5e-3)


@pytest.mark.parametrize(
    ("tx", "message"),
    [
        (
            optax.chain(sx.scale_by_muon(), sx.scale_by_width("adam", sx.full_alignment)),
            "as for the family adam, whose updates have entries of one size at all widths, but "
            "these have largest singular values",
        ),
        (
            optax.chain(sx.scale_by_adam(), sx.scale_by_width("muon", sx.full_alignment)),
            "as for the family muon, whose updates have largest singular values",
        ),
        (
            optax.chain(sx.muon(0.1), sx.scale_by_width("muon", sx.full_alignment)),
            "learning rates are scaled with the width more than once",
        ),
    ],
)
def test_the_plan_warns_of_another_family(tx: Any, message: str):
    matrices = list(model()[1:])
    assert any(message in warning for warning in sx.plan(matrices, tx).warnings)
    right = optax.chain(sx.scale_by_muon(), sx.scale_by_width("muon", sx.full_alignment))
    assert sx.plan(matrices, right).warnings == ()


def test_laws_of_a_state_are_checked(found):
    exported = sx.export_laws(found[1])
    sx.check_laws(found[1], exported)
    other = jax.eval_shape(sx.muon(1.0, scale="rms").init, model())
    with pytest.raises(ValueError, match="0/rule: scale is spectral in the export, rms in"):
        sx.check_laws(other, exported)


def test_the_state_of_another_rule_is_named():
    tx: Any = sx.muon(0.1)
    params = model()
    with pytest.raises(ValueError, match=r"the state is that of scale_by_adam, .*expected the 4"):
        tx.update(params, sx.adam(0.1).init(params), params)


def test_a_saved_state_loads(tmp_path, found):
    sx.save(tmp_path / "state", found[1])
    blank = jax.eval_shape(sx.muon(1.0).init, model())
    loaded = sx.load(tmp_path / "state", blank)
    for x, y in zip(jax.tree.leaves(loaded), jax.tree.leaves(found[1]), strict=True):
        np.testing.assert_array_equal(x, y)


def test_injected_numbers():
    tx: Any = optax.inject_hyperparams(sx.muon, static_args="steps")(1.0, momentum=0.9)
    params = model()
    for path, moved in updates(tx, params)[0].items():
        expected = updates(sx.muon(1.0, momentum=0.9), params)[0][path]
        np.testing.assert_allclose(moved, expected, atol=2e-5)


def test_stress():
    """Muon's own part: the stress test's weight is hidden. Its strength doesn't end above tiny."""
    tx = optax.chain(sx.scale_by_muon(), optax.scale(-1.0))
    result = sx.diagnostics.stress(tx, gradient="constant", steps=4)
    assert result.degree == 0
    assert result.infinity == "shown"
    inside = [s for s in result.scales if -100 <= s.exponent <= 100]
    assert max(s.deviation for s in inside) < 1e-2
    assert all(s.exact for s in inside)


def test_bfloat16_weights_train():
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model())
    moved, state = updates(sx.muon(0.1, compute_dtype="bfloat16"), narrow, 1)
    assert all(x.dtype == jnp.bfloat16 for x in moved.values())
    assert state[0].mean[1].weight.value.dtype == jnp.float32
