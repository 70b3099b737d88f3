"""An update rule over many settings of gradients and weights at once, in one compiled program."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from ._arguments import Extra, known, statistics, taken, value_at
from ._probe import Leaves, Probe, Wrap, annotated, arrays, matrices, plain, shapes


class Setting(NamedTuple):
    """By how much gradients, weights and loss are larger than the probe's.

    **Arguments:**

    - `gradients`, `weights`: a factor for each entry, by leaf.
    - `first`: a further factor of the first step's gradients.
    - `loss`: that of the loss.
    - `moves`: by how much of its update a weight moves.
    """

    gradients: Leaves
    weights: Leaves
    first: float = 1.0
    loss: float = 1.0
    moves: float = 1.0


class Updates(NamedTuple):
    """What a rule does in each step, in float64, with axes of setting and step in front.

    `weights` are those before each step.
    """

    updates: Leaves
    weights: Leaves


@dataclasses.dataclass(frozen=True)
class Rule:
    """An update rule, and how it is to be called.

    **Arguments:**

    - `tx`: the transformation.
    - `wrap`: makes the tree that it works on of arrays by name.
    - `of_examples`: whether it takes a batch of gradients.
    - `extra`: further arguments of the user's.
    """

    tx: optax.GradientTransformation
    wrap: Wrap = plain
    of_examples: bool = False
    extra: Extra | None = None

    def update(self, gradients: PyTree, scales: PyTree, value: Any, state: Any, params: PyTree):
        """One step: the update, and the state behind it."""
        arguments = known(params, gradients, scales, value)
        if self.wrap is annotated:
            arguments |= statistics(self.tx, params)(params, gradients)
        if self.extra is not None:
            arguments |= self.extra(params, gradients, value)
        if self.of_examples:
            gradients = jax.tree.map(lambda g: g[None], gradients)
        return self.tx.update(gradients, state, params, **taken(self.tx, arguments))


@contextlib.contextmanager
def usual_promotion() -> Iterator[None]:
    """JAX's own rules of promotion, which other libraries' update rules rely on."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def callable_rule(tx: Any, probe: Probe, extra: Extra | None) -> Rule:
    """How a rule wants to be called, found by calling it on shapes.

    **Raises:** `ValueError` for what is no rule, and for one that can't be called so, with what it
    says.
    """
    if not hasattr(tx, "init") or not hasattr(tx, "update"):
        name = getattr(tx, "__name__", type(tx).__name__)
        raise ValueError(
            f"tx is {name}, which has no init and no update; expected an optimizer such as "
            "optax.adam(1e-3)"
        )
    errors = []
    for wrap in (plain, annotated, matrices):
        for of_examples in (False, True):
            rule = Rule(tx, wrap, of_examples, extra)
            try:
                if _keeps_shapes(rule, probe):
                    return rule
            # Whatever it is: it is the user's code.
            except Exception as error:
                errors.append(error)
    if not errors:
        raise ValueError(
            "tx returns updates of other shapes than the weights; expected one for each weight"
        )
    said = " ".join(str(errors[0]).split())
    raise ValueError(
        f"tx can't be called: {type(errors[0]).__name__}: {said}; arguments that it needs beside "
        "value, grad, value_fn, obj_fn and hessian are given by extra"
    ) from errors[0]


def _keeps_shapes(rule: Rule, probe: Probe) -> bool:
    def one(params):
        ones = jax.tree.map(jnp.ones_like, params)
        state = rule.tx.init(params)
        return rule.update(params, ones, jnp.ones(()), state, params)[0]

    with usual_promotion():
        params = shapes(probe, rule.wrap)
        found = jax.eval_shape(one, params)
    kept = [x.shape for x in jax.tree.leaves(params)]
    return [x.shape for x in jax.tree.leaves(found)] == kept


# The programs run once, and most of the time goes into compiling them.
_QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,
}

Program = Callable[[Mapping[Any, Setting]], Updates]


def program(rule: Rule, probe: Probe, dtype: Any = jnp.float32) -> Program:
    """A function from settings to what the rule does in each, while weights move as it says.

    For as many settings as before it compiles nothing.
    """
    # Arrays within the program would be folded into other arrays, for seconds.
    course = jax.vmap(
        lambda setting, *arrays: _course(rule, Probe(*arrays), setting, dtype),
        in_axes=(0, None, None),
    )
    compiled = jax.jit(course, compiler_options=_QUICK if jax.default_backend() == "cpu" else None)

    def run(settings: Mapping[Any, Setting]) -> Updates:
        stacked = jax.tree.map(lambda *x: np.stack(x).astype(np.float32), *settings.values())
        with usual_promotion():
            found = jax.device_get(compiled(stacked, probe.weights, probe.gradients))
        return Updates(
            *({name: np.asarray(x, np.float64) for name, x in leaves.items()} for leaves in found)
        )

    return run


def _course(rule: Rule, probe: Probe, setting: Setting, dtype: Any) -> tuple[Any, Any]:
    def scaled(x: Leaves, factors: Leaves) -> PyTree:
        return rule.wrap({name: (x[name] * factors[name]).astype(dtype) for name in x})

    def step(carry: Any, x: Any) -> Any:
        params, state = carry
        at, drawn = x
        gradients = scaled(drawn, setting.gradients)
        gradients = jax.tree.map(
            lambda g: jnp.where(at == 0, g * jnp.asarray(setting.first, g.dtype), g), gradients
        )
        value = value_at(at, setting.loss).astype(dtype)
        updates, new = rule.update(gradients, rule.wrap(setting.gradients), value, state, params)
        state = jax.tree.map(_like, new, state)
        moved = jax.tree.map(
            lambda w, u: jnp.where(setting.moves > 0, (w + u).astype(w.dtype), w), params, updates
        )
        still = {name: jnp.zeros(x.shape, dtype) for name, x in drawn.items()}
        return (moved, state), (still | arrays(updates), still | arrays(params))

    params = scaled(probe.weights, setting.weights)
    steps = jnp.arange(probe.steps, dtype=jnp.float32), probe.gradients
    return jax.lax.scan(step, (params, rule.tx.init(params)), steps)[1]


def _like(new: Any, old: Any) -> Any:
    """A rule may change its state's dtype in the first step, which a scan does not allow."""
    if hasattr(old, "dtype") and jnp.issubdtype(old.dtype, jnp.floating):
        return jnp.asarray(new).astype(old.dtype)
    return new
