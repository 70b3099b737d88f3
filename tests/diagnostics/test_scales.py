"""Sizes of weights, activations and gradients, and what formats lose of them."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import ScaleRow, Scales
from scalex_eqx.diagnostics._scales import FORMATS
from scalex_eqx.diagnostics._scales._sizes import sizes_of

KNOWN = {
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
    "e5m2": ml_dtypes.float8_e5m2,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
}


def entries(dtype):
    """Numbers at and beside both ends of a format, and many others, without subnormal ones."""
    info = ml_dtypes.finfo(dtype)
    # Half of the least number is a tie, and so is the middle above the largest.
    ends = np.array([float(info.smallest_subnormal) / 2, float(info.max), 448, 464, 6, 7, 65520])
    beside = [np.nextafter(np.float32(x), np.float32(to)) for x in ends for to in (0, np.inf)]
    rng = np.random.default_rng(0)
    others = np.exp2(rng.uniform(-100, 100, 4000)) * rng.choice([-1, 1], 4000)
    whole = np.concatenate([ends, beside, others, [0, 0]]).astype(np.float32)
    return whole[(np.abs(whole) >= np.finfo(np.float32).tiny) | (whole == 0)]


@pytest.mark.parametrize("name", KNOWN)
def test_shares_are_those_of_real_casts(name):
    x, dtype = entries(KNOWN[name]), KNOWN[name]
    with np.errstate(over="ignore"):
        cast = x.astype(dtype).astype(np.float32)
    largest = float(ml_dtypes.finfo(dtype).max)
    zeroed = (cast == 0) & (x != 0)
    over = ~np.isfinite(cast)
    if name == "e2m1":  # Its casts saturate: from 7 on the next number would be 8.
        over = np.abs(x) >= 7
        assert (np.abs(cast[over]) == largest).all()
    found = sizes_of(jnp.asarray(x), 0)
    place = list(FORMATS).index(name)
    count = np.sum(x != 0)
    shares = np.asarray(found.zeroed)[place, 0], np.asarray(found.overflowing)[place, 0]
    np.testing.assert_allclose(shares, [zeroed.sum() / count, over.sum() / count], rtol=1e-5)


def test_sizes_hold_over_the_whole_range():
    x = np.random.default_rng(1).standard_normal((3, 4, 50)).astype(np.float32)
    factors = np.array([2.0**-100, 1, 2.0**100], np.float32)
    found = sizes_of(jnp.asarray(x * factors[:, None, None]), 1)
    expected = np.sqrt(np.mean(x.astype(np.float64) ** 2, axis=(1, 2)))
    np.testing.assert_allclose(found.size, expected * factors, rtol=1e-5)
    np.testing.assert_allclose(found.largest, np.abs(x).max((1, 2)) * factors, rtol=1e-6)
    assert found.overflowing[0].tolist() == [0, 0, 0]


class Stacked(eqx.Module):
    """Two layers in a scan, then a readout."""

    layers: sx.nn.Linear
    out: sx.nn.Readout

    def __call__(self, x):
        arrays, static = eqx.partition(self.layers, eqx.is_array)
        x, _ = jax.lax.scan(lambda x, a: (jnp.tanh(eqx.combine(a, static)(x)), None), x, arrays)
        return self.out(x)


def make(width):
    keys = jax.random.split(jax.random.key(0), 3)
    layers = eqx.filter_vmap(lambda key: sx.nn.Linear(width, width, key=key))(keys[:2])
    return Stacked(layers, sx.nn.Readout(width, 5, key=keys[2]))


def loss(model, batch):
    y = jax.vmap(sx.resolve(model))(batch)
    return 2.0**-20 * jnp.sum(jnp.square(y))


@functools.cache
def found():
    model = sx.parameterize(make, width=16, base_width=8, parameterization=sx.mup)
    return model, sx.diagnostics.scales(
        loss,
        model,
        sx.sgd(2.0**14),
        lambda key: jax.random.normal(key, (6, 16)),
        steps=3,
        at=(0, 3),
        key=jax.random.key(7),
    )


def rms(x):
    return np.sqrt(np.mean(np.square(x)))


def test_every_size_against_backpropagation_by_hand():
    model, scales = found()
    x = np.asarray(jax.random.normal(jax.random.fold_in(jax.random.key(7), 0), (6, 16)), float)
    w = [np.asarray(model.layers.weight.value[i], float) for i in range(2)]
    multiplier = model.out.weight.spec.multiplier
    out = multiplier * np.asarray(model.out.weight.value, float)
    z0 = x @ w[0].T
    h0 = np.tanh(z0)
    z1 = h0 @ w[1].T
    h1 = np.tanh(z1)
    y = h1 @ out.T
    dy = 2.0**-19 * y
    dz1 = (dy @ out) * (1 - h1**2)
    dz0 = (dz1 @ w[1]) * (1 - h0**2)
    expected = {
        "layers/weight[0]": (w[0], x, z0, dz0, dz0.T @ x),
        "layers/weight[1]": (w[1], h0, z1, dz1, dz1.T @ h0),
        "out/weight": (out, h1, y, dy, multiplier * dy.T @ h1),
    }
    rows = {(row.weight, row.kind): row for row in scales.rows if row.step == 0}
    kinds = ("weight", "input", "output", "output gradient", "weight gradient")
    assert len(rows) == 15
    for path, arrays in expected.items():
        for kind, array in zip(kinds, arrays, strict=True):
            row = rows[path, kind]
            np.testing.assert_allclose(row.size, rms(array), rtol=1e-4, err_msg=f"{path} {kind}")
            np.testing.assert_allclose(row.largest, np.abs(array).max(), rtol=1e-4)
    # Entries of about 2^-22, half of the least number of e5m2 being 2^-17.
    cast = dz0.astype(np.float32).astype(ml_dtypes.float8_e5m2).astype(float)
    lost = rows["layers/weight[0]", "output gradient"].zeroed["e5m2"]
    np.testing.assert_allclose(lost, np.mean(cast == 0), atol=1e-6)
    assert lost > 0.5


def test_the_verdict_names_format_share_place_and_step():
    _, scales = found()
    text = str(scales)
    assert scales.steps == (0, 3)
    [said] = [line for line in scales.verdicts() if line.startswith("e5m2")]
    assert "the gradient of what comes out of layers/weight[" in said
    assert "become zero from step 0" in said
    assert said in text and "log2 of root mean squares, at step 0 and step 3" in text
    assert len(scales.table().rows) == 30
    # The control: the same in float32 loses nothing.
    assert not any(line.startswith("float32") for line in scales.verdicts())


def row(step, share, *, kind="output gradient", over=0.0):
    shares = dict.fromkeys(FORMATS, 0.0)
    return ScaleRow(
        step, "mlp[3]", kind, 1.0, 4.0, {**shares, "e5m2": share}, {**shares, "e4m3": over}
    )


def test_from_which_step():
    rows = tuple(row(step, share) for step, share in [(0, 0.5), (1, 0.0), (2, 0.03), (4, 0.12)])
    [said] = Scales(rows).verdicts()
    assert said == (
        "e5m2: 50 % of the entries of the gradient of what comes out of mlp[3] become zero from "
        "step 0"
    )
    [said] = Scales(rows[1:]).verdicts()
    assert said.endswith("become zero from step 2, most at step 4")
    assert Scales(rows[1:3], most=0.05).verdicts() == ()
    [said] = Scales((row(0, 0.0, kind="input", over=0.2),)).verdicts()
    assert said == "e4m3: 20 % of the entries of what goes into mlp[3] overflow from step 0"


def test_a_picture_can_be_drawn():
    figure = sx.diagnostics.scales_figure(found()[1])
    assert figure.axes[0].get_title() == "weight"


def test_refusals():
    model, _ = found()
    with pytest.raises(ValueError, match="at has 9; expected steps from 0 to 3"):
        sx.diagnostics.scales(
            loss, model, optax.sgd(1.0), lambda key: key, steps=3, at=(9,), key=jax.random.key(0)
        )
    with pytest.raises(ValueError, match="spec is not completed"):
        sx.diagnostics.scales(
            loss, make(8), optax.sgd(1.0), lambda key: key, steps=3, key=jax.random.key(0)
        )
