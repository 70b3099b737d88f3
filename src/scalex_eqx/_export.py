import dataclasses
import json
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import jax.tree_util as jtu
from jaxtyping import PyTree

from ._differences import Difference, differences
from ._fingerprint import by_path, laws
from ._pages import Section, listed, see
from ._weight import weights_with_paths
from .optim import Rule
from .theory import Alignment, Budget, FamilyByRole, LayerExponents, Power, UpdateFamily
from .theory._budget import QUANTITIES, said_width
from .theory._power import SIZES

_FORMAT = "scalex_eqx laws"
_VERSION = 1
_PARTS = ("laws", "rules", "states")
_RULE_FIELDS = ("rule", "family", "rates", "keeps")


def export_laws(tree: PyTree) -> dict[str, Any]:
    """The scaling laws and update rules of `tree` as data for JSON.

    Keep it with arrays that another library writes, and hand it to [`scalex_eqx.check_laws`][]
    before they are used.

    **Arguments:**

    - `tree`: a model, an optimizer's state, or several things in a tuple or dictionary; of arrays
        or of shapes.

    **Returns:** a dictionary with a `format` and a `version`, the law of every weight under
    `laws`, and, where there are any, what each update rule is under `rules` and the kind of each
    part of the optimizer's state under `states`. Exact numbers are strings such as `"1/2"`.
    """
    owners = list(named_tuples(tree))
    parts = {"laws": laws(tree), "rules": _rules(tree, dict(owners)), "states": _states(owners)}
    filled = {name: part for name, part in parts.items() if part or name == "laws"}
    return {"format": _FORMAT, "version": _VERSION, **filled}


def check_laws(
    tree: PyTree, exported: Mapping[str, Any] | str | bytes, *, accept: Collection[str] = ()
) -> None:
    """Refuses a tree whose scaling laws or update rules aren't those that were exported.

    **Arguments:**

    - `tree`: what the arrays are for.
    - `exported`: what [`scalex_eqx.export_laws`][] has returned, or the JSON text of it.
    - `accept`: what may differ in update rules: names of their settings, such as `"b2"`, or
        `"rates"`, `"family"`, `"rule"`, `"state"`.

    **Raises:** `ValueError` that lists every difference with its path, what was exported and what
    is in the tree; or if `exported` is something else, or of a version that isn't known.

    **Warns:** if a rule that keeps no arrays has other settings, such as another learning rate.
    """
    data = read_exported(exported)
    kind, problems = compared(data, export_laws(tree), "in the export", "in the tree", accept)
    if problems:
        raise ValueError(
            listed(f"the tree has {kind} than the export:", problems) + see(Section.checkpoint)
        )


def read_exported(exported: Any) -> dict[str, Any]:
    """What was exported, once it is known to be that."""
    data = exported
    if isinstance(exported, str | bytes):
        try:
            data = json.loads(exported)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the exported laws are no JSON: {error}{_SEE_EXPORT}") from None
    if not isinstance(data, Mapping) or data.get("format") != _FORMAT:
        raise ValueError(
            f"the exported laws have no format {_FORMAT!r}; expected what scalex_eqx.export_laws "
            f"returns, or its JSON{_SEE_EXPORT}"
        )
    version = data.get("version")
    unknown = [str(key) for key in data if key not in ("format", "version", *_PARTS)]
    if version != _VERSION or unknown:
        what = f"the parts {', '.join(unknown)}" if version == _VERSION else f"version {version}"
        raise ValueError(
            f"the exported laws have {what}; this scalex_eqx knows version {_VERSION}: use the "
            f"one that wrote them, or a newer one{_SEE_EXPORT}"
        )
    for part in _PARTS:
        entries = data.get(part, None if part == "laws" else {})
        if not isinstance(entries, Mapping) or not all(
            isinstance(entry, Mapping) for entry in entries.values()
        ):
            raise ValueError(f"the exported laws are malformed at {part!r}{_SEE_EXPORT}")
    return dict(data)


_SEE_EXPORT = see(Section.exported)


def compared(
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    name: str,
    other_name: str,
    accept: Collection[str] = (),
    *,
    stacklevel: int = 3,
) -> tuple[str, list[str]]:
    """What differs in two exports and may not, and of what kind it is; warns of what may."""
    accept = {accept} if isinstance(accept, str) else set(accept)
    _check_accepted(accept, one, other)
    found = {
        part: differences(one.get(part, {}), other.get(part, {}), name, other_name)
        for part in _PARTS
    }
    if found["laws"]:
        return "weights with other scaling laws", [str(d) for d in found["laws"]]
    open_ones = [d for d in found["rules"] + found["states"] if d.field not in accept]
    # One that keeps no arrays leaves nothing behind that its numbers would give a meaning.
    harmless = [d for d in open_ones if _is_harmless(d, one, other)]
    if harmless:
        heading = "settings of the optimizer have changed:"
        warnings.warn(listed(heading, map(_acceptable, harmless)), stacklevel=stacklevel)
    return "another optimizer", [_acceptable(d) for d in open_ones if d not in harmless]


