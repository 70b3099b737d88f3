import dataclasses
from collections.abc import Mapping, Sequence
from fractions import Fraction

from ._rational import Number, set_rounded
from ._role import Role


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

    **Arguments:**

    - `name`: how it is printed.
    - `alpha`, `omega`, `u`: the exponents; an int, a `Fraction`, a string such as `"1/2"`, or a
        float, such as a measured one. A float is read as the nearest fraction with a denominator
        of at most 1000, and `notes` says so.

    ??? cite "Source"

        Everett et al. (2024), [arXiv:2407.05872](https://arxiv.org/abs/2407.05872), section 3.
    """

    name: str
    alpha: Fraction
    omega: Fraction
    u: Fraction
    notes: tuple[str, ...] = dataclasses.field(init=False, compare=False, repr=False)

    def __init__(self, name: str, alpha: Number, omega: Number, u: Number):
        object.__setattr__(self, "name", name)
        set_rounded(self, {"alpha": alpha, "omega": omega, "u": u})


full_alignment = Alignment("full", Fraction(1), Fraction(1, 2), Fraction(1))
no_alignment = Alignment("none", Fraction(1, 2), Fraction(1, 2), Fraction(1, 2))

Alignments = Alignment | Mapping[Role, Alignment] | Mapping[str, Alignment] | Sequence[Alignment]
"""One alignment for all layers, one for each role, or one for each layer behind the embedding."""


def depends_on_depth(alignment: Alignments) -> bool:
    r"""Whether learning-rate exponents under `alignment` depend on the number of hidden layers.

    $$\rho_{l-1} = \max(0,\ \rho_l + \omega_l - 1/2)$$

    Where $\omega = 1/2$ for the hidden layers, every layer has to hold the same residual and the
    answer is no. Otherwise each layer passes on another one, and [`scalex_eqx.theory.solve`][]
    needs the model's depth.

    **Arguments:**

    - `alignment`: as in [`scalex_eqx.theory.solve`][].
    """
    if isinstance(alignment, Alignment):
        hidden = [alignment]
    elif isinstance(alignment, Mapping):
        hidden = [alignment[Role.hidden]] if Role.hidden in alignment else []
    else:
        return True
    return any(layer.omega != Fraction(1, 2) for layer in hidden)
