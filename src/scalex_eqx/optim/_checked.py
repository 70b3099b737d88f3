from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import jax.tree_util as jtu
import optax
from jaxtyping import PyTree

from .._pages import Section, listed, see
from .._spec import WeightSpec
from .._weight import is_trainable, is_weight, lacks_law, path_string, require_complete
from ..ops._wide import wide_dtype
from ._numbers import lost, vanishes
from ._places import GRADIENTS, WEIGHTS, Place, dtype_problem, is_place, likeness, replaced
from ._rule import Rule

_MOST_LINES = 8


def checked(
    rule: Rule,
    state_type: type,
    init: Callable[[Any], Any],
    update: Callable[..., tuple[Any, Any]],
    *,
    check: Callable[[Any], None] | None = None,
    takes_complex: bool = False,
    keeps_all: bool = True,
    takes_bare: bool = False,
    takes_extra: bool = False,
) -> optax.GradientTransformation:
    """A rule that looks at laws, shapes and dtypes before it looks at a number.

    All of that is known while a step is traced: nothing of it is left in the compiled step.
    `update` gets gradients, state and weights of one structure. A gradient that is narrower than
    its weight has been widened, and that of an array of whole numbers is zero.

    **Arguments:**

    - `rule`, `state_type`: what the rule is, and the class of its state.
    - `init`, `update`: the rule's own.
    - `check`: refuses weights that the rule can't be used on.
    - `takes_complex`: whether its formula holds for complex numbers.
    - `keeps_all`: whether it keeps an array for every weight that it moves, if for any.
    - `takes_bare`: whether arrays without a law are let through.
    - `takes_extra`: whether `update` takes further arguments.
    """

    def checked_init(params: optax.Params) -> Any:
        leaves = jtu.tree_leaves(params, is_leaf=is_place)
        if not takes_bare:
            _require_complete(params, leaves)
        _check_dtypes(rule, params, leaves, takes_complex)
        if check is not None:
            check(params)
        return init(params)

    def checked_update(updates, state, params=None, **extra):
        check_state(rule, state_type, state)
        trees = {GRADIENTS: updates}
        trees |= {f"state.{name}": getattr(state, name) for name, _ in rule.fields}
        if params is not None:
            trees[WEIGHTS] = params
        columns = _columns(rule, trees, takes_bare)
        names, places, problems, settled = tuple(trees), {}, [], set()
        for i, nodes in enumerate(zip(*columns, strict=True)):
            # What is the same weight as another, to all that is looked at, is in order as that is.
            like = likeness(nodes)
            if like is not None and like in settled:
                continue
            place = Place(names, nodes)
            problem = place.problem(keeps_all, takes_complex)
            if problem is not None:
                problems.append((i, problem))
            elif like is not None and place.is_usable():
                settled.add(like)
            else:
                places[i] = place
        _raise_at(rule, updates, problems)
        updates = replaced(updates, places, Place.usable_gradient, 0)
        if params is not None:
            params = replaced(params, places, Place.moved_weight, -1)
        return update(updates, state, params, **extra)

    kind = optax.GradientTransformationExtraArgs if takes_extra else optax.GradientTransformation
    return kind(checked_init, checked_update)


def _require_complete(tree: PyTree, leaves: list[Any]) -> None:
    if any(map(lacks_law, leaves)):
        require_complete(tree)


def _check_dtypes(rule: Rule, params: PyTree, leaves: list[Any], takes_complex: bool) -> None:
    """Refuses trained weights of a dtype that the rule can't move, or that lacks its numbers."""
    problems, seen = [], {}
    for i, leaf in enumerate(leaves):
        if is_weight(leaf) and leaf.spec.is_trained and is_trainable(leaf.value):
            kind = leaf.spec, leaf.value.dtype
            if kind not in seen:
                problem = dtype_problem(kind[1], takes_complex)
                seen[kind] = (problem and f"the weight {problem}") or _number_problem(rule, *kind)
            if seen[kind] is not None:
                problems.append((i, seen[kind]))
    _raise_at(rule, params, problems, f"{rule.name} can't move these weights:")


