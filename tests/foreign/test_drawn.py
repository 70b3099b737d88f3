"""A drawn array of one axis may be summed over: nothing is guessed of it."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx import Role

KEY = jax.random.key(0)
BASE, WIDTH = 32, 2048


class Pooling(eqx.Module):
    """Attention pooling, with one learned query."""

    features: eqx.nn.Linear
    query: jax.Array
    head: eqx.nn.Linear

    def __init__(self, width: int, key=KEY):
        keys = jax.random.split(key, 3)
        self.features = eqx.nn.Linear(8, width, key=keys[0])
        self.query = jax.random.normal(keys[1], (width,)) / width**0.5
        self.head = eqx.nn.Linear(width, 4, key=keys[2])

    def scores(self, x):
        return jnp.tanh(jax.vmap(self.features)(x)) @ self.query


def scaled(make, width: int = WIDTH, parameterization=sx.standard, **options):
    return sx.parameterize(
        make, width=width, base_width=BASE, parameterization=parameterization, **options
    )


def score_spread(width: int, **options) -> float:
    """The standard deviation of scores over random queries and inputs."""
    x = jax.random.normal(jax.random.key(1), (64, 8))
    models = [
        sx.resolve(scaled(lambda n, k=key: Pooling(n, k), width, **options))
        for key in jax.random.split(KEY, 8)
    ]
    return float(np.std([np.asarray(model.scores(x)) for model in models]))


INNER = {"layouts": {"query": ("in",)}, "roles": {"query": "hidden"}}


@pytest.mark.parametrize("options", [INNER, {"layouts": {"query": ("in",)}}])
def test_scores_keep_their_spread(options):
    """A sum of n products with entries of N(0, 1/n) is as large at every width.

    As a gain the vector would be drawn sqrt(64) times as large, and so would its scores. Of 8
    queries a spread is known to 1 / sqrt(16), at both widths; 2 is ten times that in logarithms.
    """
    base = score_spread(BASE, **options)
    assert base == pytest.approx(0.4, rel=0.5)
    assert 0.5 < score_spread(WIDTH, **options) / base < 2
    assert score_spread(WIDTH, layouts={"query": ("out",)}) / base > 4


def test_a_score_inside_the_model_keeps_its_spread_in_mup_too():
    inner, result = (
        score_spread(WIDTH, parameterization=sx.mup, **options)
        for options in (INNER, {"layouts": {"query": ("in",)}})
    )
    assert inner == pytest.approx(8 * result, rel=1e-4)


def asked(make, **options) -> str:
    with pytest.raises(ValueError) as caught:
        scaled(make, 64, **options)
    return str(caught.value)


def test_the_question_lists_what_is_accepted_and_each_is():
    message = asked(Pooling)
    assert "query: shape (32,) at the base width and (64,) at the probe width" in message
    assert "its entries differ" in message
    assert "pass use=" in message
    entry = r"with layouts=(\{[^}]*\})(?: and roles=(\{[^}]*\}))?"
    found = re.findall(rf"(?:it is|or) ([^,{{]*),? [^{{]*?{entry}", message)
    assert [
        scaled(Pooling, 64, layouts=eval(layouts), roles=eval(roles or "None")).query.spec.role
        for _, layouts, roles in found
    ] == [Role.vector, Role.hidden, Role.readout]
    assert ["gain" in found[0][0], *("summed over" in what for what, _, _ in found[1:])] == [
        True
    ] * 3
    (frozen,) = re.findall(r"frozen=(\[.*?\])", message)
    assert scaled(Pooling, 64, frozen=eval(frozen)).query.spec.role is Role.buffer


@pytest.mark.parametrize(
    ("role", "layout"), [("vector", None), ("hidden", ("in",)), ("readout", ("in",))]
)
def test_a_role_alone_is_enough_for_a_vector_only(role: str, layout):
    """That an axis is summed over is said in so many words."""
    if layout is None:
        assert scaled(Pooling, 64, roles={"query": role}).query.spec.role == role
        return
    message = asked(Pooling, roles={"query": role})
    assert message.count("with layouts=") == 1
    assert 'layouts={"query": ("in",)}' in message
    assert "roles={" not in message
    model = scaled(Pooling, 64, roles={"query": role}, layouts={"query": layout})
    assert model.query.spec.role == role
    assert "as embedding it would have other shapes" in asked(Pooling, roles={"query": "embedding"})


# What is not asked about


def of(make_vector):
    return lambda width: {"v": make_vector(width), "w": jnp.ones((width, width))}


@pytest.mark.parametrize("value", [0.0, 0.1, float("inf")])
def test_constants_are_biases_or_gains(value: float):
    assert scaled(of(lambda n: jnp.full(n, value)), 64)["v"].spec.role is Role.vector


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("numpy", [False, True])
def test_one_entry_that_differs_is_a_difference(dtype: str, numpy: bool):
    def vector(width: int):
        x = jnp.zeros(width, dtype).at[-1].set(1)
        return np.asarray(x) if numpy else x

    assert "v: shape (32,)" in asked(of(vector))


@pytest.mark.parametrize("name", ["bias", "in_proj_bias", "bias_ih"])
def test_what_is_called_a_bias_is_one(name: str):
    """A name that is no more than like it is not enough."""

    def make(width: int, name=name):
        return {name: jax.random.normal(KEY, (width,))}

    assert scaled(make, 64)[name].spec.role is Role.vector
    for other in ("biased", "unbias", "scale", "b"):
        assert f"{other}: shape" in asked(lambda n, other=other: make(n, other))


def test_each_array_is_looked_at_by_itself():
    """Arrays of one shape share a spec, but a constant does not answer for a draw."""

    def make(width: int):
        return [jnp.ones(width), jax.random.normal(KEY, (width,)), jnp.zeros(width)]

    message = asked(make)
    assert "1: shape (32,)" in message
    assert message.count(": shape (32,)") == 1


def test_what_does_not_grow_is_not_asked_about():
    model = scaled(lambda n: {"s": jax.random.normal(KEY, (5,)), "v": jnp.ones(n)}, 64)
    assert model["s"].spec.role is Role.constant


def test_a_stack_of_different_constants_is_none():
    """Along the axis that grows nothing differs. The depth tells the other to be a stack."""

    def make(width: int, depth: int):
        return {"scale": jnp.ones((depth, width)) * jnp.arange(1.0, depth + 1)[:, None]}

    def build(make):
        return sx.parameterize(
            make,
            width=64,
            base_width=BASE,
            depth=4,
            base_depth=2,
            branches=["scale"],
            parameterization=sx.mup.deep(1),
        )

    assert build(make)["scale"].spec.role is Role.vector
    with pytest.raises(ValueError, match=r"scale: shape .*its entries differ"):
        build(lambda n, d: {"scale": jax.random.normal(KEY, (d, n))})


# Where values are not known


def traced(make, how: str):
    """`parameterize` with what depends on the key traced."""
    keys = jax.random.split(KEY, 2)
    build = {
        "jit": lambda f: eqx.filter_jit(f)(KEY),
        "vmap": lambda f: eqx.filter_vmap(f)(keys),
        "jit of vmap": lambda f: eqx.filter_jit(eqx.filter_vmap(f))(keys),
        "shapes": lambda f: eqx.filter_eval_shape(f, KEY),
    }[how]
    return build(lambda key: scaled(lambda n: make(n, key), 64))


@pytest.mark.parametrize("how", ["jit", "vmap", "jit of vmap", "shapes"])
def test_under_a_trace_the_answer_is_the_same(how: str):
    """A constant's values are known there as well; what is drawn from a traced key has none."""

    def make(width: int, key, draw: bool):
        drawn = jax.random.normal(key, (width, width))
        gain = jax.random.normal(key, (width,)) if draw else jnp.zeros_like(drawn[0])
        return {"w": drawn, "gain": gain, "table": jnp.ones(width)}

    model = traced(lambda n, key: make(n, key, False), how)
    assert model["gain"].spec.role is model["table"].spec.role is Role.vector
    with pytest.raises(ValueError, match=r"gain: shape .*its entries differ"):
        traced(lambda n, key: make(n, key, True), how)


