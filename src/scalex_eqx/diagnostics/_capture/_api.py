from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from ..._traced import traced
from ..._weight import Masked, Weight, is_weight, path_string
from ...theory import Role
from .._columns import columns
from ._flow import flow
from ._origin import CONSTANT, DATA, Origin
from ._program import NotFollowed, Site, follow, unfollowed
from ._run import ProductAt, run
from ._use import Use, stack_at, use_at


class Captured(eqx.Module):
    """What a forward pass returned, and every use that it made of every weight.

    Printed, it is a table of the uses.

    **Arguments:**

    - `result`: what `apply` returned.
    - `uses`: by the weight's path its uses, both in the order in which the pass reaches them,
        until `jit` sorts the paths. A tied embedding has two.
    - `not_followed`: the weights whose uses were not all found, with the reason. A matrix that is
        multiplied by an input entry by entry is among them: where its sum is taken is not seen.
        So is a weight that isn't used: each that is trained has a use or is named here.
    - `flow`: pairs of paths of matrices: what comes out of the first goes on to reach the second,
        with no other between them. A readout's only reaches the result. Those that stay at every
        width count as no matrix here.
    """

    result: PyTree
    uses: dict[str, tuple[Use, ...]]
    not_followed: tuple[NotFollowed, ...] = eqx.field(static=True)
    flow: tuple[tuple[str, str], ...] = eqx.field(static=True, default=())

    def __str__(self) -> str:
        rows = [["path", "use", "fan-in", "weight", "input", "output"]]
        for path, uses in self.uses.items():
            rows += [[path, *_cells(use)] for use in uses] or [[path, "not used", *["-"] * 4]]
        lost = [f"not followed: {entry.path} {entry.reason}" for entry in self.not_followed]
        return "\n".join([columns(rows, text=2), *lost])


def capture(apply: Callable[..., Any], model: PyTree, *inputs: Any) -> Captured:
    r"""Runs `apply(model, *inputs)` and returns, beside its result, what each weight meets.

    ```python
    def apply(model, x):
        return jax.vmap(sx.resolve(model))(x)

    captured = sx.diagnostics.capture(apply, model, x)
    [use] = captured.uses["layers/0/weight"]
    use.weight, use.input, use.output
    ```

    `apply` is traced, and each [`scalex_eqx.Weight`][] followed to where it meets a value that
    depends on the inputs: a product, a convolution, a lookup of rows, or an elementwise operation
    with a gain or a bias. On the way anything may happen to it that doesn't depend on the inputs
    (a multiplier, a transpose, a mask), and what arrives is what is captured. It is followed
    into `jit`, `jax.checkpoint`, functions with custom derivatives, the branches of `cond` and
    `switch`, and `scan`, where every turn, such as a layer of a stack, has its own entries. It is
    not followed into `while`. Of a stack of weights members may be chosen, by a slice or by the
    inputs: each is measured by itself.

    Nothing is kept outside of what is returned, so that it works under `jit` and `vmap`; compiled,
    it costs the forward pass and what is used of the arrays.

    **Arguments:**

    - `apply`: any pure function of a model and inputs.
    - `model`: any pytree with weights, such as [`scalex_eqx.parameterize`][] returns. Weights
        with the role `buffer` are constants.
    - `inputs`: what the model is applied to. They must be handed in here: what `apply` closes
        over counts as a constant.

    **Returns:** a `Captured`.

    **Raises:** `ValueError` if the model has no weights or there is no array among the inputs, and
    with the line of `apply` that can't be traced.
    """
    return captured(apply, model, inputs)


