from collections.abc import Callable
from typing import NamedTuple

import optax
from jaxtyping import PyTree

from ._checked import checked
from ._rule import Rule


class StatelessState(NamedTuple):
    """What the rule is; it remembers nothing."""

    rule: PyTree


def stateless(
    rule: Rule,
    f: Callable[[optax.Updates, optax.Params | None], optax.Updates],
    check: Callable[[optax.Params], None] | None = None,
    *,
    takes_complex: bool = False,
) -> optax.GradientTransformation:
    """A rule that remembers nothing: its updates are `f(updates, params)`.

    `check` refuses weights that the rule can't be used on.
    """

    def init(params: optax.Params) -> StatelessState:
        del params
        return StatelessState(rule)

    def update(updates, state, params=None):
        return f(updates, params), state

    return checked(rule, StatelessState, init, update, check=check, takes_complex=takes_complex)
