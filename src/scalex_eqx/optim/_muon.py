import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Literal, NamedTuple, get_args

import optax
from jaxtyping import Array, Float, PyTree

from .._pages import listed
from .._spec import WeightSpec
from .._weight import is_trainable, weights_with_paths
from ..ops import ComputeDtype, OrthogonalMethod, orthogonalized
from ..ops._orthogonalized import check_compute_dtype, step_coefficients
from ..ops._sharded import gathered, placed_like
from ..ops._wide import wide
from ..theory import Role, full_alignment
from ..theory._role import TRAINED
from ._adam import scale_by_adam
from ._adam_rule import EpsScaling
from ._budget import Eps
from ._checked import checked
from ._decay import DecayMode
from ._descent import descend, together
from ._for_roles import for_roles
from ._masked import masked_like
from ._moments import MomentDtype, ema, moved, zeros_of
from ._numbers import Scalar, ScalarOrSchedule, check_number, known_number, times
from ._rates import Rates
from ._rule import Degree, Rule
from ._tree import init_values, map_values
from ._unannotated import Unannotated

MuonScale = Literal["spectral", "rms", "shape"]

_SCALES: dict[str, Callable[[float, float], float]] = {
    "spectral": lambda fan_in, fan_out: math.sqrt(fan_out / fan_in),
    "rms": lambda fan_in, fan_out: 0.2 * math.sqrt(max(fan_in, fan_out)),
    "shape": lambda fan_in, fan_out: math.sqrt(max(1.0, fan_out / fan_in)),
}


class ScaleByMuonState(NamedTuple):
    """The mean of the gradient, and what the rule is."""

    mean: PyTree
    rule: PyTree


def scale_by_muon(
    momentum: Scalar = 0.95,
    *,
    nesterov: bool = True,
    scale: MuonScale = "spectral",
    method: OrthogonalMethod = "newton_schulz",
    steps: int = 5,
    compute_dtype: ComputeDtype | None = None,
    moment_dtype: MomentDtype | None = None,
) -> optax.GradientTransformation:
    r"""A mean of the gradient, as a matrix with orthonormal rows or columns.

    $$m \leftarrow \mu m + (1 - \mu) g, \qquad u = k \operatorname{orth}(v), \qquad
    v = \begin{cases} m & \\ \mu m + (1 - \mu) g & \text{Nesterov} \end{cases}$$

    with $\operatorname{orth}$ from [`scalex_eqx.ops.orthogonalized`][]. The matrix of a weight is
    that of its declared axes, whichever way round they stand: all of its fan-in together by all of
    its fan-out. Stacked weights are taken one by one.

    $k$ is the convention's factor at the *base* model's fan-in $n$ and fan-out $m$. At the base
    width a learning rate therefore means what it means elsewhere. What the width adds does not
    depend on the convention: the largest singular value has to follow
    $\sqrt{\text{fan-out} / \text{fan-in}}$, and that is what
    [`scalex_eqx.scale_by_width`][] with the family `"muon"` does.

    | `scale` | $k$ | in use as |
    |---|---|---|
    | `"spectral"` | $\sqrt{m / n}$ | spectral condition, Scion, Dion |
    | `"rms"` | $0.2 \sqrt{\max(n, m)}$ | entries as large as AdamW's |
    | `"shape"` | $\sqrt{\max(1, m / n)}$ | Jordan's code, Optax |

    **Arguments:**

    - `momentum`: $\mu$; a float or a traced scalar.
    - `nesterov`: whether the update looks one step ahead.
    - `scale`: which convention.
    - `method`, `steps`, `compute_dtype`: as for [`scalex_eqx.ops.orthogonalized`][].
    - `moment_dtype`: what the mean is kept in: `"float32"`, `"bfloat16"`, `"float16"`, or
        `None` for the weights' dtype or float32, whichever is wider. It is computed in float32
        or wider.

    **Returns:** an `optax.GradientTransformation` over trees of weights. The updates have the
    gradients' dtype and are the same whatever the size of the gradient. A gradient that is not
    finite gives NaN in the whole matrix, then and from there on.

    **Raises:** `ValueError`, from `init`, for weights that are no matrices, and under `"rms"` and
    `"shape"` for those whose smaller axis has become the larger one: they would have left the
    branch of the formula that their factor is from.

    ??? cite "Source"

        Jordan et al., *Muon: An optimizer for hidden layers in neural networks* (2024). The
        factor `"rms"`: Liu et al., *Muon is Scalable for LLM Training* (2025),
        [arXiv:2502.16982](https://arxiv.org/abs/2502.16982).
    """
    rule = _rule(momentum, nesterov, scale, method, steps, compute_dtype)
    zeros = zeros_of(moment_dtype)

    def init(params: optax.Params) -> ScaleByMuonState:
        return ScaleByMuonState(init_values(zeros, params), rule)

    def orthogonal(spec: WeightSpec, g: Array, m: Array) -> Array:
        if not g.size:
            return g
        m = wide(m)
        ahead = ema(momentum, m, g.astype(m.dtype)) if nesterov else m
        matrix = orthogonalized(
            as_matrix(spec, _whole(spec, ahead)),
            method=method,
            steps=steps,
            compute_dtype=compute_dtype,
        )
        if spec.density is not None:
            matrix = masked_like(matrix, as_matrix(spec, _whole(spec, m)))
        factor = _SCALES[scale](*map(float, _base_fans(spec, g.shape)))
        moved = times(factor, _from_matrix(spec, matrix, g.shape)).astype(g.dtype)
        return placed_like(g, moved)

    def update(updates, state, params=None):
        del params
        mean = map_values(
            lambda _, m, g: moved(lambda m, g: ema(momentum, m, g), m, g), state.mean, updates
        )
        return map_values(orthogonal, updates, mean), ScaleByMuonState(mean, rule)

    def check(params: optax.Params) -> None:
        _check_matrices(scale, params)

    return checked(rule, ScaleByMuonState, init, update, check=check)


