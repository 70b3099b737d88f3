"""The factors themselves: numbers from sizes, without arrays."""

import math
from typing import NamedTuple

from ._constraint import Constraint, Number, constrained


class Factors(NamedTuple):
    """What an operation multiplies by.

    **Arguments:**

    - `output`: in the forward pass.
    - `inputs`: the gradient of each input that comes from in front.
    - `weights`: the gradient of each weight, which no constraint touches.
    """

    output: Number
    inputs: tuple[Number, ...]
    weights: tuple[Number, ...] = ()


def _checked(**sizes: Number) -> None:
    for name, size in sizes.items():
        if not 0 < size < math.inf:
            raise ValueError(f"{name} is {size}; expected a positive number")


def _of(
    constraint: Constraint | None, *scales: Number, weights: tuple[Number, ...] = ()
) -> Factors:
    output, *inputs = constrained(constraint, *scales)
    return Factors(output, tuple(inputs), weights)


def log_interpolate(share: Number, lower: Number, upper: Number) -> float:
    r"""$\text{lower}^{1 - s}\, \text{upper}^{s}$, a straight line between logarithms."""
    return math.exp(share * math.log(upper) + (1 - share) * math.log(lower))


def linear_factors(
    fan_in: int,
    fan_out: int,
    tokens: int,
    *,
    constraint: Constraint | None = "to_output_scale",
) -> Factors:
    r"""Of $y = x W^\top$: $n_\text{in}^{-1/2}$, $n_\text{out}^{-1/2}$, and $T^{-1/2}$ for $W$.

    Each is one over the root of the number of terms that are summed over: those of the output, of
    the input's gradient, and, for the weight, the $T$ positions in a batch.

    **Arguments:**

    - `fan_in`, `fan_out`: of the weight.
    - `tokens`: $T$.
    - `constraint`: see [`scalex_eqx.ops.scaled.constrained`][].
    """
    _checked(fan_in=fan_in, fan_out=fan_out, tokens=tokens)
    return _of(constraint, fan_in**-0.5, fan_out**-0.5, weights=(tokens**-0.5,))


def readout_factors(
    fan_in: int, fan_out: int, tokens: int, *, constraint: Constraint | None = None
) -> Factors:
    r"""Of the logits: $n_\text{in}^{-1}$, $n_\text{out}^{-1/2}$ and $T^{-1/2}$.

    The logits start at $n_\text{in}^{-1/2}$, as muP has it. Nothing is used twice behind the last
    residual block, so that no constraint is needed.

    **Arguments:** those of [`scalex_eqx.ops.scaled.linear_factors`][].
    """
    _checked(fan_in=fan_in, fan_out=fan_out, tokens=tokens)
    return _of(constraint, 1 / fan_in, fan_out**-0.5, weights=(tokens**-0.5,))


def embedding_factors(count: int, tokens: int) -> Factors:
    r"""Of a table of vectors: 1, and $\sqrt{V / T}$ of the weight, whose rows get $T / V$ terms.

    **Arguments:**

    - `count`: $V$, the rows.
    - `tokens`: $T$, how many are looked up.
    """
    _checked(count=count, tokens=tokens)
    return Factors(1.0, (), ((count / tokens) ** 0.5,))


def matmul_factors(
    rows: int, inner: int, columns: int, *, constraint: Constraint | None = "to_output_scale"
) -> Factors:
    r"""Of a product of activations $[M, K] \cdot [K, N]$: $K^{-1/2}$, $N^{-1/2}$, $M^{-1/2}$.

    **Arguments:**

    - `rows`, `inner`, `columns`: $M$, $K$ and $N$.
    - `constraint`: see [`scalex_eqx.ops.scaled.constrained`][].
    """
    _checked(rows=rows, inner=inner, columns=columns)
    return _of(constraint, inner**-0.5, columns**-0.5, rows**-0.5)


