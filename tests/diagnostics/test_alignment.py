"""Alignment is what its definition says, for known weights and for random ones."""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import MeasuredAlignments, alignment, alignment_exponents, capture

from ..scaling._measure import FAST_COMPILE
from ._transformer import forward

WIDTHS = (64, 128, 256, 512)
SEEDS = 3
TOLERANCE = 0.02


def two_layers(first: Any, second: Any) -> dict[str, sx.Weight]:
    spec = sx.WeightSpec((-1,), (-2,), role=sx.Role.hidden)
    arrays = {"first": first, "second": second}
    return {name: sx.Weight(jnp.asarray(x, jnp.float32), spec) for name, x in arrays.items()}


def apply(model: dict[str, sx.Weight], x: Any) -> Any:
    return x @ sx.effective(model["first"]).T @ sx.effective(model["second"]).T


@functools.partial(jax.jit, compiler_options=FAST_COMPILE)
def measure(initial: Any, model: Any, x: Any) -> MeasuredAlignments:
    return alignment(apply, initial, model, x)


def gaussian(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape) / math.sqrt(shape[-1])


@functools.cache
def exponents(change: Any) -> dict[str, float | None]:
    """The slopes of the second layer when `change(rng, W1, W2, x)` returns the weights now."""
    measured = {}
    for width in WIDTHS:
        found = []
        for seed in range(SEEDS):
            rng = np.random.default_rng((width, seed))
            x = rng.normal(size=(64, width))
            weights = gaussian(rng, width, width), gaussian(rng, width, width)
            now = change(rng, *weights, x)
            found.append(
                measure(two_layers(*weights), two_layers(*now), jnp.asarray(x, jnp.float32))
            )
        measured[width] = found
    fitted = alignment_exponents(measured)["second"]
    return {name: None if fit is None else fit.value for name, fit in fitted._asdict().items()}


# With 64 examples and n rows a ratio scatters by about sqrt(2 / (64 n)) / 2: log2 of it by 0.016 at
# the smallest width, and a slope over the four widths, of three seeds, by less than 0.003.


def independent(rng, first, second, x):
    return first + gaussian(rng, *first.shape), second + gaussian(rng, *second.shape)


def aligned(rng, first, second, x):
    """A rank-one change along the only example's activation, which itself keeps its direction."""
    x[:] = x[0]
    z = first @ x[0]
    return 1.5 * first, second + np.outer(rng.normal(size=len(z)), z)


def aligned_the_wrong_way_round(rng, first, second, x):
    now = aligned(rng, first, second, x)
    return now[0], second + (now[1] - second).T


def test_independent_changes_have_slope_one_half():
    found = exponents(independent)
    assert found.keys() == {"alpha", "omega", "u", "total"}
    for name, slope in found.items():
        assert slope is not None and abs(slope - 0.5) < TOLERANCE, name


def test_a_rank_one_change_along_the_activation_has_slope_one():
    found = exponents(aligned)
    assert found["alpha"] == pytest.approx(1, abs=TOLERANCE)
    assert found["u"] == pytest.approx(1, abs=TOLERANCE)


def test_the_transpose_of_an_aligned_change_is_not_aligned():
    alpha = exponents(aligned_the_wrong_way_round)["alpha"]
    assert alpha is not None and alpha < 0.8


def test_rows_are_in_the_order_of_the_model_under_jit_too():
    """A tree's dictionaries are sorted by `jit`; here the model goes the other way round."""

    def backwards(model, x):
        return x @ sx.effective(model["second"]).T @ sx.effective(model["first"]).T

    now = two_layers(np.eye(4), np.eye(4))
    measured = jax.jit(functools.partial(alignment, backwards))(
        two_layers(2 * np.eye(4), 3 * np.eye(4)), now, jnp.ones((1, 4))
    )
    assert list(measured.uses) == ["first", "second"]
    assert list(measured.by_layer()) == ["second", "first"]
    lines = str(measured).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["second", "first"]


def test_slope_three_quarters():
    """Rows of ones of which all but n^(3/4) cancel: the ratio is exactly n^(3/4)."""
    measured = {}
    for width in (16, 256):
        kept = round(width**0.75)
        row = np.ones(width)
        row[kept:] = np.resize([1.0, -1.0], width - kept)
        identity = np.eye(width)
        now = two_layers(identity, np.tile(row, (width, 1)))
        measured[width] = [measure(two_layers(identity, 0 * identity), now, jnp.ones((1, width)))]
        # A single width's log ratio is the exponent only because no factor stands in front.
        assert measured[width][0].uses["second"].alpha == pytest.approx(0.75, abs=1e-5)
    fitted = alignment_exponents(measured)["second"]
    assert fitted.alpha is not None
    assert fitted.alpha.value == pytest.approx(0.75, abs=1e-5)
    assert fitted.alpha.interval is None
    # The input has not changed, and the initial weight was zero.
    assert (fitted.omega, fitted.u) == (None, None)


