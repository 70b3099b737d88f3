import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scalex_eqx.experiments import Member, Setting, parse_recipe
from scalex_eqx.experiments._data import corpus_of_tokens, held_out_windows
from scalex_eqx.experiments._train import mean_loss, train_group, warmup_cosine
from scalex_eqx.nn import Transformer
from scalex_eqx.optim._catalogue import catalogue

SETTING = Setting(
    base_width=16,
    depth=2,
    head_dimension=8,
    sequence_length=8,
    batch_size=4,
    steps=12,
    held_out_windows=8,
)
RECIPE = parse_recipe("standard:adam:full")


TOKENS = np.random.default_rng(0).integers(0, 17, 4000, dtype=np.uint8)
CORPUS = corpus_of_tokens(np.sort(TOKENS.reshape(-1, 8)).ravel(), vocabulary_size=17, name="x")
THREE = ((0.01, 0), (0.01, 1), (0.02, 0))


def train_afresh(rates_and_seeds, *, width=16, recipe=RECIPE):
    members = [Member(recipe, width, rate, seed) for rate, seed in rates_and_seeds]
    return train_group(SETTING, recipe, width, members, CORPUS, lambda steps, loss: None)


train = functools.cache(train_afresh)


def test_training_is_deterministic():
    first, second = train(THREE), train_afresh(THREE)
    for one, other in zip(first, second, strict=True):
        assert one.held_out_loss == other.held_out_loss
        np.testing.assert_array_equal(one.training_losses, other.training_losses)


def test_a_run_that_diverges_is_nan_and_harms_no_neighbour():
    harmless = train(THREE)
    diverging = train(((0.01, 0), (1e30, 1), (0.02, 0)))
    assert not np.isfinite(diverging[1].held_out_loss)
    assert not np.isfinite(diverging[1].training_losses).all()
    for index in (0, 2):
        # The same program on other numbers: equal to the bit.
        assert diverging[index].held_out_loss == harmless[index].held_out_loss
        np.testing.assert_array_equal(
            diverging[index].training_losses, harmless[index].training_losses
        )


def test_a_seed_fixes_draws_and_batches_at_every_learning_rate():
    runs = train(((1e-9, 0), (2e-9, 0), (1e-9, 1)))
    # Such rates move nothing, so the losses show the draws and the batches alone.
    np.testing.assert_allclose(runs[0].training_losses, runs[1].training_losses, rtol=1e-5)
    assert not np.allclose(runs[0].training_losses, runs[2].training_losses, rtol=1e-3)


def test_a_group_equals_the_loop_that_a_user_would_write():
    """At the base width, against plain Equinox, `optax.adam` and a Python loop.

    Float32 rounding differs between the two programs; 12 steps of Adam let a relative
    difference of 1e-7 grow to about 1e-5 here.
    """
    rate, seed = 0.02, 0
    run = train(THREE)[2]
    key = jax.random.key(seed)
    model = Transformer(
        vocabulary_size=17,
        sequence_length=8,
        width=16,
        depth=2,
        head_dimension=8,
        key=jax.random.fold_in(key, 0),
    )
    tx = optax.inject_hyperparams(optax.adam)(learning_rate=0.0, b1=0.9, b2=0.95, eps=1e-12)
    losses = []
    tokens = jnp.asarray(CORPUS.train)

    @eqx.filter_jit
    def step(model, state, batch):
        loss, gradient = eqx.filter_value_and_grad(mean_loss)(model, batch)
        updates, state = tx.update(gradient, state)
        return eqx.apply_updates(model, updates), state, loss

    with jax.numpy_dtype_promotion("standard"):
        state: Any = tx.init(eqx.filter(model, eqx.is_array))
        for index in range(12):
            batch_key = jax.random.fold_in(jax.random.fold_in(key, 1), index)
            starts = jax.random.randint(batch_key, (4, 1), 0, len(tokens) - 9 + 1)
            batch = tokens[starts + jnp.arange(9)[None]].astype(jnp.int32)
            state.hyperparams["learning_rate"] = jnp.asarray(rate * shape(index, 12))
            model, state, loss = step(model, state, batch)
            losses.append(float(loss))
    windows = jnp.asarray(held_out_windows(CORPUS, count=8, length=8))
    np.testing.assert_allclose(run.training_losses, losses, rtol=2e-4)
    assert run.held_out_loss == pytest.approx(float(mean_loss(model, windows)), rel=2e-4)
    assert losses[-1] < losses[0] - 0.3


def shape(index, steps):
    """The schedule in plain Python: 10 % warm-up, cosine to zero."""
    rise = max(1.0, 0.1 * steps)
    time = index + 1
    if time < rise:
        return time / rise
    return 0.5 * (1 + np.cos(np.pi * (time - rise) / (steps - rise)))


@pytest.mark.parametrize("steps", [1, 12, 100, 150])
def test_the_schedule_is_a_warm_up_and_a_cosine_to_zero(steps):
    found = [float(warmup_cosine(jnp.asarray(i), steps, 0.1)) for i in range(steps)]
    expected = [shape(i, steps) if steps > 1 else 1.0 for i in range(steps)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert max(found) <= 1.0


def test_recipes_agree_at_the_base_width_and_differ_above():
    recipes = [parse_recipe(f"standard:adam:{rates}") for rates in ("global", "full")]
    at_base = [train(THREE, recipe=r)[2].held_out_loss for r in recipes]
    above = [train(THREE, recipe=r, width=32)[2].held_out_loss for r in recipes]
    assert at_base[0] == at_base[1]
    assert abs(above[0] - above[1]) > 1e-3


def test_progress_reaches_the_last_step_once():
    seen = []
    members = [Member(RECIPE, 16, 0.01, 0)]
    setting = dataclasses.replace(SETTING, steps=21, depth=1)
    train_group(setting, RECIPE, 16, members, CORPUS, lambda s, loss: seen.append((s, loss)))
    steps = [done for done, _ in seen]
    assert steps == sorted(set(steps))
    assert steps[-1] == 21
    assert all(np.isfinite(loss) for _, loss in seen)


@pytest.mark.parametrize("optimizer", catalogue)
def test_every_optimizer_trains(optimizer):
    rates = {"sgd": 0.1, "adafactor": 0.1, "adam_parameter_scaling": 0.1, "muon": 0.05}
    rate = rates.get(optimizer, 0.01)
    given = "(weight_decay=1e-4)" if catalogue[optimizer].decays else ""
    recipe = parse_recipe(f"standard:{optimizer}{given}:full")
    (run,) = train_afresh([(rate, 0)], recipe=recipe, width=32)
    assert run.training_losses[-1] < run.training_losses[0] - 0.1
