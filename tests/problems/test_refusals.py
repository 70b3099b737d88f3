"""What is wrong with a problem is said in one line that names it, before anything is trained."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalex_eqx.experiments import Member, Setting, UsageError, parse_recipe
from scalex_eqx.experiments._train import packs, train_pack
from scalex_eqx.problems import Problem

X = np.random.default_rng(0).standard_normal((23, 3)).astype(np.float32)
Y = np.tanh(X @ np.ones((3, 1), np.float32))
SETTING = Setting(base_width=4, steps=2)


def make(width, key):
    return eqx.nn.MLP(3, 1, width, depth=1, key=key)


def errors(model, batch):
    x, y = batch
    return (jax.vmap(model)(x) - y) ** 2


def loss(model, batch):
    return jnp.mean(errors(model, batch))


def problem(**changes):
    given = {"make": make, "loss": loss, "data": (X, Y), "held_out": (X, Y), "batch_size": 8}
    return Problem(**{**given, **changes})


def packed(problem, width=8):
    members = [Member(parse_recipe("standard:sgd:full"), width, 0.03, seed) for seed in (0, 1)]
    return packs(problem, SETTING, members)


class Normalised(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm

    def __init__(self, width, key):
        self.first = eqx.nn.Linear(3, width, key=key)
        self.norm = eqx.nn.BatchNorm(width, "batch", mode="batch")


class Activated(eqx.Module):
    mlp: eqx.nn.MLP
    activation: Callable = eqx.field(static=True)


def nowhere(width, key):
    raise KeyError("weights.npz")


def on_host(read):
    return {"data": (), "batch_size": None, "read": read}


def metrics(**values):
    return {"evaluate": lambda model, held_out: {"held_out_loss": 1.0, **values}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"make": lambda n, key: make(n, key)}, r"make is called as make\(width=..., key=...\)"),
        ({"make": lambda width: make(width, jax.random.key(0))}, r"and takes \(width\)"),
        ({"make": nowhere}, r"make failed: KeyError: 'weights.npz', in .*raise KeyError"),
        ({"make": lambda width, key: make(16, key)}, "same shapes at the widths 8 and 4"),
        ({"make": lambda width, key: Activated(make(width, key), lambda x: x)}, "define that func"),
        ({"make": lambda width, key: jnp.arange(width)}, "model: the model is without a single"),
        ({"make": Normalised}, r"has a state, \.norm\.\w+, as BatchNorm keeps it"),
        ({"make": eqx.nn.make_with_state(Normalised)}, r"has a state, \[0\]\.norm"),
        ({"loss": errors}, r"loss returns float32\[8, 1\]; expected one real number"),
        ({"loss": lambda model, batch: {"loss": 1.0}}, "loss returns a dict of 1.0; expected"),
        ({"loss": lambda model, batch: batch["x"]}, r"loss failed: TypeError: tuple.*batch\[.x.\]"),
        ({"loss": lambda model, x, y: 0.0}, r"called as loss\(model, batch\), and takes"),
        (metrics(held_out_loss="low"), "evaluate returns 'low' for 'held_out_loss'"),
        (metrics(accuracy=jnp.ones(3)), r"evaluate returns float32\[3\] for 'accuracy'"),
        ({"evaluate": lambda model, held_out: None}, "evaluate returns None for"),
        ({"data": (np.array(["a"] * 23), Y)}, r"data\[0\] of the problem has the type <U1"),
        ({"held_out": (X, Y[:3])}, r"held_out have the first axes \[\(3,\), \(23,\)\]"),
        ({"identity": {"version": object()}}, "identity is not JSON: Object of type object"),
        (on_host(lambda seed: (X, Y)), r"called as read\(seed, step\)"),
        (on_host(lambda seed, step: (X[step:], Y)), None),
    ],
)
def test_is_refused_before_training(changes, said):
    if said is not None:
        with pytest.raises(UsageError, match=said):
            packed(problem(**changes))
        return
    # Other shapes are seen when they are read.
    (pack,) = packed(problem(**changes))
    with pytest.raises(UsageError, match=r"float32\[22, 3\].* at seed \d, step 1, and .*\[23, 3\]"):
        list(train_pack(pack, at_once=None, progress=lambda *_: None))


def test_a_loss_that_is_no_number_from_the_first_step_ends_the_sweep():
    (pack,) = packed(problem(data=(X, np.full_like(Y, np.nan))))
    with pytest.raises(UsageError, match="loss is nan at the first step of width 8, seed 0"):
        list(train_pack(pack, at_once=None, progress=lambda *_: None))


def test_float64_data_and_integer_arrays_train():
    class Offset(eqx.Module):
        table: jax.Array
        mlp: eqx.nn.MLP

        def __call__(self, x):
            return self.mlp(x) + self.table[0].astype(x.dtype)

    def with_integers(width, key):
        return Offset(jnp.arange(width), make(width, key))

    (pack,) = packed(problem(make=with_integers, data=(X.astype(float), Y.astype(float))))
    (plain,) = packed(problem())
    found, expected = (
        [run.metrics for _, run in train_pack(one, at_once=None, progress=lambda *_: None)]
        for one in (pack, plain)
    )
    assert found == expected


def test_the_default_metric_is_the_mean_over_all_examples():
    """23 are two batches of 8, and one of 7."""
    model = make(8, jax.random.key(0))
    found = problem().judged(model, (X, Y))["held_out_loss"]
    np.testing.assert_allclose(found, np.mean(np.asarray(errors(model, (X, Y)))), rtol=1e-6)
