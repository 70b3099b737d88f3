"""What is compiled: every update rule, sums that need their rounding, a training step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import scalex_eqx as sx
from numerics.formats import roundings

# Too large for what memory there is on a chip's own die: every pass goes to the main memory.
ROWS, COLUMNS = 4096, 16384
VOCABULARY, LENGTH, BATCH, WIDTH, DEPTH = 256, 64, 8, 128, 2


@dataclasses.dataclass(frozen=True)
class Program:
    """**Arguments:**

    - `function`: what is compiled.
    - `arguments`: shapes and dtypes.
    - `donated`: the arguments whose memory the results may take.
    - `split`: for several chips, the axis that each argument is split along, or `None`.
    - `options`: the compiler's.
    """

    function: Callable
    arguments: tuple[Any, ...]
    donated: tuple[int, ...] = ()
    split: tuple[int | None, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def chips(self) -> int:
        """How many are compiled for."""
        return 4 if self.split else 1


def _adam() -> optax.GradientTransformation:
    return sx.adam(1e-3)


FLOAT32_RULES: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam": _adam,
    "adamw": lambda: sx.adamw(1e-3, 1e-4, decay_mode="independent"),
    "adam_atan2": lambda: sx.adam_atan2(1e-3),
    "adafactor": lambda: sx.adafactor(1e-3),
    "adam_parameter_scaling": lambda: sx.adam_parameter_scaling(1e-3),
    "sgd": lambda: sx.sgd(1e-3, momentum=0.9),
    "lion": lambda: sx.lion(1e-3),
    "sign_sgd": lambda: sx.sign_sgd(1e-3),
    "skip_nonfinite(adam)": lambda: sx.optim.skip_nonfinite(_adam()),
}
# What is next to nothing else, so that the rounding alone can be followed.
BFLOAT16_RULES: dict[str, Callable[[], optax.GradientTransformation]] = {
    "low_precision(adam, master)": lambda: sx.optim.low_precision(_adam(), "master"),
    "low_precision(adam, kahan)": lambda: sx.optim.low_precision(_adam(), "kahan"),
    "low_precision(adam, stochastic)": lambda: sx.optim.low_precision(
        _adam(), "stochastic", key=jax.random.key(0)
    ),
}
KAHAN_STEP = "low_precision(sgd, kahan)"
TRAINING = "training step"
TRAINING_FOUR = "training step, batch over 4 chips"
SHARDED = ("adam", "adam_atan2", "adafactor")
FLUSHING = "adam, flushing asked for"


def weights(dtype: Any) -> Any:
    """A model of one matrix, with its scaling law."""

    def make(width: int):
        return {"hidden": jnp.zeros((width, width * COLUMNS // ROWS), dtype)}

    return eqx.filter_eval_shape(
        lambda: sx.parameterize(
            make, width=ROWS, base_width=ROWS // 4, parameterization=sx.standard
        )
    )


def update(tx: optax.GradientTransformation) -> Callable:
    """One step of a rule: gradients in, weights and state out."""

    def step(model, state, grads):
        updates, state = tx.update(grads, state, model)
        return optax.apply_updates(model, updates), state

    return step


def _rule(tx: optax.GradientTransformation, dtype: Any, *, sharded: bool = False) -> Program:
    model = weights(dtype)
    state = jax.eval_shape(tx.init, model)
    split = (0, 0, 0) if sharded else ()
    return Program(update(tx), (model, state, model), donated=(0, 1), split=split)


def _alike(step: Callable, dtype: Any, count: int, shape: tuple[int, int]) -> Program:
    return Program(step, (jax.ShapeDtypeStruct(shape, dtype),) * count)


def _training(*, split: bool) -> Program:
    def make(width: int):
        return sx.nn.Transformer(
            vocabulary_size=VOCABULARY,
            sequence_length=LENGTH,
            width=width,
            depth=DEPTH,
            head_dimension=32,
            key=jax.random.key(0),
        )

    tx = _adam()
    model = eqx.filter_eval_shape(
        lambda: sx.parameterize(
            make, width=WIDTH, base_width=WIDTH // 2, parameterization=sx.standard
        )
    )

    def step(model, state, tokens):
        def loss(model):
            losses = optax.softmax_cross_entropy_with_integer_labels(model(tokens), tokens)
            return jnp.mean(losses)

        value, grads = jax.value_and_grad(loss)(model)
        updates, state = tx.update(grads, state, model)
        return optax.apply_updates(model, updates), state, value

    tokens = jax.ShapeDtypeStruct((BATCH, LENGTH), jnp.int32)
    state = jax.eval_shape(tx.init, model)
    axes = (None, None, 0) if split else ()
    return Program(step, (model, state, tokens), donated=(0, 1), split=axes)


def programs() -> dict[str, Program]:
    """All by name."""
    found = {name: _rule(make(), jnp.float32) for name, make in FLOAT32_RULES.items()}
    found |= {name: _rule(make(), jnp.bfloat16) for name, make in BFLOAT16_RULES.items()}
    found[KAHAN_STEP] = _rule(sx.optim.low_precision(sx.sgd(2.0), "kahan"), jnp.bfloat16)
    found |= {
        f"{name}, over 4 chips": _rule(FLOAT32_RULES[name](), jnp.float32, sharded=True)
        for name in SHARDED
    }
    found |= {
        name: _alike(step, jnp.bfloat16, 3, (ROWS, COLUMNS))
        for name, step in roundings.KAHAN.items()
    }
    for dtype in ("bfloat16", "float8_e4m3fn"):
        form = roundings.FORMS["cast there and back"](jnp.dtype(dtype))
        found[f"cast to {dtype} and back"] = _alike(
            lambda x, y, form=form: form(x) * y, jnp.float32, 2, (ROWS, COLUMNS)
        )
    for precision in ("default", "highest"):
        found[f"matmul, {precision}"] = _alike(
            lambda x, y, p=precision: jnp.matmul(x, y, precision=p), jnp.float32, 2, (512, 512)
        )
    found[TRAINING] = _training(split=False)
    found[TRAINING_FOUR] = _training(split=True)
    return found


def flushing() -> Program:
    """Adam as a compiler makes it that was told to flush: the control for the check of PTX."""
    return dataclasses.replace(_rule(_adam(), jnp.float32), options=(("xla_gpu_ftz", True),))
