"""What JAX writes into an equation's parameters is read in one place, or not at all."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from scalex_eqx._jaxprs import parameters
from scalex_eqx.diagnostics import capture

from .test_capture_limits import SIZE, X, weights

MATRICES = jnp.ones((3, SIZE, SIZE))


def equation_of(name: str, f: Any, *inputs: Any) -> Any:
    [found] = [e for e in jax.make_jaxpr(f)(*inputs).eqns if e.primitive.name == name]
    return found


def test_a_scan():
    def f(a, b, matrices):
        return jax.lax.scan(lambda h, w: (h @ w + a + b, (h, h)), X, matrices, reverse=True)

    found = parameters.scan(equation_of("scan", f, 1.0, 2.0, MATRICES))
    assert found is not None
    assert (found.constants, found.carries, found.length, found.reverse) == (2, 1, 3, True)
    jaxpr, constants = parameters.parts(found.body)
    assert (len(jaxpr.invars), len(jaxpr.outvars), len(constants)) == (4, 3, 0)


@pytest.mark.parametrize("operand_batch", [False, True])
def test_a_gather_is_read_as_numpy_would_index(operand_batch: bool):
    """The result's axes of slice and batch, checked by their sizes."""
    x = jnp.ones((2, 5, 7))
    index = jnp.ones((2, 3), int)

    def f(x, index):
        return jax.vmap(lambda x, i: x[i])(x, index) if operand_batch else x[:, index]

    equation = equation_of("gather", f, x, index)
    found = parameters.gather(equation)
    shape = equation.outvars[0].aval.shape
    assert found is not None
    assert [shape[place] for place in found.places if place is not None] == (
        [7] if operand_batch else [2, 7]
    )
    assert found.batch == (((0, 0),) if operand_batch else ())


PROGRAMS = {
    "scan": lambda w, x: jax.lax.scan(lambda h, _: (h @ w, None), x, length=2)[0],
    "jit": lambda w, x: jax.jit(lambda w, x: x @ w)(w, x),
    "dot_general": lambda w, x: x @ w,
    "conv_general_dilated": lambda w, x: jax.lax.conv(x.T[None], w[..., None], (1,), "SAME"),
    "gather": lambda w, x: w[x[0].astype(int)],
    "dynamic_slice": lambda w, x: jax.lax.dynamic_index_in_dim(w, x[0, 0].astype(int)),
    "transpose": lambda w, x: x @ w.T,
    "squeeze": lambda w, x: x @ w[None].squeeze(0),
    "broadcast_in_dim": lambda w, x: x * jnp.broadcast_to(w[0], x.shape),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_parameters_of_another_release_are_no_crash(name: str, monkeypatch: pytest.MonkeyPatch):
    """Every reader is handed parameters whose names it doesn't know."""

    def apply(model, x):
        return PROGRAMS[name](model["w"].value, x)

    model = weights(w="hidden")
    assert capture(apply, model, X).uses["w"]

    class Other:
        def __init__(self, equation: Any):
            self.primitive, self.params = equation.primitive, {}
            self.invars, self.outvars = equation.invars, equation.outvars

    for reader in (
        *("wrapped", "scan", "branches", "product", "convolution", "gather", "ragged"),
        *("moved_axes", "shifted_axes", "joined_axis"),
    ):
        real = getattr(parameters, reader)
        monkeypatch.setattr(parameters, reader, lambda e, real=real: real(Other(e)))
    captured = capture(apply, model, X)
    assert captured.uses["w"] or captured.not_followed
