"""Training all runs of one width and recipe at once: one compiled scan, mapped over the runs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, UInt

from .._parameterize import parameterize
from ..nn import Transformer
from ._config import Member, Setting
from ._data import Corpus, held_out_windows
from ._memory import bytes_of, check_runs
from ._recipe import Recipe

# Called with the number of steps done and the mean training loss of the runs that are finite.
Progress = Callable[[int, float], None]

_AXIS = "runs"

# Blocks compiled as one: at depth 2 and width 256 a step takes three quarters of the time.
_UNROLLED = 4


class Trained(NamedTuple):
    """What came of one run; losses are NaN or infinite from where it diverged."""

    held_out_loss: float
    training_losses: np.ndarray


class _State(NamedTuple):
    model: PyTree
    optimizer: PyTree


class _Run(NamedTuple):
    """The traced numbers in which the runs of a group differ."""

    learning_rate: Float[Array, "*runs"]
    seed: Int[Array, "*runs"]


def train_group(
    setting: Setting,
    recipe: Recipe,
    width: int,
    members: Sequence[Member],
    corpus: Corpus,
    progress: Progress,
) -> list[Trained]:
    """Trains `members`, which differ in learning rate and seed only, and returns their losses.

    The runs are shared out over all devices. A seed fixes a run's initial draws and its batches,
    whatever its learning rate. A run that diverges goes on as NaN and touches no other.

    **Arguments:**

    - `setting`, `recipe`, `width`: what the runs have in common.
    - `members`: the runs.
    - `corpus`: the text.
    - `progress`: called as the training goes on.

    **Raises:** `UsageError` if they need more memory together than there is.
    """
    mesh = Mesh(np.array(jax.devices()), (_AXIS,))
    run = _shared_out(members, mesh)
    trainer = _Trainer(setting, recipe, width, corpus)
    state = jax.jit(_mapped(trainer.start, mesh, in_runs=1))(run)
    tokens = jnp.asarray(corpus.train)
    stride = _stride(setting.steps)
    advance = jax.jit(
        _mapped(trainer.advance, mesh, in_runs=2, out_runs_axis=(0, 1)), donate_argnums=0
    )
    advance = advance.lower(state, run, tokens, jnp.arange(stride)).compile()
    _check_program(advance, len(members), mesh, width)
    losses = []
    for first in range(0, setting.steps, stride):
        state, chunk = advance(state, run, tokens, jnp.arange(first, first + stride))
        losses.append(np.asarray(chunk)[:, : len(members)])
        progress(first + stride, _mean_of_finite(losses[-1][-1]))
    evaluate = jax.jit(_mapped(trainer.evaluate, mesh, in_runs=1))
    windows = held_out_windows(
        corpus, count=setting.held_out_windows, length=setting.sequence_length
    )
    held_out = np.asarray(evaluate(state, _in_batches(windows, setting.batch_size)))
    return [
        Trained(float(loss), curve)
        for loss, curve in zip(held_out[: len(members)], np.concatenate(losses).T, strict=True)
    ]


def check_memory(
    setting: Setting, recipe: Recipe, width: int, members: Sequence[Member], corpus: Corpus
) -> None:
    """Refuses runs whose weights, gradients and optimizer state alone don't fit, from shapes.

    **Raises:** `UsageError` that names what was asked for and the remedy.
    """
    devices = jax.devices()
    run = jax.eval_shape(lambda: _Run(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)))
    state = jax.eval_shape(_Trainer(setting, recipe, width, corpus).start, run)
    logits = 4 * setting.batch_size * setting.sequence_length * corpus.vocabulary_size
    # A gradient is as large as the model.
    each = bytes_of(state) + bytes_of(state.model) + logits
    padded = len(devices) * -(-len(members) // len(devices))
    needed = padded * each + len(devices) * corpus.train.nbytes
    check_runs(needed, len(members), devices, width=width)


def _check_program(program: Any, runs: int, mesh: Mesh, width: int) -> None:
    """Refuses a compiled program that needs more memory than is left beside its arguments."""
    found = program.memory_analysis()
    if found is None:
        return
    new = found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    check_runs(mesh.size * new, runs, list(mesh.devices.flat), width=width)


class _Trainer:
    """The functions of a single run; `train_group` maps them over the runs."""

    def __init__(self, setting: Setting, recipe: Recipe, width: int, corpus: Corpus):
        self.setting, self.recipe, self.width = setting, recipe, width
        self.vocabulary_size = corpus.vocabulary_size

    def start(self, run: _Run) -> _State:
        key = jax.random.fold_in(jax.random.key(run.seed), 0)
        model = parameterize(
            lambda width: self.make(width, key),
            width=self.width,
            base_width=self.setting.base_width,
            parameterization=self.recipe.law,
        )
        return _State(model, self.optimizer(run.learning_rate).init(model))

    def make(self, width: int, key: PRNGKeyArray) -> Transformer:
        return Transformer(
            vocabulary_size=self.vocabulary_size,
            sequence_length=self.setting.sequence_length,
            width=width,
            depth=self.setting.depth,
            head_dimension=self.setting.head_dimension,
            unroll=min(self.setting.depth, _UNROLLED),
            key=key,
        )

    def optimizer(self, peak: Float[Array, ""]) -> optax.GradientTransformation:
        setting = self.setting
        return self.recipe.transformation(
            lambda count: peak * warmup_cosine(jnp.asarray(count), setting.steps, setting.warmup)
        )

    def advance(
        self, state: _State, run: _Run, tokens: UInt[Array, " n"], steps: Int[Array, " chunk"]
    ) -> tuple[_State, Float[Array, " chunk"]]:
        key = jax.random.fold_in(jax.random.key(run.seed), 1)
        optimizer = self.optimizer(run.learning_rate)

        def step(state: _State, index: Int[Array, ""]) -> tuple[_State, Float[Array, ""]]:
            batch = self.batch(jax.random.fold_in(key, index), tokens)
            loss, gradient = eqx.filter_value_and_grad(mean_loss)(state.model, batch)
            updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.model)
            return _State(eqx.apply_updates(state.model, updates), optimizer_state), loss

        return jax.lax.scan(step, state, steps)

    def batch(self, key: PRNGKeyArray, tokens: UInt[Array, " n"]) -> Int[Array, "batch length"]:
        length = self.setting.sequence_length + 1
        last = tokens.shape[0] - length
        starts = jax.random.randint(key, (self.setting.batch_size, 1), 0, last + 1)
        offsets = jnp.arange(length)[None]
        return tokens[starts + offsets].astype(jnp.int32)

    def evaluate(
        self, state: _State, windows: Int[Array, "batches batch length"]
    ) -> Float[Array, ""]:
        return jnp.mean(jax.lax.map(functools.partial(mean_loss, state.model), windows))


def mean_loss(model: Any, batch: Int[Array, "batch length"]) -> Float[Array, ""]:
    """The mean cross-entropy of each next token, in nats."""
    logits = model(batch[:, :-1])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:]))


def warmup_cosine(count: Int[Array, ""], steps: int, warmup: float) -> Float[Array, ""]:
    r"""The schedule's shape: a linear rise to 1 over `warmup * steps`, then a cosine to 0.

    The last step is at 0 itself.
    """
    time = (count + 1).astype(jnp.result_type(float))
    rise = max(1.0, warmup * steps)
    fall = (time - rise) / max(1.0, steps - rise)
    return jnp.where(time < rise, time / rise, 0.5 * (1 + jnp.cos(jnp.pi * fall)))


def _shared_out(members: Sequence[Member], mesh: Mesh) -> _Run:
    """The members' numbers on the devices; the last is repeated until each has as many."""
    padding = -len(members) % mesh.size
    padded = [*members, *([members[-1]] * padding)]
    run = _Run(
        jnp.array([member.learning_rate for member in padded], jnp.float32),
        jnp.array([member.seed for member in padded], jnp.int32),
    )
    return jax.device_put(run, NamedSharding(mesh, PartitionSpec(_AXIS)))


