"""Weights that `equinox.nn.Shared` uses a second time."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import equinox as eqx
import jax
import jax.tree_util as jtu
from jax.extend.core import Var
from jaxtyping import PyTree

from .._pages import Section, see
from .._weight import Tie, is_weight, not_an_array, path_string
from ..theory import Role
from ._assign import Triple
from ._nodes import Node, Path, find_nodes

_PYTREE = (jtu.GetAttrKey("pytree"),)
_GET = (jtu.GetAttrKey("get"),)


@dataclasses.dataclass(frozen=True)
class Use:
    """A second use of a weight: a place that an `equinox.nn.Shared` fills.

    **Arguments:**

    - `node`: what stands there once it is filled.
    - `sources`: the paths of the arrays that its value is computed from.
    - `getter`: the path of the `get` that computes it.
    - `get`: that itself.
    - `index`: which leaf of the getter's result it is.
    """

    node: Node
    sources: frozenset[Path]
    getter: Path
    get: Callable[[PyTree], PyTree]
    index: int


@dataclasses.dataclass(frozen=True)
class ScaledGet:
    """The `get` of an `equinox.nn.Shared`, with a factor on some leaves of its result."""

    get: Callable[[PyTree], PyTree]
    factor: float
    indices: frozenset[int]

    def __call__(self, pytree: PyTree) -> PyTree:
        leaves, structure = jtu.tree_flatten(self.get(pytree), is_leaf=is_weight)
        if any(map(is_weight, leaves)):
            raise TypeError(not_an_array("a second use through equinox.nn.Shared"))
        if self.factor != 1.0:
            leaves = [self.factor * x if i in self.indices else x for i, x in enumerate(leaves)]
        return jtu.tree_unflatten(structure, leaves)


def is_tie(node: Any) -> bool:
    """Whether `node` holds the factor of an embedding's second use; made for `is_leaf`."""
    return isinstance(node, Tie | ScaledGet)


def find_uses(model: PyTree) -> dict[Path, Use]:
    """Every second use in `model` of a trainable array, by the path of its place."""
    return {
        path: use
        for prefix, shared in _find_shared(model)
        for path, use in _uses(prefix, eqx.filter_eval_shape(lambda x: x, shared))
    }


def _find_shared(tree: PyTree, path: Path = ()) -> Iterator[tuple[Path, eqx.nn.Shared]]:
    if isinstance(tree, eqx.nn.Shared):
        yield path, tree

    def is_inner(x: Any) -> bool:
        return isinstance(x, eqx.nn.Shared) and x is not tree

    for key, leaf in jtu.tree_leaves_with_path(tree, is_leaf=is_inner):
        if is_inner(leaf):
            yield from _find_shared(leaf, (*path, *key))


def _uses(prefix: Path, shared: eqx.nn.Shared) -> Iterator[tuple[Path, Use]]:
    filled = eqx.filter_eval_shape(lambda x: x(), shared)
    nodes = find_nodes(filled)
    places = jtu.tree_leaves(
        shared.where(jtu.tree_map_with_path(lambda path, _: _At(path), filled))
    )
    sources = _sources(shared)
    for index, place in enumerate(places):
        if place.path in nodes:
            yield (
                (*prefix, *_PYTREE, *place.path),
                Use(
                    nodes[place.path],
                    frozenset((*prefix, *_PYTREE, *path) for path in sources[index]),
                    (*prefix, *_GET),
                    shared.get,
                    index,
                ),
            )


@dataclasses.dataclass(frozen=True)
class _At:
    """A leaf's path, as a leaf."""

    path: Path


def _sources(shared: eqx.nn.Shared) -> list[set[Path]]:
    """For each leaf of the getter's result, the arrays that it depends on."""
    closed, dynamic, static = eqx.filter_make_jaxpr(shared.get)(shared.pytree)
    arrays = [path for path, leaf in jtu.tree_leaves_with_path(shared.pytree) if _is_array(leaf)]
    known = dict(zip(closed.jaxpr.invars, ({path} for path in arrays), strict=True))

    def of(variables: Any) -> set[Path]:
        # Literals cannot be looked up, and depend on nothing.
        found = (known.get(v, set()) for v in variables if isinstance(v, Var))
        return set().union(*found)

    for equation in closed.jaxpr.eqns:
        known |= dict.fromkeys(equation.outvars, of(equation.invars))
    outputs = iter([of([variable]) for variable in closed.jaxpr.outvars])
    return [
        next(outputs) if _is_array(leaf) else set()
        for leaf in jtu.tree_leaves(eqx.combine(dynamic, static))
    ]


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def tied_getters(
    uses: Mapping[Path, Use], roles: Mapping[Path, Role]
) -> tuple[dict[Path, ScaledGet], list[str]]:
    """The getters that use an embedding as readout, with a factor that is still one.

    **Arguments:**

    - `uses`: the second uses, by path.
    - `roles`: of arrays and of second uses. Those without one have errors of their own.

    **Returns:** the getters by their paths, and an error for each second use that
    has no law.
    """
    tied: dict[Path, ScaledGet] = {}
    errors = []
    for path, use in uses.items():
        sources = {_role(roles, source) for source in use.sources}
        if path not in roles or None in sources or sources == {roles[path]}:
            continue
        if sources == {Role.embedding} and roles[path] is Role.readout:
            before = tied.get(use.getter, ScaledGet(use.get, 1.0, frozenset()))
            tied[use.getter] = dataclasses.replace(before, indices=before.indices | {use.index})
        else:
            errors.append(
                f"{path_string(path)}: used as {roles[path]}, which equinox.nn.Shared computes "
                f"from {_listed(use.sources, roles)}; the uses of a shared weight must have one "
                "role, or the weight must be an embedding that is used as readout as well, and "
                "stay in the embedding's place"
            )
    return tied, errors


