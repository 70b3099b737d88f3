from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from ._weight import weights_with_paths
from .optim import Degree, Rule


class Part(NamedTuple):
    """One transformation within an optimizer, found in its state.

    **Arguments:**

    - `name`: where its state stands: `state[0].inner_state`.
    - `state`: that state.
    - `rule`: what it is; `None` if it isn't one of ours.
    - `live`: the paths of the weights that it works on; `None` if it is not masked.
    """

    name: str
    state: Any
    rule: Rule | None
    live: frozenset[str] | None

    def works_on(self, path: str) -> bool:
        """Whether the weight at `path` passes through it."""
        return self.live is None or path in self.live


_ACCUMULATE = Rule("MultiSteps", fields=(("acc_grads", Degree(update=1)),))

# Wrappers of optax that hand updates through, by the field that holds the state inside.
_WRAPPERS = {
    optax.MultiStepsState: "inner_opt_state",
    optax.InjectStatefulHyperparamsState: "inner_state",
    optax.ApplyIfFiniteState: "inner_state",
}


def parts(state: Any) -> list[Part]:
    """The transformations in an optimizer's state, in the order in which updates pass them."""
    found = []

    def note(part: Part) -> Any:
        found.append(part)
        return part.state

    map_parts(note, state)
    return found


def map_parts(
    f: Callable[[Part], Any],
    state: Any,
    name: str = "state",
    live: frozenset[str] | None = None,
) -> Any:
    """Replaces the state of each transformation by `f(part)`, in the order of the updates.

    It looks through `optax.chain`, `masked`, `partition`, `MultiSteps`, `inject_hyperparams` and
    `apply_if_finite`.
    """
    if isinstance(getattr(state, "rule", None), Rule):
        return f(Part(name, state, state.rule, live))
    if type(state) is tuple:
        return tuple(map_parts(f, s, f"{name}[{i}]", live) for i, s in enumerate(state))
    if isinstance(state, optax.MaskedState):
        inside = _live_paths(state.inner_state)
        if inside is not None:
            name = f"{name}.inner_state"
            return optax.MaskedState(map_parts(f, state.inner_state, name, inside))
    if isinstance(state, optax.transforms.PartitionState):
        inner = state.inner_states.items()
        return optax.transforms.PartitionState(
            {key: map_parts(f, s, f"{name}.inner_states[{key!r}]", live) for key, s in inner}
        )
    if type(state) in _WRAPPERS:
        if isinstance(state, optax.MultiStepsState):
            state = f(Part(name, state, _ACCUMULATE, live))
        field = _WRAPPERS[type(state)]
        inner = map_parts(f, getattr(state, field), f"{name}.{field}", live)
        return state._replace(**{field: inner})
    return f(Part(name, state, None, live))


def _live_paths(state: Any) -> frozenset[str] | None:
    """The weights that a mask has left over: those that a rule inside keeps arrays for.

    `None` if no rule inside keeps any, so that it can't be told.
    """
    for part in parts(state):
        for field, _ in part.rule.fields if part.rule is not None else ():
            weights = weights_with_paths(getattr(part.state, field))
            return frozenset(
                path for path, w in weights.items() if not isinstance(w.value, optax.MaskedNode)
            )
    return None


def update_names(tx: optax.GradientTransformation | optax.MultiSteps) -> Any:
    """What the functions are called that an optimizer's transformations were made by.

    A tuple for an `optax.chain`, nested as its state is. Only for people to read: Optax keeps no
    names, so they are those that Python knows the functions by.
    """
    return _names(tx.update)


def _names(update: Any) -> Any:
    code, cells = getattr(update, "__code__", None), getattr(update, "__closure__", None) or ()
    inside = dict(zip(code.co_freevars, cells, strict=True)) if code else {}
    if "update_fns" in inside:
        return tuple(map(_names, inside["update_fns"].cell_contents))
    if "tx" in inside:
        return _names(inside["tx"].cell_contents.update)
    return getattr(update, "__qualname__", type(update).__name__).split(".")[0]