def _mapped(function: Callable, mesh: Mesh, *, in_runs: int, out_runs_axis: Any = 0) -> Callable:
    """`function` mapped over the runs in its first `in_runs` arguments, and over the devices."""

    def on_device(*arguments):
        in_axes = tuple(0 if index < in_runs else None for index in range(len(arguments)))
        return jax.vmap(function, in_axes, out_runs_axis)(*arguments)

    def spec(axis: int) -> PartitionSpec:
        return PartitionSpec(*[None] * axis, _AXIS)

    def shared(*arguments):
        specs = tuple(
            spec(0) if index < in_runs else PartitionSpec() for index in range(len(arguments))
        )
        out_specs = jax.tree.map(spec, out_runs_axis)
        return jax.shard_map(
            on_device, mesh=mesh, in_specs=specs, out_specs=out_specs, check_vma=False
        )(*arguments)

    return shared


def _stride(steps: int) -> int:
    """How many steps run between two reports: a divisor, so that one program does for all."""
    return max(divisor for divisor in range(1, 21) if steps % divisor == 0)


def _in_batches(windows: np.ndarray, batch_size: int) -> Int[Array, "batches batch length"]:
    """All windows, in equal batches of at most `batch_size`."""
    size = max(n for n in range(1, batch_size + 1) if len(windows) % n == 0)
    return jnp.asarray(windows.reshape(-1, size, windows.shape[1]))


def _mean_of_finite(losses: np.ndarray) -> float:
    finite = losses[np.isfinite(losses)]
    return float(finite.mean()) if finite.size else float("nan")
