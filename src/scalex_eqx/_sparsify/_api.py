import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.core import Tracer
from jaxtyping import PRNGKeyArray, PyTree

from .._pages import listed
from .._parameterize._nodes import Node, Path, find_nodes
from .._parameterize._select import select
from .._spec import WeightSpec
from .._weight import Masked, Weight, is_array, is_weight, path_string, require_complete
from ..ops._sharded import placed_like
from ..theory import Role
from ..theory._density import DENSITY_SPREAD, parse_density
from ._draw import drawn, keeps, sides

Density = Fraction | int | float | str
Densities = Density | Mapping[Any, Any] | Callable[[str, Any], Any]
"""One for the matrices of the trunk, or by role, path pattern or module type, or a function."""

_VALUES = ("rescale", "keep")


def sparsify(
    model: PyTree,
    density: Densities,
    *,
    key: PRNGKeyArray,
    base_density: Densities | None = 1,
    pattern: str = "unstructured",
    values: str = "rescale",
) -> PyTree:
    r"""`model` with static random masks on some weights, and with the law of their density.

    $$W = M \odot w, \qquad w \sim \sigma\, r^{-b}\, m_\rho^{-1/2}, \qquad
    \eta \sim r^{-c}\, m_\rho^{-c_\rho}, \qquad m_\rho = \rho / \rho_\text{base}$$

    with $c_\rho$ from [`scalex_eqx.theory.density_exponent`][]: what was tuned at the base density
    then holds at the other. A number of entries is exact, $\rho$ the share of them that is kept,
    and the law is that of this share.

    ```python
    model = sx.parameterize(make, width=1024, base_width=64, parameterization=sx.mup)
    model = sx.sparsify(model, "1/16", key=jax.random.key(1))
    ```

    **Arguments:**

    - `model`: from `parameterize`.
    - `density`: how much is kept, more than 0 and at most 1. A single one is for all weights of
        role `hidden`; embeddings, readouts, biases and gains stay dense. A mapping has one for each
        of its keys: `"hidden"`, a path pattern or a module type as in
        [`scalex_eqx.parameterize`][], which go before the role. A function is called with path and
        array and returns one or `None`.
    - `key`: what the masks are drawn from; each weight and each layer of a stack has its own.
    - `base_density`: that of the model that was tuned, a number, or as `density`. `None` if nothing
        is to follow the density: the law of the width alone, for comparisons.
    - `pattern`: `"unstructured"`: any entries of the matrix. `"balanced"`: as many for each output.
        `"4x4"`: blocks of 4 outputs by 4 inputs. `"2:4"`: two of each four inputs that follow each
        other.
    - `values`: `"rescale"` for a fresh draw, `"keep"` for a model that has been trained, whose
        values stay where they are kept.

    **Returns:** the model, with a [`scalex_eqx.Masked`][] in place of each such
    [`scalex_eqx.Weight`][]. Works under `jit` and `vmap`.

    **Raises:** `ValueError`, listing every path: for a model without its laws, a density out of
    range, a pattern that doesn't fit, weights that are masked already or are no matrices of the
    trunk, keys that match nothing, and outputs that would have no entry at all.
    """
    nodes = _nodes(model)
    errors: list[str] = []
    chosen = _densities("density", density, nodes, errors)
    bases = _bases(base_density, nodes, errors)
    masks: dict[Path, Any] = {}
    for path, wanted in _each(chosen, nodes, errors):
        spec, shape = nodes[path].leaf.spec, nodes[path].array.shape
        try:
            achieved = keeps(pattern, wanted, spec, shape)
            _check_count(achieved, spec, shape)
        except ValueError as error:
            errors.append(f"{path_string(path)}: {error}")
            continue
        own = jax.random.fold_in(key, zlib.crc32(path_string(path).encode()))
        masks[path] = _Mask(drawn(own, pattern, achieved, spec, shape), achieved)
    return _masked("sparsify", model, nodes, masks, bases, values, errors)


def with_masks(
    model: PyTree,
    masks: Mapping[str, Any],
    *,
    base_density: Densities | None = 1,
    values: str = "rescale",
) -> PyTree:
    """`model` with masks of your own on some weights, and with the law of their density.

    **Arguments:**

    - `model`, `base_density`, `values`: as for [`scalex_eqx.sparsify`][].
    - `masks`: by the weight's path, arrays of truth values of the weight's shape; what is true is
        kept. Layers of a stack have to keep equally many entries. Their values must be known: not
        under `jit`.

    **Returns:** the model.

    **Raises:** `ValueError` as `sparsify` does, and for masks of another shape or dtype.
    """
    nodes = _nodes(model)
    errors: list[str] = []
    bases = _bases(base_density, nodes, errors)
    by_name = {path_string(path): path for path in nodes}
    given: dict[Path, Any] = {}
    for name, mask in masks.items():
        if name not in by_name:
            errors.append(f"masks[{name!r}] matches no weight of the model")
            continue
        given[by_name[name]] = mask
    found: dict[Path, Any] = {}
    for path, mask in _each(given, nodes, errors):
        try:
            found[path] = _given(mask, nodes[path].leaf)
        except ValueError as error:
            errors.append(f"{path_string(path)}: {error}")
    return _masked("with_masks", model, nodes, found, bases, values, errors)


@dataclasses.dataclass(frozen=True)
class _Mask:
    array: Any
    density: Fraction


def _nodes(model: PyTree) -> dict[Path, Node]:
    require_complete(model)
    return {path: node for path, node in find_nodes(model).items() if is_weight(node.leaf)}


