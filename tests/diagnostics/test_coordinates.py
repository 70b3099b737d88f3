"""The coordinate check: correct models pass, planted faults are rejected and named.

At a reduced size: a multilayer perceptron at widths 32 and 128, two seeds, three steps of 64
examples. The false-alarm rate over many seeds is measured on request, by
tests/power/coordinate_power.py.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import CoordinateCheck, coordinate_check, coordinate_figure
from scalex_eqx.diagnostics._coordinates._run import _in_order

from ._checks import BASE, SEEDS, STEPS, WIDTHS, batch, builder, kinds

PARAMETERIZATIONS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)
ADAM = sx.adam(0.01)
OPTIMIZERS = {
    "sgd": sx.sgd(0.3),
    "adam": ADAM,
    "adafactor": sx.adafactor(0.03, min_factored_size=16),
}


class Perceptron(eqx.Module):
    layers: tuple[Any, ...]

    def __init__(self, width: int, key):
        keys = jax.random.split(key, 4)
        self.layers = (
            sx.nn.Linear(8, width, key=keys[0]),
            sx.nn.Linear(width, width, key=keys[1]),
            sx.nn.Linear(width, width, key=keys[2]),
            sx.nn.Readout(width, 4, key=keys[3]),
        )

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = jnp.tanh(layer(x))
        return self.layers[-1](x)


class WithoutMultiplier(Perceptron):
    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = jnp.tanh(layer(x))
        return self.layers[-1].weight.value @ x


def loss(model, x, y):
    logits = jax.vmap(model)(x)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))


def check(build: Any, tx: Any, **options: Any) -> CoordinateCheck:
    settings: Any = {"widths": WIDTHS, "seeds": SEEDS, "steps": STEPS} | options
    return coordinate_check(build, loss, tx, batch, **settings)


@pytest.fixture(scope="module")
def of_standard() -> CoordinateCheck:
    return check(builder(sx.standard, Perceptron), ADAM)


def test_a_correct_model_passes(of_standard: CoordinateCheck):
    assert of_standard.verdict == "passes"
    assert of_standard.findings == ()
    assert min(of_standard.loss_drops) > 0.1


def test_another_correct_model_passes():
    assert check(builder(sx.mean_field, Perceptron), OPTIMIZERS["adafactor"]).verdict == "passes"


def test_the_exponents_of_the_standard_parameterization(of_standard: CoordinateCheck):
    """By Table 1 of Everett et al. (2024): sizes n^-(a + b), updates n^-(a + c)."""
    rows = {row.name: row for row in of_standard.rows}
    for name, size, update in (
        ("layers/0/weight", 0, 0),
        ("layers/1/weight", -0.5, -1),
        ("layers/2/weight", -0.5, -1),
        ("layers/3/weight", -0.5, -1),
    ):
        row = rows[name]
        assert row.initial is not None and row.update is not None
        assert row.initial.value == pytest.approx(size, abs=0.02 + 4 * row.sampling)
        assert row.update.value == pytest.approx(update, abs=0.02)


def test_the_readouts_change_is_laid_at_the_door_of_its_omega(of_standard: CoordinateCheck):
    """Early on the features move along the readout: omega starts near 1 and the logits' change
    grows, which is no mistake of the model's."""
    readout = of_standard.rows[-1]
    assert readout.name == "layers/3/weight"
    assert readout.omega is not None and readout.omega.value > 0.8
    assert readout.change is not None and readout.change.value > 0.2
    assert readout.change_assumed == 0
    assert readout.change_explained == pytest.approx(readout.change.value, abs=0.15)
    assert any("layers/3/weight: omega is" in notice for notice in of_standard.notices)


def test_one_learning_rate_for_all_is_rejected():
    found = check(builder(sx.standard, Perceptron), sx.adam(0.01, sx.global_rate))
    assert found.verdict == "rejected"
    assert kinds(found) == {("rate", f"layers/{i}/weight") for i in (1, 2, 3)}
    assert "n^+0.00, not n^-1.00" in found.summary