def _rule(
    momentum: Scalar, nesterov: Any, scale: Any, method: Any, steps: Any, compute_dtype: Any
) -> Rule:
    check_number("momentum", momentum, below=1.0)
    if not isinstance(nesterov, bool):
        raise ValueError(
            f"nesterov is {nesterov!r}; expected True or False. Under optax.inject_hyperparams "
            "name it in static_args"
        )
    if scale not in get_args(MuonScale):
        raise ValueError(f"scale is {scale!r}; expected 'spectral', 'rms' or 'shape'")
    step_coefficients(method, steps)
    check_compute_dtype(compute_dtype)
    return Rule(
        "scale_by_muon",
        fields=(("mean", Degree(update=1)),),
        output=Degree(),
        settings=(
            ("momentum", known_number(momentum)),
            ("nesterov", nesterov),
            ("scale", scale),
            ("method", method),
            ("steps", steps),
            ("compute_dtype", compute_dtype or False),
        ),
        norm="spectral",
    )


def _whole(spec: WeightSpec, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return gathered(x, len(spec.stack_axes(x.ndim)))


def as_matrix(spec: WeightSpec, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Stacked matrices of the weight's two fans, in the order in which these stand."""
    x = x.transpose(_order(spec, x.ndim))
    stack = len(spec.stack_axes(x.ndim))
    first = len(_fans(spec)[0])
    sides = (math.prod(x.shape[stack : stack + first]), math.prod(x.shape[stack + first :]))
    return x.reshape(*x.shape[:stack], *sides)


def _from_matrix(
    spec: WeightSpec, matrix: Float[Array, "..."], shape: tuple[int, ...]
) -> Float[Array, "..."]:
    order = _order(spec, len(shape))
    back = sorted(range(len(shape)), key=order.__getitem__)
    return matrix.reshape([shape[axis] for axis in order]).transpose(back)


def _order(spec: WeightSpec, ndim: int) -> tuple[int, ...]:
    """The axes such that those of each fan stand together, behind the stack axes."""
    one, other = _fans(spec)
    return (*spec.stack_axes(ndim), *(axis + ndim for axis in (*one, *other)))


def _fans(spec: WeightSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of both fans; the one that begins first is the first."""
    fan_in, fan_out = tuple(sorted(spec.fan_in)), tuple(sorted(spec.fan_out))
    return (fan_in, fan_out) if fan_in < fan_out else (fan_out, fan_in)


def _base_fans(spec: WeightSpec, shape: tuple[int, ...]) -> tuple[Fraction, Fraction]:
    """Fan-in and fan-out of the base model's weight."""
    fan_in, fan_out = _own_fans(spec, shape)
    return fan_in / spec.size_ratio("fan_in"), fan_out / spec.size_ratio("fan_out")


def _own_fans(spec: WeightSpec, shape: tuple[int, ...]) -> tuple[int, int]:
    fan_in, fan_out = (
        math.prod(shape[axis] for axis in fan) for fan in (spec.fan_in, spec.fan_out)
    )
    return fan_in, fan_out


def _check_matrices(scale: str, params: PyTree) -> None:
    """Refuses weights that are no matrices, and those whose longer side has changed."""
    problems = []
    for path, weight in weights_with_paths(params).items():
        spec = weight.spec
        if not spec.is_trained or not is_trainable(weight.value):
            continue
        if not spec.fan_in:
            problems.append(
                f"{path}: role {spec.role!s}, and no matrix; use scalex_eqx.muon, or mask it and "
                "give it another rule"
            )
            continue
        now, before = _own_fans(spec, weight.value.shape), _base_fans(spec, weight.value.shape)
        if scale != "spectral" and (now[0] - now[1]) * (before[0] - before[1]) < 0:
            problems.append(
                f"{path}: fan-in and fan-out are {now[0]} and {now[1]}, {before[0]} and "
                f"{before[1]} at the base width; scale {scale!r} takes the larger one, which has "
                "become the smaller. Use scale='spectral'"
            )
    if problems:
        raise ValueError(listed("scale_by_muon can't move these weights:", problems))


# Of the trunk.
_MATRICES = (Role.hidden,)
FAMILIES = dict.fromkeys(TRAINED, "adam") | dict.fromkeys(_MATRICES, "muon")
"""Those of `muon`, by role."""


def bare_muon(
    *,
    momentum: Scalar = 0.95,
    nesterov: bool = True,
    scale: MuonScale = "spectral",
    method: OrthogonalMethod = "newton_schulz",
    steps: int = 5,
    compute_dtype: ComputeDtype | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Eps = 1e-12,
    eps_scaling: EpsScaling = "gradient",
    moment_dtype: Literal["float32", "bfloat16"] | None = None,
) -> optax.GradientTransformation:
    """Muon's update on the matrices of the trunk, Adam's elsewhere, without a learning rate."""
    matrices = scale_by_muon(
        momentum,
        nesterov=nesterov,
        scale=scale,
        method=method,
        steps=steps,
        compute_dtype=compute_dtype,
        moment_dtype=moment_dtype,
    )
    others = scale_by_adam(b1, b2, eps, eps_scaling=eps_scaling, moment_dtype=moment_dtype)
    return together(
        for_roles(matrices, _MATRICES),
        for_roles(others, [role for role in TRAINED if role not in _MATRICES]),
    )


def muon(
    learning_rate: ScalarOrSchedule,
    rates: Rates = full_alignment,
    *,
    momentum: Scalar = 0.95,
    nesterov: bool = True,
    scale: MuonScale = "spectral",
    method: OrthogonalMethod = "newton_schulz",
    steps: int = 5,
    compute_dtype: ComputeDtype | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Eps = 1e-12,
    eps_scaling: EpsScaling = "gradient",
    moment_dtype: Literal["float32", "bfloat16"] | None = None,
    weight_decay: Scalar | None = None,
    decay_mode: DecayMode | None = None,
    weight_decay_schedule: optax.Schedule | None = None,
    role_multipliers: Mapping[str, Scalar] | None = None,
    unannotated: Unannotated = "error",
) -> optax.GradientTransformation:
    r"""Muon on the matrices of the trunk, Adam on all other weights, by role.

    $$w \leftarrow w - \eta_t\, \gamma_\text{role}\, r^{-c}\, u$$

    with $u$ from [`scalex_eqx.scale_by_muon`][] for weights of role `hidden`, and from
    [`scalex_eqx.scale_by_adam`][] for embeddings, readouts, biases and gains. Each has the
    exponents $c$ of its own family. Those of Muon make the largest singular value of a hidden
    matrix's update follow $\sqrt{\text{fan-out} / \text{fan-in}}$.

    One learning rate is right for both only under `scale="rms"`, which gives Muon's updates
    entries as large as Adam's. Elsewhere `role_multipliers` gives Adam's roles another:

    ```python
    adam = 0.003 / 0.02
    tx = sx.muon(0.02, role_multipliers={"embedding": adam, "readout": adam, "vector": adam})
    ```

    **Arguments:**

    - `learning_rate`, `rates`, `role_multipliers`, `unannotated`: as for [`scalex_eqx.adam`][].
    - `momentum`, `nesterov`, `scale`, `method`, `steps`, `compute_dtype`: as for
        [`scalex_eqx.scale_by_muon`][].
    - `b1`, `b2`, `eps`, `eps_scaling`: as for [`scalex_eqx.scale_by_adam`][].
    - `moment_dtype`: as there, and Muon's mean too.
    - `weight_decay`, `decay_mode`, `weight_decay_schedule`: as for [`scalex_eqx.adamw`][]; `None`
        for no decay.

    **Returns:** an `optax.GradientTransformation` over trees of weights.

    ??? cite "Source"

        The rate: Yang, Simon and Bernstein, *A Spectral Condition for Feature Learning* (2023),
        [arXiv:2310.17813](https://arxiv.org/abs/2310.17813).
    """
    return descend(
        bare_muon(
            momentum=momentum,
            nesterov=nesterov,
            scale=scale,
            method=method,
            steps=steps,
            compute_dtype=compute_dtype,
            b1=b1,
            b2=b2,
            eps=eps,
            eps_scaling=eps_scaling,
            moment_dtype=moment_dtype,
        ),
        family=FAMILIES,
        learning_rate=learning_rate,
        rates=rates,
        role_multipliers=role_multipliers,
        weight_decay=weight_decay,
        decay_mode=decay_mode,
        weight_decay_schedule=weight_decay_schedule,
        unannotated=unannotated,
    )
