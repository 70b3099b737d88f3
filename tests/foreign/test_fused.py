"""Several weights in one array: each has the law that it has where it stands by itself."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx

from ..sparsify._models import Stack

WIDTH, BASE, KEPT = 32, 8, 4
QKV, ROWS = "qkv/weight", (WIDTH, KEPT, KEPT)
APART = ("query/weight", "key/weight", "value/weight")
ROLES = {"back/weight": "hidden"}


class Together(eqx.Module):
    """Queries that grow with the width, and keys and values that stay, in one matrix."""

    first: eqx.nn.Linear
    qkv: eqx.nn.Linear
    back: eqx.nn.Linear
    readout: eqx.nn.Linear

    def __init__(self, width: int):
        keys = jax.random.split(jax.random.key(0), 4)
        self.first = eqx.nn.Linear(3, width, use_bias=False, key=keys[0])
        self.qkv = eqx.nn.Linear(width, width + 2 * KEPT, use_bias=False, key=keys[1])
        self.back = eqx.nn.Linear(2 * KEPT, width, use_bias=False, key=keys[2])
        self.readout = eqx.nn.Linear(width, 2, use_bias=False, key=keys[3])

    def __call__(self, x: Any) -> Any:
        found = jnp.tanh(self.qkv(self.first(x)))
        return self.readout(found[: -2 * KEPT] + self.back(found[-2 * KEPT :]))


class Apart(eqx.Module):
    """The same arrays in layers of their own."""

    first: eqx.nn.Linear
    query: eqx.nn.Linear
    key: eqx.nn.Linear
    value: eqx.nn.Linear
    back: eqx.nn.Linear
    readout: eqx.nn.Linear

    def __init__(self, width: int):
        one = Together(width)
        pieces = jnp.split(one.qkv.weight, [width, width + KEPT])
        layers = [
            eqx.nn.Linear(width, len(x), use_bias=False, key=jax.random.key(0)) for x in pieces
        ]
        self.query, self.key, self.value = (
            eqx.tree_at(lambda layer: layer.weight, layer, x)
            for layer, x in zip(layers, pieces, strict=True)
        )
        self.first, self.back, self.readout = one.first, one.back, one.readout

    def __call__(self, x: Any) -> Any:
        x = self.first(x)
        query, key, value = (jnp.tanh(layer(x)) for layer in (self.query, self.key, self.value))
        return self.readout(query + self.back(jnp.concatenate([key, value])))


def together(law: Any = sx.mup, width: int = WIDTH, **options: Any) -> Any:
    options = {"parts": {QKV: lambda rows: (rows - 2 * KEPT, KEPT, KEPT)}, **options}
    sizes = {"width": width, "base_width": BASE}
    return sx.parameterize(Together, parameterization=law, roles=ROLES, **sizes, **options)


def apart(law: Any = sx.mup) -> Any:
    roles = {**ROLES, "key/weight": "hidden", "value/weight": "hidden"}
    return sx.parameterize(Apart, width=WIDTH, base_width=BASE, parameterization=law, roles=roles)


def trained(model: Any, tx: Any) -> Any:
    x = jax.random.normal(jax.random.key(1), (16, 3))

    @jax.jit
    def steps(params: Any) -> Any:
        def loss(params: Any) -> Any:
            run = jax.vmap(sx.resolve(eqx.combine(params, static)))
            return jnp.mean(jnp.square(run(x) - x[:, :2]))

        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            params = eqx.apply_updates(params, updates)
        return params

    params, static = eqx.partition(model, eqx.is_inexact_array)
    return steps(params)


def numbers(model: Any, tx: Any) -> dict[str, Any]:
    return {
        row.path: (row.multiplier, row.learning_rate_factor, row.eps, row.intended_std)
        for row in sx.plan(model, tx).rows
    }


@pytest.mark.parametrize("law", [sx.mup, sx.standard], ids=["mup", "standard"])
def test_each_part_has_the_law_of_a_layer_of_its_own(law: Any):
    one, other = together(law), apart(law)
    for tx in (sx.adam(0.01), sx.sgd(0.1), sx.adafactor(0.01)):
        found, expected = numbers(one, tx), numbers(other, tx)
        for i, path in enumerate(APART):
            assert found[f"{QKV}/{i}"] == expected[path]
    # The negative control: as one weight it has one number, and no part's own.
    whole = numbers(together(law, parts=None), sx.sgd(0.1))[QKV][1]
    query, key = (numbers(other, sx.sgd(0.1))[path][1] for path in APART[:2])
    assert min(query, key) < whole < max(query, key)


def test_training_is_that_of_layers_apart():
    """Sums over the same numbers in another order: 3 steps of 2^-23 of numbers of order one."""
    for tx in (sx.adam(0.01), sx.sgd(0.1)):
        one, other = trained(together(), tx), trained(apart(), tx)
        found = [part.value for part in one.qkv.weight.parts]
        expected = [layer.weight.value for layer in (other.query, other.key, other.value)]
        for x, y in zip(found, expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    wrong = trained(together(parts=None), sx.sgd(0.1)).qkv.weight.value[:WIDTH]
    assert np.abs(wrong - found[0]).max() > 1e-3


def test_the_forward_pass_has_one_array():
    model = together()
    array = sx.effective(model.qkv.weight)
    assert array.shape == (WIDTH + 2 * KEPT, WIDTH)
    assert np.array_equal(sx.resolve(model).qkv.weight, array)
    again = sx.unresolve(model, sx.resolve(model))
    assert eqx.tree_equal(again, model)
    assert [x.spec for x in again.qkv.weight.parts] == [x.spec for x in model.qkv.weight.parts]
    # At the base width it is what make has drawn, to the bit.
    assert np.array_equal(sx.resolve(together(width=BASE)).qkv.weight, Together(BASE).qkv.weight)
    with pytest.raises(TypeError, match=r"arithmetic of a Fused: .* scalex_eqx.resolve"):
        model.qkv(jnp.ones(WIDTH))


def test_parts_go_where_weights_go(tmp_path: Path):
    model = together()
    sx.save(tmp_path / "model", model)
    like = eqx.filter_eval_shape(together)
    assert eqx.tree_equal(sx.load(tmp_path / "model", like), model)
    converted, _ = sx.convert(together(sx.standard), to=sx.ntk)
    np.testing.assert_allclose(
        sx.effective(converted.qkv.weight),
        sx.effective(together(sx.standard).qkv.weight),
        rtol=1e-6,
    )
    frozen = sx.freeze(model, [f"{QKV}/1"])
    assert [part.spec.is_trained for part in frozen.qkv.weight.parts] == [True, False, True]
    # Trained, from plain arrays and under another law.
    for start in (sx.resolve(model), model):
        kept = together(sx.standard, trained=start)
        np.testing.assert_allclose(
            sx.effective(kept.qkv.weight), sx.effective(model.qkv.weight), rtol=1e-6
        )


def test_stacks_of_the_librarys_own_layers():
    """Halves that grow as the whole have its law, in each of the blocks that a scan runs over."""

    def build(**options: Any) -> Any:
        return sx.parameterize(
            lambda width: Stack(width, jax.random.key(0)),
            width=WIDTH,
            base_width=BASE,
            parameterization=sx.mup,
            **options,
        )

    model = build(parts={"blocks/weight": lambda rows: (rows // 2, rows // 2)})
    whole, x = build(), jnp.ones(4)
    (spec,) = {part.spec for part in model.blocks.weight.parts}
    assert spec == whole.blocks.weight.spec
    assert np.array_equal(sx.effective(model.blocks.weight), sx.effective(whole.blocks.weight))
    np.testing.assert_allclose(model(x), whole(x), rtol=1e-6)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({QKV: (1, 2)}, r"parts\['qkv/weight'\]: \(1, 2\) is no function"),
        ({QKV: lambda rows: (rows - 1, 2)}, r"qkv/weight: parts\(16\) is \(15, 2\); expected two"),
        ({QKV: lambda rows: rows}, r"qkv/weight: parts\(16\) is 16; expected two or more"),
        ({QKV: lambda rows: (4,) * (rows // 4)}, "expected as many parts at each"),
        ({"readout/weight": lambda rows: (1, 1)}, "readout/weight: has the role readout; parts"),
        ({"query": lambda rows: (1, 1)}, r"parts\['query'\] matches no array"),
    ],
)
def test_what_makes_no_parts_is_named(parts: Any, message: str):
    with pytest.raises(ValueError, match=message):
        together(parts=parts)


def example(model: Any) -> Any:
    return jax.vmap(model)(jnp.ones((3, 3)))


def test_a_fused_array_is_refused_where_its_use_shows_it():
    """And what the error says to paste is taken: the model is that of named parts."""
    with pytest.raises(ValueError) as caught:
        together(parts={}, use=example)
    (line,) = [line for line in str(caught.value).splitlines() if QKV in line]
    assert "cut into (8, 8) at the base width and (16, 8) at the probe width" in line
    assert "(test_fused.py:" in line
    pasted = line.partition("weight of its own: ")[2]
    assert pasted == 'parts={"qkv/weight": lambda rows: (rows - 8, 8)}'
    named = together(use=example, **eval(f"dict({pasted})"))
    assert [part.value.shape[0] for part in named.qkv.weight.parts] == [WIDTH, 2 * KEPT]
    # Without the use nothing shows it.
    assert dict(together(parts={}).qkv.weight.spec.sizes)["fan_out"] == Fraction(5, 2)


def of_outputs(cut: Any, outputs: Any, *, by_weight: bool = False) -> Any:
    """A model that cuts the outputs, or rows, of one matrix."""

    def run(model: Any) -> Any:
        x = jnp.tanh(model["first"] @ jnp.ones(3))
        parts = cut(model["w"]) if by_weight else cut(model["w"] @ x + model["bias"])
        return sum(jnp.sum(part @ x if by_weight else jnp.sin(part)) for part in parts)

    def make(width: int) -> Any:
        shapes = {"first": (width, 3), "w": (outputs(width), width), "bias": (outputs(width),)}
        keys = zip(jax.random.split(jax.random.key(0), 3), shapes.items(), strict=True)
        drawn = {name: jax.random.normal(key, shape) for key, (name, shape) in keys}
        return {**drawn, "bias": jnp.zeros(outputs(width))}

    return sx.parameterize(make, width=WIDTH, base_width=BASE, parameterization=sx.mup, use=run)


@pytest.mark.parametrize(
    ("cut", "outputs", "found"),
    [
        # Two that grow, in different shares, beside one that stays.
        (
            lambda y: jnp.split(y, [len(y) - 4 - (len(y) - 4) // 3, len(y) - 4]),
            lambda width: 3 * width + 4,
            r"\(16, 8, 4\) .* lambda rows: \(\(rows - 4\) \* 2 // 3, \(rows - 4\) // 3, 4\)",
        ),
        # Shares that don't follow from the whole.
        (
            lambda y: jnp.split(y, [len(y) // 2, len(y) - 4]),
            lambda width: 3 * width + 4,
            r"lambda rows: \(\.\.\.\)\}, with their sizes",
        ),
        (lambda y: [y[4:], y[:4]], lambda width: width + 4, r"lambda rows: \(4, rows - 4\)"),
    ],
)
@pytest.mark.parametrize("by_weight", [False, True])
def test_outputs_that_are_cut_are_seen(cut: Any, outputs: Any, found: str, by_weight: bool):
    with pytest.raises(ValueError, match=f"w: its outputs are cut into .*{found}"):
        of_outputs(cut, outputs, by_weight=by_weight)


@pytest.mark.parametrize(
    ("cut", "outputs"),
    [
        # All parts grow: gate and up, also where one of them is rounded.
        (lambda y: jnp.split(y, 2), lambda width: 2 * width),
        (lambda y: [y[: len(y) // 2 - 1], y[len(y) // 2 - 1 :]], lambda width: 2 * width),
        # The features of a head, of which there are more.
        (lambda y: [y.reshape(-1, 4)[:, :2], y.reshape(-1, 4)[:, 2:]], lambda width: width),
        # Every second one, and a stream that others are added to.
        (lambda y: [y[::2], y[1::2]], lambda width: width),
        (lambda y: [(y + jnp.sin(y))[:4]], lambda width: width),
    ],
)
def test_other_cuts_are_no_parts(cut: Any, outputs: Any):
    assert of_outputs(cut, outputs)["w"].spec.role == "hidden"
