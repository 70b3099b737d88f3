from fractions import Fraction

from ._alignment import Alignment
from ._family import UpdateFamily, as_family
from ._parameterization import Parameterization
from ._role import Role

_HALF = Fraction(1, 2)


def gradient_exponents(parameterization: Parameterization) -> dict[Role, Fraction]:
    r"""The exponents $g$ of the gradient's entries at initialisation, $\sim r^{-g}$.

    With $A = a + b$ of the readout, $g = A + a$ for every weight before the readout and
    $g = a$ for the readout itself, which sees the features and not its own size.

    **Arguments:**

    - `parameterization`: the exponents $a$ and $b$.

    **Returns:** a dictionary from each of the five roles to its exponent. For a tied embedding
    (see `Parameterization.tied`) the two uses of the weight have equal exponents.

    **Raises:** `ValueError` if the parameterization does not start at a stable point.

    ??? cite "Source"

        Everett et al. (2024), [arXiv:2407.05872](https://arxiv.org/abs/2407.05872), Table 1,
        column "Gradient".
    """
    _check_initialisation(parameterization)
    a = parameterization.a
    before_readout = parameterization.logit_exponent
    return {
        Role.embedding: before_readout + a.embedding,
        Role.hidden: before_readout + a.hidden,
        Role.readout: a.readout,
        Role.vector: before_readout,
        Role.constant: Fraction(0),
    }


def learning_rate_exponents(
    parameterization: Parameterization, family: str | UpdateFamily, alignment: Alignment
) -> dict[Role, Fraction]:
    r"""The exponents $c$ of the largest stable learning rates, $\eta \sim r^{-c}$.

    The effective weight's update has entries $r^{-(a + c + p g + q b)}$, where $p$ and $q$ are
    the family's degrees in the gradient and in the weight. Multiplied with the activations it
    grows by $r^s$, $s$ the alignment ($\alpha = u = s$); the embedding's fan-in does not grow.
    Each layer's output may change by order one and no more:

    $$a + c + p g + q b = \begin{cases} 0 & \text{embedding, vector} \\ s & \text{hidden, readout.}
    \end{cases}$$

    Two conditions can ask for less than that. A family that is relative to the weight ($q = 1$)
    must not have updates that outgrow it: $c \ge 0$. And where updates follow the gradient
    ($p = 1$) the readout's update must not outgrow its initial size, or the gradients behind it
    would grow: $2 a + c \ge A$.

    **Arguments:**

    - `parameterization`: the exponents $a$ and $b$.
    - `family`: `"sgd"`, `"adam"`, `"adafactor"`, or an `UpdateFamily`.
    - `alignment`: `full_alignment`, `no_alignment`, or another with $\alpha = u$ and
      $\omega = 1/2$; those are the ones for which this closed form holds.

    **Returns:** a dictionary from each of the five roles to its exponent.

    **Raises:** `ValueError` if the parameterization does not start at a stable point or the
    closed form does not cover the alignment.

    ??? cite "Source"

        Everett et al. (2024), [arXiv:2407.05872](https://arxiv.org/abs/2407.05872), Table 1.
        With muP and mean-field and no alignment, for SGD and Adafactor, the readout's exponent
        is the largest learning rate but the logits' change vanishes as the width grows.
    """
    family = as_family(family)
    s = _closed_form_alignment(alignment)
    exponents = {
        role: _exponent(parameterization, family, role, growth, gradient)
        for (role, gradient), growth in zip(
            gradient_exponents(parameterization).items(),
            (Fraction(0), s, s, Fraction(0), Fraction(0)),
            strict=True,
        )
    }
    exponents[Role.constant] = Fraction(0)
    return exponents


def _exponent(
    parameterization: Parameterization,
    family: UpdateFamily,
    role: Role,
    growth: Fraction,
    gradient: Fraction,
) -> Fraction:
    a, b = parameterization.a[role], parameterization.b[role]
    p, q = family.gradient_degree, family.weight_degree
    if role is Role.readout and p:
        growth = max(growth, parameterization.logit_exponent)
    exponent = growth - a - p * gradient - q * b
    return max(exponent, Fraction(0)) if q else exponent


def _closed_form_alignment(alignment: Alignment) -> Fraction:
    if alignment.omega != _HALF or alignment.alpha != alignment.u:
        raise ValueError(
            f"alignment {alignment.name!r} is (alpha, omega, u) = ({alignment.alpha}, "
            f"{alignment.omega}, {alignment.u}); learning-rate exponents are available for "
            "alpha = u and omega = 1/2, such as full_alignment and no_alignment"
        )
    return alignment.alpha


def _check_initialisation(parameterization: Parameterization) -> None:
    a, b = parameterization.a, parameterization.b
    conditions = (
        ("embedding", a.embedding + b.embedding == 0, "a + b = 0"),
        ("hidden", a.hidden + b.hidden == _HALF, "a + b = 1/2"),
        ("readout", a.readout + b.readout >= _HALF, "a + b >= 1/2"),
    )
    for role, holds, condition in conditions:
        if not holds:
            raise ValueError(
                f"parameterization {parameterization.name!r} is not stable at initialisation: "
                f"its {role} has a = {a[Role(role)]} and b = {b[Role(role)]}, but activations "
                f"and logits stay bounded only with {condition}"
            )
