"""What a coordinate check must not pass, and what is judged as declared."""

import functools
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import CoordinateCheck, coordinate_check
from scalex_eqx.diagnostics._coordinates._rows import starves

from ._checks import SEEDS, STEPS, WIDTHS, batch, builder, kinds, loss

ADAM = sx.adam(0.01)
HALF = Fraction(1, 2)


class Perceptron(eqx.Module):
    layers: tuple[Any, ...]

    def __init__(self, width: int, key: Any):
        sizes = ((8, width), (width, width), (width, 4))
        pairs = zip(sizes, jax.random.split(key, 3), strict=True)
        self.layers = tuple(eqx.nn.Linear(*size, use_bias=False, key=k) for size, k in pairs)

    def features(self, x: Any) -> Any:
        return jnp.tanh(self.layers[1](jnp.tanh(self.layers[0](x))))

    def __call__(self, x: Any) -> Any:
        return self.layers[2](self.features(x))


def check(build: Any, tx: Any) -> CoordinateCheck:
    return coordinate_check(build, loss, tx, batch, widths=WIDTHS, seeds=SEEDS, steps=STEPS)


def test_learning_that_fades_with_the_width_as_the_exponents_have_it_is_rejected():
    """Adam's exponents with SGD keep the loss at the large width from falling: no excuse."""
    exponents = {"embedding": "1/2", "hidden": 1, "readout": "1/2", "vector": 0, "constant": 0}
    found = check(builder(sx.mup, Perceptron), sx.sgd(0.06, exponents))
    assert found.loss_drops[0] > 0.02 > found.loss_drops[1] and not found.trained
    assert found.verdict == "rejected"
    assert "trained less and less" in found.summary
    assert any("less and less, as what is found explains" in text for text in found.notices)
    # A right model at a learning rate that is too small everywhere.
    slow = check(builder(sx.mup, Perceptron), sx.sgd(0.003))
    assert slow.verdict == "inconclusive" and slow.findings == ()
    assert 0 < max(slow.loss_drops) < 0.02


@pytest.mark.parametrize(
    ("small", "large", "expected"),
    [
        ((0.3, 0.2), (0.015, 0.01), True),
        # A little less, and less for one of the seeds only.
        ((0.3, 0.2), (0.21, 0.14), False),
        ((0.3, 0.01), (0.01, 0.01), False),
        # A learning rate that is too small at every width, or too large.
        ((0.015, 0.02), (0.001, 0.001), False),
        ((0.3, 0.2), (-0.5, 0.01), False),
        ((0.3, 0.2), (float("nan"), 0.01), False),
    ],
)
def test_how_much_the_drop_must_shrink(small: Any, large: Any, expected: bool):
    """By more than a factor of 4^0.3 = 1.52 from width 32 to 128, in the mean and for each seed."""
    losses = np.array([[[1.0, 1.0 - drop] for drop in row] for row in (small, large)])
    assert starves(losses, WIDTHS, 0.02, 0.3) is expected


class WithSpare(Perceptron):
    """A perceptron with a layer that is not used, meets nothing finite, or is gated off."""

    spare: Any
    gate: Any
    kind: str = eqx.field(static=True)

    def __init__(self, width: int, key: Any, kind: str):
        super().__init__(width, key)
        self.spare = eqx.nn.Linear(width, width, use_bias=False, key=key)
        self.gate = sx.Weight(jnp.zeros((width,)), sx.WeightSpec((), (-1,)))
        self.kind = kind

    def __call__(self, x: Any) -> Any:
        h = self.features(x)
        extra = h
        if self.kind == "infinite":
            bad = jax.lax.stop_gradient(self.spare(h / jnp.sum(0 * x)))
            extra = jnp.where(jnp.isfinite(bad), bad, 0)
        if self.kind == "gated":
            extra = self.spare(h)
        return self.layers[2](h + self.gate * extra)