def captured(
    apply: Callable[..., Any],
    model: PyTree,
    inputs: tuple[Any, ...],
    taps: Mapping[str, Sequence[Array]] | None = None,
    product: ProductAt | None = None,
) -> Captured:
    """What `capture` returns, where something is added to what comes out of the uses.

    **Arguments:**

    - `apply`, `model`, `inputs`: those of `capture`.
    - `taps`: by the weight's path, for each of its uses an array of the shape of its output.
    - `product`: computes what comes out.
    """
    model, inputs = jtu.tree_map(_as_jax, (model, inputs))
    leaves = _leaves(model)
    count = len(jtu.tree_leaves(eqx.filter(inputs, eqx.is_array)))
    _check(leaves, count)
    with traced("apply"):
        closed, structure, static = eqx.filter_make_jaxpr(apply)(model, *inputs)
    origins = [*(origin for leaf in leaves for origin in _origins(*leaf)), *[DATA] * count]
    arguments = jtu.tree_leaves(eqx.filter((model, inputs), eqx.is_array))
    weights = {path: leaf for path, leaf in leaves if _is_trained(leaf)}
    try:
        program, ends = follow(closed, origins)
        placed = None if taps is None else _placed(taps, program.sites, weights)
        results, _, meetings = run(program, arguments, taps=placed, product=product)
        edges = flow(program, lambda path: bool(weights[path].spec.fan_in))
    except Exception as error:
        if taps is not None or product is not None:
            raise
        # A program of another release of JAX, say: whoever measures goes on without its weights.
        program, ends = unfollowed(closed, weights, f"{type(error).__name__}: {error}"), []
        edges = ()
        results, _, meetings = run(program, arguments)
    reached = [site.path for site in program.sites]
    uses: dict[str, tuple[Use, ...]] = dict.fromkeys([*reached, *weights], ())
    lost = [*program.not_followed]
    for site, meeting in zip(program.sites, meetings, strict=True):
        weight = weights[site.path]
        use = use_at(site, meeting, weight.spec, weight.value.ndim)
        if isinstance(use, Use):
            uses[site.path] += (use,)
        else:
            lost.append(use)
    lost += [*_unsummed(program.sites, weights), *_unmet(ends)]
    found = {path for path, every in uses.items() if every} | {entry.path for entry in lost}
    lost += [NotFollowed(path, "is not used") for path in uses if path not in found]
    result = jtu.tree_unflatten(jtu.tree_structure(structure), results)
    return Captured(eqx.combine(result, static), uses, tuple(dict.fromkeys(lost)), edges)


def _placed(
    taps: Mapping[str, Sequence[Array]], sites: Sequence[Site], weights: Mapping[str, Weight]
) -> list[Array | None]:
    """The taps in the order of the sites; those that are no use have none."""
    left = {path: iter(own) for path, own in taps.items()}

    def tap(site: Site) -> Array | None:
        weight = weights[site.path]
        is_use = not isinstance(stack_at(site, weight.spec, weight.value.ndim), str)
        return next(left[site.path]) if is_use else None

    return [tap(site) for site in sites]


def _cells(use: Use) -> list[str]:
    shapes = [x.shape for x in (use.weight, use.input, use.output)]
    return [use.kind, str(use.fan_in), *("x".join(map(str, shape)) or "-" for shape in shapes)]


def _as_jax(leaf: Any) -> Any:
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf


def _leaves(model: PyTree) -> list[tuple[str, Any]]:
    """Paths and arrays of the model, where those of weights are the weights, in its order."""
    leaves = jtu.tree_leaves_with_path(model, is_leaf=is_weight)
    return [
        (path_string(path), leaf)
        for path, leaf in leaves
        if eqx.is_array(leaf.value if is_weight(leaf) else leaf)
    ]


def _is_trained(leaf: Any) -> bool:
    return is_weight(leaf) and leaf.spec.is_trained


def _origins(path: str, leaf: Any) -> list[Origin]:
    """Those of the arrays of a leaf: of a weight, and of its mask if it has one."""
    is_masked = type(leaf) is Masked and eqx.is_array(leaf.mask)
    return [_origin(path, leaf), *[CONSTANT] * is_masked]


def _origin(path: str, leaf: Any) -> Origin:
    if not _is_trained(leaf):
        return CONSTANT
    ndim, spec = leaf.value.ndim, leaf.spec
    stack = frozenset(spec.stack_axes(ndim))
    return Origin(
        False, frozenset({path}), tuple(range(ndim)), stack=stack, is_matrix=bool(spec.fan_in)
    )


def _unsummed(sites: Sequence[Site], weights: Mapping[str, Weight]) -> list[NotFollowed]:
    """Matrices that are multiplied entry by entry: where their sum is taken is not seen."""
    return [
        NotFollowed(site.path, f"meets the inputs entry by entry, in {site.operation.name}")
        for site in sites
        if site.operation.kind == "elementwise"
        and weights[site.path].spec.role in (Role.hidden, Role.readout)
    ]


def _unmet(results: Sequence[Origin]) -> list[NotFollowed]:
    found = sorted({path for origin in results if not origin.is_data for path in origin.weights})
    return [NotFollowed(path, "reaches the result without meeting the inputs") for path in found]


def _check(leaves: Sequence[tuple[str, Any]], inputs: int) -> None:
    if not any(is_weight(leaf) for _, leaf in leaves):
        raise ValueError(
            "the model has no weights to follow; make it with scalex_eqx.parameterize and resolve "
            "it within apply"
        )
    if not inputs:
        raise ValueError(
            "there is no array among the inputs; hand them in as arguments of capture, since what "
            "apply closes over counts as a constant"
        )
