"""What a driver says of a package's model, and data to run it on."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

VOCABULARY, LENGTH, CLASSES, SIDE = 8, 8, 4, 16
# A row that is added to features, alone or as one of several: a + b, a + c + g and so on are equal.
SAME = ("added", ("embedding", "vector"))


@dataclasses.dataclass(frozen=True)
class Case:
    """A model of a package, as its documentation builds it.

    - `distributions`: the packages whose versions are told.
    - `make`: called with width and key.
    - `outputs`: called with the model, of plain arrays, and the batch.
    - `loss`: called with the outputs and the batch.
    - `batch`: called with a key.
    - `arrays`: by path pattern, the role that is right and what the array is, read from the
      package's source by hand. The patterns match each array once. `SAME` are laws that differ in
      nothing but where the multiplier stands.
    - `options`: what `parameterize` has to be told without `use`.
    - `options_with_use`: what it has to be told in spite of it.
    - `drawn_once`: whether `make` can't be traced, so that the check draws once for each width.
    """

    model: str
    distributions: tuple[str, ...]
    make: Callable[[int, Array], PyTree]
    outputs: Callable[..., Array]
    loss: Callable[..., Array]
    batch: Callable[[Array], tuple[Array, ...]]
    arrays: Mapping[str, tuple[str, str]]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options_with_use: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    base_width: int = 32
    width: int = 128
    learning_rate: float = 0.01
    drawn_once: bool = False
    steps: int = 3


def tokens(key: Array) -> tuple[Array, Array]:
    """Sequences that count in steps of 1, 2 or 3, and what comes next in them."""
    first = jax.random.randint(key, (8, 1), 0, VOCABULARY)
    counted = (first + (first % 3 + 1) * jnp.arange(LENGTH + 1)[None]) % VOCABULARY
    return counted[:, :-1], counted[:, 1:]


def images(key: Array) -> tuple[Array, Array]:
    """Noise over one of four patterns, of shape (16, 3, side, side), and which it is."""
    keys = jax.random.split(key)
    labels = jnp.arange(16) % CLASSES
    patterns = jax.random.normal(jax.random.key(0), (CLASSES, 3, SIDE, SIDE))
    noise = jax.random.normal(keys[0], (16, 3, SIDE, SIDE))
    return patterns[labels] + noise, labels


def points(key: Array) -> tuple[Array, Array]:
    """Points of eight coordinates, and a function of them of shape (32, 4)."""
    x = jax.random.normal(key, (32, 8))
    return x, jnp.tanh(x[:, :4] + x[:, 4:] ** 2)


def entropy(logits: Array, inputs: Array, labels: Array) -> Array:
    del inputs
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)
    return -chosen.mean()


def squares(outputs: Array, inputs: Array, targets: Array) -> Array:
    del inputs
    return jnp.mean((outputs - targets) ** 2)


NORM = {"weight": ("vector", "a gain"), "bias": ("vector", "a bias")}


def norm(path: str) -> dict[str, tuple[str, str]]:
    return {f"{path}/{name}": found for name, found in NORM.items()}


def linear(path: str, role: str, what: str) -> dict[str, tuple[str, str]]:
    """A layer whose bias is added to features, or to the model's outputs."""
    bias = "constant" if role == "readout" else "vector"
    return {f"{path}/weight": (role, what), f"{path}/bias": (bias, "a bias")}