def _is_harmless(difference: Difference, *exports: Mapping[str, Any]) -> bool:
    rules = [export.get("rules", {}).get(difference.path, {}) for export in exports]
    is_number = difference.field not in ("", "state", *_RULE_FIELDS)
    return is_number and not any(rule.get("keeps") for rule in rules)


def _acceptable(difference: Difference) -> str:
    if not difference.field:
        return str(difference)
    return f"{difference}; if that is meant, pass accept=({difference.field!r},)"


def _check_accepted(accept: Collection[str], *exports: Mapping[str, Any]) -> None:
    known = {
        field
        for export in exports
        for part in ("rules", "states")
        for entry in export.get(part, {}).values()
        for field in entry
    }
    for field in sorted(set(accept) - known):
        there = f"there are {', '.join(sorted(known))}" if known else "there are no update rules"
        raise ValueError(
            f"accept names {field!r}, which no update rule has; {there}{see(Section.checkpoint)}"
        )


def _states(owners: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    """The kind of every part of an optimizer's state: what tells Adam's moments from another's."""
    return by_path((path, {"state": type(node).__name__}) for path, node in owners)


def named_tuples(tree: PyTree, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """Path and node of every named tuple of `tree`, also within others: parts of a state."""

    def is_one(node: Any) -> bool:
        return node is not tree and bool(getattr(node, "_fields", ())) and isinstance(node, tuple)

    if not path and isinstance(tree, tuple) and getattr(tree, "_fields", ()):
        yield path, tree
    for inner, node in jtu.tree_leaves_with_path(tree, is_leaf=is_one):
        if is_one(node):
            yield (*path, *inner), node
            yield from named_tuples(node, (*path, *inner))


def _rules(tree: PyTree, owners: Mapping[Any, Any]) -> dict[str, Any]:
    nodes = jtu.tree_leaves_with_path(tree, is_leaf=lambda node: isinstance(node, Rule))
    return by_path(
        (path, _rule(node, owners.get(path[:-1]))) for path, node in nodes if isinstance(node, Rule)
    )


def _rule(rule: Rule, state: Any) -> dict[str, Any]:
    """What a rule is, by name; `state` is the node that it stands in.

    A setting that comes to a rule later has to be left out at its default, as `frozen` is in a
    law: otherwise it would differ from every export made before.
    """
    data: dict[str, Any] = {"rule": rule.name}
    if rule.fields:
        data["keeps"] = [name for name, _ in rule.fields]
    if rule.roles is not None:
        data["roles"] = _plain(rule.roles)
    if rule.family is not None:
        data["family"] = _plain(rule.family)
    if rule.rates is not None:
        data["rates"] = _plain(dict(rule.rates) if isinstance(rule.rates, tuple) else rule.rates)
    data |= {name: _plain(value) for name, value in rule.settings}
    for constant in rule.constants:
        value = _by_weight(rule, constant, state) if callable(constant.value) else constant.value
        data[constant.name] = _plain(value)
        if constant.law:
            data[f"{constant.name}'s law"] = constant.law
    return data


def _by_weight(rule: Rule, constant: Any, state: Any) -> Any:
    """The numbers that a function of the spec gives for the weights that the rule keeps."""
    fields = [name for name, _ in rule.fields if hasattr(state, name)]
    weights = weights_with_paths(getattr(state, fields[0])) if fields else {}
    return {path: constant.base(w.spec) for path, w in weights.items() if w.spec.is_trained}


def _plain(value: Any) -> Any:
    """Data for JSON that is equal where the values are."""
    if value is None or isinstance(value, bool | int | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    # Names are labels: the numbers tell whether two are the same.
    if isinstance(value, Alignment | LayerExponents | UpdateFamily):
        fields = (f.name for f in dataclasses.fields(value) if f.compare and f.name != "name")
        return {
            name: _plain(getattr(value, name))
            for name in fields
            if getattr(value, name) not in _DEFAULTS
        }
    if isinstance(value, FamilyByRole):
        return _plain(dict(value.families))
    if isinstance(value, Power):
        return {size: str(value[size]) for size in SIZES if value[size]}
    if isinstance(value, Budget):
        return _budget(value)
    if isinstance(value, Fraction):
        return str(value)
    return getattr(value, "__qualname__", None) or _repr_or_type(value)


# Of an offset, and of a norm.
_DEFAULTS = (LayerExponents(0, 0, 0), "entries")


def _budget(budget: Budget) -> dict[str, Any]:
    """What it does, whatever its rules are called and the base's sizes are."""
    rule = budget.rule
    data = {"batch": str(budget.batch_ratio), "tokens": str(budget.token_ratio)}
    data |= {quantity: str(getattr(rule, quantity)) for quantity in QUANTITIES}
    if rule.decay is not None:
        width = rule.decay.width
        data["decay"] = f"{rule.decay.growth} {'' if width is None else said_width(width)}".strip()
    return data


def _repr_or_type(value: Any) -> str:
    """Without the address that objects have by default, another one in each process."""
    plain = type(value).__repr__ is object.__repr__
    return type(value).__qualname__ if plain else repr(value)
