import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax.tree_util as jtu
from jaxtyping import PyTree

from ._spec import WeightSpec
from ._weight import Tie, Weight, is_trainable, is_weight, path_string
from .theory import Parameterization, Role, gradient_exponents


def parameterize(
    make: Callable[[int], PyTree],
    *,
    width: int,
    base_width: int,
    parameterization: Parameterization,
    probe_width: int | None = None,
) -> PyTree:
    r"""The model `make(width)` with every weight's scaling law completed.

    `make` is run three times, twice for the shapes only. Comparing the model at `base_width`
    and at `probe_width` tells which axes grow, hence each weight's role; comparing the base
    model's initial spread $\sigma$ with the exponents gives the spread at `width`:

    $$w \sim \sigma\, r^{-b}\, \mathcal N(0, 1), \qquad W_\text{effective} = r^{-a} w, \qquad
    r = \text{width} / \text{base_width}.$$

    At `width == base_width` all parameterizations are the same model, the one that was tuned.

    **Arguments:**

    - `make`: builds the model at a given width, e.g.
        `lambda width: Transformer(width=width, ..., key=key)`. What it draws at random must come
        from keys that it holds.
    - `width`: the width wanted; smaller than the base width works as well.
    - `base_width`: the width at which the hyperparameters are tuned.
    - `parameterization`: `standard`, `ntk`, `mup`, `mean_field` or your own.
    - `probe_width`: a second width at which `make` works, other than the base width; twice the
        base width by default.

    **Returns:** the model. Works under `jit`, and under `vmap` over the keys.

    **Raises:** `ValueError` if the widths are not positive integers, the parameterization is not
    stable at initialisation, the three models don't have the same weights, or there are none; and,
    listing every offending path, if a floating-point array stands outside a `Weight`, an axis
    grows at another rate than the width, a stack axis grows, a declared role contradicts the
    shapes, a weight that needs a `std` has none, or a weight is completed already.
    """
    probe_width = 2 * base_width if probe_width is None else probe_width
    _check_widths(width, base_width, probe_width)
    if not isinstance(parameterization, Parameterization):
        raise ValueError(
            f"parameterization is {parameterization!r}; expected a Parameterization such as "
            "scalex_eqx.mup"
        )
    gradient_exponents(parameterization)  # Refuses one that is not stable at initialisation.
    base = _nodes(eqx.filter_eval_shape(make, base_width))
    probe = _nodes(eqx.filter_eval_shape(make, probe_width))
    model = make(width)
    nodes = _nodes(model)
    _check_same_paths({base_width: base, probe_width: probe, width: nodes})
    if any(isinstance(node, Tie) for node in nodes.values()):
        _check_tied(nodes)
        parameterization = parameterization.tied()

    errors: list[str] = []
    completed = {}
    for path, node in nodes.items():
        try:
            completed[path] = _complete(
                node, base[path], probe[path], parameterization, width, base_width, probe_width
            )
        except ValueError as error:
            errors.append(f"{path_string(path)}: {error}")
    if errors:
        raise ValueError("parameterize cannot give every weight a law:\n  " + "\n  ".join(errors))
    return jtu.tree_map_with_path(
        lambda path, leaf: completed.get(path, leaf), model, is_leaf=_is_node
    )


def _check_tied(nodes: dict[tuple[Any, ...], Any]) -> None:
    """A second readout would have other exponents than the tied one, and so other gradients."""
    readouts = [
        path_string(path)
        for path, node in nodes.items()
        if is_weight(node) and node.spec.role is Role.readout
    ]
    if readouts:
        raise ValueError(
            f"the model has a tied readout and readouts of its own: {', '.join(readouts)}. A "
            "scaling law for both is not available; keep one"
        )


def _is_node(x: Any) -> bool:
    return is_weight(x) or isinstance(x, Tie)


def _nodes(model: PyTree) -> dict[tuple[Any, ...], Any]:
    """What needs a scaling law: weights, ties, and stray arrays, which are errors later."""
    leaves = jtu.tree_leaves_with_path(model, is_leaf=_is_node)
    return {path: leaf for path, leaf in leaves if _is_node(leaf) or is_trainable(leaf)}


def _check_widths(width: int, base_width: int, probe_width: int) -> None:
    for name, value in (
        ("width", width),
        ("base_width", base_width),
        ("probe_width", probe_width),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}; expected a positive integer")
    if probe_width == base_width:
        raise ValueError(
            f"probe_width and base_width are both {base_width}; which axes grow can only be seen "
            "from two different widths"
        )


def _check_same_paths(models: dict[int, dict[tuple[Any, ...], Any]]) -> None:
    paths = {width: set(nodes) for width, nodes in models.items()}
    if not any(paths.values()):
        raise ValueError("make returned a model without a single Weight: there is nothing to scale")
    common = set.intersection(*paths.values())
    extra = [
        f"{path} (only at width {width})"
        for width, found in paths.items()
        for path in sorted(map(path_string, found - common))
    ]
    if extra:
        raise ValueError(
            "make must return the same weights at every width, but it returned " + ", ".join(extra)
        )


