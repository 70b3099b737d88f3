import dataclasses
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Literal, get_args

from ._parameterization import LayerExponents
from ._power import Power, own_power
from ._rational import Number, set_rounded
from ._role import TRAINED, Role

_NO_OFFSET = LayerExponents(0, 0, 0)


Norm = Literal["entries", "spectral"]

Offset = (
    LayerExponents | Mapping[Role, Power] | Mapping[str, Power] | tuple[tuple[Role, Power], ...]
)


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
        default. Exponents of each weight's own width as `LayerExponents`, or a mapping from role
        to [`scalex_eqx.theory.Power`][] where fan-in and fan-out count by themselves.
    - `norm`: what an update's size $|\Delta w|$ is. `"entries"`: their root mean square.
        `"spectral"`, for rules that move whole matrices: the largest singular value over
        $\sqrt{\text{fan-in} \times \text{fan-out}}$, which is the size of the entries if the
        matrix has rank one. The rank may be anything; an input that is aligned with the update
        meets the largest singular value, and full alignment is its sum over the fan-in.

    Each is an int, a `Fraction`, a string such as `"3/4"`, or a float, which is rounded.

    | family | p | q | optimizers |
    |---|---|---|---|
    | `sgd` | 1 | 0 | SGD, with or without momentum |
    | `adam` | 0 | 0 | Adam, AdamW, Adam-atan2, Lion, signSGD |
    | `adafactor` | 0 | 1 | Adafactor, Adam with parameter scaling |
    | `muon` | 0 | 0 | Muon; spectral, an offset of 1/2 in fan-in and in fan-out |

    **Raises:** `ValueError` for a degree out of range.
    """

    name: str
    gradient_degree: Fraction
    weight_degree: Fraction
    offset: LayerExponents | tuple[tuple[Role, Power], ...]
    norm: Norm
    notes: tuple[str, ...] = dataclasses.field(init=False, compare=False, repr=False)

    def __init__(
        self,
        name: str,
        gradient_degree: Number,
        weight_degree: Number,
        offset: Offset = _NO_OFFSET,
        norm: Norm = "entries",
    ):
        if norm not in get_args(Norm):
            raise ValueError(
                f"norm of family {name!r} is {norm!r}; expected 'entries' or 'spectral'"
            )
        object.__setattr__(self, "norm", norm)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "offset", _checked_offset(name, offset))
        set_rounded(self, {"gradient_degree": gradient_degree, "weight_degree": weight_degree})
        notes = self.notes
        if isinstance(offset, LayerExponents):
            notes = (*notes, *(f"offset, {note}" for note in offset.notes))
        object.__setattr__(self, "notes", notes)
        if not 0 <= self.gradient_degree <= 1:
            raise ValueError(
                f"gradient_degree of family {name!r} is {self.gradient_degree}; expected 0 to 1"
            )
        if self.weight_degree < 0:
            raise ValueError(
                f"weight_degree of family {name!r} is {self.weight_degree}; expected at least 0"
            )

    def offset_power(self, role: Role) -> Power:
        """$o$ of a weight of that role, over its sizes."""
        if isinstance(self.offset, LayerExponents):
            return own_power(role, self.offset[role])
        return dict(self.offset).get(role, Power())

    def of_role(self, role: Role) -> "UpdateFamily":
        """Itself: it is the family of every role."""
        del role
        return self


@dataclasses.dataclass(frozen=True)
class FamilyByRole:
    """A family for each role; see [`scalex_eqx.theory.as_family`][].

    **Arguments:**

    - `families`: pairs of role and family, for every trained role.
    """

    families: tuple[tuple[Role, UpdateFamily], ...]

    @property
    def name(self) -> str:
        """Such as `muon of hidden, else adam`."""
        names: dict[str, list[str]] = {}
        for role, family in self.families:
            names.setdefault(family.name, []).append(role)
        *some, last = sorted(names, key=lambda name: len(names[name]))
        return ", ".join(
            [*(f"{name} of {' and '.join(names[name])}" for name in some), f"else {last}"]
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What was rounded."""
        return tuple(dict.fromkeys(note for _, family in self.families for note in family.notes))

    def of_role(self, role: Role) -> UpdateFamily:
        """The family of that role."""
        return dict(self.families)[role]


Family = UpdateFamily | FamilyByRole


def follows_gradient(family: Family, roles: Iterable[Role]) -> bool:
    """Whether any update of those matrices, or of the vectors beside them, follows its gradient."""
    return any(family.of_role(role).gradient_degree for role in (Role.vector, *roles))


Families = str | Family | Mapping[Role, str | UpdateFamily] | Mapping[str, str | UpdateFamily]
"""What a family may be given as: its name, itself, or one for each role."""


def _checked_offset(name: str, offset: Any) -> Any:
    if isinstance(offset, LayerExponents):
        return offset
    if isinstance(offset, tuple):
        offset = dict(offset)
    if not isinstance(offset, Mapping) or not all(
        role in TRAINED and isinstance(power, Power) for role, power in offset.items()
    ):
        raise ValueError(
            f"offset of family {name!r} is {offset!r}; expected LayerExponents, or a mapping from "
            "role to Power"
        )
    return tuple((Role(role), power) for role, power in sorted(offset.items()))


sgd = UpdateFamily("sgd", 1, 0)
adam = UpdateFamily("adam", 0, 0)
adafactor = UpdateFamily("adafactor", 0, 1)

_HALF = Fraction(1, 2)
muon = UpdateFamily(
    "muon",
    0,
    0,
    {
        Role.embedding: Power(fan_out=_HALF),
        Role.hidden: Power(fan_in=_HALF, fan_out=_HALF),
        Role.readout: Power(fan_in=_HALF),
    },
    norm="spectral",
)

families = {family.name: family for family in (sgd, adam, adafactor, muon)}


def as_family(family: Families) -> Family:
    """The family called `family`; an `UpdateFamily` is itself.

    **Arguments:**

    - `family`: a name, an `UpdateFamily`, or a mapping from every trained role (`embedding`,
        `hidden`, `readout`, `vector`, `constant`) to one of those, for an optimizer that updates
        weights of some roles by another rule.

    **Raises:** `ValueError` for a name or role that is unknown, or a role without a family.
    """
    if isinstance(family, UpdateFamily | FamilyByRole):
        return family
    if isinstance(family, Mapping):
        return _by_role(family)
    if family not in families:
        raise ValueError(
            f"family {family!r} is unknown: expected {', '.join(families)}, an UpdateFamily, or a "
            "mapping from role to one"
        )
    return families[family]


def _by_role(given: Mapping[Any, Any]) -> Family:
    unknown = [role for role in given if role not in TRAINED]
    missing = [role for role in TRAINED if role not in given]
    if unknown or missing:
        wrong = f"name {', '.join(map(repr, unknown))}" if unknown else f"lack {', '.join(missing)}"
        raise ValueError(
            f"the families by role {wrong}; expected one for each of {', '.join(TRAINED)}"
        )
    by_role = tuple((role, as_family(given[role]).of_role(role)) for role in TRAINED)
    distinct = {one for _, one in by_role}
    return distinct.pop() if len(distinct) == 1 else FamilyByRole(by_role)
