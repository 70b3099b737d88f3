import dataclasses
from fractions import Fraction

from ._rational import Exponent, exact


@dataclasses.dataclass(frozen=True, init=False)
class Alignment:
    r"""How strongly weights, activations and their updates are assumed to point the same way.

    A product of a matrix with $n$ columns and a vector has entries of size $n^s$ times the
    product of their entries' sizes: $s = 1/2$ where they are independent, $s = 1$ where they are
    aligned. For a layer $W z$ that training changes to $(W + \Delta W)(z + \Delta z)$:

    | field | product | independent | aligned |
    |---|---|---|---|
    | `alpha` | $\Delta W\, z$ | 1/2 | 1 |
    | `omega` | $W\, \Delta z$ | 1/2 | 1 |
    | `u` | $\Delta W\, \Delta z$ | 1/2 | 1 |

    `full_alignment` is (1, 1/2, 1): the update is aligned, the initial weight is not.
    `no_alignment` is (1/2, 1/2, 1/2).

    ??? cite "Source"

        Everett et al. (2024), [arXiv:2407.05872](https://arxiv.org/abs/2407.05872), section 3.
    """

    name: str
    alpha: Fraction
    omega: Fraction
    u: Fraction

    def __init__(self, name: str, alpha: Exponent, omega: Exponent, u: Exponent):
        object.__setattr__(self, "name", name)
        for field, value in {"alpha": alpha, "omega": omega, "u": u}.items():
            object.__setattr__(self, field, exact(value, field))


full_alignment = Alignment("full", Fraction(1), Fraction(1, 2), Fraction(1))
no_alignment = Alignment("none", Fraction(1, 2), Fraction(1, 2), Fraction(1, 2))