def conv_factors(
    in_channels: int,
    out_channels: int,
    kernel: int,
    positions: int,
    *,
    stride: int = 1,
    groups: int = 1,
    constraint: Constraint | None = "to_output_scale",
) -> Factors:
    r"""Of a convolution with $k$ taps, $s$ the stride, $G$ groups:

    $$(n_\text{in} k / G)^{-1/2}, \qquad (n_\text{out} k / (G s))^{-1/2}, \qquad P^{-1/2}.$$

    An input is met by one tap in $s$.

    **Arguments:**

    - `in_channels`, `out_channels`: of all groups.
    - `kernel`: $k$, of all axes together.
    - `positions`: $P$, of the output in all of a batch.
    - `stride`: $s$, of all axes together.
    - `groups`: $G$.
    - `constraint`: see [`scalex_eqx.ops.scaled.constrained`][].
    """
    _checked(in_channels=in_channels, out_channels=out_channels, kernel=kernel)
    _checked(positions=positions, stride=stride, groups=groups)
    terms = in_channels * kernel / groups, out_channels * kernel / (groups * stride)
    return _of(constraint, terms[0] ** -0.5, terms[1] ** -0.5, weights=(positions**-0.5,))


# Of an activation x s(mx) with a gate s from 0 to 1. With a large m it is max(x, 0), whose standard
# deviation is sqrt((1 - 1/pi) / 2) and whose derivative has the root mean square sqrt(1/2); with a
# small one x / 2. In between a straight line of logarithms, over a share that was fitted.
_RELU, _RELU_GRADIENT, _HALF = math.sqrt(2 / (1 - 1 / math.pi)), math.sqrt(2), 2.0


def gelu_factors(
    mult: Number = 1.0, *, constraint: Constraint | None = "to_output_scale"
) -> Factors:
    r"""Of $x\, \Phi(m x)$.

    **Arguments:**

    - `mult`: $m$.
    - `constraint`: see [`scalex_eqx.ops.scaled.constrained`][].
    """
    _checked(mult=mult)
    share = 1 / (1 + 0.25 / mult**2)
    return _of(
        constraint,
        log_interpolate(share, _HALF, _RELU),
        log_interpolate(share, _HALF, _RELU_GRADIENT),
    )


def silu_factors(
    mult: Number = 1.0, *, constraint: Constraint | None = "to_output_scale"
) -> Factors:
    r"""Of $x\, \sigma(m x)$, $\sigma$ the logistic function.

    **Arguments:** those of [`scalex_eqx.ops.scaled.gelu_factors`][].
    """
    _checked(mult=mult)
    return _of(
        constraint,
        log_interpolate(1 / (1 + 0.25 / mult**2), _HALF, _RELU),
        log_interpolate(1 / (1 + 1 / mult**2), _HALF, _RELU_GRADIENT),
    )


def gated_silu_factors(mult: Number = 1.0) -> Factors:
    r"""Of $x\, g\, \sigma(m g)$, $g$ the gate: one factor for everything.

    The product with an independent $x$ makes the root mean square of $g\, \sigma(m g)$ count, mean
    included, which lies between $1 / 2$ and $\sqrt{1 / 2}$. Both inputs come from the same
    features, whose gradients are added.

    **Arguments:**

    - `mult`: $m$.
    """
    _checked(mult=mult)
    scale = log_interpolate(1 / (1 + 1 / mult**2), _HALF, _RELU_GRADIENT)
    return Factors(scale, (scale, scale))


def softmax_factors(
    size: int, mult: Number = 1.0, *, constraint: Constraint | None = "to_output_scale"
) -> Factors:
    r"""Of $\operatorname{softmax}(m x)$ over $n$ entries.

    Flat it is $1 / n$ with the gradient's $m / n$, one-hot $1 / \sqrt n$ with $\sqrt{m / n}$.

    **Arguments:**

    - `size`: $n$.
    - `mult`: $m$.
    - `constraint`: see [`scalex_eqx.ops.scaled.constrained`][].
    """
    _checked(size=size, mult=mult)
    share = 1 / (1 + 4 / mult**2)
    return _of(
        constraint,
        log_interpolate(share, size, math.sqrt(size)),
        log_interpolate(share, size / mult, math.sqrt(size / mult)),
    )


