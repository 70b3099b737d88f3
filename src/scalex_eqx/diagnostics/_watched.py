"""Training that is looked at after some of its steps."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray, PyTree

from .._needed import Loss, statistics_needed, step_gradient
from .._weight import is_trainable, require_complete

Advance = Callable[[int, int], None]
"""It is told the steps done, and all."""


def watched(
    look: Callable[[PyTree, Any], Any],
    loss: Loss,
    model: PyTree,
    tx: optax.GradientTransformation,
    draw: Callable[[PRNGKeyArray], Any],
    *,
    steps: int,
    at: Sequence[int] | None,
    key: PRNGKeyArray,
    advance: Advance | None,
    of_example: Loss | None = None,
) -> Iterator[tuple[int, Any]]:
    """Trains a model, and yields what was seen of it, with the steps that came before.

    **Arguments:**

    - `look`: `look(model, step)`; traced.
    - `loss`, `model`, `tx`, `draw`, `key`: what is trained, on the batch `draw(key)` of the key
        with the step folded in.
    - `steps`, `at`: how many, and those that are looked at; powers of two and both ends if `None`.
    - `advance`: is told the steps done, and all.
    - `of_example`: the loss of one example, for rules that need their gradients.

    **Raises:** `ValueError` for a model without its laws, and for steps that are not trained.
    """
    params = eqx.filter(model, is_trainable)
    require_complete(params)
    places, asked = _places(steps, at), statistics_needed(tx, params)
    if asked and of_example is None:
        raise ValueError(
            "the optimizer needs the gradient of each example; give of_example, the loss of one"
        )
    # A rule that needs none is given what it doesn't look at.
    single = loss if of_example is None else of_example
    moves = optax.with_extra_args_support(tx)
    seen = eqx.filter_jit(look)

    @eqx.filter_jit
    def train(model: PyTree, state: Any, first: Any, last: Any) -> tuple[PyTree, Any]:
        arrays, static = eqx.partition(model, eqx.is_array)

        def step(i: Any, carry: Any) -> Any:
            model, state = eqx.combine(carry[0], static), carry[1]
            batch = draw(jax.random.fold_in(key, i))
            _, gradient, extra = step_gradient(loss, single, model, batch, asked)
            updates, state = moves.update(gradient, state, eqx.filter(model, is_trainable), **extra)
            return eqx.filter(eqx.apply_updates(model, updates), eqx.is_array), state

        arrays, state = jax.lax.fori_loop(first, last, step, (arrays, state))
        return eqx.combine(arrays, static), state

    state, done = tx.init(params), 0
    for place in places:
        if place > done:
            model, state = train(model, state, jnp.asarray(done), jnp.asarray(place))
        done = place
        yield place, jax.device_get(seen(model, jnp.asarray(place)))
        if advance is not None:
            advance(place, steps)


def _places(steps: int, at: Sequence[int] | None) -> list[int]:
    if at is None:
        powers = [2**i for i in range(steps.bit_length()) if 2**i < steps]
        return sorted({0, *powers, steps})
    wrong = [place for place in at if not 0 <= place <= steps]
    if wrong or not at:
        raise ValueError(
            f"at has {', '.join(map(str, wrong)) or 'no step'}; expected steps from 0 to {steps}, "
            "which are trained"
        )
    return sorted(set(at))
