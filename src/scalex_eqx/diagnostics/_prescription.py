"""From measured alignment to learning rates for this model."""

import dataclasses
from collections.abc import Mapping, Sequence
from fractions import Fraction

from ..theory import (
    Alignment,
    Role,
    Solution,
    as_family,
    full_alignment,
    learning_rate_exponents,
    no_alignment,
    solve,
)
from ..theory._family import Family
from ..theory._role import TRAINED
from ._columns import columns
from ._coordinates import CoordinateCheck, CoordinateRow
from ._exponent import Exponent
from ._results import Table

_FIELDS = ("alpha", "omega", "u")


@dataclasses.dataclass(frozen=True)
class PrescribedWeight:
    """A weight's learning rate exponents, and the alignments behind them.

    **Arguments:**

    - `name`, `path`, `role`: of the weight; layers of a stack have one path.
    - `measured`: alpha, omega and u; `None` where they are not defined or nothing changed.
    - `used`: those with omega as assumed; `None` for a weight whose fan-in doesn't grow.
    - `full`, `none`: its exponent under the presets.
    - `assumed_omega`, `measured_omega`: its exponent under what was measured, with omega as
        assumed and as measured.
    """

    name: str
    path: str
    role: Role
    measured: tuple[Exponent | None, ...]
    used: Alignment | None
    full: Fraction
    none: Fraction
    assumed_omega: Fraction
    measured_omega: Fraction


@dataclasses.dataclass(frozen=True)
class Prescription:
    """Learning rate exponents for one model; printed, a table.

    **Arguments:**

    - `weights`: the weights in the order in which the model uses them.
    - `assumed`: the preset that measured alignments are held against.
    - `assumed_omega`, `measured_omega`: the solutions, with omega as assumed and as measured; one
        for each readout.
    - `not_measured`: the names of those whose alignment was not measured, and is as assumed; what
        sums over nothing that grows needs none.
    """

    weights: tuple[PrescribedWeight, ...]
    assumed: Alignment
    assumed_omega: tuple[Solution, ...]
    measured_omega: tuple[Solution, ...]
    not_measured: tuple[str, ...] = ()

    def rates(self, *, measured_omega: bool = False) -> dict[str, Fraction]:
        """Exponents by path, for an optimizer's `rates`.

        Layers of a stack are one array and have one learning rate, the smallest of theirs.

        **Arguments:**

        - `measured_omega`: whether omega is as measured rather than as assumed.
        """
        found: dict[str, Fraction] = {}
        for weight in self.weights:
            exponent = weight.measured_omega if measured_omega else weight.assumed_omega
            path = weight.path
            found[path] = max(found.get(path, exponent), exponent)
        return found

    def by_role(self, *, measured_omega: bool = False) -> dict[str, Fraction]:
        """The same with an exponent for each role, the smallest learning rate of its weights, and
        further ones for the paths that differ from it.
        """
        rates = self.rates(measured_omega=measured_omega)
        roles = {weight.path: str(weight.role) for weight in self.weights}
        found: dict[str, Fraction] = {}
        for path, exponent in rates.items():
            found[roles[path]] = max(found.get(roles[path], exponent), exponent)
        return found | {path: c for path, c in rates.items() if c != found[roles[path]]}

    def __str__(self) -> str:
        header = ["weight", "role", "alpha", "omega", "u", "full", "none", "measured", "and omega"]
        rows = [[weight.name, str(weight.role), *_cells(weight)] for weight in self.weights]
        return "\n".join([columns([header, *rows], text=2), *self._costs()])

    def table(self, name: str = "prescription") -> Table:
        """The weights as a table that can be stored and compared."""
        exponents = ("full", "none", "assumed_omega", "measured_omega")
        rows = [
            {"weight": weight.name, "role": str(weight.role)}
            | {
                field: None if one is None else one.value
                for field, one in zip(_FIELDS, weight.measured, strict=True)
            }
            | {field: str(getattr(weight, field)) for field in exponents}
            for weight in self.weights
        ]
        columns = ("weight", "role", *_FIELDS, *exponents)
        return Table(name, ("weight",), columns, rows, tolerance=0.1)

    def _costs(self) -> list[str]:
        lost = [
            f"not measured, so that alignment is as assumed: {name}" for name in self.not_measured
        ]
        first = self.weights[0]
        cost = first.measured_omega - first.assumed_omega
        if not cost:
            return [*lost, "omega as measured changes no learning rate in front of the readout"]
        return [
            *lost,
            f"omega as measured is above the assumed {_short(self.assumed.omega)}: to keep it from "
            f"growing, learning rates fall by up to n^-{_short(cost)} more",
        ]


