"""What `parameterize(use=...)` reads from small models in which shapes alone mislead."""

from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx._weight import weights_with_paths

BASE, WIDTH = 16, 64
RATIO = WIDTH / BASE
KEYS = jax.random.split(jax.random.key(0), 8)
X = jax.random.normal(jax.random.key(1), (6, 5))
TOKENS = jnp.array([[1, 2, 3], [4, 0, 2]])


@pytest.fixture(autouse=True)
def ranks_as_users_write_them():
    with jax.numpy_rank_promotion("allow"):
        yield


def drawn(number: int, *shape: int, scale: float = 1.0):
    return scale * jax.random.normal(KEYS[number], shape)


def dense(width: int) -> dict:
    return {"i": drawn(0, 5, width), "o": drawn(1, width, 3, scale=width**-0.5)}


def law_of(make, use, *, width: int = WIDTH, law=sx.mup, **options: Any):
    model = sx.parameterize(
        make, width=width, base_width=BASE, parameterization=law, use=use, **options
    )
    return model, {path: weight.spec for path, weight in weights_with_paths(model).items()}


def spread(x) -> float:
    return float(np.std(np.asarray(x, np.float64)))


# Each array's role, its layout, and a part of the reason, in a model written for that array.


def pooled(m):
    h = X @ m["i"]
    return (jax.nn.softmax(h @ m["q"]) @ h) @ m["o"]


def pooled_by_hand(m):
    h = X @ m["i"]
    return h * jnp.tanh((h * m["q"]).sum(-1, keepdims=True)) @ m["o"]


def meaned(m):
    h = X @ m["i"]
    return (h * jnp.mean(h * m["q"], -1, keepdims=True)) @ m["o"]


def entered(m):
    h = X @ m["i"]
    outer = h[:, :, None] * h[:, None, :]
    return (outer * m["g"]).mean((1, 2))[:, None] + h @ m["o"]


def routed(m):
    h = X @ m["i"]
    share, chosen = jax.lax.top_k(jax.nn.softmax(h @ m["r"]), 1)
    experts = jnp.einsum("nd,nde->ne", h, m["e"][chosen[:, 0]])
    return (h + share * experts) @ m["o"]


def masked(m):
    h = X @ m["i"]
    return (h @ jnp.where(jnp.tril(jnp.ones((h.shape[1],) * 2)), m["w"], 0)) @ m["o"]


def low_rank(m):
    return ((jax.lax.stop_gradient(m["w"]) + m["b"] @ m["a"]) @ (X @ m["i"]).T).T @ m["o"]


def unnormalised(m):
    h = X @ m["i"] * m["gain"] + m["bias"]
    return h @ m["w"] @ m["o"]


def stacked(m):
    h, _ = jax.lax.scan(lambda h, w: (h + jnp.tanh(h @ w), None), X @ m["i"], m["w"])
    return h @ m["o"]


def prefixed(m):
    h = jnp.concatenate([m["token"][None], X @ m["i"]])
    return (h + m["places"])[0] @ m["o"]


def looped(m):
    def step(_, x):
        return x + 0.1 * jnp.tanh(x @ m["i"]) @ m["f"]

    return jax.lax.fori_loop(0, 3, step, X)


def penalised(m):
    def f(x):
        return (jnp.tanh(jnp.tanh(x @ m["i"]) @ m["w"]) @ m["o"])[0]

    return (jax.vmap(jax.grad(f))(X) ** 2).sum() + jax.vmap(f)(X).sum()


def transposed(m):
    h = X @ m["i"]
    return jnp.tanh(h @ m["w"]) @ m["w"].T @ m["o"]


def quantised(m):
    h = X @ m["i"]
    distance = (m["codes"] ** 2).sum(-1) - 2 * h @ m["codes"].T
    code = m["codes"][distance.argmin(-1)]
    return (h + jax.lax.stop_gradient(code - h)) @ m["o"], ((h - code) ** 2).mean()


def measured(m):
    h = X @ m["i"]
    logits = h @ m["o"]
    return jax.nn.logsumexp(logits, -1).mean(), {"norm": (h @ m["probe"]).mean(), "logits": logits}


