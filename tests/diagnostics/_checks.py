"""What the tests of the coordinate check share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import scalex_eqx as sx
from scalex_eqx.diagnostics import CoordinateCheck, coordinate_check

BASE, WIDTHS, SEEDS, STEPS = 32, (32, 128), (0, 1), 3


def builder(
    parameterization: sx.Parameterization, model: Any, base_width: int = BASE, **options: Any
) -> Callable[[int, Any], Any]:
    """What makes a model of a width and a key, with its law."""

    def build(width: int, key: Any) -> Any:
        return sx.parameterize(
            lambda width: model(width, key),
            width=width,
            base_width=base_width,
            parameterization=parameterization,
            **options,
        )

    return build


def loss(model: Any, x: Any, y: Any) -> Any:
    logits = jax.vmap(sx.resolve(model))(x)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))


def batch(key: Any) -> tuple[Any, Any]:
    x = jax.random.normal(key, (64, 8))
    return x, jnp.argmax(x[:, :4], axis=-1)


def kinds(found: CoordinateCheck) -> set[tuple[str, str]]:
    return {(finding.kind, finding.weight) for finding in found.findings}


def checked(build: Any, loss: Any, tx: Any, batch: Any, **sizes: Any) -> CoordinateCheck:
    """The check over another size than the width, with three seeds and two steps."""
    return coordinate_check(build, loss, tx, batch, seeds=(0, 1, 2), steps=2, **sizes)
