"""Models whose laws only their use can tell, right and wrong, for coordinate_power.py."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import scalex_eqx as sx

TOKENS, POSITIONS = 12, 4


@dataclasses.dataclass(frozen=True)
class Kind:
    """A model of plain arrays.

    **Arguments:**

    - `make`: of width and key.
    - `loss`: of the effective model, tokens and their labels.
    - `options`: of `parameterize`; a function of an example batch if `use` is among them.
    - `culprit`: the array that is to be named.
    """

    make: Callable[[int, Any], dict[str, Any]]
    logits: Callable[..., Any]
    options: dict[str, Any]
    culprit: str = ""
    by_use: bool = False

    def loss(self, model: Any, tokens: Any, labels: Any) -> Any:
        logits = jax.vmap(lambda one: self.logits(sx.resolve(model), one))(tokens)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def batch(key: Any) -> Any:
    """Sequences in which one token is there twice: that is the label."""
    order = jax.random.permutation
    tokens = jax.vmap(lambda k: order(k, TOKENS)[:POSITIONS])(jax.random.split(key, 64))
    labels = tokens[:, 0]
    return tokens.at[:, 1].set(labels), labels


def builder(kind: Kind, law: sx.Parameterization, base: int) -> Callable[[int, Any], Any]:
    def build(width: int, key: Any) -> Any:
        options = dict(kind.options)
        if kind.by_use:
            example = batch(jax.random.key(0))
            options["use"] = lambda model: kind.loss(model, *example)
        return sx.parameterize(
            lambda width: kind.make(width, key),
            width=width,
            base_width=base,
            parameterization=law,
            **options,
        )

    return build


def _made(width: int, key: Any, *names: str) -> dict[str, Any]:
    n, inner = width, width**-0.5
    shapes = {
        "table": ((TOKENS, n), 1.0),
        "w": ((n, n), inner),
        "out": ((n, TOKENS), inner),
        "query": ((n,), inner),
        "gate": ((n, n), inner),
        "down": ((n, 6), inner),
        "up": ((6, n), 6**-0.5),
    }
    keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
    made: dict[str, Any] = {
        name: scale * jax.random.normal(keys[name], shape)
        for name, (shape, scale) in shapes.items()
        if name in names
    }
    if "gain" in names:
        made["gain"] = jnp.ones((n,))
    return made


def _model(*names: str) -> Callable[[int, Any], dict[str, Any]]:
    return lambda width, key: _made(width, key, "table", "w", *names)


def _with_tie(width: int, key: Any) -> dict[str, Any]:
    return _made(width, key, "table", "w") | {"tie": sx.nn.TiedReadout(width)}


def _features(m: Any, tokens: Any) -> Any:
    return jnp.tanh(m["table"][tokens].mean(0) @ m["w"])


def _normed(x: Any) -> Any:
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x)) + 1e-6)


def _pooled(m: Any, tokens: Any) -> Any:
    h = jnp.tanh(m["table"][tokens] @ m["w"])
    return (jax.nn.softmax(h @ m["query"]) @ h) @ m["out"]


def _gated(m: Any, tokens: Any) -> Any:
    h = _features(m, tokens)
    pairs = h[:, None] * h[None, :] * m["gate"]
    return (h + pairs.mean(1)) @ m["out"]


def _through_few(m: Any, tokens: Any) -> Any:
    h = _features(m, tokens)
    return (h + jnp.tanh(jnp.tanh(h @ m["down"]) @ m["up"])) @ m["out"]


def _tied(m: Any, tokens: Any) -> Any:
    return _normed(_features(m, tokens)) @ m["table"].T / 32**0.5


def _tied_by_node(m: Any, tokens: Any) -> Any:
    return m["tie"].multiplier.factor * (_normed(_features(m, tokens)) @ m["table"].T)


def _tied_by_gain(m: Any, tokens: Any) -> Any:
    return (_normed(_features(m, tokens)) * m["gain"]) @ m["table"].T / 32**0.5


def _layouts(**own: tuple[str, ...]) -> dict[str, Any]:
    matrices = dict.fromkeys(("table", "w", "out", "down", "up"), ("in", "out"))
    return matrices | own


def _options(names: tuple[str, ...], **own: Any) -> dict[str, Any]:
    layouts = {name: axes for name, axes in _layouts(**own).items() if name in names}
    return {"layouts": layouts}


_OUT, _IN = ("out",), ("in",)
_POOL = ("table", "w", "out", "query")
_GATE = ("table", "w", "out", "gate")
_FEW = ("table", "w", "out", "down", "up")

RIGHT = {
    "a pool's query, declared": Kind(
        _model("out", "query"),
        _pooled,
        _options(_POOL, query=_IN) | {"roles": {"query": "hidden"}},
    ),
    "a pool's query, read from the use": Kind(_model("out", "query"), _pooled, {}, by_use=True),
    "a matrix that multiplies entries": Kind(
        _model("out", "gate"), _gated, _options(_GATE, gate=("out", "out"))
    ),
    "an inner layer of a fixed size": Kind(
        _model("out", "down", "up"),
        _through_few,
        _options(_FEW) | {"roles": {"down": "hidden"}},
    ),
    "a tie with its factor": Kind(_with_tie, _tied_by_node, _options(("table", "w"))),
    "a tie, read from the use": Kind(_model("gain"), _tied_by_gain, {}, by_use=True),
}

WRONG = {
    "a pool's query as a vector": Kind(
        _model("out", "query"), _pooled, _options(_POOL, query=_OUT), "query"
    ),
    "a matrix that multiplies entries as a hidden one": Kind(
        _model("out", "gate"), _gated, _options(_GATE, gate=("in", "out")), "gate"
    ),
    "an inner layer of a fixed size as a readout": Kind(
        _model("out", "down", "up"), _through_few, _options(_FEW), "down"
    ),
    "a tie without its factor": Kind(_model(), _tied, _options(("table", "w")), "table"),
    "a looked up table as a readout": Kind(
        _model("out"),
        lambda m, tokens: _features(m, tokens) @ m["out"],
        _options(("table", "w", "out"), table=("out", "in")),
        "table",
    ),
}