CASES = {
    "a query of a pool is summed over": (
        lambda n: dense(n) | {"q": drawn(2, n, scale=n**-0.5)},
        pooled,
        {"q": ("hidden", "(in,)", "features behind it")},
    ),
    "so is what is multiplied and summed by hand": (
        lambda n: dense(n) | {"q": drawn(2, n, scale=n**-0.5)},
        pooled_by_hand,
        {"q": ("hidden", "(in,)", "summed over axis 0")},
    ),
    "a mean is no sum": (
        lambda n: dense(n) | {"q": drawn(2, n)},
        meaned,
        {"q": ("vector", "(out,)", "multiplies entry by entry")},
    ),
    "a matrix of two growing axes that multiplies entries": (
        lambda n: dense(n) | {"g": drawn(2, n, n)},
        entered,
        {"g": ("vector", "(out, out)", "multiplies entry by entry")},
    ),
    "a router has features behind it, and experts are chosen": (
        lambda n: dense(n) | {"r": drawn(2, n, 4), "e": drawn(3, 4, n, n)},
        routed,
        {
            "r": ("hidden", "(in, out)", "features behind it"),
            "e": ("hidden", "(in, out)", "summed over axis 1"),
            "o": ("readout", "(in, out)", "no such sum behind it"),
        },
    ),
    "a masked matrix is summed over": (
        lambda n: dense(n) | {"w": drawn(2, n, n)},
        masked,
        {"w": ("hidden", "(in, out)", "summed over axis 0")},
    ),
    "the axes of adapters that are multiplied with each other": (
        lambda n: dense(n) | {"w": drawn(2, n, n), "a": drawn(3, 2, n), "b": jnp.zeros((n, 2))},
        low_rank,
        {
            "w": ("hidden", "(out, in)", "no derivative reaches it"),
            "a": ("hidden", "(out, in)", "features behind it"),
            "b": ("embedding", "(out, in)", "summed over axis 1"),
        },
    ),
    "a gain in front of a matrix stays one": (
        lambda n: dense(n) | {"gain": jnp.ones(n), "bias": drawn(2, n), "w": drawn(3, n, n)},
        unnormalised,
        {"gain": ("vector", "(out,)", "multiplies"), "bias": ("vector", "(out,)", "added")},
    ),
    "layers of a scan are a stack": (
        lambda n: dense(n) | {"w": drawn(2, 3, n, n)},
        stacked,
        {"w": ("hidden", "(in, out)", "summed over axis 1")},
    ),
    "a token and a table of places": (
        lambda n: dense(n) | {"token": drawn(2, n), "places": drawn(3, 7, n)},
        prefixed,
        {
            "token": ("vector", "(out,)", "entry by entry in concatenate"),
            "places": ("vector", "(out, out)", "added entry by entry"),
        },
    ),
    "what a loop puts in again is still put out": (
        lambda n: {"i": drawn(0, 5, n), "f": drawn(1, n, 5)},
        looped,
        {"f": ("readout", "(in, out)", "no such sum behind it")},
    ),
    "the way back of a derivative is no further use": (
        lambda n: dense(n) | {"w": drawn(2, n, n)},
        penalised,
        {
            "i": ("embedding", "(in, out)", "summed over axis 0"),
            "o": ("readout", "(in, out)", "no such sum behind it"),
        },
    ),
    "rows that are compared with to choose one": (
        lambda n: dense(n) | {"codes": drawn(2, 7, n)},
        quantised,
        {"codes": ("embedding", "(in, out)", "rows are looked up")},
    ),
    "what is only measured": (
        lambda n: dense(n) | {"probe": drawn(2, n)},
        measured,
        {"probe": ("readout", "(in,)", "no derivative reaches it; summed over axis 0")},
    ),
    "a matrix that is used both ways": (
        lambda n: dense(n) | {"w": drawn(2, n, n)},
        transposed,
        {"w": ("hidden", "(in, out)", "summed over axis 0")},
    ),
    "a kernel of another inner size": (
        lambda n: (
            dense(n) | {"up": drawn(2, n, -(-8 * n // 24) * 8), "down": drawn(3, -(-n // 3) * 8, n)}
        ),
        lambda m: jnp.tanh(X @ m["i"] @ m["up"]) @ m["down"] @ m["o"],
        {
            "up": ("hidden", "(in, out)", "summed over axis 0"),
            "down": ("hidden", "(in, out)", "summed over axis 0"),
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_axes_and_roles_are_those_of_the_uses(name: str):
    make, use, expected = CASES[name]
    _, specs = law_of(make, use)
    for path, (role, layout, why) in expected.items():
        spec = specs[path]
        assert (spec.role, spec.summary().rpartition(f", {spec.role}")[0]) == (role, layout), path
        assert why in spec.why and "test_read_from_use.py:" in spec.why


def test_a_stack_of_experts_keeps_its_members_apart():
    make, use, _ = CASES["a router has features behind it, and experts are chosen"]
    _, specs = law_of(make, use)
    assert specs["e"].fan_in == (-2,)
    assert specs["r"].size_ratio("fan_out") == 1
    assert specs["r"].size_ratio("fan_in") == Fraction(4)


@pytest.mark.parametrize("law", [sx.standard, sx.mup], ids=lambda law: law.name)
def test_scores_spread_as_at_the_base_width(law):
    """A sum of n products of entries of size one with a query of size n^-1/2: 0.42 at all widths.

    A query taken for a bias keeps the base width's entries, and its scores grow as the root of the
    ratio: 8 times at a ratio of 64. The spread of 2,000 scores is known to 2 % (one sigma).
    """
    features = jax.random.normal(jax.random.key(3), (2000, 2048))

    def make(n):
        return dense(n) | {"q": drawn(2, n, scale=0.42 * n**-0.5)}

    base, wide = (
        law_of(make, pooled, width=width, law=law)[0]["q"].value for width in (BASE, 2048)
    )
    assert spread(features[:, :BASE] @ base) == pytest.approx(0.42, rel=0.6)
    ratio = np.linalg.norm(np.asarray(wide, float)) / np.linalg.norm(np.asarray(base, float))
    assert ratio == pytest.approx(1, rel=1e-5)
    assert spread(features @ wide) == pytest.approx(np.linalg.norm(wide), rel=0.1)


def test_a_gate_of_entries_keeps_its_values():
    make, use, _ = CASES["a matrix of two growing axes that multiplies entries"]
    model, specs = law_of(make, use)
    np.testing.assert_array_equal(model["g"].value, make(WIDTH)["g"])
    assert specs["g"].width_ratio == 4


class Tied(eqx.Module):
    """An embedding that is used as readout by hand, with a norm's gain and bias before."""

    table: Any
    norm: Any
    w: Any

    def __init__(self, width: int):
        self.table = drawn(0, 7, width)
        self.norm = eqx.nn.LayerNorm(width)
        self.w = drawn(1, width, width, scale=width**-0.5)

    def __call__(self, tokens):
        h = self.table[tokens]
        h = jax.vmap(self.norm)(h + jnp.tanh(h @ self.w))
        return h @ self.table.T


def tied_loss(model):
    return jax.nn.logsumexp(jax.vmap(model)(TOKENS), -1).mean()


@pytest.mark.parametrize(
    "law", [sx.standard, sx.mup, sx.ntk, sx.mean_field], ids=lambda law: law.name
)
def test_a_tie_by_hand_has_the_law_of_a_tie(law):
    """Logits are 1/r of what the effective table and the features give, and nothing else is."""
    model, specs = law_of(Tied, tied_loss, law=law)
    assert specs["table"].role == "embedding" and "a tied readout" in specs["table"].why
    table = np.asarray(sx.effective(model.table), np.float64)
    h = table[TOKENS[0]]
    h = h + np.tanh(h @ np.asarray(sx.effective(model.w), np.float64))
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
    # With a second multiplier r^-(1 - b) on the stored table, whose own is r^-a.
    stored = np.asarray(model.table.value, np.float64)
    expected = h @ stored.T * RATIO ** float(law.b.embedding - 1)
    np.testing.assert_allclose(sx.resolve(model)(TOKENS[0]), expected, rtol=2e-4, atol=2e-5)
    assert [path for path, spec in specs.items() if spec.carries_tie] == [
        "norm/weight",
        "norm/bias",
    ]


def test_a_tie_by_hand_trains_as_one_of_shared():
    """Step for step the losses of `equinox.nn.Shared`, which has a place for the factor."""

    class Shared(eqx.Module):
        shared: eqx.nn.Shared

        def __init__(self, width: int):
            tied = Tied(width)
            embed, head = (
                eqx.nn.Embedding(weight=tied.table),
                eqx.nn.Linear(width, 7, use_bias=False, key=KEYS[0]),
            )
            self.shared = eqx.nn.Shared(
                (embed, head, tied.norm, tied.w),
                where=lambda x: x[1].weight,
                get=lambda x: x[0].weight,
            )

        def __call__(self, tokens):
            embed, head, norm, w = self.shared()
            h = jax.vmap(embed)(tokens)
            h = jax.vmap(norm)(h + jnp.tanh(h @ w))
            return jax.vmap(head)(h)

    shared = sx.parameterize(
        Shared,
        width=WIDTH,
        base_width=BASE,
        parameterization=sx.mup,
        layouts={"shared/pytree/3": ("in", "out")},
    )
    losses = []
    for model in (law_of(Tied, tied_loss)[0], shared):
        tx = sx.adam(0.01)
        state, seen = tx.init(eqx.filter(model, eqx.is_array)), []
        for _ in range(3):
            loss, grads = eqx.filter_value_and_grad(lambda m: tied_loss(sx.resolve(m)))(model)
            updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_array))
            model = eqx.apply_updates(model, updates)
            seen.append(float(loss))
        losses.append(seen)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert losses[0][2] < losses[0][0]


def test_a_batch_of_equal_numbers_will_do():
    """Such as `jnp.zeros`, as models of Flax are initialised with."""

    def loss(model):
        return jax.nn.logsumexp(jax.vmap(model)(jnp.zeros((2, 3), int)), -1).mean()

    assert law_of(Tied, loss)[1] == law_of(Tied, tied_loss)[1]
    make, use, expected = CASES["a gain in front of a matrix stays one"]
    assert use is unnormalised

    def of_ones(m):
        h = jnp.ones((2, 5)) @ m["i"] * m["gain"] + m["bias"]
        return h @ m["w"] @ m["o"]

    _, specs = law_of(make, of_ones)
    assert all(specs[path].role == role for path, (role, _, _) in expected.items())


def test_a_trained_tie_by_hand_has_no_factor():
    """Its logits are moved r times as far by the same step, unless its width is the base."""

    def kept(**options):
        return law_of(Tied, tied_loss, trained=Tied(WIDTH), **options)

    with pytest.raises(ValueError, match=r"table: the tie has the factor 1, .*\n?.* 4 times"):
        kept()
    assert kept(frozen=["table"])[1]["table"].frozen
    own = sx.parameterize(
        Tied,
        width=WIDTH,
        base_width=WIDTH,
        parameterization=sx.mup,
        use=tied_loss,
        trained=Tied(WIDTH),
    )
    np.testing.assert_array_equal(sx.resolve(own)(TOKENS[0]), Tied(WIDTH)(TOKENS[0]))


def test_a_linear_that_is_looked_up_is_a_tied_embedding():
    class Model(eqx.Module):
        head: eqx.nn.Linear
        norm: eqx.nn.LayerNorm

        def __init__(self, width: int):
            self.head = eqx.nn.Linear(width, 7, use_bias=False, key=KEYS[0])
            self.norm = eqx.nn.LayerNorm(width)

        def __call__(self, tokens):
            return jax.vmap(self.head)(jax.vmap(self.norm)(self.head.weight[tokens]))

    _, specs = law_of(Model, tied_loss)
    assert (specs["head/weight"].role, specs["head/weight"].fan_in) == ("embedding", (-2,))
    assert specs["norm/bias"].carries_tie


def test_a_tie_that_nothing_can_carry_is_refused():
    def loss(m):
        return (m["table"][TOKENS[0]] ** 2) @ m["table"].T

    with pytest.raises(ValueError, match=r"(?s)table: rows are looked up .*Shared"):
        law_of(lambda n: {"table": drawn(0, 7, n)}, loss)


def test_a_gain_with_another_use_carries_no_tie():
    class Model(Tied):
        def __call__(self, tokens):
            return super().__call__(tokens) + self.norm.bias.sum()

    with pytest.raises(ValueError, match="none that do nothing else"):
        law_of(Model, tied_loss)


def test_statistics_and_tables_are_left_alone():
    def make(n):
        return dense(n) | {"mean": drawn(2, n), "table": drawn(3, 6, n)}

    def loss(m):
        h = X @ m["i"] + jax.lax.stop_gradient(m["table"])
        new = 0.9 * m["mean"] + 0.1 * h.mean(0)
        return (((h - h.mean(0)) @ m["o"]) ** 2).mean(), new

    model, specs = law_of(make, loss)
    assert (specs["mean"].role, specs["table"].role) == ("buffer", "buffer")
    for name in ("mean", "table"):
        np.testing.assert_array_equal(model[name].value, make(WIDTH)[name])


def test_what_is_not_trained_and_summed_over_keeps_its_law():
    make, use, _ = CASES["the axes of adapters that are multiplied with each other"]
    _, specs = law_of(make, use)
    assert specs["w"].frozen and not specs["a"].frozen


def test_a_normalised_weight_is_refused():
    def loss(m):
        return X @ m["i"] @ (m["w"] / jnp.linalg.norm(m["w"], axis=0)) @ m["o"]

    with pytest.raises(ValueError, match=r"w: divided by its own size \(test_read_from_use.py:"):
        law_of(lambda n: dense(n) | {"w": drawn(2, n, n)}, loss)


def test_a_weight_that_shares_an_axis_with_a_softmax_of_fixed_size_is_not():
    def loss(m):
        h = X @ m["i"]
        return (jax.nn.softmax(m["mix"]) @ jnp.stack([h, h * 2])[:, 0]) @ m["o"]

    _, specs = law_of(lambda n: dense(n) | {"mix": drawn(2, 2)}, loss)
    assert specs["mix"].role == "constant"


def test_what_is_said_goes_before_and_a_contradiction_shows_both():
    make, use, _ = CASES["a query of a pool is summed over"]
    with pytest.raises(ValueError, match=r"layouts gives fan_in \(\) .* summed over axis 0"):
        law_of(make, use, layouts={"q": ("out",)})
    _, specs = law_of(make, use, roles={"q": "readout"})
    assert specs["q"].role == "readout"


def test_a_declaration_that_the_use_contradicts():
    def make(n):
        w = sx.Weight(drawn(2, n, n), sx.WeightSpec(fan_in=(-1,), fan_out=(-2,), std=1.0))
        return dense(n) | {"w": w}

    def loss(m):
        m = sx.resolve(m)
        return X @ m["i"] @ m["w"] @ m["o"]

    with pytest.raises(ValueError, match=r"w: declares fan_in \(-1,\) .* summed over axis 0"):
        law_of(make, loss)


def test_an_array_that_is_not_used_is_asked_about():
    with pytest.raises(ValueError, match="spare: not used by use; shape") as caught:
        law_of(lambda n: dense(n) | {"spare": drawn(2, 3, n)}, lambda m: X @ m["i"] @ m["o"])
    assert "pass use=" not in str(caught.value)


def test_an_operation_that_is_not_followed_is_named():
    def loss(m):
        return X @ m["i"] @ jnp.linalg.qr(m["w"])[0][:, :3] + X @ m["i"] @ m["o"]

    with pytest.raises(ValueError, match=r"w: not followed in .* \(test_read_from_use.py:"):
        law_of(lambda n: dense(n) | {"w": drawn(2, n, n + 1)}, loss)


def test_errors_of_use_name_the_line():
    def asks(m):
        return X @ m["i"] if m["i"][0, 0] > 0 else X

    with pytest.raises(ValueError, match=r"(?s)use asks for the values .*m\[\"i\"\]\[0, 0\] > 0"):
        law_of(dense, asks)

    def differs(m):
        h = X @ m["i"]
        return (h if m["i"].shape[1] == BASE else jnp.tanh(h)) @ m["o"]

    with pytest.raises(ValueError, match="other operations at the base width"):
        law_of(dense, differs)
    with pytest.raises(ValueError, match="returns no floating-point array"):
        law_of(dense, lambda m: (X @ m["i"] @ m["o"]).argmax(-1))


def test_a_step_that_differentiates_is_read_as_its_loss():
    make, use, expected = CASES["a gain in front of a matrix stays one"]

    def step(m):
        return jax.value_and_grad(lambda m: use(m).sum())(m)

    _, specs = law_of(make, step)
    for path, (role, _, _) in expected.items():
        assert specs[path].role == role
    assert specs["o"].role == "readout"


def test_at_the_base_width_every_value_is_what_make_returned():
    for make, use, _ in CASES.values():
        model, _ = law_of(make, use, width=BASE)
        for name, value in make(BASE).items():
            np.testing.assert_array_equal(sx.effective(model[name]), value)


def test_plan_and_fingerprint():
    make, use, _ = CASES["layers of a scan are a stack"]
    model, _ = law_of(make, use)
    said = law_of(make, None, layouts={"i": ("in", "out"), "w": ("in", "out"), "o": ("in", "out")})
    assert sx.fingerprint(model) == sx.fingerprint(said[0])
    plan = sx.plan(model, sx.adam(1e-3))
    assert all(row.why for row in plan.rows) and "summed over axis 1 (" in str(plan)
    bare = sx.plan(said[0], sx.adam(1e-3))
    assert "why" not in bare.to_json() and not bare.diff(plan)
