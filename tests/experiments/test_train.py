import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scalex_eqx._memory import available_on
from scalex_eqx.experiments import Member, Setting, UsageError, parse_recipe
from scalex_eqx.experiments._room import new_bytes
from scalex_eqx.experiments._schedule import Schedule
from scalex_eqx.experiments._slots import Slots, train as train_in
from scalex_eqx.experiments._train import check_packs, packs, train_pack
from scalex_eqx.nn import Transformer
from scalex_eqx.optim._catalogue import catalogue
from scalex_eqx.problems import text
from scalex_eqx.problems._corpus import corpus_of_tokens, held_out_windows
from scalex_eqx.problems._text import mean_loss

STEPS = 12
SETTING = Setting(base_width=16, depth=2, steps=STEPS)
RECIPE = parse_recipe("standard:adam:full")

TOKENS = np.random.default_rng(0).integers(0, 17, 4000, dtype=np.uint8)
CORPUS = corpus_of_tokens(np.sort(TOKENS.reshape(-1, 8)).ravel(), vocabulary_size=17, name="x")
TEXT = text(CORPUS, sequence_length=8, batch_size=4, head_dimension=8, held_out_windows=8)
ALL = ((0.01, 0), (0.01, 1), (0.02, 0), (1e-9, 0), (2e-9, 0), (1e-9, 1), (1e30, 1))
DIVERGING = 6


def train_members(members, *, problem=TEXT, setting=SETTING, at_once=None, progress=None):
    """What came of the runs, in their order."""
    progress = progress or (lambda steps, loss: None)
    found = {}
    for pack in packs(problem, setting, members):
        found |= dict(train_pack(pack, at_once=at_once, progress=progress))
    return [found[member] for member in members]


def train_afresh(rates_and_seeds, *, at_once=None):
    members = [Member(RECIPE, 16, rate, seed) for rate, seed in rates_and_seeds]
    return train_members(members, at_once=at_once)


train = functools.cache(train_afresh)


def are_equal(one, other):
    """Whether two runs are the same, bit by bit."""
    same = np.array_equal(one.training_losses, other.training_losses)
    return one.metrics == other.metrics and same


def test_a_run_that_diverges_leaves_and_harms_no_neighbour():
    """Nor does anybody who trains beside a run: what is resumed is equal to the bit."""
    runs = train(ALL)
    assert runs[DIVERGING].metrics == {}
    assert not np.isfinite(runs[DIVERGING].training_losses[-1])
    (alone,) = train_afresh(ALL[2:3], at_once=1)
    assert are_equal(alone, runs[2])


def test_packs_of_other_sizes_differ_by_rounding():
    """Products of several runs add up in another order; 12 steps let that grow to 1e-5 here."""
    for one, other in zip(train_afresh(ALL[:3], at_once=3), train(ALL), strict=False):
        np.testing.assert_allclose(one.training_losses, other.training_losses, rtol=2e-4)
        assert one.metrics == pytest.approx(other.metrics, rel=2e-4)


def test_a_diverged_run_trains_to_the_next_boundary_only():
    members = [Member(RECIPE, 16, rate, 0) for rate in (1e30, 0.01)]
    setting = dataclasses.replace(SETTING, steps=40, depth=1)
    seen = []
    bad, good = train_members(members, setting=setting, progress=lambda *told: seen.append(told))
    assert len(bad.training_losses) == 20
    assert len(good.training_losses) == 40
    # The steps that a diverged run is spared are done too.
    assert sum(steps for steps, _ in seen) == 80
    assert np.isfinite(seen[-1][1])


def test_a_seed_fixes_draws_and_batches_at_every_learning_rate():
    runs = train(ALL)[3:6]
    # Such rates move nothing, so the losses show the draws and the batches alone.
    np.testing.assert_allclose(runs[0].training_losses, runs[1].training_losses, rtol=1e-5)
    assert not np.allclose(runs[0].training_losses, runs[2].training_losses, rtol=1e-3)