@pytest.mark.parametrize(
    ("kind", "notice"),
    [
        ("unused", "not followed: spare/weight is not used"),
        ("infinite", "not judged: spare/weight is met by no input at width 32 with seed 0, 1; "),
        ("gated", "spare/weight has no gradient at first, so that its update is not judged; start"),
    ],
)
def test_no_pass_for_a_weight_that_was_not_measured(kind: str, notice: str):
    found = check(builder(sx.standard, functools.partial(WithSpare, kind=kind)), ADAM)
    assert found.trained and found.findings == ()
    assert found.verdict == "inconclusive"
    assert found.unjudged == ("spare/weight",) and "spare/weight" in found.summary
    assert any(notice in text for text in found.notices)


class Banked(Perceptron):
    """A perceptron with an expert for each sign of an input, of which one is never chosen."""

    experts: Any
    never: bool = eqx.field(static=True)

    def __init__(self, width: int, key: Any, never: bool):
        super().__init__(width, key)
        self.experts = eqx.filter_vmap(
            lambda k: eqx.nn.Linear(width, width, use_bias=False, key=k)
        )(jax.random.split(key, 2))
        self.never = never

    def __call__(self, x: Any) -> Any:
        h = self.features(x)
        index = (x[0] > (100 if self.never else 0)).astype(int)
        return self.layers[2](h + jnp.tanh(self.experts.weight[index] @ h))


def test_no_pass_for_an_expert_that_no_input_selected():
    assert check(builder(sx.standard, functools.partial(Banked, never=False)), ADAM).verdict == (
        "passes"
    )
    found = check(builder(sx.standard, functools.partial(Banked, never=True)), ADAM)
    assert found.verdict == "inconclusive" and found.findings == ()
    assert found.unjudged == ("experts/weight/1",)
    assert any("experts/weight/1 is met by no input" in text for text in found.notices)


def test_no_pass_for_a_weight_that_the_optimizer_leaves_alone():
    def labels(params):
        kinds = jax.tree.map(lambda _: "train", params, is_leaf=lambda x: isinstance(x, sx.Weight))
        return eqx.tree_at(lambda model: model.layers[1].weight, kinds, "leave")

    found = check(
        builder(sx.standard, Perceptron),
        optax.multi_transform({"train": ADAM, "leave": sx.adam(0.0)}, labels),
    )
    assert found.verdict == "inconclusive" and found.unjudged == ("layers/1/weight",)
    assert any("layers/1/weight is not moved by the first update" in text for text in found.notices)


class Shifted(Perceptron):
    """A perceptron whose logits are all shifted by one number, which no loss sees."""

    shift: Any

    def __init__(self, width: int, key: Any):
        super().__init__(width, key)
        self.shift = sx.Weight(jnp.zeros((1,)), sx.WeightSpec((), (-1,)))

    def __call__(self, x: Any) -> Any:
        return super().__call__(x) + self.shift


def test_what_nothing_trains_is_said_and_may_pass():
    found = check(builder(sx.standard, Shifted), ADAM)
    assert found.verdict == "passes" and found.unjudged == ()
    assert any("shift has no gradient at first" in text for text in found.notices)


class Bottleneck(eqx.Module):
    """Layers of a fixed size inside: by its shapes the first is a readout."""

    into: Any
    down: Any
    up: Any
    out: Any
    second: Any
    skips: bool = eqx.field(static=True)

    def __init__(self, width: int, key: Any, skips: bool = False):
        sizes = (8, width), (width, 16), (16, width), (width, 4), (width, 4)
        pairs = zip(sizes, jax.random.split(key, 5), strict=True)
        layers = [eqx.nn.Linear(*size, use_bias=size == (width, 16), key=k) for size, k in pairs]
        self.into, self.down, self.up, self.out, self.second = layers
        self.skips = skips

    def __call__(self, x: Any) -> Any:
        h = jnp.tanh(self.into(x))
        z = self.down(h)
        z = jnp.tanh(z + jnp.tile(x, 2) if self.skips else z)
        h = h + jnp.tanh(self.up(z))
        return self.out(h) + jnp.tanh(self.second(h))


