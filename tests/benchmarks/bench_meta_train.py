"""Meta-training against the loop that one would write: steps of inner trainings a second.

    python tests/benchmarks/bench_meta_train.py [--out FILE]

The loop goes through the trainings and their steps in Python, and each step is compiled: gradient,
learned update and new weights in one call. Ours is one call for a truncation of all trainings.
Both are of 8 antithetic pairs of MLPs of width 32, 20 steps, interleaved.
"""

import argparse
import json
import os
import time
from pathlib import Path

import jax

jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, 8))

import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx
from scalex_eqx.meta_training import Settings, Task
from scalex_eqx.meta_training._outer import as_vector, learner
from scalex_eqx.problems import teacher

SETTINGS = Settings()
ARMS = 2 * SETTINGS.pairs
REPEATS = 5


def loop(task: Task, vector, rule_of):
    """A truncation of all trainings, step by step, and the estimate from their losses."""
    data = jax.tree.map(jnp.asarray, task.problem.data)
    begin = jax.jit(lambda phi, key: task.begin(task.learned(rule_of(phi)), key))

    @jax.jit
    def step(phi, inner, data, key):
        inner, losses = task.train(task.learned(rule_of(phi)), inner, data, key[None])
        return inner, losses[0]

    states = [begin(vector, jax.random.key(i // 2)) for i in range(ARMS)]
    rng = np.random.default_rng(0)

    def truncation() -> None:
        gradient = np.zeros(vector.shape)
        for pair in range(SETTINGS.pairs):
            noise = SETTINGS.sigma * rng.normal(size=vector.shape)
            means = []
            for arm, sign in enumerate((1, -1)):
                phi = vector + jnp.asarray(sign * noise, jnp.float32)
                inner, losses = states[2 * pair + arm], []
                for t in range(SETTINGS.truncation):
                    inner, loss = step(phi, inner, data, jax.random.key(t))
                    losses.append(loss)
                states[2 * pair + arm] = inner
                means.append(float(jnp.mean(jnp.stack(losses))))
            gradient += noise * (means[0] - means[1]) / (2 * SETTINGS.sigma**2)

    return truncation


def ours(task: Task, vector, rule_of):
    found = learner([task], SETTINGS, rule_of)
    states = [found.start(vector, 0)]

    def truncation() -> None:
        states[0] = found.step(states[0], 0)[0]
        jax.block_until_ready(states[0].phi)

    return truncation


def seconds(f) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    task = Task(teacher(), {"width": 32, "depth": 3}, 16)
    vector, rule_of = as_vector(sx.optim.LearnedRule(16, key=jax.random.key(0)))
    both = {"loop": loop(task, vector, rule_of), "ours": ours(task, vector, rule_of)}
    for f in both.values():
        f()
    times: dict[str, list[float]] = {name: [] for name in both}
    for _ in range(REPEATS):
        for name, f in both.items():
            times[name].append(seconds(f))
    steps = ARMS * SETTINGS.truncation
    found = {
        name: {
            q: round(steps / float(np.quantile(values, 1 - p)))
            for q, p in (("lower", 0.25), ("median", 0.5), ("upper", 0.75))
        }
        for name, values in times.items()
    }
    found["ratio"] = round(found["ours"]["median"] / found["loop"]["median"], 2)  # pyright: ignore
    print(json.dumps({"steps a second": found}, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps({"steps a second": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
