import dataclasses
from fractions import Fraction

from ._parameterization import LayerExponents
from ._rational import Number, set_rounded

_NO_OFFSET = LayerExponents(0, 0, 0)


@dataclasses.dataclass(frozen=True, init=False)
class UpdateFamily:
    r"""How the size of an optimizer's update follows from the gradient's and the weight's.

    $$|\Delta w| \propto \text{learning rate} \times |g|^{p} \times \text{RMS}(w)^{q}
    \times r^{-o}$$

    Families are data: one of your own needs no more than these numbers, and its learning-rate
    exponents come out of [`scalex_eqx.theory.solve`][]. [Update families](../families.md) shows
    how to find them.

    **Arguments:**

    - `name`: how it is printed.
    - `gradient_degree`: $p$, from 0 to 1. With $p > 0$ the readout's update is kept from
        outgrowing its initial size, since the gradients behind it would grow with it.
    - `weight_degree`: $q$, at least 0. With $q > 0$ updates are relative to the weight, and no
        weight's update may outgrow it.
    - `offset`: $o$ by role, for updates whose size depends on the dimensions by itself; 0 by
        default. `vector` and `constant` have none.

    Each is an int, a `Fraction`, a string such as `"3/4"`, or a float, which is rounded.

    | family | p | q | optimizers |
    |---|---|---|---|
    | `sgd` | 1 | 0 | SGD, with or without momentum |
    | `adam` | 0 | 0 | Adam, AdamW, Adam-atan2, Lion, signSGD |
    | `adafactor` | 0 | 1 | Adafactor, Adam with parameter scaling |

    **Raises:** `ValueError` for a degree out of range.
    """

    name: str
    gradient_degree: Fraction
    weight_degree: Fraction
    offset: LayerExponents
    notes: tuple[str, ...] = dataclasses.field(init=False, compare=False, repr=False)

    def __init__(
        self,
        name: str,
        gradient_degree: Number,
        weight_degree: Number,
        offset: LayerExponents = _NO_OFFSET,
    ):
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "offset", offset)
        set_rounded(self, {"gradient_degree": gradient_degree, "weight_degree": weight_degree})
        notes = (*self.notes, *(f"offset, {note}" for note in offset.notes))
        object.__setattr__(self, "notes", notes)
        if not 0 <= self.gradient_degree <= 1:
            raise ValueError(
                f"gradient_degree of family {name!r} is {self.gradient_degree}; expected 0 to 1"
            )
        if self.weight_degree < 0:
            raise ValueError(
                f"weight_degree of family {name!r} is {self.weight_degree}; expected at least 0"
            )


sgd = UpdateFamily("sgd", 1, 0)
adam = UpdateFamily("adam", 0, 0)
adafactor = UpdateFamily("adafactor", 0, 1)

families = {family.name: family for family in (sgd, adam, adafactor)}


def as_family(family: str | UpdateFamily) -> UpdateFamily:
    """The family called `family`; an `UpdateFamily` is itself."""
    if isinstance(family, UpdateFamily):
        return family
    if family not in families:
        raise ValueError(
            f"family {family!r} is unknown: expected {', '.join(families)}, or an UpdateFamily"
        )
    return families[family]
