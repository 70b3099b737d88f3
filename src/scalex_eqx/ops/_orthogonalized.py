from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._power import power_of_two
from ._wide import wide, wide_dtype

OrthogonalMethod = Literal["newton_schulz", "minimax"]
ComputeDtype = Literal["float32", "bfloat16"]

_JORDAN = (3.4445, -4.7750, 2.0315)

# Each step's is the odd quintic that stays nearest to 1 on the interval where the step before has
# left singular values that began between 1e-3 and 1. The intervals are 1/64 wider than that, and
# begin at 1/32 of their end at least: otherwise large values would pass near 0, where rounding in
# bfloat16 turns some negative, and the steps after that lead those to -1.
_MINIMAX = (
    (7.208525334, -19.64552972, 13.91032119),
    (4.068380628, -3.531743784, 0.7965497414),
    (4.068380628, -3.531743784, 0.7965497414),
    (3.5576828, -2.914316668, 0.6454476718),
    (2.379026717, -1.709217329, 0.4088667115),
    (1.904118609, -1.277292541, 0.3738004482),
    (1.875054271, -1.249768409, 0.3747143186),
)
# What they tend to.
_LIMIT = (15 / 8, -5 / 4, 3 / 8)


def orthogonalized(
    x: Float[Array, "*stack rows columns"],
    *,
    method: OrthogonalMethod = "newton_schulz",
    steps: int = 5,
    compute_dtype: ComputeDtype | None = None,
) -> Float[Array, "*stack rows columns"]:
    r"""Nearly the closest matrix with orthonormal rows or columns, whatever the size of `x`.

    $$X_0 = \frac{x}{\|x\|_F}, \qquad X_{k+1} = a_k X_k + b_k (X_k X_k^\top) X_k
    + c_k (X_k X_k^\top)^2 X_k$$

    Each step maps the singular values by $\sigma \to a \sigma + b \sigma^3 + c \sigma^5$ and keeps
    the singular vectors; they all move towards 1. The products are taken on the shorter side.

    | `method` | coefficients | singular values above 1e-3 of the norm after 5 steps |
    |---|---|---|
    | `"newton_schulz"` | 3.4445, -4.7750, 2.0315 at each step | 0.47 to 1.20 |
    | `"minimax"` | each step's are the best for what the step before leaves | 0.84 to 1.16 |

    After 6 and 7 steps of `"minimax"` it is 1 to within 0.004 and 3e-6. Newton-Schulz with these
    coefficients stays between 0.68 and 1.20, however many steps are taken. In 5 steps the smallest
    singular values grow 485 and 1010 times.

    The norm is taken in units of a power of two: scaling `x` by one leaves every bit of the result
    as it is, as long as the entries that matter are normal numbers.

    | `x` | result |
    |---|---|
    | all 0 | 0 |
    | an infinity or NaN anywhere in a matrix | NaN in all of that matrix |

    **Arguments:**

    - `x`: matrices; those that are stacked along leading axes are taken one by one.
    - `method`: whose coefficients.
    - `steps`: how many.
    - `compute_dtype`: what the steps are computed in: `"float32"`, `"bfloat16"` with sums in
        float32, or `None` for the dtype of `x` or float32, whichever is wider.

    **Returns:** matrices in the dtype of `x`.

    ??? cite "Source"

        Newton-Schulz: Jordan et al., *Muon: An optimizer for hidden layers in neural networks*
        (2024). The best coefficients step by step: Amsel et al., *The Polar Express* (2025),
        [arXiv:2505.16932](https://arxiv.org/abs/2505.16932).
    """
    coefficients = step_coefficients(method, steps)
    check_compute_dtype(compute_dtype)
    dtype = wide_dtype(x.dtype) if compute_dtype is None else jnp.dtype(compute_dtype)
    is_tall = x.shape[-2] > x.shape[-1]
    y = _normalised(jnp.swapaxes(x, -1, -2) if is_tall else x).astype(dtype)
    for a, b, c in coefficients:
        gram = _product(y, jnp.swapaxes(y, -1, -2))
        narrow = gram.astype(dtype)
        polynomial = (b * gram + c * _product(narrow, narrow)).astype(dtype)
        y = (a * y.astype(gram.dtype) + _product(polynomial, y)).astype(dtype)
    return (jnp.swapaxes(y, -1, -2) if is_tall else y).astype(x.dtype)


def step_coefficients(method: str, steps: Any) -> tuple[tuple[float, float, float], ...]:
    """Those of each step, $a$, $b$ and $c$.

    **Raises:** `ValueError` for an unknown method and for what is no number of steps.
    """
    if method not in get_args(OrthogonalMethod):
        raise ValueError(f"method is {method!r}; expected 'newton_schulz' or 'minimax'")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(
            f"steps is {steps!r}; expected an int of at least 1. It decides how many products are "
            "compiled: under optax.inject_hyperparams name it in static_args"
        )
    if method == "newton_schulz":
        return (_JORDAN,) * steps
    return (*_MINIMAX, *(_LIMIT,) * steps)[:steps]


def check_compute_dtype(compute_dtype: Any) -> None:
    """Refuses what is no dtype to compute in."""
    if compute_dtype is not None and compute_dtype not in get_args(ComputeDtype):
        raise ValueError(
            f"compute_dtype is {compute_dtype!r}; expected 'float32', 'bfloat16', or None for the "
            "dtype of x or float32, whichever is wider"
        )


def _normalised(x: Float[Array, "*stack rows columns"]) -> Float[Array, "*stack rows columns"]:
    """Each matrix over its Frobenius norm; 0 where that is 0."""
    x = wide(x)
    unit = power_of_two(jnp.max(jnp.abs(x), axis=(-2, -1), keepdims=True))
    x = x / unit
    norm = jnp.sqrt(jnp.sum(jnp.square(x), axis=(-2, -1), keepdims=True))
    return x / jnp.where(norm == 0, 1, norm)


def _product(
    x: Float[Array, "*stack rows inner"], y: Float[Array, "*stack inner columns"]
) -> Float[Array, "*stack rows columns"]:
    """The matrix product, with sums in float32 where the dtype is narrower."""
    return jnp.matmul(
        x,
        y,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=wide_dtype(x.dtype),
    )
