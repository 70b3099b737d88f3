"""What is wrong with a problem is said in one line that names it, before anything is trained."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalex_eqx.experiments import Member, Setting, UsageError, parse_recipe
from scalex_eqx.experiments._axes import DEPTH
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


def rebatched(size=8, **changes):
    given = {"batch": lambda data, key: data, "batch_size": size, "identity": {"size": size}}
    return problem(**{"rebatched": lambda batch_size: rebatched(batch_size), **given, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (lambda: problem().at_batch_size(24), "a batch of 24 is asked for, and data has 23 exam"),
        (
            lambda: problem(batch=lambda data, key: data, batch_size=None).at_batch_size(4),
            "batch makes batches of one size, and 4 are asked for; give the problem its batch_size",
        ),
        (lambda: rebatched(batch_size=None), "has rebatched, and batch_size is None; give"),
        (lambda: rebatched(batch=None), "give rebatched beside batch or read"),
        (lambda: rebatched(rebatched=lambda: 0), r"called as rebatched\(batch_size\)"),
        (lambda: rebatched(rebatched=lambda size: 0).at_batch_size(4), r"\(4\) returned int; exp"),
        (
            lambda: rebatched(rebatched=lambda size: rebatched(9)).at_batch_size(4),
            r"rebatched\(4\) returned 9; expected the problem with batch_size=4",
        ),
        (
            lambda: rebatched(
                rebatched=lambda size: rebatched(size, identity={"size": 8})
            ).at_batch_size(4),
            "has the identity of the one with batches of 8",
        ),
        (
            lambda: rebatched(rebatched=lambda size: [][size]).at_batch_size(4),
            "rebatched failed: IndexError: list index out of range, in ",
        ),
        (lambda: Setting(8, 2, axis=DEPTH, width=8).of(problem()), "depths are swept over, but ma"),
    ],
)
def test_batch_sizes_and_depths_that_a_problem_lacks_are_refused(changes, said):
    with pytest.raises(UsageError, match=said):
        changes()


def test_a_problem_with_other_batches_is_told_apart():
    assert problem().at_batch_size(8).facts == problem().facts
    assert problem().at_batch_size(4).facts == problem(batch_size=4).facts != problem().facts
    assert rebatched().at_batch_size(4).facts != rebatched().facts


def test_a_depth_that_is_not_used_is_refused():
    def deep(width, depth, key):
        return make(width, key)

    setting = Setting(base_width=4, steps=2, axis=DEPTH, width=4, base_depth=2)
    members = [Member(parse_recipe("standard:sgd:full"), depth, 0.03, 0) for depth in (2, 4)]
    with pytest.raises(UsageError, match="same shapes at the depths 4 and 2; use the depth in it"):
        packs(problem(make=deep), setting, members)


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
