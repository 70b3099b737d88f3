import difflib
import fnmatch
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import jax.tree_util as jtu
import optax
from jaxtyping import PyTree

from .._meant import meant
from .._pages import Section, see
from .._spec import WeightSpec
from .._weight import (
    Weight,
    is_trainable,
    is_weight,
    path_string,
    rebuilt,
    weights_with_paths,
)
from ..theory import (
    Alignment,
    Power,
    Role,
    as_family,
    density_exponent,
    depends_on_depth,
    depth_exponent,
    learning_rate_exponents,
)
from ..theory._family import Families, Family
from ..theory._rational import exact
from ._numbers import Scalar, check_number, known_number, lost, times, vanishes
from ._places import is_place
from ._rule import Rule
from ._stateless import stateless
from ._tree import for_each, without_frozen
from ._unannotated import Unannotated, with_unannotated


class GlobalRate:
    """One learning rate for all weights: what training without a prescription does."""

    def __repr__(self) -> str:
        return "global_rate"


global_rate = GlobalRate()

# By their own names too.
_OBJECTS = {
    **dict.fromkeys(("full", "full_alignment"), "full_alignment"),
    **dict.fromkeys(("none", "no_alignment"), "no_alignment"),
    **dict.fromkeys(("global", "global_rate"), "global_rate"),
}

Rates = Alignment | GlobalRate | Mapping[Role, Fraction] | Mapping[str, Any]


def scale_by_width(
    family: Families,
    rates: Rates,
    *,
    role_multipliers: Mapping[str, Scalar] | None = None,
    unannotated: Unannotated = "error",
) -> optax.GradientTransformation:
    r"""Multiplies each weight's update by its per-layer learning rate's factor.

    $$u \leftarrow \gamma\, r^{-c}\, u$$

    Put it behind any update rule of the family, and in front of the learning rate:

    ```python
    tx = optax.chain(
        optax.scale_by_adam(),
        sx.scale_by_width("adam", sx.full_alignment),
        optax.scale_by_learning_rate(3e-3),
    )
    ```

    **Arguments:**

    - `family`: how the size of the rule's updates follows from gradient and weight: `"sgd"`,
        `"adam"`, `"adafactor"`, a `theory.UpdateFamily`, or a mapping with one for each role, as
        [`scalex_eqx.theory.as_family`][] takes it.
    - `rates`: where the exponents $c$ come from. An `Alignment`: the largest stable learning
        rates under that assumption, from [`scalex_eqx.theory.learning_rate_exponents`][].
        `global_rate`: all zero. A mapping from role or path to exponent: your own. A path is
        slash-separated, may hold the wildcards `*`, `?` and `[...]`, and goes before the role;
        every weight of the model must be covered, and every path match a weight.
    - `role_multipliers`: the constants $\gamma$ by role or by path, as in `rates`; 1 where left
        out; floats or traced scalars.
    - `unannotated`: `"constant"` to take arrays without a scaling law as weights that don't grow;
        `"error"` refuses them.

    **Returns:** an `optax.GradientTransformation` over trees of weights. The update of a weight
    that is not trained is zero, whatever comes in.

    **Raises:** `ValueError` for an unknown family or kind of rates, and, from `init` and `update`,
    if the tree has arrays that no scaling law is known for, or a key of `rates` or
    `role_multipliers` is no role and matches no weight.
    """
    family = as_family(family)
    rates = _checked_rates(rates)
    multipliers = _checked_multipliers(role_multipliers or {})
    known = {key: known_number(gamma) for key, gamma in multipliers.items()}
    by_path = any(not isinstance(key, Role) for key in multipliers)
    rule = Rule(
        "scale_by_width",
        family=family,
        rates=rates,
        settings=(("role_multipliers", known),),
    )

    def factor(path: Callable[[], str], spec: WeightSpec, power: Power) -> Scalar:
        try:
            width_factor = spec.scale(power)
        except ValueError as error:
            raise ValueError(f"the learning rate of {path()}: {error}") from None
        gamma = multiplier(path() if by_path else "", spec.role, multipliers)
        return gamma * width_factor

    def each(tree: PyTree) -> Iterator[tuple[Callable[[], str], Weight, Scalar]]:
        return _factors(factor, family, rates, tree, by_path=by_path)

    def check(params: optax.Params) -> None:
        if isinstance(rates, tuple):
            _check_paths("rates", dict(rates), params)
        _check_paths("role_multipliers", multipliers, params)
        for path, weight, value in each(params):
            _check_factor(path, value, weight)

    def scale(updates, _):
        return _times_factors([x for _, _, x in each(updates)], updates)

    return with_unannotated(stateless(rule, scale, check, takes_complex=True), unannotated)