# Against the definition, in NumPy.


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def expected(before: Any, now: Any) -> dict[str, float]:
    (w0, x0, z0), (w, x, z) = before, now

    def log_ratio(w, x):
        return math.log(rms(x @ w.T) / (rms(w) * rms(x)), w.shape[1])

    return {
        "alpha": log_ratio(w - w0, x0),
        "omega": log_ratio(w0, x - x0),
        "u": log_ratio(w - w0, x - x0),
        "total": log_ratio(w, x),
        "weight": rms(w0),
        "weight_change": rms(w - w0),
        "input": rms(x0),
        "input_change": rms(x - x0),
        "output": rms(z0),
        "output_change": rms(z - z0),
    }


def transformers(tied: bool) -> tuple[sx.nn.Transformer, sx.nn.Transformer]:
    """At initialisation and after a random change, drawn by NumPy."""

    def make(width):
        return sx.nn.Transformer(
            vocabulary_size=7,
            sequence_length=5,
            width=width,
            depth=3,
            head_dimension=4,
            tied=tied,
            key=jax.random.key(0),
        )

    shapes = eqx.filter_eval_shape(
        lambda: sx.parameterize(make, width=16, base_width=8, parameterization=sx.mup)
    )
    rng = np.random.default_rng(0)

    def draw(weight, *old):
        before = old[0].value if old else 0.0 * jnp.ones(weight.value.shape)
        drawn = (weight.spec.std or 1.0) * rng.normal(size=weight.value.shape)
        return sx.Weight(before + jnp.asarray(drawn, before.dtype), weight.spec)

    initial = sx.map_weights(draw, shapes)
    return initial, sx.map_weights(draw, shapes, initial)


TOKENS = jnp.asarray([[1, 0, 6, 3], [2, 2, 5, 4]])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("tied", [False, True])
def test_every_layer_of_a_transformer(tied: bool):
    initial, model = transformers(tied)
    run = functools.partial(alignment, sx.nn.Transformer.__call__)
    found = jax.jit(run, compiler_options=FAST_COMPILE)(initial, model, TOKENS)
    assert found.not_followed == ()
    assert found.uses["blocks/mlp/up/weight"].alpha.shape == (3,)
    by_layer = found.by_layer()
    (_, before), (_, now) = forward(initial, TOKENS), forward(model, TOKENS)
    checked = 0
    for path, layers in before.items():
        for i, (old, new) in enumerate(zip(layers, now[path], strict=True)):
            name = f"{path}/{i}" if path.startswith("blocks") else path
            use = by_layer[f"{name}#2" if name.startswith("token") else name]
            for field, value in expected(old, new).items():
                assert getattr(use, field) == pytest.approx(value, rel=1e-9, abs=1e-9), (
                    name,
                    field,
                )
                checked += 1
    assert checked == (6 * 3 + 1) * 10


@pytest.mark.usefixtures("x64")
def test_a_lookup_is_a_product_with_one_hot_vectors():
    initial, model = transformers(tied=False)
    run = functools.partial(alignment, sx.nn.Transformer.__call__)
    found = jax.jit(run, compiler_options=FAST_COMPILE)(initial, model, TOKENS)
    use = found.uses["token_embedding/weight"]
    rows, one_hot = np.eye(7), np.eye(7)[np.asarray(TOKENS).reshape(-1)]
    values = [np.asarray(sx.effective(m.token_embedding.weight)).T for m in (initial, model)]
    sizes = expected((values[0], one_hot, 0 * rows), (values[1], 2 * one_hot, 0 * rows))
    assert use.alpha == pytest.approx(sizes["alpha"], rel=1e-9)
    assert use.total == pytest.approx(sizes["total"], rel=1e-9)
    assert (use.omega, use.u, use.input_change) == (None, None, 0)
    assert use.input == pytest.approx(7**-0.5)


def test_layers_of_an_ensemble_are_apart():
    """Stacked by vmap, not by scan, and with an input that all members share."""
    rng = np.random.default_rng(0)
    spec = sx.WeightSpec((-1,), (-2,), role=sx.Role.hidden)
    arrays = [jnp.asarray(rng.normal(size=(3, 8, 8)), jnp.float32) for _ in range(2)]
    x = jnp.asarray(rng.normal(size=(5, 8)), jnp.float32)

    def apply(weight, x):
        return jax.vmap(lambda w: x @ w.T)(sx.effective(weight))

    run = jax.jit(functools.partial(alignment, apply), compiler_options=FAST_COMPILE)
    found = run(*(sx.Weight(a, spec) for a in arrays), x).by_layer()
    assert list(found) == ["/0", "/1", "/2"]
    for i, use in enumerate(found.values()):
        w0, w = (np.asarray(a[i], np.float64) for a in arrays)
        sizes = expected((w0, np.asarray(x), x @ w0.T), (w, 2 * np.asarray(x), x @ w.T))
        assert use.alpha == pytest.approx(sizes["alpha"], rel=1e-4)
        assert use.output_change == pytest.approx(sizes["output_change"], rel=1e-4)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("steps_outside", [False, True])