def test_shapes_of_a_base_model_leave_the_models_own_values():
    def make(width: int):
        return {"v": jnp.ones(width)}

    shapes = [eqx.filter_eval_shape(make, width) for width in (32, 64)]
    other = {"v": jnp.arange(128.0)}
    options = {"parameterization": sx.standard, "values": "keep"}
    kept = sx.parameterize_model(make(128), *shapes, **options)
    assert kept["v"].spec.role is Role.vector
    # Trained gains are no constants any more: a fresh base model tells what they were.
    with pytest.raises(ValueError, match=r"v: shape .*its entries differ"):
        sx.parameterize_model(other, *shapes, **options)
    told = sx.parameterize_model(other, make(32), shapes[1], **options)
    assert told["v"].spec.role is Role.vector
    with pytest.raises(ValueError, match="v: shape"):
        sx.parameterize_model(eqx.filter_eval_shape(make, 128), *shapes, **options)


def test_the_base_model_is_made_again_only_if_it_has_to_be():
    made = []

    def make(width: int, key, name: str):
        made.append(width)
        return {name: jax.random.normal(key, (width,)) * 0 + 1, "w": jnp.ones((width, width))}

    def build(name: str, **options):
        made.clear()
        eqx.filter_jit(lambda key: scaled(lambda n: make(n, key, name), 64, **options))(KEY)
        return made.count(BASE)

    assert build("bias") == build("v", layouts={"v": ("out",)}) == 1
    with pytest.raises(ValueError, match="v: shape"):
        build("v")
    assert made.count(BASE) == 2