def _complete(
    node: Any,
    base: Any,
    probe: Any,
    parameterization: Parameterization,
    width: int,
    base_width: int,
    probe_width: int,
) -> Weight | Tie:
    ratio = Fraction(width, base_width)
    if isinstance(node, Tie):
        # The effective embedding already has its own multiplier.
        exponent = parameterization.a.readout - parameterization.a.embedding
        return Tie(base.factor * float(ratio) ** -float(exponent), is_complete=True)
    if not is_weight(node):
        raise ValueError(
            "a floating-point array outside a Weight; wrap it as Weight(array, WeightSpec(fan_in="
            "..., fan_out=..., std=...)), or compute it in the forward pass if it is not trained"
        )
    if not eqx.is_inexact_array(node.value) or not isinstance(node.spec, WeightSpec):
        raise ValueError(
            f"a Weight of {type(node.value).__name__} and {type(node.spec).__name__}; expected a "
            "floating-point array and a WeightSpec"
        )
    if node.spec.is_complete:
        raise ValueError("this Weight is completed already; give parameterize a fresh model")
    _check_stack(node.spec, base.value.shape, probe.value.shape, node.value.shape)
    role = _role(node.spec, base.value.shape, probe.value.shape, Fraction(probe_width, base_width))
    _check_growth(node, base, role, ratio)
    return _with_law(node, base.spec, role, parameterization, ratio)


def _check_stack(spec: WeightSpec, *shapes: tuple[int, ...]) -> None:
    """Holds the axes in front of the spec's own to be the same at every width."""
    axes = len(spec.fan_in) + len(spec.fan_out)
    listed = ", ".join(map(str, shapes))
    if min(map(len, shapes)) < axes:
        raise ValueError(f"the spec is for {axes} axes, but the shapes are {listed}")
    if len({tuple(shape[a] for a in spec.stack_axes(len(shape))) for shape in shapes}) > 1:
        raise ValueError(
            f"stack axes change with the width: shapes {listed}; only the last {axes} axes, which "
            "the spec names, may grow"
        )


def _role(spec: WeightSpec, base: tuple[int, ...], probe: tuple[int, ...], ratio: Fraction) -> Role:
    grows_in = _grows(base, probe, spec.fan_in, ratio)
    grows_out = _grows(base, probe, spec.fan_out, ratio)
    role = _ROLES[grows_in, grows_out]
    if role is Role.embedding and not spec.fan_in:
        role = Role.vector
    if spec.role is not None and spec.role != role:
        raise ValueError(
            f"declared as {spec.role}, but its shapes, {base} at the base width and {probe} at "
            f"the probe width, are those of {role}; change the role or the fan axes"
        )
    return role


_ROLES = {
    (False, True): Role.embedding,
    (True, True): Role.hidden,
    (True, False): Role.readout,
    (False, False): Role.constant,
}


def _grows(
    base: tuple[int, ...], other: tuple[int, ...], axes: tuple[int, ...], ratio: Fraction
) -> bool:
    """Whether the product of `axes` grows; by `ratio` if it does, as the width itself."""
    growth = Fraction(1)
    for axis in axes:
        growth *= Fraction(other[axis], base[axis])
    if growth not in (1, ratio):
        raise ValueError(
            f"axes {axes} grow by {growth} from shape {base} to {other} where the width grows by "
            f"{ratio}; every axis must grow as the width does or stay as it is"
        )
    return growth != 1


def _check_growth(node: Weight, base: Weight, role: Role, ratio: Fraction) -> None:
    """Holds the shape at the width wanted against what base and probe have shown."""
    for axes, grows in (
        (node.spec.fan_in, role in (Role.hidden, Role.readout)),
        (node.spec.fan_out, role in (Role.embedding, Role.hidden, Role.vector)),
    ):
        growth = ratio if grows else Fraction(1)
        if _grows(base.value.shape, node.value.shape, axes, ratio) != (growth != 1):
            raise ValueError(
                f"axes {axes} have grown from shape {base.value.shape} to {node.value.shape}, "
                f"but as {role} they should have grown by {growth}"
            )


def _with_law(
    node: Weight,
    base: WeightSpec,
    role: Role,
    parameterization: Parameterization,
    ratio: Fraction,
) -> Weight:
    spec = dataclasses.replace(
        node.spec, role=role, parameterization=parameterization, width_ratio=ratio
    )
    exponent = parameterization.b[role]
    if base.std is None or node.spec.std is None:
        if exponent:
            raise ValueError(
                f"a {role} weight of {parameterization.name} starts with a spread of its own "
                "(b != 0), but its spec has no std: declare the std that it was drawn with"
            )
        return Weight(node.value, spec)
    std = base.std * spec.scale(exponent)
    spec = dataclasses.replace(spec, std=std)
    factor = std / node.spec.std if node.spec.std else 1.0
    return Weight(node.value if factor == 1.0 else factor * node.value, spec)