def test_layers_in_one_scan_and_steps_in_another(steps_outside: bool):
    """A recurrent network of three layers, run layer by layer or step by step."""
    rng = np.random.default_rng(0)
    spec = sx.WeightSpec((-1,), (-2,), role=sx.Role.hidden)
    arrays = [rng.normal(size=(3, 4, 4)) for _ in range(2)]
    x = rng.normal(size=(5, 4))

    def cell(w, h, x):
        h = jnp.tanh(h + x) @ w.T
        return h, h

    def run(weight, x):
        weight = sx.effective(weight)
        if not steps_outside:
            layer = lambda x, w: (jax.lax.scan(functools.partial(cell, w), 0 * x[0], x)[1], None)  # noqa: E731
            return jax.lax.scan(layer, x, weight)[0]

        def step(states, x):
            def layer(x, both):
                h = cell(both[0], both[1], x)[0]
                return h, h

            return jax.lax.scan(layer, x, (weight, states))[::-1]

        return jax.lax.scan(step, jnp.zeros((3, 4)), x)[1]

    def reference(weights):
        y, seen = x, []
        for w in weights:
            inputs, h = [], np.zeros(4)
            for row in y:
                inputs.append(np.tanh(h + row))
                h = inputs[-1] @ w.T
            y = np.stack(inputs) @ w.T
            seen.append((w, np.stack(inputs), y))
        return seen

    measure = jax.jit(functools.partial(alignment, run), compiler_options=FAST_COMPILE)
    found = measure(*(sx.Weight(jnp.asarray(a), spec) for a in arrays), jnp.asarray(x)).by_layer()
    assert len(found) == 3
    for use, before, now in zip(found.values(), *map(reference, arrays), strict=True):
        for field, value in expected(before, now).items():
            assert getattr(use, field) == pytest.approx(value, rel=1e-9), field


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_small_changes_in_short_dtypes(dtype: Any):
    """A product of entries of 2^-14 is 0 in float16, or next to it."""
    rng = np.random.default_rng(0)
    spec = sx.WeightSpec((-1,), (-2,), role=sx.Role.hidden)
    weight, x = (
        jnp.asarray(rng.normal(size=(16, 16)), dtype),
        jnp.asarray(rng.normal(size=(9, 16)), dtype),
    )
    [use] = capture(lambda w, x: x @ sx.effective(w).T, sx.Weight(weight, spec), x).uses[""]
    small = jnp.asarray(2.0**-14, dtype)
    found = use.ratio(small * use.weight, small * x)
    w64, x64 = np.asarray(weight, np.float64), np.asarray(x, np.float64)
    reference = rms(x64 @ w64.T) / (rms(w64) * rms(x64))
    # Both factors and the result are rounded, each by at most half an ulp.
    assert float(found) == pytest.approx(reference, rel=3 * float(jnp.finfo(dtype).eps))


def test_a_model_in_bfloat16():
    """The change is taken in float32, then rounded as an operand of the product must be."""
    rng = np.random.default_rng(0)
    spec = sx.WeightSpec((-1,), (-2,), role=sx.Role.hidden)
    arrays = [jnp.asarray(rng.normal(size=(16, 16)), jnp.bfloat16) for _ in range(2)]
    x = jnp.asarray(rng.normal(size=(9, 16)), jnp.bfloat16)

    def apply(weight, x):
        return x @ sx.effective(weight).T

    run = jax.jit(functools.partial(alignment, apply), compiler_options=FAST_COMPILE)
    use = run(*(sx.Weight(a, spec) for a in arrays), x).uses[""]
    (w0, w), x64 = (np.asarray(a, np.float64) for a in arrays), np.asarray(x, np.float64)
    sizes = expected((w0, x64, x64 @ w0.T), (w, 2 * x64, x64 @ w.T))
    # 2^-8 on each of three roundings moves log_16 by 3 * 2^-8 / log(16).
    assert use.alpha == pytest.approx(sizes["alpha"], abs=3 * 2**-8 / math.log(16))
    assert use.weight_change == pytest.approx(sizes["weight_change"], rel=1e-5)


def test_without_a_change_there_is_nothing_to_measure():
    rng = np.random.default_rng(0)
    model = two_layers(gaussian(rng, 8, 8), gaussian(rng, 8, 8))
    found = measure(model, model, jnp.ones((2, 8)))
    use = found.uses["second"]
    assert np.isnan([use.alpha, use.omega, use.u]).all()
    assert np.isfinite(use.total)
    assert use.weight_change == use.input_change == use.output_change == 0
    assert "second       8      -      -  -" in str(found)


def test_models_that_differ_are_refused():
    model = two_layers(np.eye(8), np.eye(8))
    with pytest.raises(ValueError, match="do not use second in the same way"):
        alignment(apply, model, two_layers(np.eye(8), np.ones((4, 8))), jnp.ones((2, 8)))
