"""Initial values of unmodified modules follow sigma * r^-b, held against Equinox's initialisers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer

import scalex_eqx as sx

KEY = jax.random.key(0)
BASE = 64
RATIOS = (1, 4, 16)
INPUTS, CLASSES = 16, 8
# Exponents b of embedding, hidden, readout.
B = {
    "standard": (0.0, 0.5, 0.5),
    "ntk": (0.0, 0.0, 0.0),
    "mup": (0.5, 0.5, 0.5),
    "mean_field": (0.0, 0.0, 0.0),
}
PARAMETERIZATIONS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)
# Equinox draws a Linear from U(+-1 / sqrt(in)), of standard deviation 1 / sqrt(3 in), and an
# Embedding from N(0, 1). Level, fourth standardised moment, and index of the exponent.
NORMAL, UNIFORM = 3.0, 1.8
SIGMA = {
    "table/weight": (1.0, NORMAL, 0),
    "mlp/layers/0/weight": ((3 * INPUTS) ** -0.5, UNIFORM, 0),
    "mlp/layers/1/weight": ((3 * BASE) ** -0.5, UNIFORM, 1),
    "mlp/layers/2/weight": ((3 * BASE) ** -0.5, UNIFORM, 2),
}


def make(width: int):
    table = eqx.nn.Embedding(32, width, key=jax.random.key(1))
    return {"mlp": eqx.nn.MLP(INPUTS, CLASSES, width, 2, key=KEY), "table": table}


def scaled(width: int, parameterization=sx.ntk, make=make, base_width: int = BASE, **options):
    return sx.parameterize(
        make,
        width=width,
        base_width=base_width,
        parameterization=parameterization,
        **options,
    )


def sizes(model) -> dict[str, float]:
    weights = sx.weights_with_paths(model)
    return {path: rms(w.value) for path, w in weights.items()}


def rms(x) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(x, np.float64)))))


def entries(path: str) -> int:
    return sx.weights_with_paths(scaled(BASE))[path].value.size


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_levels_and_slopes(parameterization):
    """The relative error of an RMS over N entries is sqrt((kurtosis - 1) / 4 N)."""
    found = [sizes(scaled(BASE * r, parameterization)) for r in RATIOS]
    for path, (sigma, kurtosis, column) in SIGMA.items():
        b = B[parameterization.name][column]
        tolerance = 4.5 * np.sqrt((kurtosis - 1) / (4 * entries(path)))
        for r, std in zip(RATIOS, found, strict=True):
            assert std[path] == pytest.approx(sigma * r**-b, rel=tolerance)
        slope = np.polyfit(np.log(RATIOS), np.log([std[path] for std in found]), 1)[0]
        assert slope == pytest.approx(-b, abs=1e-5)


def test_what_equinox_draws_has_other_slopes():
    """The control: only in the standard parameterization its exponents are the law's."""
    plain = [np.std(np.asarray(make(BASE * r)["mlp"].layers[1].weight, np.float64)) for r in RATIOS]
    slope = np.polyfit(np.log(RATIOS), np.log(plain), 1)[0]
    assert slope == pytest.approx(-B["standard"][1], abs=0.01)
    assert abs(slope + B["ntk"][1]) > 0.4


def test_biases_keep_the_spread_of_the_base_model():
    """Equinox's fall with the fan-in."""
    for path in ("mlp/layers/1/bias", "mlp/layers/2/bias"):
        base, wide = (
            np.std(np.asarray(sx.weights_with_paths(scaled(width))[path].value, np.float64))
            for width in (BASE, 16 * BASE)
        )
        assert wide == pytest.approx(base, rel=1e-5)
    narrow, wide = (np.std(make(width)["mlp"].layers[1].bias) for width in (BASE, 16 * BASE))
    assert wide < 0.5 * narrow


