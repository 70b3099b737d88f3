"""Uses that contradict a law are found by name before any training; right models are left alone."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx._weight import Tie
from scalex_eqx.diagnostics import coordinate_check
from scalex_eqx.diagnostics._coordinates._conflicts import Conflicts, conflicts
from scalex_eqx.diagnostics._coordinates._law import laws, optimizer_parts
from scalex_eqx.diagnostics._coordinates._models import shapes
from scalex_eqx.diagnostics._coordinates._rows import _sampling

from ._checks import kinds

BASE, WIDTHS = 16, (32, 64)
ADAM = sx.adam(0.01)
KEYS = jax.random.split(jax.random.key(0), 8)
IN, OUT = ("in",), ("out",)
LAYOUTS: dict[str, Any] = dict.fromkeys("iwo", (*IN, *OUT))
HERE = "(test_coordinates_uses.py:"


@pytest.fixture(autouse=True)
def ranks_as_users_write_them():
    with jax.numpy_rank_promotion("allow"):
        yield


def drawn(number: int, *shape: int) -> Any:
    return shape[0] ** -0.5 * jax.random.normal(KEYS[number], shape)


def dense(n: int, **more: Any) -> dict[str, Any]:
    return {"i": drawn(0, 5, n), "w": drawn(1, n, n), "o": drawn(2, n, 3)} | more


def table(n: int, **more: Any) -> dict[str, Any]:
    return {"e": drawn(0, 11, n), "w": drawn(1, n, n)} | more


def features(m: Any, x: Any) -> Any:
    return jnp.tanh(jnp.tanh(x @ m["i"]) @ m["w"])


def plain(m: Any, x: Any) -> Any:
    return features(m, x) @ m["o"]


def embedded(m: Any, tokens: Any) -> Any:
    return jnp.tanh(m["e"][tokens].mean(1) @ m["w"])


def normed(x: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def examples(key: Any) -> tuple[Any, Any]:
    return jax.random.normal(key, (6, 5)), jax.random.normal(key, (6, 3))


def sentences(key: Any) -> tuple[Any, Any]:
    return jax.random.randint(key, (6, 4), 0, 11), jax.random.normal(key, (6, 1))


def builder(make: Any, law: Any = sx.mup, **options: Any) -> Callable[[int, Any], Any]:
    def build(width: int, key: Any) -> Any:
        return sx.parameterize(make, width=width, base_width=BASE, parameterization=law, **options)

    return build


def squares(forward: Any) -> Callable[..., Any]:
    def loss(model: Any, x: Any, y: Any) -> Any:
        return jnp.mean((forward(sx.resolve(model), x) - y) ** 2)

    return loss


def found(make: Any, forward: Any, *, tx: Any = ADAM, batch: Any = None, **options: Any) -> Any:
    """What is found in a model without training it."""
    build = builder(make, **options)
    models = shapes(build, WIDTHS)
    chain = optimizer_parts(models[-1], tx)
    law = laws(WIDTHS, models, chain, None, None)
    if batch is None:
        batch = sentences if "e" in models[0] else examples
    return conflicts(squares(forward), batch, models, law, chain, "width")


def with_layouts(**own: tuple[str, ...]) -> dict[str, Any]:
    return {"layouts": LAYOUTS | own}


def of_table(**own: tuple[str, ...]) -> dict[str, Any]:
    return {"layouts": {"e": (*IN, *OUT), "w": (*IN, *OUT)} | own}


def pooled(m: Any, x: Any) -> Any:
    h = features(m, x)
    return (jax.nn.softmax(h @ m["q"]) @ h @ m["o"])[None]


def scored(m: Any, x: Any) -> Any:
    h = features(m, x)
    return (h * jnp.tanh((h * m["q"]).sum(-1, keepdims=True))) @ m["o"]


def gated(m: Any, x: Any) -> Any:
    h = features(m, x)
    return (h[:, :, None] * h[:, None, :] * m["g"]).mean(1) @ m["o"]


def narrow(m: Any, x: Any) -> Any:
    h = features(m, x)
    return (h + jnp.tanh(h @ m["d"]) @ m["u"]) @ m["o"]


def tied(m: Any, tokens: Any) -> Any:
    return normed(embedded(m, tokens)) @ m["e"].T


def normalised(m: Any, x: Any) -> Any:
    w = m["w"] / jnp.linalg.norm(m["w"], axis=0, keepdims=True)
    return jnp.tanh(jnp.tanh(x @ m["i"]) @ w) @ m["o"]


def dense_with(**more: Any) -> Callable[[int], dict[str, Any]]:
    return lambda n: dense(n) | {name: make(n) for name, make in more.items()}


QUERY = dense_with(q=lambda n: drawn(3, n))
GATE = dense_with(g=lambda n: drawn(3, n, n))
NARROW = dense_with(d=lambda n: drawn(3, n, 4), u=lambda n: drawn(4, 4, n))
NARROW_LAYOUTS = with_layouts(d=(*IN, *OUT), u=(*IN, *OUT))


def rounded(n: int) -> dict[str, Any]:
    k = (n * 8 // 3 + 7) // 8 * 8
    return dense(n) | {"w": drawn(1, n, k), "o": drawn(2, k, 3)}


WRONG: dict[str, Any] = {
    "a query of a pool as a vector": (
        QUERY, pooled, with_layouts(q=OUT), "q", "as vector: summed over axis 0"
    ),
    "a vector that is multiplied and summed by hand": (
        QUERY, scored, with_layouts(q=OUT), "q", "as vector: summed over axis 0"
    ),
    "a hidden matrix that only multiplies entries": (
        GATE, gated, with_layouts(g=(*IN, *OUT)), "g", "as hidden: multiplies entry by entry"
    ),
    "an inner layer that is taken for a readout": (
        NARROW, narrow, NARROW_LAYOUTS, "d", "as readout: summed over axis 0"
    ),
    "a query that is taken for a readout": (
        QUERY, pooled, with_layouts(q=IN), "q", "as readout: summed over axis 0"
    ),
    "a tie without its factor": (
        table, tied, of_table(), "e", "as embedding: summed over axis 1"
    ),
    "a tie whose factor is not used": (
        lambda n: table(n, t=Tie(1.0)), tied, of_table(), "e", "a tied readout, whose factor"
    ),
    "a tie that is declared as a readout": (
        table, tied, of_table(e=(*OUT, *IN)), "e", "as readout: rows are looked up"
    ),
    "a look-up of a readout": (
        lambda n: table(n, o=drawn(2, n, 1)),
        lambda m, t: embedded(m, t) @ m["o"],
        of_table(e=(*OUT, *IN), o=(*IN, *OUT)),
        "e",
        "as readout: rows are looked up",
    ),
    "a look-up along the axis that is to be summed over": (
        lambda n: dense(n, c=drawn(3, n, 3)),
        lambda m, x: features(m, x) @ m["o"] + m["c"][(x[:, 0] > 0).astype(int)],
        with_layouts(c=(*IN, *OUT)),
        "c",
        "as readout: rows are looked up",
    ),
    "fans of an embedding the other way round": (
        dense, plain, with_layouts(i=(*OUT, *IN)), "i", "as readout"
    ),
    "fans of a readout the other way round": (
        dense, plain, with_layouts(o=(*OUT, *IN)), "o", "as embedding"
    ),
    "fans that grow at rates of their own": (
        rounded, plain, with_layouts(w=(*OUT, *IN)), "w", "as hidden: summed over axis 0"
    ),
    "a matrix that is normalised": (
        dense, normalised, with_layouts(), "w", "as hidden: divided by its own size"
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("make", "forward", "options", "culprit", "text"), WRONG.values(), ids=WRONG.keys()
)
def test_contradictions_are_found_by_name(make, forward, options, culprit, text: str):
    result = found(make, forward, **options)
    [finding] = result.findings
    assert (finding.kind, finding.weight, finding.certain) == ("use", culprit, True)
    assert text in finding.text and HERE in finding.text
    assert result.notices == ()


def latents(m: Any, x: Any) -> Any:
    h = features(m, x)
    share = jax.nn.softmax((normed(m["q"]) * m["a"]) @ m["k"] @ (h @ m["k"]).T)
    return ((share @ h).mean(0) @ m["o"])[None]


def noisy(m: Any, x: Any) -> Any:
    def one(k: str) -> Any:
        return m[k] + jnp.exp(m[k * 2]) * jax.random.normal(KEYS["iwo".index(k)], m[k].shape)

    noise = {k: one(k) for k in "iwo"}
    return features(noise, x) @ noise["o"]


def masked(m: Any, x: Any) -> Any:
    kept = {k: jnp.where(jax.random.bernoulli(KEYS[0], 0.5, m[k].shape), m[k], 0) for k in "iwo"}
    return features(kept, x) @ kept["o"]


def merged(m: Any, x: Any) -> Any:
    h = jnp.tanh(x @ m["i"])
    experts = jnp.einsum("bk,kio->bio", jax.nn.softmax(x[:, :2]), m["k"])
    return jnp.tanh(jnp.einsum("bi,bio->bo", h, experts)) @ m["o"]


def fast(m: Any, x: Any) -> Any:
    h = jnp.tanh(x @ m["i"])
    return jnp.tanh(jnp.einsum("bi,bij->bj", h, m["w"] + h[:, :, None] * h[:, None])) @ m["o"]


def differentiated(m: Any, x: Any) -> Any:
    def energy(x: Any) -> Any:
        return (features(m, x) @ m["o"]).sum()

    return jax.vmap(jax.grad(energy))(x)[:, :3] + features(m, x) @ m["o"]


def adapted(m: Any, x: Any) -> Any:
    def inner(m: Any) -> Any:
        return jnp.mean((features(m, x) @ m["o"]) ** 2)

    m = jax.tree.map(lambda w, g: w - 0.1 * g, m, jax.grad(inner)(m))
    return features(m, x) @ m["o"]


def penalised(m: Any, x: Any) -> Any:
    gram = m["o"].T @ m["o"] - jnp.eye(3)
    return features(m, x) @ m["o"] + jnp.sum(gram**2) + jnp.sum((m["o"] @ m["o"].T) ** 2)


def twice_normed(m: Any, x: Any) -> Any:
    h = features(m, x)
    h = h / jnp.sqrt((h * h).mean(-1, keepdims=True)) * m["a"]
    return (h / jnp.sqrt((h * h).sum(-1, keepdims=True))) @ m["o"]


def ravelled(m: Any, x: Any) -> Any:
    flat, back = jax.flatten_util.ravel_pytree(m)
    m = back(flat)
    return features(m, x) @ m["o"]


def sparse(m: Any, x: Any) -> Any:
    most, index = jax.lax.top_k(jnp.tanh(x @ m["i"]), 4)
    return jnp.tanh((most[:, :, None] * m["w"][index]).sum(1)) @ m["o"]


def quantised(m: Any, x: Any) -> Any:
    h = features(m, x)
    nearest = ((m["c"] ** 2).sum(-1) - 2 * h @ m["c"].T).argmin(-1)
    return (h + jax.lax.stop_gradient(m["c"][nearest] - h)) @ m["o"] + jnp.mean(
        (m["c"][nearest] - h) ** 2
    )


def folded(m: Any, x: Any) -> Any:
    h = features(m, x)
    return jax.nn.softmax(h @ (m["d"] @ m["d"].T) @ h.T) @ h @ m["o"]


def placed(m: Any, x: Any) -> Any:
    n = m["w"].shape[0]
    angles = jnp.arange(6.0)[:, None] / 10000 ** (jnp.arange(float(n)) / n)
    h = jnp.tanh(x @ m["i"]) + m["q"] + jnp.sin(angles)
    return jnp.tanh(h @ m["w"]) @ m["o"]


def tied_by_node(m: Any, tokens: Any) -> Any:
    return m["t"].factor * (normed(embedded(m, tokens)) @ m["e"].T)


def tied_by_gain(m: Any, tokens: Any) -> Any:
    return (normed(embedded(m, tokens)) * m["a"]) @ m["e"].T


class Shared(eqx.Module):
    parts: eqx.nn.Shared

    def __init__(self, n: int):
        embedding = eqx.nn.Embedding(11, n, key=KEYS[0])
        head = eqx.nn.Linear(n, 11, use_bias=False, key=KEYS[1])
        parts = embedding, head
        self.parts = eqx.nn.Shared(parts, lambda p: p[1].weight, lambda p: p[0].weight)

    def __call__(self, tokens: Any) -> Any:
        embedding, head = self.parts()
        return jax.vmap(lambda t: head(jax.vmap(embedding)(t).mean(0)))(tokens)


GAIN = lambda n: jnp.ones(n)  # noqa: E731
RIGHT: dict[str, Any] = {
    "plain": (dense, plain, with_layouts()),
    "a query that is declared": (QUERY, pooled, with_layouts(q=IN) | {"roles": {"q": "hidden"}}),
    "a query that the standard parameterization takes for a readout": (
        QUERY, pooled, with_layouts(q=IN) | {"law": sx.standard}
    ),
    "a gate of entries": (GATE, gated, with_layouts(g=(*OUT, *OUT))),
    "a bottleneck": (NARROW, narrow, NARROW_LAYOUTS | {"roles": {"d": "hidden"}}),
    "what is forced": (NARROW, narrow, with_layouts(d=(*OUT, *IN), u=(*IN, *OUT)) | {
        "roles": {"d": "readout"}, "force": True
    }),
    "what is frozen": (NARROW, narrow, NARROW_LAYOUTS | {"frozen": ["d"]}),
    "a tie's node": (lambda n: table(n, t=Tie(1.0)), tied_by_node, of_table()),
    "a tie whose factor a gain carries": (
        lambda n: table(n, a=jnp.ones(n)),
        tied_by_gain,
        {"use": lambda m: squares(tied_by_gain)(m, *sentences(KEYS[0]))},
    ),
    "a tie by equinox": (Shared, lambda m, t: m(t), {"batch": sentences}),
    "learned queries": (
        dense_with(q=lambda n: drawn(3, 4, n), a=GAIN, k=lambda n: drawn(4, n, 4)),
        latents,
        with_layouts(q=(*OUT, *OUT), a=OUT, k=(*IN, *OUT)) | {"roles": {"k": "hidden"}},
    ),
    "weights with noise": (
        dense_with(**{k * 2: lambda n, k=k: dense(n)[k] - 5 for k in "iwo"}),
        noisy,
        with_layouts(**dict.fromkeys(("ii", "ww", "oo"), (*IN, *OUT))),
    ),
    "weights behind a mask": (dense, masked, with_layouts()),
    "experts that are merged": (
        dense_with(k=lambda n: drawn(3, 2, n, n)), merged, with_layouts(k=(*IN, *OUT))
    ),
    "weights of each example": (dense, fast, with_layouts()),
    "a derivative within": (dense, differentiated, with_layouts()),
    "a step of training within": (dense, adapted, with_layouts()),
    "a penalty on a readout": (dense, penalised, with_layouts()),
    "a gain that is normalised": (dense_with(a=GAIN), twice_normed, with_layouts(a=OUT)),
    "arrays in one": (dense, ravelled, with_layouts()),
    "features that are chosen": (dense, sparse, with_layouts()),
    "a codebook": (dense_with(c=lambda n: drawn(3, 8, n)), quantised, with_layouts(c=(*IN, *OUT))),
    "scores that are folded": (
        dense_with(d=lambda n: drawn(3, n, 4)),
        folded,
        with_layouts(d=(*IN, *OUT)) | {"roles": {"d": "hidden"}},
    ),
    "places as an embedding": (
        dense_with(q=lambda n: drawn(3, 6, n)), placed, with_layouts(q=(*IN, *OUT))
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "forward", "options"), RIGHT.values(), ids=RIGHT.keys())
def test_right_models_are_left_alone(make: Any, forward: Any, options: Any):
    assert found(make, forward, **options) == Conflicts()


# What is not certain, or meant so, is a notice.


@pytest.mark.parametrize("factor", [lambda n: 1 / n, lambda n: jnp.sqrt(1 / n) ** 2])
@pytest.mark.parametrize("behind", [True, False])
def test_a_number_that_follows_the_width_may_be_the_factor_of_a_tie(factor: Any, behind: bool):
    def forward(m: Any, tokens: Any) -> Any:
        x = normed(embedded(m, tokens))
        number = factor(x.shape[-1])
        return (x @ m["e"].T) * number if behind else (x * number) @ m["e"].T

    result = found(table, forward, **of_table())
    assert result.findings == ()
    assert "may make up for it" in result.notices[0] and result.notices[0].startswith("e ")


def test_a_mean_is_no_such_number_and_no_sum():
    def forward(m: Any, x: Any) -> Any:
        h = features(m, x)
        return (h * jnp.mean(h * m["q"], -1, keepdims=True)) @ m["o"]

    assert found(QUERY, forward, **with_layouts(q=OUT)) == Conflicts()


def test_a_readout_inside_that_is_declared_is_told():
    result = found(NARROW, narrow, **NARROW_LAYOUTS, roles={"d": "readout"})
    assert result.findings == ()
    assert "d is judged as readout, as it is declared, though" in result.notices[0]


def test_where_the_law_is_the_same_nothing_is_wrong():
    """Under Adam a readout and a hidden weight are one in the standard parameterization."""
    assert found(NARROW, narrow, law=sx.standard, **NARROW_LAYOUTS) == Conflicts()
    swapped = found(dense, lambda m, x: features(m, x) @ m["o"], **with_layouts(w=(*OUT, *IN)))
    assert swapped.findings == () and "its law is the same" in swapped.notices[0]


def test_programs_that_differ_are_not_compared():
    def forward(m: Any, x: Any) -> Any:
        h = features(m, x)
        return sum(h @ m["o"] for _ in range(m["w"].shape[0] // BASE))

    result = found(dense, forward, **with_layouts(o=(*OUT, *IN)))
    assert result.findings == ()
    assert "is not compared with its law: use runs other operations" in result.notices[0]


def test_a_loss_that_fails_is_left_to_the_training():
    def forward(m: Any, x: Any) -> Any:
        return np.asarray(m["i"]) @ x

    [notice] = found(dense, forward, **with_layouts()).notices
    assert "is not compared with its law" in notice


def test_a_contradiction_is_a_rejection():
    found = coordinate_check(
        builder(QUERY, **with_layouts(q=OUT)),
        squares(pooled),
        ADAM,
        examples,
        widths=(16, 32),
        seeds=(0,),
        steps=1,
    )
    assert found.verdict == "rejected" and kinds(found) >= {("use", "q")}
    assert found.summary.startswith("rejected: q is used against its law as vector: summed over")


class WithTie(eqx.Module):
    embedding: Any
    layer: Any
    readout: Any

    def __init__(self, width: int, key: Any):
        keys = jax.random.split(key)
        self.embedding = sx.nn.Embedding(11, width, key=keys[0])
        self.layer = sx.nn.Linear(width, width, key=keys[1])
        self.readout = sx.nn.TiedReadout(width)

    def __call__(self, tokens: Any) -> Any:
        h = jnp.tanh(self.layer(jax.vmap(self.embedding)(tokens).mean(0)))
        return self.readout(h, self.embedding)


def test_a_tied_readout_changes_by_its_sum():
    """Behind the embedding's second use comes 1/r: what the sum puts out may change as n."""

    def build(width: int, key: Any) -> Any:
        return sx.parameterize(
            lambda width: WithTie(width, key),
            width=width,
            base_width=BASE,
            parameterization=sx.standard,
        )

    def loss(model: Any, tokens: Any, _: Any) -> Any:
        logits = jax.vmap(model)(tokens)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, :1], 1).mean()

    check = coordinate_check(build, loss, ADAM, sentences, widths=(16, 64), seeds=(0, 1), steps=2)
    assert check.verdict == "passes" and check.findings == ()
    [second] = [row for row in check.rows if row.name == "embedding/weight#2"]
    assert second.change is not None and second.change.value > 0.5
    assert second.change_explained is not None and second.change_explained > 0.5


def test_the_chance_in_a_gradient_of_one_output():
    """Against the spread of slopes of what is drawn, sizes of independent normal numbers."""
    widths, seeds, outputs = (32, 64, 128), 3, 6
    draws = np.random.default_rng(0).normal(size=(4000, seeds, len(widths), outputs))
    sizes = np.log2(np.sqrt(np.mean(draws**2, -1))).mean(1)
    x = np.log2(widths) - np.mean(np.log2(widths))
    slopes = sizes @ x / (x @ x)
    assert _sampling(widths, seeds, [outputs] * 3) == pytest.approx(np.std(slopes), rel=0.1)