def test_a_pack_equals_the_loop_that_a_user_would_write():
    """At the base width, against plain Equinox, `optax.adam` and a Python loop.

    Float32 rounding differs between the two programs; 12 steps of Adam let a relative
    difference of 1e-7 grow to about 1e-5 here.
    """
    rate, seed = 0.02, 0
    run = train(ALL)[2]
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
        for index in range(STEPS):
            batch_key = jax.random.fold_in(jax.random.fold_in(key, 1), index)
            starts = jax.random.randint(batch_key, (4, 1), 0, len(tokens) - 9 + 1)
            batch = tokens[starts + jnp.arange(9)[None]].astype(jnp.int32)
            state.hyperparams["learning_rate"] = jnp.asarray(rate * shape(index, STEPS))
            model, state, loss = step(model, state, batch)
            losses.append(float(loss))
    windows = jnp.asarray(held_out_windows(CORPUS, count=8, length=8))
    np.testing.assert_allclose(run.training_losses, losses, rtol=2e-4)
    found = run.metrics["held_out_loss"]
    assert found == pytest.approx(float(mean_loss(model, windows)), rel=2e-4)
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
    schedule = Schedule(steps)
    found = [float(schedule(jnp.asarray(i))) for i in range(steps)]
    expected = [shape(i, steps) if steps > 1 else 1.0 for i in range(steps)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert max(found) <= 1.0


def test_recipes_of_one_rule_are_one_pack():
    texts = ("standard:adam:global", "mup:adam(eps_scaling='constant'):full", "mup:lion:full")
    recipes = [parse_recipe(text) for text in texts]
    members = [Member(recipe, width, 0.01, 0) for recipe in recipes for width in (32, 16)]
    found = packs(TEXT, SETTING, members)
    assert [(len(pack.members), pack.members[0].size) for pack in found] == [
        (2, 16),
        (1, 16),
        (2, 32),
        (1, 32),
    ]
    at_base, above = (
        [run.metrics["held_out_loss"] for run in train_members([members[i], members[i + 2]])]
        for i in (1, 0)
    )
    # All recipes are the same model at the base width, up to the rounding of their numbers.
    assert at_base[0] == pytest.approx(at_base[1], rel=1e-5)
    assert abs(above[0] - above[1]) > 1e-3


def test_what_does_not_fit_is_refused_before_training(monkeypatch):
    monkeypatch.setattr("scalex_eqx._memory.available", lambda: 1000)
    found = packs(TEXT, SETTING, [Member(RECIPE, 16, 0.01, seed) for seed in range(3)])
    with pytest.raises(UsageError, match=r"out of memory: .* of width 16"):
        check_packs(found, None)


def test_an_accelerator_trains_as_many_at_once_as_its_memory_holds(monkeypatch):
    """The machine's cores stand for it, with a memory that we say."""
    free = []
    monkeypatch.setattr("scalex_eqx.experiments._room.is_cpu", lambda devices: False)
    monkeypatch.setattr("scalex_eqx.experiments._slots.is_cpu", lambda devices: False)
    for module in ("_memory", "experiments._room"):
        monkeypatch.setattr(f"scalex_eqx.{module}.available_on", lambda devices: free[0])
    members = [Member(RECIPE, 16, 0.01, seed) for seed in range(8)]
    (pack,) = packs(TEXT, SETTING, members)
    free[:] = [None]
    everything = Slots(pack.program, pack.runs, None)
    assert len(everything.slots) == 8
    compiled, devices = everything._fitting(), everything.mesh.size
    assert compiled == everything.each == 8 // devices
    whole = devices * (new_bytes(everything._advance) or 0)
    free[:] = [0.6 * whole]
    check_packs([pack], None)
    slots = Slots(pack.program, pack.runs, None)
    assert 0 < len(slots.slots) < 8
    assert devices * (new_bytes(slots._advance) or 0) <= free[0]
    # They are trained one lot after the other, and all of them.
    found = train_in(pack.program, pack.runs, at_once=None, progress=lambda *_: None, slots=slots)
    assert sorted(one.index for one in found) == list(range(8))
    free[:] = [0.01 * whole]
    with pytest.raises(UsageError, match="out of memory"):
        Slots(pack.program, pack.runs, None)


def test_what_a_device_has_left_is_what_it_says():
    class Accelerator:
        platform = "gpu"

        def __init__(self, *stats):
            self.memory_stats = lambda: dict(
                zip(("bytes_limit", "bytes_in_use"), stats, strict=False)
            )

    one, other, silent = Accelerator(100, 40), Accelerator(100, 70), Accelerator()
    assert available_on([one]) == 60
    # All have the same number of runs: the fullest one counts.
    assert available_on([one, other]) == 60
    assert available_on([one, silent]) is None


RATES = {
    "sgd": 0.1,
    "micro_adam": 0.1,
    "adafactor": 0.1,
    "adam_parameter_scaling": 0.1,
    "muon": 0.05,
}


@pytest.mark.parametrize("name", catalogue)
def test_every_optimizer_trains(name):
    optimizer = f"{name}(weight_decay=0.0001)" if catalogue[name].decays else name
    recipe = parse_recipe(f"standard:{optimizer}:full")
    shallow = dataclasses.replace(SETTING, depth=1)
    (run,) = train_members([Member(recipe, 32, RATES.get(name, 0.01), 0)], setting=shallow)
    assert run.training_losses[-1] < run.training_losses[0] - 0.1