@pytest.mark.parametrize("width", [BASE // 4, 3 * BASE])
def test_the_distributions_shape_is_kept(width: int):
    """A matrix is what was drawn, times a number."""
    value = np.asarray(scaled(width)["mlp"].layers[1].weight.value, np.float64)
    drawn = np.asarray(make(width)["mlp"].layers[1].weight, np.float64)
    np.testing.assert_allclose(value, drawn * (rms(value) / rms(drawn)), rtol=1e-6)


@pytest.mark.parametrize("other", [sx.ntk, sx.mean_field], ids=lambda p: p.name)
def test_equivalent_parameterizations_start_as_the_same_model(other):
    """Also where the entries have a mean; a multiplier takes all of an entry."""

    def make(width: int):
        return {"w": jax.random.uniform(KEY, (width, width)) / width, "eye": jnp.eye(width)}

    same = sx.standard if other is sx.ntk else sx.mup
    one, another = (sx.resolve(scaled(4 * BASE, p, make)) for p in (same, other))
    for name in one:
        np.testing.assert_allclose(one[name], another[name], rtol=1e-6)
    assert np.count_nonzero(another["eye"]) == 4 * BASE


@pytest.mark.parametrize(
    "table",
    [lambda n: 1e4 ** -(jnp.arange(n) / n), lambda n: jnp.log(jnp.arange(1.0, n + 1))],
    ids=["rotary", "state space"],
)
def test_a_table_that_is_no_draw_stays_bitwise(table):
    def make(width: int):
        return {"w": jnp.ones((width, width)), "table": table(width)}

    model = scaled(128, sx.standard, make, 16, layouts={"table": ("out",)})
    assert np.array_equal(model["table"].value, table(128))


def test_at_the_base_width_nothing_is_touched():
    model = sx.weights_with_paths(scaled(BASE, sx.mup))
    plain = jax.tree.leaves(eqx.filter(make(BASE), eqx.is_inexact_array))
    for weight, drawn in zip(model.values(), plain, strict=True):
        assert np.array_equal(weight.value, drawn)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_constants_stay_bitwise(value: float):
    """A tenth is no binary fraction: its mean over many is not itself."""
    model = scaled(48, sx.ntk, lambda n: {"w": jnp.full((n, n), value), "v": jnp.full(n, value)}, 8)
    for weight in model.values():
        assert np.all(np.asarray(weight.value) == np.float32(value))


def test_a_gain_around_one_keeps_the_one():
    def make(width: int):
        return {"gain": 1 + 0.1 * jax.random.normal(KEY, (width,)) * width**-0.5}

    model = scaled(1024, sx.mup, make, layouts={"gain": ("out",)})
    value = np.asarray(model["gain"].value, np.float64)
    base = np.asarray(make(BASE)["gain"], np.float64)
    assert np.std(value) == pytest.approx(np.std(base), rel=1e-4)
    assert np.mean(value) == pytest.approx(1, abs=4.5 * 0.1 / 1024)


def test_layers_of_a_stack_are_measured_together():
    """They keep their sizes relative to one another."""
    scales = jnp.asarray([1.0, 3.0])

    def make(width: int):
        drawn = jax.vmap(lambda s: s * jax.random.normal(KEY, (width, width)))(scales)
        return {"w": drawn / width**0.5}

    model = scaled(256, sx.ntk, make, layouts={"w": ("out", "in")})
    first, second = np.std(np.asarray(model["w"].value, np.float64), axis=(1, 2))
    assert second / first == pytest.approx(3, rel=1e-3)
    assert model["w"].spec.stack_axes(3) == (0,)
    # N(0, 1) of 64 x 64 entries, over the square root of 64.
    assert first == pytest.approx(64**-0.5, rel=4.5 / np.sqrt(2 * 64**2))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_dtype_is_kept(dtype: str):
    def make(width: int):
        drawn = jax.random.normal(KEY, (width, width)) / width**0.5
        return {"w": drawn.astype(dtype)}

    value = scaled(256, sx.ntk, make)["w"].value
    assert value.dtype == dtype
    ulp = float(jnp.finfo(dtype).eps)
    assert rms(value) == pytest.approx(rms(make(64)["w"]), rel=1e-4 + ulp)


def test_complex_arrays_are_refused():
    with pytest.raises(ValueError, match="w: a complex array"):
        scaled(256, make=lambda n: {"w": jnp.ones((n, n), "complex64")})


def test_arrays_of_numpy_are_measured_too():
    def make(width: int):
        rng = np.random.default_rng(0)
        return {"w": np.asarray(rng.normal(size=(width, width)) / width, np.float32)}

    value = scaled(256, sx.ntk, make)["w"].value
    assert rms(value) == pytest.approx(rms(make(BASE)["w"]), rel=1e-5)


def test_a_spread_that_cannot_be_measured():
    with pytest.raises(ValueError, match=r"v: shape \(1,\).*single entry cannot be measured"):
        scaled(4, make=lambda n: {"v": jax.random.normal(KEY, (n,))}, base_width=1)


def test_the_base_model_is_only_made_where_it_is_needed():
    made = []

    def make(width: int):
        x = jax.random.normal(KEY, (width, width))
        made.append((width, isinstance(x, Tracer)))
        return {"w": x}

    scaled(256, make=make)
    assert made == [(256, False), (64, False), (128, True)]
    made.clear()
    scaled(64, make=make)
    assert made == [(64, False), (128, True)]


def test_a_bias_that_stays_is_drawn_alike_at_every_width():
    """Behind a fan-in that grows Equinox draws it smaller and smaller."""

    def make(width: int):
        keys = jax.random.split(jax.random.key(0), 3)
        sizes = ((4, width), (width, 512), (512, 3))
        return [eqx.nn.Linear(*size, key=key) for size, key in zip(sizes, keys, strict=True)]

    roles = {"1/weight": "hidden", "1/bias": "vector", "2/weight": "readout"}
    base, wide = (
        sx.parameterize(make, width=width, base_width=8, parameterization=sx.standard, roles=roles)
        for width in (8, 128)
    )
    spread = [float(jnp.std(model[1].bias.value)) for model in (base, wide)]
    assert spread[1] == pytest.approx(spread[0], rel=1e-5)
    drawn = {width: make(width)[1].bias for width in (8, 128)}
    assert drawn[8] is not None and drawn[128] is not None
    assert float(jnp.std(drawn[128])) < spread[0] / 3
    assert (base[1].bias.value == drawn[8]).all()
