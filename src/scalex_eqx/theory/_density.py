from fractions import Fraction
from typing import Any

from ._alignment import Alignment
from ._family import UpdateFamily
from ._power import Power
from ._rational import from_text

DENSITY_SPREAD = Power(density="1/2")
r"""$b$ of the density: a sum of $\rho n$ independent products is as large as one of $n$ with it."""


def density_exponent(family: UpdateFamily, alignment: Alignment) -> Fraction:
    r"""The exponent $c_\rho$ of the density in the learning rate of a masked weight.

    $$c_\rho = s - \frac{q}{2}, \qquad \eta \sim \rho^{-c_\rho}$$

    Of the fan-in $n$ of a masked weight each output meets $\rho n$ entries on average, $\rho$ the
    share that is kept. It is the balance of the width with $\rho n$ in the place of $n$. The
    spread follows $\rho^{-1/2}$ in every parameterization, the multiplier not at all, and so the
    gradients of what is kept don't depend on $\rho$, nor do epsilons. An update sums over $\rho n$
    aligned products, $s = 1$, or over independent ones, $s = 1/2$, as the alignment's `alpha`
    says of the fan-in. Updates that are relative to the weight ($q > 0$) have grown with its
    spread.

    Of a family whose `norm` is spectral it is 0: the largest singular value of an update whose
    other entries are left out is as large as before, and an aligned input meets that.

    **Arguments:**

    - `family`: of the updates. Sizes of gradient and weight are those of the entries that are kept.
    - `alignment`: assumed.

    ??? cite "Source"

        For Adam and SGD under full alignment it is the rule of SmuPar, Dey, Bergsma and Hestness
        (2024), [arXiv:2405.15743](https://arxiv.org/abs/2405.15743). The other families are
        derived.
    """
    if family.norm == "spectral":
        return Fraction(0)
    return alignment.alpha - family.weight_degree * DENSITY_SPREAD.density


def parse_density(value: Any, name: str) -> Fraction:
    """The share of entries that is kept, exact.

    **Raises:** `ValueError` for what is no number, or not above 0 and at most 1.
    """
    try:
        density = from_text(value) if isinstance(value, str) else Fraction(value)
    except (TypeError, ValueError, OverflowError):
        density = Fraction(0)
    if isinstance(value, bool) or not 0 < density <= 1:
        raise ValueError(
            f"{name} is {value!r}; expected a number above 0 and at most 1, such as '1/16'"
        )
    return density
