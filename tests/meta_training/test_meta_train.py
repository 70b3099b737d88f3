"""Meta-training: the same result after a kill, what diverges, and that rules get better."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx._usage import UsageError
from scalex_eqx.meta_training import Settings, Task, meta_train
from scalex_eqx.meta_training._outer import clipped
from scalex_eqx.meta_training._task import WORST, bounded
from scalex_eqx.problems import teacher

PROBLEM = teacher(8)
TASKS = [Task(PROBLEM, {"width": 4, "depth": 1}, 4)]
SETTINGS = Settings(steps=4, unroll=4, truncation=2, pairs=2, warmup=1)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def rule():
    return sx.optim.LearnedRule(2, key=jax.random.key(0))


@pytest.fixture(scope="module")
def whole(rule):
    return meta_train(TASKS, SETTINGS, rule=rule)


def test_started_again_after_a_kill_it_ends_as_if_it_had_not_been(
    rule, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr("scalex_eqx.meta_training._run._KEPT_EVERY", 2)
    keep = tmp_path / "state.npz"

    def kill(steps: int, loss: float) -> None:
        if steps == 3:
            raise Killed

    with pytest.raises(Killed):
        meta_train(TASKS, SETTINGS, rule=rule, keep=keep, progress=kill)
    seen: list[int] = []
    again = meta_train(TASKS, SETTINGS, rule=rule, keep=keep, progress=lambda n, _: seen.append(n))
    assert seen == [3, 4]
    np.testing.assert_array_equal(again.losses, whole.losses)
    for a, b in zip(jax.tree.leaves(again.rule), jax.tree.leaves(whole.rule), strict=True):
        np.testing.assert_array_equal(a, b)
    # At the end there is nothing left to do, and the state of another is refused.
    assert len(meta_train(TASKS, SETTINGS, rule=rule, keep=keep, progress=kill).losses) == 4
    other = sx.optim.LearnedRule(2, key=jax.random.key(1))
    with pytest.raises(UsageError, match="state of another meta-training"):
        meta_train(TASKS, SETTINGS, rule=other, keep=keep)
    keep.write_bytes(b"PK no state")
    with pytest.raises(UsageError, match="no state of a meta-training"):
        meta_train(TASKS, SETTINGS, rule=rule, keep=keep)


def test_it_moves_the_rule_and_sees_the_seed(rule, whole):
    assert whole.losses.shape == (4, 1)
    assert np.all(np.abs(whole.losses - np.log(10)) < 0.2)
    moved = np.abs(np.asarray(whole.rule.layers[0].weight - rule.layers[0].weight)).max()
    # Adam's steps are as large as its learning rate.
    assert 1e-3 < moved < 4 * SETTINGS.learning_rate
    other = meta_train(TASKS, Settings(**{**vars(SETTINGS), "seed": 1}), rule=rule)
    assert np.abs(other.losses - whole.losses).max() > 1e-4


def test_losses_and_gradients_that_are_no_numbers_do_no_harm():
    found = bounded(jnp.asarray([1.0, 20.0, jnp.nan, jnp.inf]))
    assert found.tolist() == [1.0, WORST, WORST, WORST]
    assert clipped(jnp.asarray([3.0, 4.0]), 1.0).tolist() == pytest.approx([0.6, 0.8])
    assert clipped(jnp.asarray([0.3, 0.4]), 1.0).tolist() == pytest.approx([0.3, 0.4])
    assert clipped(jnp.asarray([3.0, jnp.nan]), 1.0).tolist() == [0.0, 0.0]
    assert clipped(jnp.zeros(2), 1.0).tolist() == [0.0, 0.0]


def test_the_outer_learning_rate_rises_and_falls():
    rates = [float(Settings().schedule(jnp.asarray(n))) for n in (0, 19, 299)]
    assert rates == pytest.approx([3e-3 / 20, 3e-3, 1e-3])


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="expected a multiple"):
        Settings(unroll=50, truncation=20)
    with pytest.raises(UsageError, match="pairs is 0"):
        Settings(pairs=0)
    with pytest.raises(UsageError, match="no tasks"):
        meta_train([])


def test_the_facts_of_a_task_are_json():
    one = json.dumps(TASKS[0].facts)
    other = json.dumps(Task(PROBLEM, {"width": 4, "depth": 1}, 2).facts)
    assert one != other
