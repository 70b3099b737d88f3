"""Weights that stand beside each other in one array: each is captured and checked by itself."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import capture, coordinate_check

from ..foreign.test_fused import BASE, KEPT, QKV, WIDTH, together
from ..sparsify._models import Stack

X = np.asarray(jax.random.normal(jax.random.key(3), (5, 3)))


def applied(model: Any, x: Any) -> Any:
    return jax.vmap(sx.resolve(model))(x)


def test_each_part_meets_the_input_by_itself():
    model = together(sx.ntk)
    found = capture(applied, model, X)
    assert not found.not_followed
    first, qkv = (
        np.asarray(sx.effective(w), float) for w in (model.first.weight, model.qkv.weight)
    )
    features = X @ first.T
    for i, rows in enumerate((slice(WIDTH), slice(WIDTH, -KEPT), slice(-KEPT, None))):
        [use] = found.uses[f"{QKV}/{i}"]
        assert (use.kind, use.fan_in) == ("contraction", WIDTH)
        again = use.contract(use.weight, use.input)
        for one, expected in (
            (use.weight, qkv[rows]),
            (use.input, features),
            (use.output, features @ qkv[rows].T),
            (again, features @ qkv[rows].T),
        ):
            # As the program has them, which may be the transpose.
            one = one if one.shape == expected.shape else one.T
            np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-5)
    # Queries go on to be met by the readout, keys and values by the way back.
    edges = {
        (QKV + "/0", "readout/weight"),
        (QKV + "/1", "back/weight"),
        (QKV + "/2", "back/weight"),
    }
    assert edges <= set(found.flow) | edges


@pytest.mark.parametrize(
    ("use", "names"),
    [
        # Transposed, in another dtype and times a number, all of them whole.
        (lambda w, x: x @ (2 * w.astype("bfloat16").astype("float32")).T, set()),
        (lambda w, x: jnp.einsum("ij,bj->bi", w, x), set()),
        # Sums and slices that mix them.
        (lambda w, x: x[:, :1] @ w.sum(0, keepdims=True), {"0", "1"}),
        (lambda w, x: x @ w[1:].T, {"0", "1"}),
        (lambda w, x: x @ w.reshape(4, 2, 3)[:, 0].T, {"0", "1"}),
        (lambda w, x: x[:, :1] @ w[:, :1].T @ w, {"0", "1"}),
    ],
)
def test_what_mixes_them_is_named(use: Any, names: set[str]):
    spec = sx.WeightSpec((-1,), (-2,), std=1.0, role=sx.Role.hidden)

    def make(width: int) -> Any:
        draws = [jax.random.normal(jax.random.key(i), (4, width)) for i in range(2)]
        return {str(i): sx.Weight(x, spec) for i, x in enumerate(draws)}

    model = sx.parameterize(make, width=3, base_width=3, parameterization=sx.mup)

    def apply(model: Any, x: Any) -> Any:
        return use(jnp.concatenate([sx.effective(model["0"]), sx.effective(model["1"])]), x)

    found = capture(apply, model, X)
    assert {lost.path for lost in found.not_followed} == names
    if not names:
        expected = apply(model, X)
        both = [found.uses[name][0].output for name in ("0", "1")]
        both = [x if x.shape == (5, 4) else x.T for x in both]
        np.testing.assert_allclose(jnp.concatenate(both, axis=1), expected, rtol=1e-5)


def test_layers_of_a_scan():
    model = sx.parameterize(
        lambda width: Stack(width, jax.random.key(0)),
        width=WIDTH,
        base_width=BASE,
        parameterization=sx.mup,
        parts={"blocks/weight": lambda rows: (rows // 2, rows // 2)},
    )
    x = jnp.ones((6, 4))
    for apply in (applied, lambda model, x: jax.vmap(model)(x)):
        found = capture(apply, model, x)
        assert not found.not_followed
        uses = [found.uses[f"blocks/weight/{i}"][0] for i in range(2)]
        # A leading axis for the turns.
        assert {use.weight.size for use in uses} == {2 * WIDTH * WIDTH // 2}
        assert {(use.output.shape[0], use.output.size) for use in uses} == {(2, 6 * WIDTH)}


def test_the_check_names_the_part_at_fault():
    def build(width: int, key: Any) -> Any:
        def where(model: Any) -> Any:
            return model.qkv.weight.parts[1].value

        model = together(width=width)
        return eqx.tree_at(where, model, replace_fn=lambda x: x * (width / BASE) ** 0.5)

    def loss(model: Any, x: Any) -> Any:
        return jnp.mean(jnp.square(applied(model, x) - x[:, :2]))

    found = coordinate_check(
        build,
        loss,
        sx.adam(0.01),
        lambda key: (jax.random.normal(key, (16, 3)),),
        widths=(BASE, 4 * BASE),
        seeds=(0, 1),
        steps=2,
    )
    assert found.verdict == "rejected", str(found)
    assert found.findings[0].weight == f"{QKV}/1"
