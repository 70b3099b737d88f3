"""A use that is not found is named, and so is what it ran into."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import capture

SIZE = 8
X = jnp.ones((3, SIZE))


def weights(**roles: str) -> dict[str, sx.Weight]:
    """Square matrices, and vectors, by name; `buffer` is not trained."""
    square = sx.WeightSpec((-1,), (-2,), role=sx.Role.hidden)
    specs = {
        "hidden": square,
        "vector": sx.WeightSpec((), (-1,), role=sx.Role.vector),
        "buffer": sx.WeightSpec((-1,), (-2,), role=sx.Role.buffer),
    }
    return {
        name: sx.Weight(jnp.ones((SIZE,) if role == "vector" else (SIZE, SIZE)), specs[role])
        for name, role in roles.items()
    }


def lost(apply: Any, model: Any, *inputs: Any) -> dict[str, str]:
    def resolved(model, *inputs):
        return apply(sx.resolve(model), *inputs)

    captured = eqx.filter_eval_shape(capture, resolved, model, *inputs)
    return {entry.path: entry.reason for entry in captured.not_followed}


def test_into_a_loop_without_an_end():
    def apply(model, x):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ model["w"], x)

    assert "while" in lost(apply, weights(w="hidden"), X)["w"]


def test_the_start_of_a_recurrence():
    def apply(model, xs):
        return jax.lax.scan(lambda h, x: (jnp.tanh(h + x), None), model["h"], xs)[0]

    assert lost(apply, weights(h="vector"), X) == {"h": "is what a scan starts from"}


def test_a_matrix_that_is_made_from_two():
    def apply(model, x):
        return x @ (model["frozen"] + model["up"] @ model["down"])

    assert lost(apply, weights(frozen="buffer", up="hidden", down="hidden"), X) == {
        "down": "is combined with up before it meets the inputs",
        "up": "is combined with down before it meets the inputs",
    }


def test_a_product_that_is_summed_elsewhere():
    def apply(model, x):
        return (model["w"] * x[0][None, :]).sum(-1) * model["gain"]

    assert lost(apply, weights(w="hidden", gain="vector"), X) == {
        "w": "meets the inputs entry by entry, in mul"
    }


def test_a_result_without_inputs():
    def apply(model, x):
        return x @ model["w"], jnp.sum(model["w"] ** 2)

    assert lost(apply, weights(w="hidden"), X) == {
        "w": "reaches the result without meeting the inputs"
    }


def test_inputs_that_apply_closes_over():
    def apply(model, y):
        return X @ model["w"] + y

    assert lost(apply, weights(w="hidden", v="hidden"), jnp.ones(())) == {
        "w": "meets the inputs entry by entry, in add",
        "v": "is not used",
    }
    with pytest.raises(ValueError, match="no array among the inputs"):
        lost(lambda model: X @ model["w"], weights(w="hidden"))


def test_what_is_followed_is_not_named():
    def apply(model, x):
        mask = jnp.tri(SIZE)
        norm = model["w"] / jnp.sqrt(jnp.sum(model["w"] ** 2))
        return x @ (mask * norm).T * (1 + model["gain"])[None]

    found = weights(w="hidden", gain="vector", fixed="buffer")
    assert lost(apply, found, X) == {}


def test_an_unused_weight_is_named_and_a_buffer_has_no_entry():
    model = weights(w="hidden", unused="vector", fixed="buffer")

    def apply(model, x):
        return x @ sx.effective(model["w"]) @ sx.effective(model["fixed"])

    captured = capture(apply, model, X)
    assert {path: len(uses) for path, uses in captured.uses.items()} == {"w": 1, "unused": 0}
    assert captured.not_followed == (("unused", "is not used"),)
    assert "not followed: unused is not used" in str(captured)


def test_a_model_without_weights_is_refused():
    with pytest.raises(ValueError, match="no weights to follow"):
        capture(lambda model, x: model @ x, jnp.ones((2, 2)), jnp.ones(2))


def test_an_elementwise_use_has_no_contraction():
    def apply(model, x):
        return x * sx.effective(model["gain"])[None]

    [use] = capture(apply, weights(gain="vector"), X).uses["gain"]
    with pytest.raises(ValueError, match=r"elementwise \(mul\)"):
        use.contract(use.weight, use.input)


def test_a_failure_of_capture_itself_is_named(monkeypatch: pytest.MonkeyPatch):
    """A check goes on without the weights, and says so."""

    def fails(*_: Any) -> None:
        raise KeyError("num_consts")

    def apply(model, x):
        return x @ sx.effective(model["w"])

    monkeypatch.setattr("scalex_eqx.diagnostics._capture._api.follow", fails)
    captured = capture(apply, weights(w="hidden"), X)
    assert captured.uses == {"w": ()}
    [entry] = captured.not_followed
    assert entry == ("w", "is not followed, since this failed: KeyError: 'num_consts'")
    assert jnp.array_equal(captured.result, X @ jnp.ones((SIZE, SIZE)))


def test_what_is_called_outside_is_named_or_followed():
    """Callbacks, printing, checks, solvers and transforms, with and without a use behind them."""

    def called(model, x):
        host = jax.pure_callback(lambda w, x: x, x, model["w"], x)
        return host @ model["v"]

    def printed(model, x):
        jax.debug.print("{} {}", model["w"].sum(), x.sum())
        return eqx.error_if(x, x.sum() < 0, "negative") @ model["w"] @ model["v"]

    def solved(model, x):
        return jnp.linalg.solve(model["w"], x.T) + model["v"] @ x.T

    def transformed(model, x):
        return jnp.fft.irfft(jnp.fft.rfft(x @ model["w"]), SIZE) @ model["v"]

    model = weights(w="hidden", v="hidden")
    assert list(lost(called, model, X)) == ["w"]
    assert lost(printed, model, X) == {}
    assert list(lost(solved, model, X)) == ["w"]
    assert lost(transformed, model, X) == {}
