from collections.abc import Callable
from typing import NamedTuple

import optax
from jaxtyping import PyTree

from .._weight import require_complete
from ._rule import Rule


class StatelessState(NamedTuple):
    """What the rule is; it remembers nothing."""

    rule: PyTree


def stateless(
    rule: Rule, f: Callable[[optax.Updates, optax.Params | None], optax.Updates]
) -> optax.GradientTransformation:
    """A rule that remembers nothing: its updates are `f(updates, params)`."""

    def init(params: optax.Params) -> StatelessState:
        require_complete(params)
        return StatelessState(rule)

    def update(updates, state, params=None):
        require_complete(updates)
        return f(updates, params), state

    return optax.GradientTransformation(init, update)
