from typing import Any

import jax
import numpy as np


def updates(tx: Any, model: Any) -> list[np.ndarray]:
    """The second of two, under a learning rate that isn't constant."""
    _, state = tx.update(model, tx.init(model), model)
    moved, _ = tx.update(model, state, model)
    return [np.asarray(x) for x in jax.tree.leaves(moved)]


def falling(step: Any) -> Any:
    return 0.1 / (1 + step.astype(float))


def assert_same(one: Any, other: Any, model: Any) -> None:
    for x, y in zip(updates(one, model), updates(other, model), strict=True):
        np.testing.assert_array_equal(x, y)