def prescribe(check: CoordinateCheck) -> Prescription:
    r"""The largest stable learning rates under the alignments that a check has measured.

    An alignment whose interval contains the assumed value keeps that; another is taken as it was
    measured, between 0 and 1. The hidden weights are solved as one chain in the order in which the
    model uses them, which is on the safe side where some stand side by side. Each readout ends a
    chain of its own, and a weight in front of several has the smallest of its learning rates.

    The exponents are those of [`scalex_eqx.theory.solve`][], once with $\omega$ as assumed and
    once as measured: a measured $\omega$ above 1/2 asks every earlier layer to change less.

    ```python
    prescription = sx.diagnostics.prescribe(check)
    tx = sx.adam(3e-3, rates=prescription.rates())
    ```

    **Arguments:**

    - `check`: from [`scalex_eqx.diagnostics.coordinate_check`][], of a model that trained for a
        while, with several seeds.

    **Returns:** a `Prescription`.

    **Raises:** `ValueError` if the check was rejected for something certain, its loss didn't fall,
    it has a single seed or no row for a trained weight, or the model lacks an embedding or a
    readout.
    """
    _check_sound(check)
    rows = [row for row in check.rows if "#" not in row.name]
    embeddings, readouts = (_of_role(rows, role) for role in (Role.embedding, Role.readout))
    hidden = [row for row in rows if row.law.role is Role.hidden]
    chains = [[embeddings[0], *hidden, readout] for readout in readouts]
    inner = [*hidden, *readouts]
    by_role = {row.law.role: row.law.family for row in reversed(rows)}
    family = as_family({role: by_role.get(role, readouts[0].law.family) for role in TRAINED})
    used = {row.name: _used(row, ("alpha", "u")) for row in inner}
    with_omega = {row.name: _used(row, _FIELDS) for row in inner}
    solutions = [
        tuple(_solve(chain, family, alignments) for chain in chains)
        for alignments in (used, with_omega)
    ]
    weights = [
        _prescribed(row, used.get(row.name), [_exponent(row, chains, found) for found in solutions])
        for row in rows
    ]
    assumed = readouts[0].law.alignment
    lost = tuple(row.name for row in inner if row.alpha is None)
    return Prescription(tuple(weights), assumed, solutions[0], solutions[1], lost)


def _solve(
    chain: Sequence[CoordinateRow], family: Family, alignments: Mapping[str, Alignment]
) -> Solution:
    specs = [row.law.spec for row in chain]
    pairs = [(spec.multiplier_exponent, spec.spread_exponent) for spec in specs]
    return solve(pairs, family, [alignments[row.name] for row in chain[1:]])


def _used(row: CoordinateRow, fields: Sequence[str]) -> Alignment:
    assumed = row.law.alignment
    values = {name: getattr(assumed, name) for name in _FIELDS}
    for name in fields:
        measured: Exponent | None = getattr(row, name)
        if measured is not None and not _contains(measured, row.law.aligned(values[name])):
            found = measured.value / row.law.aligned(Fraction(1))
            values[name] = round(min(max(found, 0.0), 1.0), 2)
    return Alignment("measured", **values)


def _contains(measured: Exponent, value: float) -> bool:
    low, high = measured.interval or (measured.value, measured.value)
    return low <= value <= high


def _exponent(
    row: CoordinateRow, chains: Sequence[Sequence[CoordinateRow]], solutions: Sequence[Solution]
) -> Fraction:
    """A weight's, out of the solutions of the chains that it is in or in front of."""
    is_readout = row.law.role is Role.readout
    return max(
        _exponent_in(row, chain, solution)
        for chain, solution in zip(chains, solutions, strict=True)
        if not is_readout or chain[-1] is row
    )


def _exponent_in(
    row: CoordinateRow, chain: Sequence[CoordinateRow], solution: Solution
) -> Fraction:
    names = [one.name for one in chain]
    if row.name in names:
        return solution.layers[names.index(row.name)].c
    if row.law.role is Role.embedding:
        return solution.layers[0].c
    # A bias or gain may change what it is added to or multiplied with no more than the rest.
    return _presets(row)[0] + solution.layers[0].residual


def _presets(row: CoordinateRow) -> tuple[Fraction, Fraction]:
    parameterization = row.law.spec.parameterization
    assert parameterization is not None
    full, none = (
        learning_rate_exponents(parameterization, row.law.family, alignment)[row.law.role]
        for alignment in (full_alignment, no_alignment)
    )
    return full, none


def _prescribed(
    row: CoordinateRow, used: Alignment | None, exponents: Sequence[Fraction]
) -> PrescribedWeight:
    measured = tuple(getattr(row, name) for name in _FIELDS)
    law = row.law
    return PrescribedWeight(
        row.name, law.path, law.role, measured, used, *_presets(row), *exponents
    )


def _of_role(rows: Sequence[CoordinateRow], role: Role) -> list[CoordinateRow]:
    found = [row for row in rows if row.law.role is role]
    if not found:
        raise ValueError(f"the model has no {role}, which the theory's chain of layers needs")
    return found


def _check_sound(check: CoordinateCheck) -> None:
    if check.over != "width":
        raise ValueError(
            f"the check is one over the {check.over}; alignments of sums over a fan-in, which "
            "rates are prescribed from, show over the width: give prescribe a check of that"
        )
    if len(check.seeds) < 2:
        raise ValueError(
            "the check has one seed, and so no interval that would tell an alignment from noise; "
            "give coordinate_check at least two seeds"
        )
    if not check.trained:
        raise ValueError(f"{check.summary}. Alignment is that of a model that trains")
    names = {row.name for row in check.rows}
    if without := [name for name in check.unjudged if name not in names]:
        raise ValueError(
            f"the check has no row for {', '.join(without)}, so that no learning rate can be "
            "prescribed for it; its notices say why. Use it where it can be followed, or freeze it"
        )
    certain = [finding for finding in check.findings if finding.certain]
    if certain:
        raise ValueError(
            f"the check was rejected: {certain[0].weight} {certain[0].text}. Mend that first; "
            "alignment measured on a model that is not what it declares prescribes nothing"
        )


def _cells(weight: PrescribedWeight) -> list[str]:
    shown = ["-" if one is None else str(one) for one in weight.measured]
    exponents = (weight.full, weight.none, weight.assumed_omega, weight.measured_omega)
    return [*shown, *map(_short, exponents)]


def _short(exponent: Fraction) -> str:
    return str(exponent) if exponent.denominator <= 4 else f"{float(exponent):.2f}"