def attention_factors(
    length: int,
    head_dimension: int,
    mult: Number = 1.0,
    *,
    causal: bool = True,
    dropout: Number = 0.0,
) -> Factors:
    r"""Of $\operatorname{softmax}(m\, q k^\top / d)\, v$: one factor for everything.

    $$\sqrt{1 - p} \Big/ \left(\ell / S\right)^{(1 - s) / 2}, \qquad s = \frac{1}{1 + 4 d / m^2},
    \qquad \ell = \ln S \ \text{if causal, else}\ 1.$$

    A flat average over $S$ positions has the size $S^{-1/2}$; a causal one over the first $t$ is
    $t^{-1/2}$, of which the mean square over all positions is about $\ln S / S$. A sharp one is 1.

    **Arguments:**

    - `length`: $S$.
    - `head_dimension`: $d$.
    - `mult`: $m$.
    - `causal`: whether a position attends to itself and those before only.
    - `dropout`: $p$, of the attention's weights.
    """
    _checked(length=length, head_dimension=head_dimension, mult=mult)
    checked_rate(dropout)
    share = 1 / (1 + 4 * head_dimension / mult**2)
    flat = math.sqrt((math.log(length) if causal else 1) / length) if length > 1 else 1.0
    scale = math.sqrt(1 - dropout) / log_interpolate(share, flat, 1.0)
    return Factors(scale, (scale,) * 3)


def add_factors(
    left: tuple[int, ...],
    right: tuple[int, ...],
    *,
    constraint: Constraint | None = "to_output_scale",
) -> Factors:
    r"""Of a sum: $2^{-1/2}$, and $k^{-1/2}$ of an input that is repeated $k$ times.

    A side of a single entry adds a constant: the output then keeps its size.

    **Arguments:**

    - `left`, `right`: the shapes.
    - `constraint`: see [`scalex_eqx.ops.scaled.constrained`][].
    """
    sizes = math.prod(left), math.prod(right)
    _checked(left=sizes[0], right=sizes[1])
    rank = max(len(left), len(right))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in (left, right)]
    whole = math.prod(max(pair) for pair in zip(*padded, strict=True))
    output = 1.0 if 1 in sizes else 2**-0.5
    return _of(constraint, output, *((whole / size) ** -0.5 for size in sizes))


def norm_factors(tokens: int) -> Factors:
    r"""Of a norm: 1, and $T^{-1/2}$ of its gain's and its bias's gradient.

    **Arguments:**

    - `tokens`: $T$, the vectors that are normalised.
    """
    _checked(tokens=tokens)
    return Factors(1.0, (1.0,), (tokens**-0.5,))


def dropout_factors(rate: Number) -> Factors:
    r"""Of what is kept, of $x / (1 - p)$: $\sqrt{1 - p}$ in both passes.

    **Arguments:**

    - `rate`: $p$, at least 0 and less than 1.
    """
    checked_rate(rate)
    return Factors(math.sqrt(1 - rate), (math.sqrt(1 - rate),))


def checked_rate(rate: Number) -> None:
    if not 0 <= rate < 1:
        raise ValueError(f"the dropout rate is {rate}; expected at least 0 and less than 1")


def cross_entropy_factors(classes: int) -> Factors:
    r"""Of the sum of cross-entropies: 1, and $V / \sqrt{V - 1}$ of the logits' gradient.

    Softmax less target has the mean square $(V - 1) / V^2$ where the softmax is flat.

    **Arguments:**

    - `classes`: $V$, at least 2.
    """
    if classes < 2:
        raise ValueError(f"there are {classes} classes; expected at least 2")
    return Factors(1.0, (classes / math.sqrt(classes - 1),))


def mean_square_factors() -> Factors:
    r"""Of a sum of squared differences: 1, and $8^{-1/2}$ of both sides.

    The gradient is twice a difference of two numbers of size one.
    """
    return Factors(1.0, (8**-0.5, 8**-0.5))


def residual_factors(tau: Number) -> tuple[float, float]:
    r"""Those of branch and skip: $\tau / \sqrt{1 + \tau^2}$ and $1 / \sqrt{1 + \tau^2}$.

    **Arguments:**

    - `tau`: $\tau$, the share of the branch.
    """
    if not 0 <= tau < math.inf:
        raise ValueError(f"tau is {tau}; expected a number of at least 0")
    return tau / math.sqrt(1 + tau**2), 1 / math.sqrt(1 + tau**2)