def _factors(
    factor: Callable[..., Scalar], family: Family, rates: Any, tree: PyTree, *, by_path: bool
) -> Iterator[tuple[Callable[[], str], Weight, Scalar]]:
    """Each trained weight with a function that gives its path, and its factor."""
    known: dict[Any, Scalar] = {}
    leaves = jtu.tree_leaves(tree, is_leaf=is_place)

    @functools.cache
    def paths() -> list[str]:
        with_paths = jtu.tree_leaves_with_path(tree, is_leaf=is_place)
        return [path_string(path) for path, _ in with_paths]

    for i, leaf in enumerate(leaves):
        if not _is_moved(leaf):
            continue

        def path(i: int = i) -> str:
            return paths()[i]

        # Weights of one law have one factor, unless the path decides.
        key = (leaf.spec, path() if by_path or isinstance(rates, tuple) else None)
        if key not in known:
            power = rate_power(key[1] or "", leaf.spec, family, rates)
            known[key] = factor(path, leaf.spec, power)
        yield path, leaf, known[key]


def _is_moved(leaf: Any) -> bool:
    return is_weight(leaf) and leaf.spec.is_trained and is_trainable(leaf.value)


def _check_factor(path: Callable[[], str], factor: Scalar, weight: Weight) -> None:
    known, dtype = known_number(factor), weight.value.dtype
    if known and vanishes(known, dtype):
        raise ValueError(
            f"{path()}: the learning rate's factor is {known:g} at the width ratio "
            f"{weight.spec.width_ratio}, and {lost(known, dtype)}; check the exponent and the "
            f"multiplier{see(Section.no_factor)}"
        )


def _times_factors(factors: list[Scalar], updates: PyTree) -> PyTree:
    """Each trained weight's update times its factor; zero for a weight that is not trained."""
    leaves, treedef = jtu.tree_flatten(updates, is_leaf=is_place)
    moved = [i for i, leaf in enumerate(leaves) if _is_moved(leaf)]
    values = for_each(times, factors, [leaves[i].value for i in moved])
    for i, value in zip(moved, values, strict=True):
        leaves[i] = rebuilt(leaves[i], value)
    return without_frozen(jtu.tree_unflatten(treedef, leaves))


def rate_power(path: str, spec: WeightSpec, family: Family, rates: Any) -> Power:
    """How a completed weight's learning rate follows its sizes.

    A prescription makes up for how the updates follow each size, through the gradient or by the
    rule itself: what the exponent $c$ of equal growth has of it, $p g + o$, is taken off the
    weight's own width and given to the sizes that it comes from. Depth and density have exponents
    of their own. Exponents that are given are those of the weight's own width.

    **Arguments:** those of `rate_exponent`.
    """
    power = spec.own(rate_exponent(path, spec, family, rates))
    if not isinstance(rates, Alignment):
        return power
    assert spec.role is not None and spec.parameterization is not None
    one, role = family.of_role(spec.role), spec.role
    natural = one.gradient_degree * spec.natural_gradient_power
    by_itself = natural + one.offset_power(role)
    depth = depth_exponent(spec.parameterization, one, rates)
    # Of the sum, what follows the width: the depth's share stands in the exponent of the depth.
    of_width = by_itself - Power(depth=by_itself.depth)
    density = Fraction(0) if spec.density is None else density_exponent(one, rates)
    by_size = Power(depth=depth, density=density)
    # Gradients that a layer scales are of another size than those the prescription is for.
    scaled = natural - one.gradient_degree * spec.gradient_power
    return power + spec.own(of_width.of_width(role)) - of_width + by_size + scaled