def second_factor(node: Any) -> float:
    """What a second use is multiplied by, if `node` is the `get` of one; else 1."""
    return node.factor * second_factor(node.get) if isinstance(node, ScaledGet) else 1.0


def kept_tie_errors(
    ties: Mapping[Path, Triple],
    uses: Mapping[Path, Use],
    tied: Mapping[Path, ScaledGet],
    by_hand: Sequence[Path],
    trained: Mapping[Path, Triple],
    law: float,
) -> list[str]:
    """An error for each tie of a trained model which has another factor than the law's.

    A multiplier moves into the value of its weight; that of a second use has no value to move to.
    With another factor each step of the embedding moves the logits by another amount than in the
    base model, unless the embedding is not trained.

    **Arguments:**

    - `ties`: the `Tie` nodes. Which embedding one is for is not in the tree: it may be any that
        declares its role.
    - `uses`, `tied`: the second uses, and the getters of those that are readouts.
    - `by_hand`: the embeddings that the program uses as readout itself, with no factor.
    - `trained`: the weights that are.
    - `law`: the factor that the law asks for, relative to the base model.
    """
    declared = [
        path
        for path, triple in trained.items()
        if is_weight(triple.wanted.leaf) and triple.wanted.leaf.spec.role is Role.embedding
    ]
    found = [
        (path, triple.wanted.leaf.factor, triple.base.leaf.factor * law, declared)
        for path, triple in ties.items()
    ]
    found += [
        (path, second_factor(getter.get), law, sorted(_sources_of(uses, path) & trained.keys()))
        for path, getter in tied.items()
    ]
    found += [(path, 1.0, law, [path]) for path in by_hand if path in trained]
    return [
        f"{path_string(path)}: the tie has the factor {own:.4g}, and the law asks for "
        f"{expected:.4g}: with the base model's learning rate, steps of "
        f"{_one_of(embeddings)} would move the logits {own / expected:.4g} times as far as there. "
        f"Freeze the embedding, or let the base be of the model's own width{see(Section.kept_tie)}"
        for path, own, expected, embeddings in found
        if embeddings and not math.isclose(own, expected, rel_tol=1e-6)
    ]


def _one_of(paths: Iterable[Path]) -> str:
    names = [path_string(path) for path in paths]
    return names[0] if len(names) == 1 else f"{' or '.join(names)}, whichever is tied,"


def _sources_of(uses: Mapping[Path, Use], getter: Path) -> set[Path]:
    """The paths of the weights, or of their values, that a getter computes from."""
    sources = {source for use in uses.values() if use.getter == getter for source in use.sources}
    return sources | {source[:-1] for source in sources}


def half_named(uses: Mapping[Path, Use], frozen: Set[Path]) -> list[str]:
    """An error for each second use among `frozen` that is computed from what is not."""
    return [
        f"{path_string(path)}: frozen or unfrozen, but equinox.nn.Shared computes it from "
        f"{', '.join(sorted(map(path_string, others)))}, which is not; name that as well, or "
        "neither"
        for path, use in uses.items()
        if path in frozen
        and (others := {source for source in use.sources if not {source, source[:-1]} & frozen})
    ]


def _role(roles: Mapping[Path, Role], source: Path) -> Role | None:
    """The role of an array; that of the `Weight` that it is the value of, if it is one."""
    return roles.get(source, roles.get(source[:-1]))


def _listed(sources: frozenset[Path], roles: Mapping[Path, Role]) -> str:
    found = sorted(f"{path_string(source)} ({_role(roles, source)})" for source in sources)
    return ", ".join(found) or "no array"
