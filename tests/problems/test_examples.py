"""Whether a loss is the mean of its examples', and what is said where it isn't."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalex_eqx._usage import UsageError
from scalex_eqx.problems import Problem
from scalex_eqx.problems._examples import check_examples

RANDOM = np.random.default_rng(0)
DATA = tuple(RANDOM.normal(size=(32, n)).astype(np.float32) for n in (3, 2))


def problem(loss: Any, **options: Any) -> Problem:
    def make(width: int, key: Any) -> Any:
        return eqx.nn.MLP(3, 2, width, 1, key=key)

    options = options or {"batch_size": 8}
    return Problem(make, loss, data=DATA, held_out=DATA, **options)


def errors(model: Any, batch: Any) -> Any:
    x, y = batch
    return jax.vmap(model)(x) - y


def mean(model: Any, batch: Any) -> Any:
    return jnp.mean(jnp.square(errors(model, batch)))


def normalised(model: Any, batch: Any) -> Any:
    x, y = batch
    return mean(model, (x - x.mean(0, keepdims=True), y))


LOSSES = {
    "normalised": normalised,
    "a sum": lambda model, batch: jnp.sum(jnp.square(errors(model, batch))),
    "a root": lambda model, batch: jnp.sqrt(mean(model, batch)),
}


def model() -> Any:
    return problem(mean).build({"width": 4}, jax.random.key(0))


def test_a_mean_is_let_through():
    check_examples(problem(mean), model())
    batch = tuple(x[:5] for x in DATA)
    singles = [problem(mean).example_loss(model(), tuple(x[i] for x in batch)) for i in range(5)]
    np.testing.assert_allclose(jnp.mean(jnp.stack(singles)), mean(model(), batch), rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_no_mean_is_refused(name: str):
    with pytest.raises(UsageError, match="isn't the mean of its losses on single examples: their"):
        check_examples(problem(LOSSES[name]), model())


def test_a_batch_without_one_axis_of_examples_is_refused():
    def batch(data: Any, key: Any) -> Any:
        del key
        return data[0][:4], data[1][:2]

    with pytest.raises(UsageError, match=r"first axes \[\(2,\), \(4,\)\], and none that numbers"):
        check_examples(problem(lambda m, b: mean(m, (b[0][:2], b[1])), batch=batch), model())
