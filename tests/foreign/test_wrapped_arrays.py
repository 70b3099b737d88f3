"""Arrays that paramax wraps: left alone, refused by name, or known under a mask.

Its types are told by their names and the module that they come from; those here have the same.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx import Role

BASE, WIDTH = 8, 32
KEY = jax.random.key(0)


class AbstractUnwrappable(eqx.Module):
    pass


class NonTrainable(AbstractUnwrappable):
    tree: Any


class Parameterize(AbstractUnwrappable):
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __init__(self, fn: Any, *args: Any, **kwargs: Any):
        self.fn = fn
        self.args = args
        self.kwargs = kwargs


class WeightNormalization(AbstractUnwrappable):
    weight: Any
    scale: Any


class MyOwn(AbstractUnwrappable):
    """A user's, of another module."""

    w: Any


for kind in (AbstractUnwrappable, NonTrainable, Parameterize, WeightNormalization):
    kind.__module__ = "paramax.wrappers"


def scaled(make, parameterization=sx.ntk, width: int = WIDTH, **options):
    return sx.parameterize(
        make, width=width, base_width=BASE, parameterization=parameterization, **options
    )


def roles(model) -> dict[str, Role | None]:
    return {path: weight.spec.role for path, weight in sx.weights_with_paths(model).items()}


def linear(width: int, wrap) -> eqx.nn.Linear:
    layer = eqx.nn.Linear(width, width, key=KEY)
    return eqx.tree_at(lambda x: x.weight, layer, replace_fn=wrap)


def test_what_is_not_trained_stays_as_it_was_drawn():
    def make(width: int):
        return NonTrainable(eqx.nn.Linear(width, width, key=KEY)), linear(width, NonTrainable)

    model = scaled(make)
    assert roles(model) == {
        "0/tree/weight": Role.buffer,
        "0/tree/bias": Role.buffer,
        "1/weight/tree": Role.buffer,
        "1/bias": Role.vector,
    }
    assert np.array_equal(model[0].tree.weight.value, make(WIDTH)[0].tree.weight)
    with pytest.raises(ValueError, match=r"in a paramax.NonTrainable, which is not trained"):
        scaled(make, factors={"1/weight/tree": 1})


@pytest.mark.parametrize(
    ("wrap", "path", "name"),
    [
        (
            lambda w: Parameterize(jnp.exp, w),
            "weight/args/0",
            " a paramax.Parameterize, which computes",
        ),
        (MyOwn, "weight/w", ".MyOwn, which computes"),
        (
            lambda w: Parameterize(jnp.add, 1, y=w),
            "weight/kwargs/y",
            " a paramax.Parameterize, which computes",
        ),
        (
            lambda w: WeightNormalization(w, jnp.ones(len(w))),
            "weight/weight",
            " a paramax.WeightNormalization, which normalises",
        ),
        (
            lambda w: WeightNormalization(Parameterize(jnp.where, w > 0, w, 0), jnp.ones(len(w))),
            "weight/weight/args/1",
            " a paramax.WeightNormalization, which normalises",
        ),
    ],
)
def test_functions_of_an_array_are_refused_by_name(wrap, path: str, name: str):
    def make(width: int):
        return linear(width, wrap)

    with pytest.raises(ValueError) as caught:
        scaled(make)
    message = str(caught.value)
    assert f"{path}: in a" in message
    assert name in message
    assert roles(scaled(make, frozen=["weight/*"]))[path] is Role.buffer
    if "which normalises" in message:
        with pytest.raises(ValueError, match="which normalises"):
            scaled(make, layouts={path: ("out", "in")})
    else:
        assert roles(scaled(make, layouts={path: ("out", "in")}))[path] is Role.hidden


def test_what_does_not_grow_has_no_law_to_go_wrong():
    """A flow's scale, of the size of the data."""

    def make(width: int):
        scale = Parameterize(jax.nn.softplus, jnp.arange(3.0))
        weight = jax.random.normal(KEY, (3, 3))
        return {"scale": scale, "w": WeightNormalization(weight, jnp.ones(3)), "v": jnp.ones(width)}

    assert roles(scaled(make)) == {
        "scale/args/0": Role.constant,
        "w/weight": Role.constant,
        "w/scale": Role.constant,
        "v": Role.vector,
    }


def test_a_masked_array_is_the_weight():
    """Masked autoregressive flows: `where` of a mask, the weight and zero."""

    def make(width: int):
        mask = jnp.tri(width, dtype=bool)
        return linear(width, lambda w: Parameterize(jnp.where, mask, w, 0))

    model, plain = scaled(make), scaled(lambda n: linear(n, lambda w: w))
    assert roles(model) == {"weight/args/1": Role.hidden, "bias": Role.vector}
    found, expected = model.weight.args[1], plain.weight
    assert found.spec == expected.spec
    assert np.array_equal(found.value, expected.value)
    other = scaled(
        lambda n: linear(n, lambda w: Parameterize(jnp.where, w > 0, 0, w)), frozen=["w*"]
    )
    assert roles(other)["weight/args/2"] is Role.buffer