def rate_exponent(path: str, spec: WeightSpec, family: Family, rates: Any) -> Fraction:
    """The exponent $c$ of a completed weight's learning rate, $r^{-c}$.

    **Arguments:**

    - `path`, `spec`: of the weight.
    - `family`: of the rule whose updates are scaled.
    - `rates`: as a `Rule` holds them.
    """
    assert spec.role is not None and spec.parameterization is not None
    if isinstance(rates, GlobalRate):
        return Fraction(0)
    if isinstance(rates, Alignment):
        exponent = _prescription(spec.parameterization, family, rates)[spec.role]
        # The gradient goes through the forward factor, the prescription doesn't know of it.
        return exponent - family.of_role(spec.role).gradient_degree * spec.factor_exponent
    matching = {key: c for key, c in rates if not isinstance(key, Role) and _matches(path, key)}
    if len(set(matching.values())) > 1:
        said = ", ".join(f"{key!r} says {c}" for key, c in matching.items())
        raise ValueError(f"rates has several exponents for {path}: {said}; let one of them match")
    exponents = matching or {key: c for key, c in rates if key == spec.role}
    if not exponents:
        raise ValueError(
            f"rates has no exponent for {path}, whose role is {spec.role!s}; it names "
            f"{', '.join(key for key, _ in rates)}. Add the role or the path"
        )
    return next(iter(exponents.values()))


def multiplier(path: str, role: Role | None, multipliers: Mapping[Any, Any]) -> Any:
    r"""The constant $\gamma$ of the weight at `path`; 1 if none is given for it.

    **Raises:** `ValueError` if several paths match it, and don't say the same.
    """
    matching = {
        key: gamma
        for key, gamma in multipliers.items()
        if not isinstance(key, Role) and _matches(path, key)
    }
    if not matching:
        return multipliers.get(role, 1.0)
    first, *others = matching.values()
    # Of traced ones it isn't known whether they are equal.
    if any(not _is_same(first, other) for other in others):
        said = ", ".join(map(repr, matching))
        raise ValueError(f"role_multipliers has several for {path}: {said}; let one of them match")
    return first


def _is_same(one: Any, other: Any) -> bool:
    numbers = known_number(one), known_number(other)
    return one is other or (None not in numbers and numbers[0] == numbers[1])


def _matches(path: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(path, pattern)


def _check_paths(name: str, keys: Iterable[Role | str], params: PyTree) -> None:
    """Refuses keys for paths that the model doesn't have."""
    patterns = [key for key in keys if not isinstance(key, Role)]
    if not patterns:
        return
    paths = list(weights_with_paths(params))
    for key in patterns:
        if any(_matches(path, key) for path in paths):
            continue
        near = difflib.get_close_matches(key, [*paths, *Role], n=3, cutoff=0.4) or paths[:3]
        raise ValueError(
            f"{name}[{key!r}] is no role and matches no weight; there are {', '.join(near)}"
            f"{see(Section.no_match)}"
        )


_prescription = functools.lru_cache(learning_rate_exponents)


def _checked_rates(rates: Any) -> Any:
    if isinstance(rates, Alignment) and depends_on_depth(rates):
        raise ValueError(
            f"the exponents under alignment {rates.name!r} depend on the number of hidden layers, "
            "since its omega is not 1/2; give them by role: rates=scalex_eqx.theory.solve("
            "parameterization, family, alignment, depth=...).exponents"
        )
    if isinstance(rates, Alignment | GlobalRate):
        return rates
    if isinstance(rates, Mapping):
        return tuple(
            (_role_or_path(key, "rates"), exact(c, f"rates[{key!r}]")) for key, c in rates.items()
        )
    raise ValueError(
        f"rates is {rates!r}; expected an Alignment (full_alignment, no_alignment), global_rate, "
        f"or a mapping from role or path to exponent{meant(rates, _OBJECTS)}"
    )


def _role_or_path(key: Any, name: str) -> Role | str:
    if not isinstance(key, str):
        raise ValueError(
            f"{name} has the key {key!r}; expected a role or a path, which are strings"
        )
    return Role(key) if key in list(Role) else key


def _checked_multipliers(multipliers: Mapping[str, Scalar]) -> dict[Role | str, Scalar]:
    for key, gamma in multipliers.items():
        check_number(f"role_multipliers[{key!r}]", gamma)
    return {_role_or_path(key, "role_multipliers"): gamma for key, gamma in multipliers.items()}