def test_a_hidden_weight_labelled_embedding_is_rejected():
    wrong = builder(sx.standard, Perceptron, roles={"layers/2/weight": "embedding"}, force=True)
    found = check(wrong, ADAM)
    assert found.verdict == "rejected"
    assert found.findings[0].kind == "role"
    assert found.findings[0].weight == "layers/2/weight"
    # Not by its shapes alone: what it puts out changes more and more.
    assert ("rate", "layers/2/weight") in kinds(found)


def test_a_readout_labelled_hidden_is_seen_by_its_shapes_and_by_sgd():
    """Under Adam muP so labelled is the standard parameterization: only the shapes can tell."""
    wrong = builder(sx.mup, Perceptron, roles={"layers/3/weight": "hidden"}, force=True)
    with_adam = check(wrong, ADAM)
    assert kinds(with_adam) == {("role", "layers/3/weight")}
    with_sgd = check(wrong, OPTIMIZERS["sgd"])
    assert with_sgd.findings[0].weight == "layers/3/weight"
    assert {kind for kind, _ in kinds(with_sgd)} >= {"role", "gradient"}


def test_a_doubled_init_exponent_is_rejected():
    def doubled(width, key):
        model = builder(sx.standard, Perceptron)(width, key)
        where: Any = lambda model: model.layers[1].weight.value  # noqa: E731
        return eqx.tree_at(where, model, replace_fn=lambda w: w * (width / BASE) ** -0.5)

    found = check(doubled, ADAM)
    assert found.verdict == "rejected"
    assert kinds(found) == {("initial", "layers/1/weight")}


def test_a_missing_multiplier_is_rejected():
    found = check(builder(sx.mup, WithoutMultiplier), ADAM)
    assert found.verdict == "rejected"
    assert found.findings[0].kind == "multiplier"
    assert {weight for _, weight in kinds(found)} == {"layers/3/weight"}


def test_coupled_decay_is_rejected():
    found = check(builder(sx.standard, Perceptron), sx.adamw(0.01, 0.1, decay_mode="coupled"))
    assert found.verdict == "rejected"
    assert kinds(found) == {("decay", f"layers/{i}/weight") for i in (1, 2, 3)}


def test_a_constant_epsilon_is_seen_to_take_more_and_more():
    """eps / (eps + |g|) with hidden gradients that fall as n^-1/2: four times the width, half the
    gradient."""
    tx = sx.adam(0.01, eps=1e-3, eps_scaling="constant")
    found = check(builder(sx.standard, Perceptron), tx, steps=1)
    epsilon = {share.name: share.epsilon for share in found.shares}["layers/1/weight"]
    assert epsilon is not None
    gradients = [1e-3 / share - 1e-3 for share in epsilon]
    assert gradients[1] / gradients[0] == pytest.approx(0.5, rel=0.2)
    assert any("layers/1/weight: epsilon takes" in notice for notice in found.notices)


def test_decay_and_an_epsilon_that_follows_the_gradient_are_the_same_at_every_width():
    found = check(
        builder(sx.standard, Perceptron),
        sx.adamw(0.01, 0.02, decay_mode="independent", eps=1e-3),
        steps=1,
    )
    assert not any("epsilon takes" in notice for notice in found.notices)
    for share in found.shares:
        assert share.decay == pytest.approx((0.02, 0.02), rel=1e-5)


def unmodified(width, key):
    """A model of Equinox's own, with activations and flags that are no arrays."""
    return sx.parameterize(
        lambda width: eqx.nn.MLP(8, 4, width, 2, key=key),
        width=width,
        base_width=BASE,
        parameterization=sx.standard,
    )


def resolved_loss(model, x, y):
    return loss(sx.resolve(model), x, y)


def test_an_unmodified_model_and_clipped_sgd_pass():
    """A clip by the gradients' norm, which changes with the width, is no weight's mistake."""
    tx = optax.chain(optax.clip_by_global_norm(0.1), sx.sgd(1.0))
    found = coordinate_check(
        unmodified, resolved_loss, tx, batch, widths=WIDTHS, seeds=SEEDS, steps=STEPS
    )
    assert found.verdict == "passes"
    assert any("a factor in common" in notice for notice in found.notices)