def test_an_inner_layer_that_vanishes_is_rejected_and_one_declared_hidden_passes():
    """Under muP a readout's output starts at n^-1/2. That of the two true ones may."""
    declared = builder(sx.mup, Bottleneck, roles={"down/weight": "readout"})
    wrong = check(declared, ADAM)
    assert wrong.verdict == "rejected"
    assert kinds(wrong) == {("output", "down/weight")}
    assert wrong.findings[0].measured == pytest.approx(-0.5, abs=0.2)
    assert "roles={'down/weight': 'hidden'}" in wrong.summary
    assert any("is judged as readout, as it is declared" in text for text in wrong.notices)

    # Where nobody says so, that is known before any training.
    guessed = check(builder(sx.mup, Bottleneck), ADAM)
    assert kinds(guessed) == {("use", "down/weight")}

    roles = {"down/weight": "hidden", "down/bias": "vector"}
    inner = builder(sx.mup, Bottleneck, roles=roles)
    right = check(inner, ADAM)
    assert right.verdict == "passes"
    for path, role in roles.items():
        told = f"{path} is judged as {role}, as it is declared"
        assert any(told in text for text in right.notices)
    # By what it does it is still judged.
    assert ("rate", "down/weight") in kinds(check(inner, sx.adam(0.01, sx.global_rate)))


def test_what_is_added_to_something_that_stays_may_vanish():
    skipping = functools.partial(Bottleneck, skips=True)
    declared = builder(sx.mup, skipping, roles={"down/weight": "readout"})
    assert check(declared, ADAM).verdict == "passes"


def test_a_readout_inside_that_starts_at_order_one_passes():
    assert check(builder(sx.standard, Bottleneck), ADAM).verdict == "passes"


def orthogonalised() -> optax.GradientTransformation:
    """Momentum, then in each matrix's place its orthogonal factor times (fan-out / fan-in)^1/2.

    Entries of a layer n -> n go as n^-1/2, of one from n to 4 as n^-1, of one from 8 to n as 1.
    """
    momentum = sx.optim.scale_by_momentum(0.9)

    def one(moment):
        u, s, v = jnp.linalg.svd(moment, full_matrices=False)
        return jnp.where(s > 0, u, 0) @ v * (moment.shape[0] / moment.shape[1]) ** 0.5

    def update(updates, state, params=None):
        moments, state = momentum.update(updates, state, params)
        return jax.tree.map(one, moments), state

    return optax.GradientTransformation(momentum.init, update)


MUON = sx.theory.UpdateFamily("muon", 0, 0, offset=sx.theory.LayerExponents(0, HALF, 1))


def test_a_family_with_an_offset_is_judged_as_declared():
    """By its state the rule is a momentum, of SGD's degrees: that is said."""
    behind = (sx.scale_by_width(MUON, sx.full_alignment), optax.scale(-0.05))
    found = check(builder(sx.standard, Perceptron), optax.chain(orthogonalised(), *behind))
    assert found.verdict == "passes", str(found)
    assert {row.law.family.name for row in found.rows} == {"muon"}
    assert any("of the family muon, as declared, though" in text for text in found.notices)


@pytest.mark.parametrize("rule", [orthogonalised(), sx.optim.scale_by_momentum(0.9)])
def test_a_family_that_the_updates_do_not_have_is_rejected(rule: optax.GradientTransformation):
    tx = optax.chain(rule, sx.scale_by_width("adam", sx.full_alignment), optax.scale(-0.05))
    found = check(builder(sx.standard, Perceptron), tx)
    assert found.verdict == "rejected"
    assert "update" in {kind for kind, _ in kinds(found)}
    assert any("of the family adam, as declared, though" in text for text in found.notices)
