"""`Weight[Float[Array, "out in"]]` is checked where a runtime type checker is at work."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from beartype import beartype
from jaxtyping import Array, Float, Int, TypeCheckError, jaxtyped

import scalex_eqx as sx
from scalex_eqx import Weight, WeightSpec
from scalex_eqx.nn import _embedding, _linear, _norm

KEY = jax.random.key(0)


def weight(*shape: int, dtype: str = "float32") -> Weight:
    axes = ((-1,), (-2,)) if len(shape) > 1 else ((), (-1,))
    return Weight(jnp.ones(shape, dtype), WeightSpec(*axes))


@jaxtyped(typechecker=beartype)
class Affine(eqx.Module):
    """What a user writes."""

    weight: Weight[Float[Array, "out in"]]
    bias: Weight[Float[Array, " out"]] | None


@jaxtyped(typechecker=beartype)
def loss(weight: Weight[Float[Array, "out in"]], x: Float[Array, " in"]) -> Float[Array, ""]:
    return jnp.sum(sx.effective(weight) @ x)


@pytest.mark.parametrize("bias", [weight(3), None])
def test_what_fits_is_accepted(bias):
    assert Affine(weight(3, 2), bias).weight.value.shape == (3, 2)


@pytest.mark.parametrize(
    ("matrix", "bias"),
    [
        (weight(3, 2), weight(2)),
        (weight(3), None),
        (weight(4, 3, 2), None),
        (weight(3, 2, dtype="int32"), None),
        (weight(3, 2), weight(3, dtype="int32")),
        (jnp.ones((3, 2)), None),
        (weight(3, 2), jnp.ones(3)),
        (None, None),
    ],
)
def test_what_does_not_fit_is_refused(matrix, bias):
    with pytest.raises(TypeCheckError):
        Affine(matrix, bias)


def test_the_error_names_field_and_shapes():
    with pytest.raises(TypeCheckError) as caught:
        Affine(weight(3, 2), weight(2))
    message = str(caught.value)
    assert "typechecking parameter 'bias'" in message
    assert "f32[2]" in message
    assert "Array, 'out']] | None" in message
    assert "out=3\nin=2" in message


def test_names_of_dimensions_are_shared_with_the_other_arguments():
    assert loss(weight(3, 2), jnp.ones(2)) == 6
    with pytest.raises(TypeCheckError):
        loss(weight(3, 2), jnp.ones(3))


def test_other_kinds_of_arrays():
    floats: Any = Weight[Float[Array, " 3"]]
    integers: Any = Weight[Int[Array, "..."]]
    assert isinstance(weight(3), floats)
    assert isinstance(weight(3, dtype="int32"), integers)
    assert not isinstance(weight(3), integers)
    assert not isinstance(jnp.ones(3), floats)


@pytest.mark.parametrize(
    "wrong",
    [weight(2, 3), weight(3), weight(1, 3, 2), weight(3, 2, dtype="int32"), jnp.ones((3, 2))],
)
@pytest.mark.parametrize("layer", [sx.nn.Linear, sx.nn.Readout])
def test_a_linear_layer_checks_what_it_has_built(monkeypatch, layer, wrong):
    monkeypatch.setattr(_linear, "normal", lambda *_, **__: wrong)
    with pytest.raises(TypeCheckError):
        layer(2, 3, use_bias=True, key=KEY)


def test_a_linear_layer_that_is_built_right_passes(monkeypatch):
    monkeypatch.setattr(_linear, "normal", lambda *_, **__: weight(3, 2))
    assert sx.nn.Linear(2, 3, use_bias=True, key=KEY).weight.value.shape == (3, 2)


def test_an_embedding_checks_what_it_has_built(monkeypatch):
    monkeypatch.setattr(_embedding, "normal", lambda *_, **__: weight(3))
    with pytest.raises(TypeCheckError):
        sx.nn.Embedding(3, 2, key=KEY)


def test_a_norm_checks_what_it_has_built(monkeypatch):
    sizes = iter([3, 4])
    monkeypatch.setattr(_norm, "constant", lambda *_: weight(next(sizes)))
    with pytest.raises(TypeCheckError):
        sx.nn.LayerNorm(3, use_bias=True)
