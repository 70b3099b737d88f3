import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from ._alignment import Alignment, Alignments
from ._family import Family, UpdateFamily
from ._parameterization import Parameterization
from ._rational import Number, rounded
from ._role import Role

_HALF = Fraction(1, 2)

Layers = Parameterization | Sequence[tuple[Number, Number]]
"""The exponents of a model: by role, or (a, b) of each layer from embedding to readout."""


class Infeasible(ValueError):
    """No learning rates can do what was asked for; the message names what stands against it."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A matrix of the model, and what is assumed of it."""

    name: str
    role: Role
    a: Fraction
    b: Fraction
    family: UpdateFamily
    alignment: Alignment | None

    @functools.cached_property
    def offset(self) -> Fraction:
        """The exponent o of its updates, one of the width."""
        return self.family.offset_power(self.role).of_width(self.role)

    @functools.cached_property
    def size(self) -> Fraction:
        """The effective weight's entries are of size r^-size at initialisation."""
        return self.a + self.b


def as_layers(
    parameterization: Layers, family: Family, alignment: Alignments, depth: int | None
) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """The model's layers, embedding first and readout last, and notes on rounded exponents."""
    depth = _depth(parameterization, alignment, depth)
    names = ("embedding", *(f"hidden {i}" for i in range(1, depth + 1)), "readout")
    roles = (Role.embedding, *[Role.hidden] * depth, Role.readout)
    if isinstance(parameterization, Parameterization):
        p = parameterization
        ab = [(p.a[role], p.b[role]) for role in roles]
        notes = [f"parameterization {p.name!r}: {note}" for note in p.notes]
    else:
        ab, notes = _read_pairs(names, parameterization)
    alignments = _alignments(alignment, roles)
    notes += [f"family {family.name!r}: {note}" for note in family.notes]
    notes += [
        f"alignment {used.name!r}: {note}" for used in alignments if used for note in used.notes
    ]
    layers = tuple(
        Layer(name, role, a, b, family.of_role(role), used)
        for name, role, (a, b), used in zip(names, roles, ab, alignments, strict=True)
    )
    return layers, tuple(dict.fromkeys(notes))


def check_initialisation(
    name: str, matrices: Iterable[tuple[str, Role, Fraction, Fraction]]
) -> None:
    """Refuses matrices (name, role, a, b) whose activations or logits grow before any training."""
    for matrix, role, a, b in matrices:
        stable, condition = {
            Role.embedding: (a + b == 0, "a + b = 0"),
            Role.hidden: (a + b == _HALF, "a + b = 1/2"),
            Role.readout: (a + b >= _HALF, "a + b >= 1/2"),
        }[role]
        if not stable:
            raise Infeasible(
                f"{name} is not stable at initialisation: its {matrix} has a = {a} and b = {b}, "
                f"but activations and logits stay bounded only with {condition}"
            )


def _read_pairs(
    names: Sequence[str], pairs: Sequence[tuple[Number, Number]]
) -> tuple[list[tuple[Fraction, Fraction]], list[str]]:
    """(a, b) of every layer, exact, and notes on rounded ones."""
    ab, notes = [], []
    for name, (given_a, given_b) in zip(names, pairs, strict=True):
        a, on_a = rounded(given_a, f"a of {name}")
        b, on_b = rounded(given_b, f"b of {name}")
        ab.append((a, b))
        notes += [*on_a, *on_b]
    return ab, notes


def _depth(parameterization: Layers, alignment: Alignments, depth: int | None) -> int:
    """The number of hidden layers that all who name one agree on."""
    named = {} if depth is None else {"depth": depth}
    if not isinstance(parameterization, Parameterization):
        named["parameterization"] = len(parameterization) - 2
    if not isinstance(alignment, Alignment | Mapping):
        named["alignment"] = len(alignment) - 1
    if not named:
        return 1
    if len(set(named.values())) > 1 or min(named.values()) < 0:
        said = ", ".join(f"{value} by {name}" for name, value in named.items())
        raise ValueError(
            f"the number of hidden layers is {said}; expected one number, at least 0. Give (a, b) "
            "for every layer from embedding to readout, and alignments for all but the embedding"
        )
    return next(iter(named.values()))


def _alignments(alignment: Alignments, roles: Sequence[Role]) -> list[Alignment | None]:
    """One for each layer; the embedding has none, since its fan-in doesn't grow."""
    behind = roles[1:]
    if isinstance(alignment, Alignment):
        return [None, *[alignment] * len(behind)]
    if not isinstance(alignment, Mapping):
        return [None, *alignment]
    by_role = {Role(role): used for role, used in alignment.items()}
    missing = [role for role in dict.fromkeys(behind) if role not in by_role]
    if missing:
        raise ValueError(
            f"alignment has none for {' and '.join(missing)}; it names "
            f"{', '.join(by_role) or 'nothing'}. Give one for hidden and one for readout"
        )
    return [None, *(by_role[role] for role in behind)]
