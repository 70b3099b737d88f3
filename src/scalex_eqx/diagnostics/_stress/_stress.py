from typing import Literal

import numpy as np
import optax

from ._gradients import (
    GRADIENT_KINDS,
    SHAPE,
    GradientKind,
    Shape,
    exponents,
    scaled,
    schedule,
    single_infinity,
    with_infinity,
)
from ._result import Infinity, Stress, StressScale
from ._sweep import Updates, sweep, weights

StressDtype = Literal["float32", "bfloat16", "float16"]
STRESS_DTYPES: tuple[StressDtype, ...] = ("float32", "bfloat16", "float16")


def stress(
    tx: optax.GradientTransformation,
    *,
    name: str = "update rule",
    gradient: GradientKind = "noisy",
    gradient_dtype: StressDtype = "float32",
    parameter_dtype: StressDtype = "float32",
    steps: int = 60,
    shape: Shape = SHAPE,
) -> Stress:
    r"""Where an update rule stops doing what its formula says as the gradient's scale changes.

    The rule is run on gradients $2^k g_t$ for every $k$ from the dtype's smallest subnormal number
    to its overflow, all in one compiled program. Beside it, it runs on the CPU in float64, weights
    and state, on the gradients as rounded to their dtype: what that gives is the rule's formula,
    epsilon included. So two things are told apart: where rounding and underflow take the rule away
    from its formula, and where the formula itself loses its strength, as epsilon makes it do.

    One weight, of role `hidden` and at the base width, with a spread of
    0.02. It stays as it is, so that the gradient's scale is all that changes. A number format that
    the rule insists on in each step (`mu_dtype` of Optax) is kept in the float64 run. Put a rule
    itself to the test, not [`scalex_eqx.optim.low_precision`][] of it: that rounds each update to
    what the weights can take, which is off by itself and made up for in later steps.

    ```python
    print(sx.diagnostics.stress(optax.adam(1e-3)))
    ```

    **Arguments:**

    - `tx`: any rule, of this library or another, or a chain of them, with its learning rate.
    - `name`: to call it by in tables and pictures.
    - `gradient`: `"constant"`: 1 everywhere, always; `"noisy"`: $N(0.1, 1)$ drawn in every step;
        `"sparse"`: one row in sixteen has a gradient, another one in every step; `"heavy_tailed"`:
        Student's t with two degrees of freedom; `"dropping"`: noisy, and from half of the steps
        on suddenly $2^{-8}$ times smaller.
    - `gradient_dtype`, `parameter_dtype`: of the gradients and of the weights. What the moments
        are kept in is the rule's affair.
    - `steps`: an even number of at least 4.
    - `shape`: of the weight. A rule that is slow is put to the test on a smaller one.

    **Returns:** a [`scalex_eqx.diagnostics.Stress`][], which prints as what a user wants to know.

    **Raises:** `ValueError` for another gradient or dtype, an odd number of steps, or fewer than 16
    rows.
    """
    _check_choice("gradient", gradient, GRADIENT_KINDS)
    _check_choice("gradient_dtype", gradient_dtype, STRESS_DTYPES)
    _check_choice("parameter_dtype", parameter_dtype, STRESS_DTYPES)
    if steps < 4 or steps % 2:
        raise ValueError(f"steps is {steps}; expected an even number of at least 4")
    if shape[0] < 16 or shape[1] < 1:
        raise ValueError(f"shape is {shape}; expected at least 16 rows, of which one is sparse")
    ks = exponents(gradient, gradient_dtype, shape)
    gradients = np.stack([scaled(gradient, gradient_dtype, k, shape) for k in ks])
    plan, params = schedule(gradient, steps, shape), weights(parameter_dtype, shape)
    rule = sweep(tx, params, wide=False)
    found, formula = rule(gradients, plan), sweep(tx, params, wide=True)(gradients, plan)
    degree = _degree(formula, ks)
    after = rule(with_infinity(gradient_dtype, shape)[None], single_infinity(steps, shape))
    return Stress(
        name=name,
        gradient=gradient,
        gradient_dtype=gradient_dtype,
        parameter_dtype=parameter_dtype,
        steps=steps,
        degree=degree,
        scales=_scales(found, formula, ks, degree),
        infinity=_infinity(after),
    )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(choices)}")


def _rms(x: np.ndarray) -> np.ndarray:
    """Over the axes of the weight, without squares that under- or overflow."""
    unit = np.abs(x).max(axis=(-2, -1), keepdims=True)
    unit = np.where((unit > 0) & np.isfinite(unit), unit, 1.0)
    return np.asarray(unit[..., 0, 0] * np.sqrt(np.mean(np.square(x / unit), axis=(-2, -1))))


def _degree(formula: Updates, ks: range) -> int:
    """The p for which the update goes as the gradient's p-th power, near unit scale."""
    below, above = (_rms(formula.looks[ks.index(k), 1]) for k in (-1, 1))
    return round(float(np.log2(above / below)) / 2) if below > 0 else 0


def _scales(found: Updates, formula: Updates, ks: range, degree: int) -> tuple[StressScale, ...]:
    unit = found.looks[ks.index(0)]
    size = _rms(unit[1])
    scales = []
    for k, update, ideal, largest in zip(
        ks, found.looks, formula.looks, found.largest, strict=True
    ):
        with np.errstate(all="ignore"):
            scales.append(
                StressScale(
                    exponent=k,
                    deviation=float(np.max(_deviation(update, ideal))),
                    strength=float(np.ldexp(_rms(update[1]) / size, -k * degree)),
                    largest=float(np.ldexp(largest / size, -k * degree)),
                    exact=bool(np.array_equal(update, np.ldexp(unit, k * degree))),
                )
            )
    return tuple(scales)


def _deviation(update: np.ndarray, ideal: np.ndarray) -> np.ndarray:
    """Relative to the formula's update; 0 where both are 0."""
    error = _rms(update - ideal)
    return np.where(error == 0, 0.0, error / _rms(ideal))


def _infinity(after: Updates) -> Infinity:
    then = after.looks[0, 0]
    if not np.isfinite(then).all():
        return "shown"
    return "dropped" if not then.any() else "hidden"
