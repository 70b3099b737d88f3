"""Modules of Flax NNX: the types of variables and layers say what their arrays are."""

import functools
from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx import Role

nnx = pytest.importorskip("flax.nnx")

BASE, WIDTH = 8, 32


def scaled(make, parameterization=sx.mup, width: int = WIDTH, **options):
    return sx.parameterize(
        make, width=width, base_width=BASE, parameterization=parameterization, **options
    )


def specs(model) -> dict[str, sx.WeightSpec]:
    weights = sx.weights_with_paths(model).items()
    return {path.removesuffix("/value"): weight.spec for path, weight in weights}


def said(model) -> dict[str, str]:
    """Axes and role of each array."""
    return {
        path: ("" if spec.role is Role.buffer else spec.summary().split(")")[0] + ") ")
        + str(spec.role)
        for path, spec in specs(model).items()
    }


class Table(nnx.Variable):
    """A variable of one's own."""


class Layers(nnx.Module):
    def __init__(self, width: int):
        rngs = nnx.Rngs(0)
        self.embed = nnx.Embed(10, width, rngs=rngs)
        self.first = nnx.Linear(3, width, rngs=rngs)
        self.wide = nnx.Linear(width, 4 * width, use_bias=False, rngs=rngs)
        self.last = nnx.Linear(width, 2, rngs=rngs)
        self.heads = nnx.LinearGeneral(width, (width // 4, 4), rngs=rngs)
        self.join = nnx.LinearGeneral((width // 4, 4), width, axis=(-2, -1), rngs=rngs)
        self.conv = nnx.Conv(3, width, (3, 3), rngs=rngs)
        self.depthwise = nnx.Conv(width, width, (3,), feature_group_count=width, rngs=rngs)
        self.up = nnx.ConvTranspose(width, 3, (3,), rngs=rngs)
        self.flipped = nnx.ConvTranspose(3, width, (3,), transpose_kernel=True, rngs=rngs)
        self.einsum = nnx.Einsum("nta,hab->nthb", (width // 4, width, 4), (4,), rngs=rngs)
        self.layer_norm = nnx.LayerNorm(width, rngs=rngs)
        self.rms_norm = nnx.RMSNorm(width, rngs=rngs)
        self.batch_norm = nnx.BatchNorm(width, rngs=rngs)
        self.group_norm = nnx.GroupNorm(width, 4, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(width, width, rngs=rngs)])
        self.attention = nnx.MultiHeadAttention(
            num_heads=width // 4, in_features=width, rngs=rngs, decode=False
        )
        self.lora = nnx.LoRA(width, 2, width, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.table = Table(jnp.arange(1.0, width))
        self.gain = nnx.Param(jnp.ones(width))


LAYERS = {
    "embed/embedding": "(in, out) embedding",
    "first/kernel": "(in, out) embedding",
    "first/bias": "(out,) vector",
    "wide/kernel": "(in, out) hidden",
    "last/kernel": "(in, out) readout",
    "last/bias": "(out,) constant",
    "heads/kernel": "(in, out, out) hidden",
    "heads/bias": "(out, out) vector",
    "join/kernel": "(in, in, out) hidden",
    "join/bias": "(out,) vector",
    "conv/kernel": "(in, in, in, out) embedding",
    "conv/bias": "(out,) vector",
    "depthwise/kernel": "(in, in, out) embedding",
    "depthwise/bias": "(out,) vector",
    "up/kernel": "(in, in, out) readout",
    "up/bias": "(out,) constant",
    "flipped/kernel": "(in, out, in) embedding",
    "flipped/bias": "(out,) vector",
    "einsum/kernel": "(out, in, out) hidden",
    "einsum/bias": "(out,) constant",
    "layer_norm/scale": "(out,) vector",
    "layer_norm/bias": "(out,) vector",
    "rms_norm/scale": "(out,) vector",
    "batch_norm/scale": "(out,) vector",
    "batch_norm/bias": "(out,) vector",
    "batch_norm/mean": "buffer",
    "batch_norm/var": "buffer",
    "group_norm/scale": "(out,) vector",
    "group_norm/bias": "(out,) vector",
    "blocks/0/kernel": "(in, out) hidden",
    "blocks/0/bias": "(out,) vector",
    **{f"attention/{name}/kernel": "(in, out, out) hidden" for name in ("query", "key", "value")},
    **{f"attention/{name}/bias": "(out, out) vector" for name in ("query", "key", "value")},
    "attention/out/kernel": "(in, in, out) hidden",
    "attention/out/bias": "(out,) vector",
    "lora/lora_a": "(in, out) hidden",
    "lora/lora_b": "(in, out) embedding",
    "table": "buffer",
    "gain": "(out,) vector",
}


def test_every_layer_of_the_library_is_known():
    """The way down of an adapter has a readout's shape, but its outputs go on."""
    assert said(scaled(Layers, width=BASE)) == LAYERS


def test_what_names_and_types_of_a_state_say():
    """Where the layers are gone, their names are left. A kernel may then be several things."""
    asked = {"einsum/kernel": ("out", "in", "out"), "flipped/kernel": ("in", "out", "in")}
    model = scaled(lambda width: nnx.state(Layers(width)), width=BASE, layouts=asked)
    assert said(model) == LAYERS
    with pytest.raises(ValueError, match="cannot be told") as caught:
        scaled(lambda width: nnx.state(Layers(width)), width=BASE)
    for name in asked:
        assert f"{name}/value: shape" in str(caught.value)


def test_stacked_layers():
    def make(width: int):
        @nnx.vmap
        def create(rngs):
            return nnx.Linear(width, width, rngs=rngs)

        return create(nnx.Rngs(0).split(3))

    model = scaled(make)
    assert said(model) == {"kernel": "(in, out) hidden", "bias": "(out,) vector"}
    for weight in sx.weights_with_paths(model).values():
        assert weight.spec.stack_axes(weight.value.ndim) == (0,)


# Paths


@pytest.mark.parametrize("end", ["", "/value"])
def test_keys_name_the_variable_or_its_value(end: str):
    """Patterns and module types; what is printed is the path in the tree."""
    model = scaled(
        Layers,
        width=BASE,
        roles={f"first/kernel{end}": "buffer"},
        factors={nnx.Embed: {f"embedding{end}": 1}},
        frozen=[f"attention/*/kernel{end}"],
    )
    found = specs(model)
    assert found["first/kernel"].role is Role.buffer
    assert found["embed/embedding"].factor_exponent == 1
    frozen = {path for path, spec in found.items() if spec.frozen}
    assert frozen == {f"attention/{name}/kernel" for name in ("query", "key", "value", "out")}
    thawed = sx.unfreeze(model, [f"attention/out/kernel{end}"])
    assert not specs(thawed)["attention/out/kernel"].frozen
    assert "wide/kernel/value" in sx.weights_with_paths(model)
    assert "wide/kernel/value" in sx.export_laws(model)["laws"]
    assert "wide/kernel/value" in str(sx.plan(model, sx.adam(1e-2)))


def test_a_fields_name_alone_is_no_key():
    """Only a variable's value is left out of a path: another `value` is a name like any other."""

    def make(width: int):
        return {"attention": {"value": jnp.ones((width, width))}}

    with pytest.raises(ValueError, match="matches no array of the model; there are attention/va"):
        scaled(make, frozen=["attention"])


# What is not trained


def test_an_options_word_goes_before_a_types():
    assert specs(scaled(Layers, width=BASE, roles={"table": "vector"}))["table"].role is Role.vector
    message = r"table/value: in a .*Table, which is not trained, .* but factors gives it one"
    with pytest.raises(ValueError, match=message):
        scaled(Layers, width=BASE, factors={"table": 1})


class Classifier(nnx.Module):
    def __init__(self, width: int):
        rngs = nnx.Rngs(0)
        self.first = nnx.Linear(3, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.last = nnx.Linear(width, 2, rngs=rngs)

    def __call__(self, x):
        return self.last(jnp.tanh(self.norm(self.first(x))))


def test_it_trains_and_the_statistics_follow_the_data_alone():
    """A step of training moves them as Flax does, and no update rule does."""
    model, x = scaled(Classifier), jax.random.normal(jax.random.key(0), (16, 3))
    tx = sx.adam(3e-2)

    def loss(model):
        plain = sx.resolve(model)
        return jnp.mean((plain(x) - 1) ** 2), plain.norm.mean.get_value()

    @eqx.filter_jit
    def step(model, state):
        (value, mean), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(model)
        updates, state = tx.update(gradient, state)
        return eqx.apply_updates(model, updates), state, value, mean, gradient

    state, values = tx.init(eqx.filter(model, eqx.is_inexact_array)), []
    mean = gradient = None
    for _ in range(20):
        model, state, value, mean, gradient = step(model, state)
        values.append(float(value))
    assert mean is not None and gradient is not None
    assert values[-1] < 0.1 * values[0]
    assert not np.any(gradient.norm.mean.get_value().value)
    # Flax's own step from zero: (1 - momentum) times the mean of what comes in.
    expected = 0.01 * np.mean(np.asarray(sx.resolve(model).first(x), np.float64), 0)
    np.testing.assert_allclose(mean, expected, rtol=0.1, atol=1e-3)
    assert not np.any(model.norm.mean.get_value().value)


def test_at_the_base_width_outputs_are_bitwise_the_originals():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    model = sx.resolve(scaled(Classifier, sx.mean_field, BASE))
    assert np.array_equal(model(x), Classifier(BASE)(x))


@pytest.mark.parametrize("norm", ["WeightNorm", "SpectralNorm"])
def test_layers_that_normalise_their_weight_are_refused(norm: str):
    def make(width: int):
        rngs = nnx.Rngs(0)
        return [getattr(nnx, norm)(nnx.Linear(width, width, rngs=rngs), rngs=rngs)]

    with pytest.raises(ValueError, match=rf"0/layer_instance/kernel/value: in a flax.nnx.{norm}"):
        scaled(make)
    assert set(said(scaled(make, frozen=[getattr(nnx, norm)])).values()) == {"buffer"}


def test_heads_that_grow_ask_for_the_scale_of_their_logits():
    def make(width: int, heads: int | None = 2):
        return [nnx.MultiHeadAttention(heads or width // 4, width, rngs=nnx.Rngs(0), decode=False)]

    for make_one in (make, lambda width: nnx.state(make(width)[0])):
        with pytest.raises(ValueError, match=r"heads of this .* grow from 4 to 8.*query/\*'"):
            scaled(make_one)
    found = specs(scaled(make, factors={"0/query/*": "1/2"}))
    assert found["0/query/kernel"].factor_exponent == found["0/query/bias"].factor_exponent != 0
    scaled(functools.partial(make, heads=None))


# Recurrent cells


@pytest.mark.parametrize("cell", ["LSTMCell", "OptimizedLSTMCell", "GRUCell", "SimpleCell"])
@pytest.mark.parametrize("width", [6, 20])
def test_cells_keep_what_was_drawn(cell: str, width: int):
    """Up to one factor for each kernel, whether its gates are orthogonal by themselves or not."""

    def make(width: int):
        return getattr(nnx, cell)(3, width, rngs=nnx.Rngs(0))

    model, drawn = scaled(make, sx.ntk, width), specs(make(width))
    assert drawn == {}
    plain = jax.tree.leaves(eqx.filter(make(width), eqx.is_inexact_array))
    base = jax.tree.leaves(eqx.filter(make(BASE), eqx.is_inexact_array))
    weights = sx.weights_with_paths(model)
    for (path, weight), x, x_base in zip(weights.items(), plain, base, strict=True):
        role = weight.spec.role
        assert role is (
            Role.vector if "bias" in path else Role.embedding if len(x) == 3 else Role.hidden
        )
        if role is Role.vector:
            assert np.array_equal(weight.value, x)
            continue
        spread, spread_base = (np.sqrt(np.mean(np.square(np.float64(y)))) for y in (x, x_base))
        expected = np.float64(x) * spread_base / spread
        np.testing.assert_allclose(weight.value, expected, rtol=1e-5, atol=1e-7)
        assert weight.spec.width_ratio == Fraction(width, BASE)
    x, carry = jnp.ones(3), make(width).initialize_carry((3,), nnx.Rngs(0))
    assert np.all(np.isfinite(sx.resolve(model)(carry, x)[1]))


def test_optax_and_the_plan_take_it():
    model = scaled(Classifier)
    tx = optax.chain(optax.scale_by_adam(), sx.scale_by_width("adam", sx.full_alignment))
    rows = {row.path: row.role for row in sx.plan(model, tx).rows}
    assert rows["norm/mean/value"] == "buffer"
    assert rows["first/kernel/value"] == "embedding"
