"""From three models of different widths to one whose every weight has its law."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any, TypeVar

import jax.tree_util as jtu
from jaxtyping import PyTree

from .._fused import Fused
from .._meant import meant
from .._pages import listed
from .._spec import WeightSpec
from .._weight import Tie, Weight, path_string
from ..theory import (
    Parameterization,
    Role,
    gradient_exponents,
    mean_field,
    mup,
    ntk,
    standard,
    u_mup,
)
from ..theory._power import GROWING
from ._assign import Options, Triple, assign, choose, likeness
from ._complete import complete
from ._drawn import find_drawn
from ._fused import check_parts, fused
from ._heads import head_errors
from ._nodes import Node, Path, find_nodes, is_node, sorted_strings
from ._ratio import infer_ratios
from ._readings_of_uses import ties_by_hand, with_readings
from ._shared import Use, find_uses, half_named, kept_tie_errors, tied_getters
from ._stacks import Stacks, branch_errors, deep_triples, find_stacks
from ._unit import counted_from_one, unit_errors

_OBJECTS = {law.name: law.name for law in (standard, ntk, mup, mean_field, u_mup)}

_Result = TypeVar("_Result")


def give_law(
    models: tuple[PyTree, PyTree, PyTree],
    labels: tuple[str, str, str],
    ratios: tuple[Fraction, Fraction] | None,
    parameterization: Parameterization,
    options: Options,
    deeper: tuple[PyTree, Fraction] | None = None,
    settle: Callable[[], PyTree] | None = None,
) -> PyTree:
    """The last of `models` with every weight's law completed; see `parameterize`.

    **Arguments:**

    - `models`: the model at the base, the probe and the wanted width.
    - `labels`: where they are, for errors.
    - `ratios`: of the probe and the wanted width to the base width; inferred if `None`.
    - `parameterization`, `options`: what the caller of `parameterize` gave.
    - `deeper`: a deeper model of the base width, and the ratio of the wanted depth to the base
        depth; `None` if all models have one depth.
    - `settle`: makes the base model once more; see `find_drawn`.
    """
    _check_parameterization(parameterization)
    stacks = None
    if deeper is not None:
        stacks = find_stacks(find_nodes(models[0]), find_nodes(deeper[0]), deeper[1])
    nodes, uses = _triples(models, labels, stacks), find_uses(models[2])
    if options.use is not None:
        nodes = with_readings(nodes, options.use, models[:2])
    ties = {path: nodes.pop(path) for path in list(nodes) if _is_tie(nodes[path])}
    places = _places(models, uses, stacks)
    chosen, errors = choose(options, _wanted(nodes), _wanted(places))
    drawn = find_drawn({**nodes, **places}, chosen, models[0], settle)
    chosen = dataclasses.replace(chosen, drawn=drawn)
    errors += head_errors(nodes, chosen)
    if ratios is None:
        ratios = infer_ratios(nodes, chosen)

    known: dict[Any, WeightSpec] = {}

    def spec_of(path: Path, triple: Triple) -> WeightSpec:
        like = likeness(path, triple, chosen)
        if like not in known:
            known[like] = assign(path, triple, chosen, *ratios)
        return known[like]

    specs = _each(spec_of, {**nodes, **places}, errors)
    if stacks is not None and not errors:
        ends = {path for path, spec in specs.items() if spec.ends_branch}
        errors += branch_errors(nodes, ends, chosen.branches)
    roles = {path: spec.role for path, spec in specs.items() if spec.role}
    tied, tie_errors = tied_getters(uses, roles)
    by_hand, carriers, hand_errors = ties_by_hand(nodes, specs, uses, has_tie=bool(ties))
    errors += hand_errors
    errors += [*tie_errors, *half_named(uses, chosen.frozen)]
    is_tied = bool(ties or tied or by_hand)
    errors += unit_errors(nodes, parameterization, is_tied=is_tied)
    if is_tied:
        errors += _other_readouts(path for path in nodes if roles.get(path) is Role.readout)
        parameterization = parameterization.tied()
    elif parameterization.unit is not None:
        every = {**nodes, **places}
        specs = {p: counted_from_one(s, every[p], parameterization) for p, s in specs.items()}

    of_width = ratios[1] if parameterization.unit is None else None
    back, readout_errors = _readout_ratio(specs, of_width, tied=is_tied)
    errors += readout_errors
    specs |= {path: dataclasses.replace(specs[path], carries_tie=True) for path in carriers}
    if options.keep_values:
        trained = {
            path: triple
            for path, triple in nodes.items()
            if path in specs and specs[path].is_trained
        }
        factor = _tie_factor(parameterization, back)
        errors += kept_tie_errors(ties, uses, tied, by_hand, trained, factor)
    # Weights of one law share its spec, which is then made once.
    law = functools.cache(functools.partial(_completed, readout=back, law=parameterization))

    def one(triple: Triple, spec: WeightSpec) -> Weight:
        return complete(triple, law(spec), ratios[1], keep=options.keep_values)

    def completed_at(path: Path, triple: Triple) -> Weight | Fused:
        if path in chosen.parts:
            return fused(triple, specs[path], chosen.parts[path], one)
        check_parts(path_string(path), triple, specs[path])
        return one(triple, specs[path])

    completed: dict[Path, Any] = _each(
        completed_at,
        {path: triple for path, triple in nodes.items() if path in specs},
        errors,
    )
    if errors:
        raise ValueError(listed("parameterize cannot give every weight a law:", errors))
    factor = 1.0 if options.keep_values else _tie_factor(parameterization, back)
    for path, tie in ties.items():
        own = tie.wanted if options.keep_values else tie.base
        completed[path] = Tie(own.leaf.factor * factor)
    for path, getter in tied.items():
        completed[path] = dataclasses.replace(getter, factor=factor)
    return replaced(models[2], completed)


def _check_parameterization(parameterization: Any) -> None:
    if not isinstance(parameterization, Parameterization):
        raise ValueError(
            f"parameterization is {parameterization!r}; expected a Parameterization such as "
            f"scalex_eqx.mup{meant(parameterization, _OBJECTS)}"
        )
    gradient_exponents(parameterization)  # Refuses one that is not stable at initialisation.


def _triples(
    models: tuple[PyTree, ...], labels: tuple[str, ...], stacks: Stacks | None
) -> dict[Path, Triple]:
    """The nodes at each path; they must be the same paths in all models, but for the depth."""
    found = [find_nodes(model) for model in models]
    if not any(found):
        raise ValueError(
            "the model is without a single Weight or floating-point array: there is nothing to "
            "scale"
        )
    of_one_depth = found if stacks is None else found[:2]
    common = set.intersection(*map(set, of_one_depth))
    extra = [
        f"{path} (only {label})"
        for label, nodes in zip(labels, of_one_depth, strict=False)
        for path in sorted_strings(set(nodes) - common)
    ]
    if extra:
        raise ValueError(
            "the models must have the same weights at every width, but there are "
            + ", ".join(dict.fromkeys(extra))
        )
    if stacks is not None:
        return deep_triples(found[0], found[1], found[2], stacks)
    # In the order of the tree.
    base, probe, wanted = found
    return {path: Triple(base[path], probe[path], node) for path, node in wanted.items()}


def _places(
    models: tuple[PyTree, ...], uses: Mapping[Path, Use], stacks: Stacks | None
) -> dict[Path, Triple]:
    """The places that second uses fill."""
    if not uses:
        return {}
    base, probe = (
        {path: use.node for path, use in find_uses(model).items()} for model in models[:2]
    )
    wanted = {path: use.node for path, use in uses.items()}
    if stacks is not None:
        return deep_triples(base, probe, wanted, dataclasses.replace(stacks, base=base.keys()))
    return {path: Triple(base[path], probe[path], node) for path, node in wanted.items()}


def _is_tie(triple: Triple) -> bool:
    return isinstance(triple.wanted.leaf, Tie)


def _wanted(triples: Mapping[Path, Triple]) -> dict[Path, Node]:
    return {path: triple.wanted for path, triple in triples.items()}


def _each(
    f: Callable[[Path, Triple], _Result], triples: Mapping[Path, Triple], errors: list[str]
) -> dict[Path, _Result]:
    """`f` of each triple, without those for which it raises, which are added to `errors`."""
    results = {}
    for path, triple in triples.items():
        try:
            results[path] = f(path, triple)
        except ValueError as error:
            errors.append(f"{path_string(path) or 'the model itself'}: {error}")
    return results


def _other_readouts(paths: Iterable[Path]) -> list[str]:
    """A second readout would have other exponents than the tied one, and so other gradients."""
    readouts = ", ".join(map(path_string, paths))
    if not readouts:
        return []
    return [
        f"the model has a tied readout and readouts of its own: {readouts}. They have other "
        "exponents (a + b is 1 for a tied one), so that gradients of two sizes would come back and "
        "the law has room for one; keep one of them, or, if it is a layer inside the model, say "
        'roles={path: "hidden"}'
    ]


def _readout_ratio(
    specs: Mapping[Path, WeightSpec], ratio: Fraction | None, *, tied: bool
) -> tuple[Fraction | None, list[str]]:
    """The rate at which the fan-in grows of the readout that all gradients come through.

    `ratio`, the width's, if the model has no readout; without a base model `None`.

    **Returns:** the rate, and an error if the readouts have several.
    """
    role = Role.embedding if tied else Role.readout
    rates = {
        path: spec.width_ratio
        for path, spec in specs.items()
        if spec.role is role and spec.width_ratio is not None
    }
    distinct = set(rates.values())
    if len(distinct) < 2:
        return next(iter(distinct), ratio), []
    listing = ", ".join(f"{path_string(path)} by {rate}" for path, rate in rates.items())
    what = "embeddings of a model with a tied readout" if tied else "readouts"
    return ratio, [
        f"the {what} grow at different rates: {listing}. Gradients come through one readout; a "
        'matrix inside the model that only looks like one is roles={path: "hidden"}'
    ]


def _completed(spec: WeightSpec, readout: Fraction | None, law: Parameterization) -> WeightSpec:
    """The spec with its law, of a weight whose gradient comes through a readout of that rate."""
    is_before = spec.role is not None and "readout" in GROWING[spec.role]
    if readout is None or not is_before or spec.width_ratio == readout:
        return dataclasses.replace(spec, parameterization=law)
    sizes = (*spec.sizes, ("readout", readout))
    return dataclasses.replace(spec, parameterization=law, sizes=sizes)


def _tie_factor(parameterization: Parameterization, ratio: Fraction | None) -> float:
    """What a tied embedding is multiplied by where it is used as readout; 1 if nothing is tied."""
    # The effective embedding already has its own multiplier.
    return float(1 if ratio is None else ratio) ** -float(parameterization.tie_exponent)


def replaced(model: PyTree, leaves: Mapping[Path, Any]) -> PyTree:
    return jtu.tree_map_with_path(
        lambda path, leaf: leaves.get(path, leaf),
        model,
        is_leaf=lambda path, leaf: path in leaves or is_node(leaf),
        is_leaf_takes_path=True,
    )
