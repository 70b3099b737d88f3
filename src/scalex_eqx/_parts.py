import collections
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import PyTree

from ._weight import weights_with_paths
from .optim import (
    AverageState,
    CautiousState,
    Degree,
    KahanState,
    MasterState,
    Rule,
    SkipNonfiniteState,
    StochasticRoundingState,
)
from .theory._family import Norm


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

    @property
    def hidden(self) -> list[Rule]:
        """The library's own rules in the state of a transformation that is not looked through."""
        if self.rule is not None:
            return []
        nodes = jax.tree.leaves(self.state, is_leaf=_is_rule)
        return [node for node in nodes if _is_rule(node)]


def _is_rule(node: Any) -> bool:
    return isinstance(node, Rule)


Lives = Mapping[str, frozenset[str]]
"""By the name of a masked state: the paths of the weights that its mask leaves over."""


def degree_at_scaling(rules: Iterable[Rule | None]) -> Degree | None:
    """That of the updates where they are scaled by the width first, or where they come out.

    `None` if a transformation in front of that is not one of ours.
    """
    degree = Degree(update=1)
    for rule in rules:
        if rule is None:
            return None
        if rule.family is not None:
            break
        out = rule.output
        degree = Degree(out.update * degree.update, out.weight + out.update * degree.weight)
    return degree


def norm_at_scaling(rules: Iterable[Rule | None]) -> Norm:
    """What the last rule in front of that has made the same at every width."""
    norm: Norm = "entries"
    for rule in rules:
        if rule is not None and rule.family is not None:
            break
        if rule is not None and rule.output.update == 0:
            norm = rule.norm
    return norm


_ACCUMULATE = Rule("MultiSteps", fields=(("acc_grads", Degree(update=1)),))

# Wrappers that hand updates through, by the field that holds the state inside.
_WRAPPERS = {
    optax.MultiStepsState: "inner_opt_state",
    optax.InjectStatefulHyperparamsState: "inner_state",
    optax.ApplyIfFiniteState: "inner_state",
    SkipNonfiniteState: "inner_state",
    MasterState: "inner_state",
    KahanState: "inner_state",
    StochasticRoundingState: "inner_state",
    CautiousState: "inner_state",
    AverageState: "inner_state",
}


def blank_state(tx: Any, params: PyTree) -> Any:
    """The shapes of the state that an optimizer begins with.

    **Raises:** `ValueError` for what is no optimizer, such as the function that makes one.
    """
    if not hasattr(tx, "init") or not hasattr(tx, "update"):
        name = getattr(tx, "__name__", type(tx).__name__)
        raise ValueError(
            f"tx is {name}, which has no init and no update; expected an optimizer such as "
            "scalex_eqx.adam(1e-3)"
        )
    return jax.eval_shape(tx.init, params)


def parts(state: Any, lives: Lives | None = None) -> list[Part]:
    """The transformations in an optimizer's state, in the order in which updates pass them."""
    found = []

    def note(part: Part) -> Any:
        found.append(part)
        return part.state

    map_parts(note, state, lives=lives or {})
    return found


def map_parts(
    f: Callable[[Part], Any],
    state: Any,
    name: str = "state",
    live: frozenset[str] | None = None,
    lives: Lives | None = None,
) -> Any:
    """Replaces the state of each transformation by `f(part)`, in the order of the updates.

    It looks through `optax.chain`, `named_chain`, `masked`, `partition`, `MultiSteps`,
    `inject_hyperparams` and `apply_if_finite`, and through `skip_nonfinite` and `low_precision`.
    Where `lives` doesn't tell what a mask leaves over, the arrays that a rule inside keeps do.
    """
    lives = lives or {}
    rule = _ACCUMULATE if isinstance(state, optax.MultiStepsState) else getattr(state, "rule", None)
    if type(state) in _WRAPPERS:
        if rule is not None:
            state = f(Part(name, state, rule, live))
        field = _WRAPPERS[type(state)]
        inner = map_parts(f, getattr(state, field), f"{name}.{field}", live, lives)
        return state._replace(**{field: inner})
    if isinstance(rule, Rule):
        return f(Part(name, state, rule, _of_roles(rule, state, live)))
    if type(state) is tuple:
        return tuple(map_parts(f, s, f"{name}[{i}]", live, lives) for i, s in enumerate(state))
    if type(state) is collections.OrderedDict:
        return collections.OrderedDict(
            (key, map_parts(f, s, f"{name}[{key!r}]", live, lives)) for key, s in state.items()
        )
    if isinstance(state, optax.MaskedState):
        inside = lives.get(name, _live_paths(state.inner_state))
        if inside is not None:
            name, inside = f"{name}.inner_state", inside if live is None else inside & live
            return optax.MaskedState(map_parts(f, state.inner_state, name, inside, lives))
    if isinstance(state, optax.transforms.PartitionState):
        return optax.transforms.PartitionState(_map_partition(f, state, name, live, lives))
    return f(Part(name, state, None, live))


def _of_roles(rule: Rule, state: Any, live: frozenset[str] | None) -> frozenset[str] | None:
    """Those of the weights of its roles, for a rule that hands on the updates of others."""
    if rule.roles is None:
        return live
    weights = weights_with_paths(getattr(state, rule.fields[0][0]))
    own = frozenset(path for path, weight in weights.items() if weight.spec.role in rule.roles)
    return own if live is None else own & live


def _map_partition(
    f: Callable[[Part], Any], state: Any, name: str, live: frozenset[str] | None, lives: Lives
) -> dict[Any, Any]:
    names = {key: f"{name}.inner_states[{key!r}]" for key in state.inner_states}
    left = _partition(state.inner_states)
    mapped = {}
    for key, inner in state.inner_states.items():
        inside = lives.get(names[key], left[key])
        if inside is None or live is None:
            inside = live if inside is None else inside
        else:
            inside = inside & live
        if inside is None:
            mapped[key] = f(Part(names[key], inner, None, None))
            continue
        within = map_parts(f, inner.inner_state, f"{names[key]}.inner_state", inside, lives)
        mapped[key] = optax.MaskedState(within)
    return mapped


def _live_paths(state: Any) -> frozenset[str] | None:
    """The weights that a mask has left over: those that a rule inside keeps arrays for.

    `None` if no rule inside keeps any, so that it can't be told.
    """
    weights = _kept(state)
    if weights is None:
        return None
    return frozenset(path for path, is_masked in weights.items() if not is_masked)


def _partition(states: Mapping[Any, Any]) -> dict[Any, frozenset[str] | None]:
    """The weights that each of the optimizers in an `optax.partition` works on.

    One that keeps no arrays has what the others leave over.
    """
    kept = {key: _kept(state.inner_state) for key, state in states.items()}
    lives = {key: _live_paths(state.inner_state) for key, state in states.items()}
    unknown = [key for key, live in lives.items() if live is None]
    if len(unknown) == 1 and len(lives) > 1:
        every = frozenset().union(*(weights for weights in kept.values() if weights))
        lives[unknown[0]] = every.difference(*(live for live in lives.values() if live))
    return lives


def _kept(state: Any) -> dict[str, bool] | None:
    """Every weight that the first rule with arrays has a place for, and whether it is masked."""
    for part in parts(state):
        for field, _ in part.rule.fields if part.rule is not None else ():
            weights = weights_with_paths(getattr(part.state, field))
            return {path: isinstance(w.value, optax.MaskedNode) for path, w in weights.items()}
    return None