def _number_problem(rule: Rule, spec: WeightSpec, dtype: Any) -> str | None:
    """Which number of the weight's law or the rule its dtype has no place for."""
    try:
        multiplier = spec.multiplier
        constants = {constant.name: constant.at(spec) for constant in rule.constants}
    except ValueError as error:
        return str(error)
    if vanishes(multiplier, dtype):
        return f"its multiplier is {multiplier:g}, and {lost(multiplier, dtype)}"
    for constant in rule.constants:
        value, power = constants[constant.name], max(constant.degree.update, 1)
        # A threshold may be meant never to be reached, and zero is a number like another.
        if (
            constant.name in ("eps", "floor")
            and value is not None
            and value ** (1 / power) > float(jnp.finfo(wide_dtype(dtype)).max)
        ):
            return f"{constant.name} is {value:g}, which is infinite in {wide_dtype(dtype)}"
    return None


def check_state(rule: Rule, state_type: type, state: Any) -> None:
    """Refuses what is not a state of `rule`."""
    found = getattr(state, "rule", None)
    if type(state) is state_type and found == rule:
        return
    if isinstance(found, Rule) and found.name == rule.name:
        differing = [
            f"{name} {getattr(found, name)!r}, expected {getattr(rule, name)!r}"
            for name in ("family", "rates", "output", "fields", "roles")
            if getattr(found, name) != getattr(rule, name)
        ]
        what = f"that of {rule.name} with {'; '.join(differing)}"
    else:
        what = f"{state_name(state)}; expected that of {rule.name}"
    raise ValueError(
        f"the state is {what}. Pass what tx.init(params) or the last tx.update of this optimizer "
        f"returned{see(Section.mismatch)}"
    )


def state_name(state: Any) -> str:
    """What a state is of, for people to read."""
    rule = getattr(state, "rule", None)
    return f"that of {rule.name}" if isinstance(rule, Rule) else f"of type {type(state).__name__}"


def _columns(rule: Rule, trees: dict[str, PyTree], takes_bare: bool) -> list[list[Any]]:
    """The leaves of each tree, which all have the same places."""
    flat = {name: jtu.tree_flatten(tree, is_leaf=is_place) for name, tree in trees.items()}
    first, treedef = flat[GRADIENTS]
    if not takes_bare:
        _require_complete(trees[GRADIENTS], first)
    problems = []
    for name, (_, other) in flat.items():
        if other != treedef:
            problems += _structures(trees[GRADIENTS], name, trees[name])
    _raise(rule, problems)
    return [leaves for leaves, _ in flat.values()]


def _structures(gradients: PyTree, name: str, tree: PyTree) -> Iterator[str]:
    one, other = (dict(jtu.tree_leaves_with_path(t, is_leaf=is_place)) for t in (gradients, tree))
    yield from (f"{_named(p)}: only in {GRADIENTS}, not in {name}" for p in one if p not in other)
    yield from (f"{_named(p)}: only in {name}, not in {GRADIENTS}" for p in other if p not in one)
    if one.keys() == other.keys():
        kinds = (str(jtu.tree_structure(t, is_leaf=is_place))[:200] for t in (gradients, tree))
        yield "nodes have other types or static fields: {} in {}, {} in {}".format(
            *(x for pair in zip(kinds, (GRADIENTS, name), strict=True) for x in pair)
        )


def _raise_at(
    rule: Rule, tree: PyTree, problems: list[tuple[int, str]], heading: str | None = None
) -> None:
    if problems:
        paths = [path for path, _ in jtu.tree_leaves_with_path(tree, is_leaf=is_place)]
        _raise(rule, [f"{_named(paths[i])}: {problem}" for i, problem in problems], heading)


def _raise(rule: Rule, problems: list[str], heading: str | None = None) -> None:
    if not problems:
        return
    shown = problems[:_MOST_LINES]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    if heading is not None:
        raise ValueError(listed(heading, shown))
    heading = f"{rule.name}: gradients, state and weights are not those of one training:"
    raise ValueError(listed(heading, shown) + see(Section.mismatch))


def _named(path: tuple[Any, ...]) -> str:
    return path_string(path) or "(the whole tree)"
