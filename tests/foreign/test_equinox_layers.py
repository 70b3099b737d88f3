"""Every layer of equinox.nn with weights gets its law as it is, and runs once it is resolved."""

import functools
import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pytest

import scalex_eqx as sx

from ._layers import BASE, LAYERS, Layer

KEY = jax.random.key(0)
WIDTH = 32
# Exponents a + b of the effective weight: embedding, hidden, readout.
EFFECTIVE = {
    "standard": (0.0, 0.5, 0.5),
    "ntk": (0.0, 0.5, 0.5),
    "mup": (0.0, 0.5, 1.0),
    "mean_field": (0.0, 0.5, 1.0),
}
MATRICES = (sx.Role.embedding, sx.Role.hidden, sx.Role.readout)

layers = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
# Several tests look at the same models.
plain = functools.cache(lambda layer, width: layer.make(width, KEY))
parameterizations = pytest.mark.parametrize(
    "parameterization", (sx.standard, sx.ntk, sx.mup, sx.mean_field), ids=lambda p: p.name
)


def rms(x) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(x, np.float64)))))


def falls(base, drawn) -> bool:
    return bool(abs(np.log(np.std(base) / np.std(drawn))) > np.log(WIDTH / BASE) / 4)


def scaled(layer: Layer, parameterization: sx.Parameterization, key=KEY, width: int = WIDTH):
    return sx.parameterize(
        lambda n: layer.make(n, key),
        width=width,
        base_width=BASE,
        parameterization=parameterization,
    )


@functools.cache
def resolved_model(layer: Layer, parameterization: sx.Parameterization):
    return sx.resolve(scaled(layer, parameterization))


def arrays(tree) -> dict[str, np.ndarray]:
    """The floating-point arrays outside of a layer's state, in double precision."""
    leaves = jtu.tree_leaves_with_path(tree, is_leaf=lambda x: isinstance(x, eqx.nn.State))
    return {
        jtu.keystr(path, simple=True, separator="/"): np.asarray(leaf, np.float64)
        for path, leaf in leaves
        if eqx.is_inexact_array(leaf)
    }


def test_every_layer_with_weights_is_here():
    """All classes of equinox.nn, but for those that hold no weight of their own."""
    without = {
        *("Dropout", "Identity", "Lambda", "RotaryPositionalEmbedding", "Sequential", "Shared"),
        *("State", "StateIndex", "StatefulLayer", "SpectralNorm", "WeightNorm"),
    }
    # These are constructors of others, for one number of dimensions.
    base = {"Conv2d": "Conv", "Conv3d": "Conv", "Conv1d": "Conv"}
    base |= {f"ConvTranspose{n}d": "ConvTranspose" for n in (1, 2, 3)}
    names = {
        base.get(name, name)
        for name, value in vars(eqx.nn).items()
        if inspect.isclass(value) and "Pool" not in name and name not in without
    }
    built = [eqx.filter_eval_shape(layer.make, BASE, KEY) for layer in LAYERS.values()]
    types = {
        base.get(name, name)
        for model in built
        for name in [type(model[0] if isinstance(model, tuple) else model).__name__]
    }
    assert types == names


@layers
def test_roles(layer: Layer):
    model = eqx.filter_eval_shape(lambda: scaled(layer, sx.mup))
    found = {path: w.spec.role for path, w in sx.weights_with_paths(model).items()}
    assert found == layer.roles
    sx.require_complete(model[0] if isinstance(model, tuple) else model)


@layers
@parameterizations
def test_spread_of_the_effective_weights(layer: Layer, parameterization):
    """That of the base model times r^-(a + b), and zeros, ones and other constants stay.

    Biases and gains are only moved if their spread is nearer to r^-1/2 than to the base model's.
    """
    resolved, original = resolved_model(layer, parameterization), plain(layer, WIDTH)
    assert jtu.tree_structure(resolved) == jtu.tree_structure(original)
    base, drawn = arrays(plain(layer, BASE)), arrays(original)
    for path, value in arrays(resolved).items():
        role = layer.roles[path]
        exponent = EFFECTIVE[parameterization.name][MATRICES.index(role)] if role in MATRICES else 0
        size = rms if role in MATRICES else np.std
        if np.ptp(base[path]) == 0 or (role not in MATRICES and not falls(base[path], drawn[path])):
            assert np.array_equal(value, drawn[path])
        else:
            # Single precision over at most 10^4 entries.
            expected = size(base[path]) * (WIDTH / BASE) ** -exponent
            assert size(value) == pytest.approx(expected, rel=1e-5)
            assert np.argsort(value, None).tolist() == np.argsort(drawn[path], None).tolist()


@layers
def test_at_the_base_width_outputs_are_bitwise_those_of_the_original(layer: Layer):
    inputs = layer.inputs(BASE)
    expected = layer.call(plain(layer, BASE), *inputs)
    found = layer.call(sx.resolve(scaled(layer, sx.mean_field, width=BASE)), *inputs)
    assert jtu.tree_all(jtu.tree_map(np.array_equal, found, expected))


@layers
@parameterizations
def test_it_runs_under_jit_and_vmap_over_keys(layer: Layer, parameterization):
    keys, inputs = jnp.stack([jax.random.key(1), KEY]), layer.inputs(WIDTH)

    def output(key):
        return layer.call(sx.resolve(scaled(layer, parameterization, key)), *inputs)

    together = jtu.tree_leaves(jax.jit(jax.vmap(output))(keys))
    last = jtu.tree_leaves(layer.call(resolved_model(layer, parameterization), *inputs))
    assert [x.shape for x in last] == [
        x.shape for x in jtu.tree_leaves(jax.eval_shape(output, KEY))
    ]
    for a, b in zip(together, last, strict=True):
        assert np.all(np.isfinite(a))
        np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-5)


@layers
def test_calling_it_without_resolve_says_so(layer: Layer):
    model = scaled(layer, sx.mup)
    with pytest.raises((TypeError, AttributeError), match="resolve"):
        layer.call(model, *layer.inputs(WIDTH))