def _densities(
    name: str, given: Any, nodes: Mapping[Path, Node], errors: list[str]
) -> dict[Path, Fraction]:
    if not isinstance(given, Mapping) and not callable(given):
        one = parse_density(given, name)
        return {path: one for path, node in nodes.items() if _is_hidden(node)}
    by_role, rest = {}, given
    if isinstance(given, Mapping):
        roles = list(Role)
        by_role = {
            key: parse_density(x, f"{name}[{key!r}]") for key, x in given.items() if key in roles
        }
        rest = {key: value for key, value in given.items() if key not in roles}
    chosen, wrong = select(name, rest, nodes, functools.partial(parse_density, name="a density"))
    errors += wrong
    for role, one in by_role.items():
        own = [path for path, node in nodes.items() if node.leaf.spec.role == role]
        if not own:
            errors.append(f"{name}[{role!r}] matches no weight of the model")
        chosen = {**dict.fromkeys(own, one), **chosen}
    return chosen


def _bases(
    given: Any, nodes: Mapping[Path, Node], errors: list[str]
) -> Callable[[Path], Fraction | None]:
    if given is None:
        return lambda path: None
    found = _densities("base_density", given, nodes, errors)
    return lambda path: found.get(path, Fraction(1))


def _is_hidden(node: Node) -> bool:
    return node.leaf.spec.role is Role.hidden


def _each(
    chosen: Mapping[Path, Any], nodes: Mapping[Path, Node], errors: list[str]
) -> Iterator[tuple[Path, Any]]:
    """Those of the chosen weights that may be masked."""
    for path, value in chosen.items():
        node = nodes[path]
        if type(node.leaf) is Masked:
            errors.append(f"{path_string(path)}: is masked already; start from the dense model")
        elif not _is_hidden(node):
            errors.append(
                f"{path_string(path)}: has the role {node.leaf.spec.role}, and the law of the "
                "density is that of the matrices of the trunk, of role hidden; leave it dense"
            )
        elif is_array(node.array):
            yield path, value
    if not chosen and not errors:
        errors.append("no weight of the model is chosen; expected one of role hidden at least")


def _check_count(density: Fraction, spec: WeightSpec, shape: tuple[int, ...]) -> None:
    fan_out, fan_in = sides(spec, shape)
    if density * fan_in < 1:
        raise ValueError(
            f"density {density} of {fan_in} inputs leaves less than one for each of {fan_out} "
            "outputs; expected one or more: take a larger density"
        )


def _given(mask: Any, weight: Weight) -> _Mask:
    if isinstance(mask, Tracer):
        raise ValueError(
            "the mask is traced, and its density unknown; call with_masks outside of jit"
        )
    array, shape = np.asarray(mask), weight.value.shape
    if array.dtype != np.bool_ or array.shape != shape:
        raise ValueError(
            f"the mask is {array.dtype}[{','.join(map(str, array.shape))}]; expected "
            f"bool[{','.join(map(str, shape))}]"
        )
    spec = weight.spec
    counts = {int(one.sum()) for one in array.reshape(-1, np.prod(sides(spec, shape), dtype=int))}
    if len(counts) > 1:
        raise ValueError(
            f"the stacked masks keep from {min(counts)} to {max(counts)} entries; expected equally "
            "many: layers of one stack have one law"
        )
    kept = Fraction(counts.pop(), int(np.prod(sides(spec, shape))))
    if not kept:
        raise ValueError("the mask keeps nothing; expected one entry for each output at least")
    return _Mask(jnp.asarray(array), kept)


def _unconnected(mask: Any, spec: WeightSpec) -> int:
    """How many outputs have no entry; 0 where that is not known."""
    if isinstance(mask, Tracer | jax.ShapeDtypeStruct):
        return 0
    return int(jnp.sum(~jnp.any(mask, axis=spec.fan_in)))


def _masked(
    name: str,
    model: PyTree,
    nodes: Mapping[Path, Node],
    masks: Mapping[Path, _Mask],
    bases: Callable[[Path], Fraction | None],
    values: Any,
    errors: list[str],
) -> PyTree:
    if values not in _VALUES:
        errors.append(f'values is {values!r}; expected "rescale" or "keep"')
    for path, mask in masks.items():
        empty = _unconnected(mask.array, nodes[path].leaf.spec)
        if empty:
            errors.append(
                f"{path_string(path)}: {empty} outputs have no entry at density {mask.density}; "
                "expected one each at least: take a larger density, or pattern='balanced'"
            )
    if errors:
        raise ValueError(listed(f"{name} cannot mask the model:", errors))

    def on_leaf(path: Path, leaf: Any) -> Any:
        return _made(leaf, masks[path], bases(path), values) if path in masks else leaf

    return jtu.tree_map_with_path(on_leaf, model, is_leaf=is_weight)


def _made(weight: Weight, mask: _Mask, base: Fraction | None, values: str) -> Masked:
    ratio = Fraction(1) if base is None else mask.density / base
    sizes = weight.spec.sizes if ratio == 1 else (*weight.spec.sizes, ("density", ratio))
    spec = dataclasses.replace(weight.spec, density=mask.density, sizes=sizes)
    factor = spec.scale(DENSITY_SPREAD) if values == "rescale" else 1.0
    if values == "keep":
        spec = dataclasses.replace(spec, std=None)
    value = weight.value if factor == 1.0 else factor * weight.value
    array = placed_like(weight.value, mask.array)
    return Masked(jnp.where(array, value, jnp.zeros((), value.dtype)), spec, array)
