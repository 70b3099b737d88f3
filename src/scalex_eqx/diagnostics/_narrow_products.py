"""Training in which products of weights have narrow operands."""

import fnmatch
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._jaxprs import parameters
from .._weight import weights_with_paths
from ..ops._narrow import NarrowFormat, narrowed
from ..theory import Role
from ._capture._api import captured
from ._capture._program import Site


class ProductFormats(NamedTuple):
    r"""The formats of the operands of the three products that a weight has a part in.

    $y = x W^\top$, $\bar x = \bar y\, W$ and $\bar W = \bar y^\top x$: each operand is rounded to
    its format, along the axis that the product sums over, and the product itself is taken in the
    arrays' own dtype. `None` leaves an operand as it is.

    **Arguments:**

    - `input`: of $x$.
    - `weight`: of $W$.
    - `gradient`: of $\bar y$.
    """

    input: NarrowFormat | None = None
    weight: NarrowFormat | None = None
    gradient: NarrowFormat | None = None


Choice = Mapping[str, ProductFormats | None]

FP8 = ProductFormats("e4m3", "e4m3", "e5m2")

u_mup_fp8: Choice = {
    "*/output/weight": ProductFormats("bfloat16", "bfloat16", "bfloat16"),
    "*/down/weight": ProductFormats("bfloat16", "bfloat16", "bfloat16"),
    "hidden": FP8,
}
"""u-muP's recipe at scale: what goes into the last product of a branch is left in bfloat16."""

hidden_fp8: Choice = {"hidden": FP8}
"""muS's: every hidden product in FP8."""

hidden_mxfp8: Choice = {"hidden": ProductFormats("mxfp8_e4m3", "mxfp8_e4m3", "mxfp8_e4m3")}
"""Every hidden product in MXFP8, e4m3 for gradients too."""

hidden_nvfp4: Choice = {"hidden": ProductFormats("nvfp4", "nvfp4", "nvfp4")}
"""Every hidden product in NVFP4, rounded to nearest."""


def with_narrow_products(apply: Callable[..., Any], formats: Choice) -> Callable[..., Any]:
    r"""`apply(model, *inputs)` with narrow operands in the products of some weights.

    ```python
    loss = sx.diagnostics.with_narrow_products(loss, sx.diagnostics.u_mup_fp8)
    value, gradient = eqx.filter_value_and_grad(loss)(model, batch)
    ```

    It is a simulation: the numbers are those of the formats, the arithmetic is that of the arrays'
    dtype, as accumulators of accelerators have it. Nothing else is rounded, neither sums, norms and
    softmax nor weights and the optimizer's state.

    The weights are found in the traced program, in any model, as
    [`scalex_eqx.diagnostics.capture`][] finds them. Numbers too large for a format become its
    largest; see [`scalex_eqx.ops.narrowed`][]. Only reverse mode has a derivative.

    **Arguments:**

    - `apply`: of a model with weights: resolve it in there.
    - `formats`: by role, or by a pattern of paths, which goes first. Roles and paths that are not
        named are left alone. `u_mup_fp8`, `hidden_fp8`, `hidden_mxfp8` and `hidden_nvfp4` are
        there.

    **Returns:** a function with the arguments of `apply`.

    **Raises:** `ValueError`, when called, if a pattern matches no weight, or a weight is chosen of
    which a use is no product.

    ??? cite "Source"

        `u_mup_fp8`: Blake et al. (2024), [arXiv:2407.17465](https://arxiv.org/abs/2407.17465),
        section 4.2 and appendix. `hidden_fp8`: Narayan et al. (2025),
        [arXiv:2502.05967](https://arxiv.org/abs/2502.05967).
    """

    @functools.wraps(apply)
    def narrow(model: PyTree, *inputs: Any) -> Any:
        chosen = _chosen(model, formats)

        def product(site: Site, equation: Any, operands: list[Any]) -> list[Any] | None:
            own = chosen.get(site.path)
            if own is None:
                return None
            return [_narrow_product(site, equation, operands, own)]

        return captured(apply, model, inputs, product=product).result

    return narrow


def _chosen(model: PyTree, formats: Choice) -> dict[str, ProductFormats]:
    """By path, without weights that are left alone."""
    weights = weights_with_paths(eqx.filter(model, eqx.is_inexact_array))
    patterns = [key for key in formats if key not in list(Role)]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(path, pattern) for path in weights):
            raise ValueError(
                f"formats[{pattern!r}] is no role and matches no weight; there are "
                f"{', '.join(list(weights)[:3])}, ..."
            )
    chosen = {}
    for path, weight in weights.items():
        keys = [key for key in patterns if fnmatch.fnmatchcase(path, key)]
        own = formats[keys[0]] if keys else formats.get(str(weight.spec.role))
        if own is not None:
            chosen[path] = own
    return chosen


def _narrow_product(
    site: Site, equation: Any, operands: list[Any], formats: ProductFormats
) -> Array:
    dims = parameters.product(equation) if equation.primitive.name == "dot_general" else None
    if dims is None or len(operands) != 2:
        raise ValueError(
            f"formats chooses {site.path}, which meets the inputs in {site.operation.name}; only "
            "products (dot_general) have narrow operands: leave the weight out"
        )
    at_left = site.operation.position == 0
    of_operands = (formats.weight, formats.input) if at_left else (formats.input, formats.weight)

    def dot(left: Array, right: Array) -> Array:
        return equation.primitive.bind(left, right, **equation.params)

    return _product(dot, dims, of_operands, formats.gradient)(*operands)


def _product(
    dot: Callable[[Array, Array], Array],
    dims: parameters.Product,
    formats: tuple[NarrowFormat | None, NarrowFormat | None],
    gradient: NarrowFormat | None,
) -> Callable[[Array, Array], Array]:
    """A product whose operands are rounded, and so are those of its two derivatives.

    The axes of a result are those in common, then those of the left that are left, then the
    right's.
    """
    common = len(dims.batch[0])

    def free(x: Array, side: int) -> list[int]:
        gone = {*dims.summed[side], *dims.batch[side]}
        return [axis for axis in range(x.ndim) if axis not in gone]

    @jax.custom_vjp
    def product(left: Array, right: Array) -> Array:
        return forward(left, right)[0]

    def forward(left: Array, right: Array) -> Any:
        narrow = (
            _along(x, format, dims.summed[side])
            for side, (x, format) in enumerate(zip((left, right), formats, strict=True))
        )
        return dot(*narrow), (left, right)

    def backward(kept: Any, back: Array) -> tuple[Array, Array]:
        left, right = kept
        lefts, rights = len(free(left, 0)), len(free(right, 1))
        of_right = range(common + lefts, common + lefts + rights)
        of_left = range(common, common + lefts)
        other = _along(right, formats[1], free(right, 1))
        (to_left,) = jax.vjp(lambda x: dot(x, other), left)[1](_along(back, gradient, of_right))
        own = _along(left, formats[0], free(left, 0))
        (to_right,) = jax.vjp(lambda x: dot(own, x), right)[1](_along(back, gradient, of_left))
        return to_left, to_right

    product.defvjp(forward, backward)
    return product


def _along(x: Array, format: NarrowFormat | None, axes: Any) -> Array:
    """The array in a format, with blocks along the last of the axes that are summed over."""
    if format is None:
        return x
    summed = list(axes)
    return narrowed(jnp.asarray(x), format, axis=summed[-1] if summed else -1)