def test_behind_a_readout_that_starts_at_zero_faults_are_still_seen():
    def zeroed(model):
        where: Any = lambda model: model.layers[3].weight.value  # noqa: E731
        return eqx.tree_at(where, model, replace_fn=jnp.zeros_like)

    def wrong(width, key):
        where: Any = lambda model: model.layers[1].weight.value  # noqa: E731
        model = builder(sx.mup, Perceptron)(width, key)
        return zeroed(eqx.tree_at(where, model, replace_fn=lambda w: w * (width / BASE) ** 0.5))

    correct = check(lambda width, key: zeroed(builder(sx.mup, Perceptron)(width, key)), ADAM)
    assert correct.verdict == "inconclusive" and correct.findings == ()
    assert any("layers/1/weight has no gradient at first" in text for text in correct.notices)
    assert kinds(check(wrong, ADAM)) == {("initial", "layers/1/weight")}


def test_a_base_width_that_follows_the_width_is_refused():
    def build(width, key):
        return sx.parameterize(
            lambda width: Perceptron(width, key),
            width=width,
            base_width=width,
            parameterization=sx.standard,
        )

    with pytest.raises(ValueError, match="have different base widths, 32, 128; give parameterize"):
        check(build, ADAM)


def test_a_loss_that_rises_is_named(of_standard: CoordinateCheck):
    rose = {"verdict": "inconclusive", "trained": False, "loss_drops": (-3.0, float("nan"))}
    assert "the loss rose" in dataclasses.replace(of_standard, **rose).summary


def test_what_does_not_train_is_inconclusive():
    """Adam's exponents with SGD, at a rate at which the loss hardly moves."""
    exponents = {"embedding": 0, "hidden": 1, "readout": 1, "vector": 0, "constant": 0}
    found = check(builder(sx.standard, Perceptron), sx.sgd(1e-4, exponents))
    assert found.verdict == "inconclusive"
    assert found.findings != ()
    assert "inconclusive: the loss fell by 0.0 %" in found.summary


def test_the_report_can_be_read_stored_and_drawn(of_standard: CoordinateCheck):
    lines = str(of_standard).splitlines()
    assert lines[0].startswith("widths 32, 128, 2 seeds, 3 steps")
    assert lines[-1].startswith("passes: nothing found, and the loss fell by")
    table = of_standard.table()
    assert [row["weight"] for row in table.rows] == [row.name for row in of_standard.rows]
    assert len(coordinate_figure(of_standard).axes) == 2


def test_layers_of_a_scan_follow_each_other():
    paths = ["z_in", "blocks/up", "blocks/down", "a_out"]
    names = ["a_out", "blocks/down/0", "blocks/down/1", "blocks/up/0", "blocks/up/1", "z_in"]
    expected = ("z_in", "blocks/up/0", "blocks/down/0", "blocks/up/1", "blocks/down/1", "a_out")
    assert _in_order(paths, names) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (32,)}, r"widths are \[32\]; expected at least two"),
        ({"widths": (32, 32)}, "at least two different"),
        ({"seeds": ()}, "seeds are"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_bad_arguments_are_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        check(builder(sx.standard, Perceptron), ADAM, **options)


def test_inputs_that_are_no_tuple_are_refused():
    settings: Any = {"widths": (64, 128), "seeds": (0,), "steps": 1}
    settings["batch"] = lambda key: batch(key)[0]
    with pytest.raises(ValueError, match=r"batch\(key\) is a .*; expected the tuple .*\(x,\)"):
        coordinate_check(builder(sx.mup, Perceptron), loss, sx.adam(0.1), **settings)


def test_an_optimizer_of_unknown_family_is_refused():
    foreign = optax.sgd(0.1)
    with pytest.raises(ValueError, match="doesn't say how the updates of layers/0/weight depend"):
        check(builder(sx.standard, Perceptron), foreign, steps=1)


def test_a_learning_rate_that_starts_at_zero_is_refused():
    with pytest.raises(ValueError, match="first update is zero"):
        check(
            builder(sx.standard, Perceptron),
            sx.adam(lambda count: jnp.where(jnp.asarray(count) > 0, 0.1, 0.0)),
            steps=1,
        )
