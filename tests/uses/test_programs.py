"""Uses are followed into whatever a program wraps them in, on sharded arrays and under traces."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx._weight import weights_with_paths

X = jax.random.normal(jax.random.key(1), (6, 5))


def make(width: int) -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(0), 4)
    return {
        "i": jax.random.normal(keys[0], (5, width)),
        "w": jax.random.normal(keys[1], (width, width)) / width**0.5,
        "q": jax.random.normal(keys[2], (width,)) / width**0.5,
        "o": jax.random.normal(keys[3], (width, 3)) / width**0.5,
    }


def inner(h, w, q):
    h = jnp.tanh(h @ w)
    return h * jax.nn.sigmoid(h @ q)[:, None]


def with_custom_vjp(h, w, q):
    @jax.custom_vjp
    def f(h, w, q):
        return inner(h, w, q)

    f.defvjp(lambda *args: (f(*args), args), lambda args, g: jax.vjp(inner, *args)[1](g))
    return f(h, w, q)


def with_custom_jvp(h, w, q):
    f = jax.custom_jvp(inner)
    f.defjvp(lambda x, t: jax.jvp(inner, x, t))
    return f(h, w, q)


def in_a_while(h, w, q):
    return jax.lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, inner(c[1], w, q)), (0, h))[
        1
    ]


def on_a_mesh(h, w, q):
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    return jax.lax.with_sharding_constraint(inner(h, w, q), place)


def in_shards(h, w, q):
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    p = jax.sharding.PartitionSpec
    return jax.shard_map(inner, mesh=mesh, in_specs=(p("x"), p(), p()), out_specs=p("x"))(h, w, q)


WRAPPED = {
    "jit": jax.jit(inner),
    "checkpoint": jax.checkpoint(inner),
    "custom_vjp": with_custom_vjp,
    "custom_jvp": with_custom_jvp,
    "while": in_a_while,
    "fori": lambda h, w, q: jax.lax.fori_loop(0, 2, lambda _, h: inner(h, w, q), h),
    "scan": lambda h, w, q: jax.lax.scan(lambda h, _: (inner(h, w, q), None), h, None, 2)[0],
    "map": lambda h, w, q: jax.lax.map(lambda h: inner(h[None], w, q)[0], h),
    "cond": lambda h, w, q: jax.lax.cond(h.sum() > 0, inner, lambda h, w, q: h, h, w, q),
    "cond on weights": lambda h, w, q: inner(h, jax.lax.cond(h[0, 0] > 0, abs, lambda w: w, w), q),
    "switch": lambda h, w, q: jax.lax.switch(2, [inner, inner, inner], h, w, q),
    "vmap": lambda h, w, q: jax.vmap(lambda h: inner(h[None], w, q)[0])(h),
    "vmap over copies": lambda h, w, q: jax.vmap(inner, (None, 0, None))(
        h, jnp.stack([w, 2 * w]), q
    ).sum(0),
    "checkpointed loop": lambda h, w, q: eqx.internal.while_loop(
        lambda c: c[1] < 2,
        lambda c: (inner(c[0], w, q), c[1] + 1),
        (h, 0),
        kind="checkpointed",
        max_steps=4,
    )[0],
    "sharding": on_a_mesh,
    "shard_map": in_shards,
    "filter_jit": eqx.filter_jit(inner),
    "einsum": lambda h, w, q: jnp.einsum("nd,de,e->ne", h, w, jnp.sign(q)) * (h @ q)[:, None],
    "rows": lambda h, w, q: inner(h, w[None].T[..., 0].T, q[None][0]),
    "heads": lambda h, w, q: inner(
        h, w.reshape(len(w), 4, -1).transpose(1, 0, 2).transpose(1, 0, 2).reshape(w.shape), q
    ),
    "short": lambda h, w, q: inner(*(x.astype(jnp.bfloat16) for x in (h, w, q))).astype(h.dtype),
}
EXPECTED = {
    "i": ("embedding", (-2,)),
    "w": ("hidden", (-2,)),
    "q": ("hidden", (-1,)),
    "o": ("readout", (-2,)),
}


def read(model: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        path: (str(weight.spec.role), weight.spec.fan_in)
        for path, weight in weights_with_paths(model).items()
    }


@pytest.fixture(autouse=True)
def ranks_as_users_write_them():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("name", WRAPPED)
def test_followed_into(name: str):
    def use(m):
        return WRAPPED[name](X @ m["i"], m["w"], m["q"]) @ m["o"]

    model = sx.parameterize(make, width=32, base_width=8, parameterization=sx.mup, use=use)
    assert read(model) == EXPECTED


def use(m):
    return inner(X @ m["i"], m["w"], m["q"]) @ m["o"]


def test_of_models_that_are_there():
    shapes = (eqx.filter_eval_shape(make, width) for width in (8, 16))
    model = sx.parameterize_model(
        make(32), *shapes, parameterization=sx.mup, use=use, values="keep"
    )
    assert read(model) == EXPECTED
    # Up to the rounding of one division and one product.
    for name, value in make(32).items():
        np.testing.assert_allclose(sx.effective(model[name]), value, rtol=3e-7)


def test_under_jit_and_vmap():
    def build(scale):
        def scaled(width):
            return jax.tree.map(lambda x: scale * x, make(width))

        return sx.parameterize(scaled, width=32, base_width=8, parameterization=sx.mup, use=use)

    alone = build(1.0)
    jitted, mapped = jax.jit(build)(1.0), jax.vmap(build)(jnp.ones(2))
    for model in (jitted, jax.tree.map(lambda x: x[0], mapped)):
        assert read(model) == EXPECTED
        # Spreads are sums of 25 to 1024 squares, in another order: n eps / 2 at most.
        for name in EXPECTED:
            np.testing.assert_allclose(model[name].value, alone[name].value, rtol=1e-4)


def test_the_training_loss_that_resolves_will_do():
    """Weights that declare their law are read as well; `resolve` leaves what has none."""

    def declared(width):
        model = make(width)
        model["w"] = sx.Weight(
            model["w"], sx.WeightSpec(fan_in=(-2,), fan_out=(-1,), std=width**-0.5)
        )
        return model

    model = sx.parameterize(
        declared,
        width=32,
        base_width=8,
        parameterization=sx.mup,
        use=lambda m: use(sx.resolve(m)),
    )
    assert read(model) == EXPECTED
    assert "summed over axis 0" in model["w"].spec.why


@pytest.mark.parametrize("tied", [False, True])
def test_the_librarys_own_layers_are_what_they_declare(tied: bool):
    tokens = jnp.zeros((2, 5), int)

    def build(width):
        return sx.nn.Transformer(
            vocabulary_size=11,
            sequence_length=5,
            width=width,
            depth=2,
            head_dimension=16,
            tied=tied,
            key=jax.random.key(0),
        )

    plain = sx.parameterize(build, width=64, base_width=32, parameterization=sx.mup)
    with_use = sx.parameterize(
        build,
        width=64,
        base_width=32,
        parameterization=sx.mup,
        use=lambda m: jax.vmap(m)(tokens),
    )
    assert sx.fingerprint(plain) == sx.fingerprint(with_use)
    assert all(row.why for row in sx.plan(with_use, sx.adam(1e-3)).rows)


def test_what_stands_outside_of_the_program_is_lost_and_named():
    def calls_back(m):
        h = X @ m["i"]
        shape = jax.ShapeDtypeStruct(h.shape, h.dtype)
        h = jax.pure_callback(lambda h, q: h * q, shape, h, m["q"])
        return h @ m["w"] @ m["o"]

    with pytest.raises(ValueError, match=r"q: not followed in pure_callback \(test_programs.py:"):
        sx.parameterize(make, width=32, base_width=8, parameterization=sx.mup, use=calls_back)


def test_many_arrays_before_any_data_take_no_time():
    """Each activation doubles the ways from an array to the result: 2^60 of them here."""

    def many(width):
        return {f"w{i:02}": jnp.eye(width) for i in range(60)} | {"o": make(width)["o"]}

    def use(m):
        [last, *layers] = (m[name] for name in sorted(m))
        product = layers[0]
        for w in layers[1:]:
            product = jnp.tanh(product) * (product + w)
        return jnp.ones((2, len(product))) @ product @ last

    with pytest.raises(ValueError, match=r"w00: not followed in a product or sum of over 12 arr"):
        sx.parameterize(many, width=32, base_width=8, parameterization=sx.mup, use=use)
