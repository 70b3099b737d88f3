"""What is wrong, by name: from measured exponents to findings."""

import dataclasses
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Literal, get_args

from ...theory import Role
from ...theory._power import growing_fans
from .._exponent import Exponent, fit_exponent
from ._law import Law
from ._rows import CoordinateRow, decay_sizes
from ._run import Measurements

Kind = Literal[
    "role",
    "use",
    "multiplier",
    "initial",
    "update",
    "decay",
    "output",
    "rate",
    "gradient",
    "input",
    "change",
]

# What is exact but for rounding and sampling. The sampling error of an initial size is known; at
# four of them one check of a hundred weights has a false alarm in 160.
SHARP, SAMPLING_ERRORS = 0.02, 4.0
# The largest singular value that Newton-Schulz leaves lies from 1.13 to 1.20: as an exponent that
# is off by 0.09 at most from one width to its double.
MATRIX = 0.1
# What training does is not exact: see the table in the docs for how far correct models stray.
LOOSE = 0.3
# A factor that is missing or there twice is off by alpha, at least 1/2. Gradients of few narrow
# models of different depths scatter by more than those of different widths; and the law's 1 at
# alpha = 1 is a limit, which models of 2 to 8 blocks miss by 0.2. See `tests/power/depth_power.py`.
BRANCH, BRANCH_SHARE = 0.45, 0.6
# Exponents of learning rates are multiples of 1/2, or measured ones.
_SAME_RATE = 0.05
_CERTAIN = ("role", "use", "initial", "multiplier", "update", "decay", "output")


@dataclasses.dataclass(frozen=True)
class CoordinateFinding:
    """Something that is wrong with a weight.

    **Arguments:**

    - `kind`: `"role"`, the declared one contradicts the shapes; `"use"`, what the loss does with
        the weight contradicts its law, which is known before any training; `"initial"` and
        `"multiplier"`, the effective weight's first size; `"update"`, the size of its first update;
        `"decay"`; `"output"`, what comes out of an inner layer vanishes at initialisation;
        `"rate"`, the learning rate's exponent isn't the largest stable one; `"gradient"`, under
        SGD, whose updates follow it, the gradient's isn't that of the theory; `"input"`, what
        reaches the weight grows at initialisation; `"change"`, what comes out of it changes more
        than is explained.
    - `weight`: by its name.
    - `measured`, `expected`: exponents.
    - `text`: a sentence without its subject.
    """

    kind: Kind
    weight: str
    measured: float | None
    expected: float | None
    text: str

    @property
    def certain(self) -> bool:
        """Whether it holds whether or not the model has trained."""
        return self.kind in _CERTAIN

    @property
    def size(self) -> float:
        """How far off."""
        if self.measured is None or self.expected is None:
            return 1.0
        return abs(self.measured - self.expected)


def findings(
    rows: Sequence[CoordinateRow],
    found: Measurements,
    known: Sequence[CoordinateFinding] = (),
) -> list[CoordinateFinding]:
    """Everything wrong, what is certain and what is furthest off first.

    `known` are those that were found before the training.
    """
    common = _embeddings_gradient(rows)
    every = [*known, *(finding for row in rows for finding in _of_row(row, found, common))]
    explained = {finding.weight for finding in known}
    every += (one for one in _vanishing(rows, found) if one.weight not in explained)
    every += _decay(rows, found)
    order = sorted(every, key=lambda f: (not f.certain, _KINDS.index(f.kind), -f.size))
    return list(dict.fromkeys(order))


_KINDS: tuple[str, ...] = get_args(Kind)


def _of_row(
    row: CoordinateRow, found: Measurements, common: Sequence[float]
) -> Iterator[CoordinateFinding]:
    if not is_declared_inside(row.law, found):
        yield from _role(row)
    implementation = [*_initial(row), *_update(row)]
    yield from implementation
    rate = [*_rate(row), *(_branch(row, common) if row.law.over == "depth" else _gradient(row))]
    yield from rate
    if not implementation and not rate:
        yield from _activations(row)


def is_declared_inside(law: Law, found: Measurements) -> bool:
    """Whether a role is declared that shapes can't contradict: one of a layer's fixed axes."""
    role = law.spec.role
    if role is None or law.over != "width" or not growing_fans(law.shown) < growing_fans(role):
        return False
    # Where the sums with a bias go is not followed.
    if role is Role.vector or law.path in {lost.path for lost in found.not_followed}:
        return True
    goes_on, is_behind = (law.path in {pair[end] for pair in found.flow} for end in (0, 1))
    fixed = growing_fans(role) - growing_fans(law.shown)
    return (goes_on or "fan_out" not in fixed) and (is_behind or "fan_in" not in fixed)


def _vanishing(rows: Sequence[CoordinateRow], found: Measurements) -> Iterator[CoordinateFinding]:
    """Inner layers of a fixed size that a readout's law, or a forced one, lets vanish.

    Only where what they reach meets less and less as well: what is normalised in between, or added
    to something that stays, does no harm.
    """
    for row in rows:
        law = row.law
        if "#" in row.name or not _fades(law) or not _vanishes(row.output):
            continue
        behind = {path for first, path in found.flow if first == law.path}
        faint = [other for other in rows if other.law.path in behind and _vanishes(other.input)]
        if not faint:
            continue
        assert row.output is not None
        text = (
            f"puts out what vanishes as {_power(law, row.output.value)} before any training, "
            f"though it is not the model's output but goes on to {faint[0].name}"
        )
        if law.spec.role is Role.readout:
            text += (
                "; if it is an inner layer of a fixed size, give parameterize "
                f"roles={{{law.path!r}: 'hidden'}}"
            )
        yield CoordinateFinding("output", row.name, row.output.value, 0.0, text)


def _fades(law: Law) -> bool:
    """Whether independent entries of the initial weight put out less than they meet, by its law.

    That is asked of readouts alone, whose output may, and of what the shapes don't show.
    """
    may = law.spec.role is Role.readout or law.spec.role is not law.shown
    may = may and law.over == "width"
    return may and law.aligned(Fraction(1, 2)) - law.size < -LOOSE


def _vanishes(found: Exponent | None) -> bool:
    """Beyond the tolerance, and so for every seed: two of them have too wide an interval."""
    return found is not None and found.value < -LOOSE and max(found.by_seed) < 0


def _role(row: CoordinateRow) -> Iterator[CoordinateFinding]:
    declared, shown = row.law.spec.role, row.law.shown
    stays = shown is Role.constant
    if declared is not shown and not stays and "#" not in row.name:
        yield CoordinateFinding(
            "role",
            row.name,
            None,
            None,
            f"is declared {declared}, but its shapes at the widths of this check are those of a "
            f"{shown} weight",
        )


def _initial(row: CoordinateRow) -> Iterator[CoordinateFinding]:
    if row.initial is None or "#" in row.name:
        return
    expected, measured = -row.law.size, row.initial.value
    if abs(measured - expected) <= SHARP + SAMPLING_ERRORS * row.sampling:
        return
    a = row.law.multiplier
    missing = bool(a) and abs(measured - expected - a) <= SHARP + SAMPLING_ERRORS * row.sampling
    by = ": its multiplier doesn't reach it" if missing else ""
    yield CoordinateFinding(
        "multiplier" if missing else "initial",
        row.name,
        measured,
        expected,
        f"starts with a size that goes as {_power(row.law, measured)} instead of "
        f"{_power(row.law, expected)}{by}",
    )


def _update(row: CoordinateRow) -> Iterator[CoordinateFinding]:
    if row.update is None or row.update_expected is None or "#" in row.name:
        return
    measured, expected = row.update.value, row.update_expected
    if abs(measured - expected) <= (SHARP if row.law.family.norm == "entries" else MATRIX):
        return
    yield CoordinateFinding(
        "update",
        row.name,
        measured,
        expected,
        f"is moved at first by an amount that goes as {_power(row.law, measured)} instead of "
        f"{_power(row.law, expected)}",
    )


def _rate(row: CoordinateRow) -> Iterator[CoordinateFinding]:
    if "#" in row.name:
        return
    update, largest = row.law.update, row.law.largest_update
    if abs(update - largest) <= _SAME_RATE:
        return
    rate = row.law.rate
    wanted = rate + largest - update
    summed = row.law.summed
    if row.law.over == "density":
        consequence = f"what comes out of it changes as {_power(row.law, summed - update)}"
    elif update < summed - _SAME_RATE:
        what = "what comes out of it" if row.law.over == "width" else "the residual stream"
        consequence = f"{what} changes by more and more, {_power(row.law, summed - update)}"
    elif update < largest:
        consequence = "its update outgrows it"
    else:
        consequence = f"it is trained less and less, {_power(row.law, largest - update)}"
    yield CoordinateFinding(
        "rate",
        row.name,
        -update,
        -largest,
        f"has a learning rate that goes as {_power(row.law, -rate)}, not "
        f"{_power(row.law, -wanted)}: under {row.law.alignment.name} alignment {consequence}",
    )


def _gradient(row: CoordinateRow) -> Iterator[CoordinateFinding]:
    law = row.law
    matrix = law.role.is_matrix
    if not law.family.gradient_degree or not matrix or row.gradient is None or "#" in row.name:
        return
    measured, expected = row.gradient.value, -law.gradient
    if abs(measured - expected) > LOOSE + row.gradient_sampling:
        yield CoordinateFinding(
            "gradient",
            row.name,
            measured,
            expected,
            f"has a gradient that goes as {_power(law, measured)}, not {_power(law, expected)}, "
            "and its update with it",
        )


def _embeddings_gradient(rows: Sequence[CoordinateRow]) -> tuple[float, ...]:
    """By seed the exponent, over the depth, of the gradients that have come through all blocks.

    The law has none. What chance makes of it in a few models of different depth, all gradients in
    the stack have in common.
    """
    found = [
        row.gradient.by_seed
        for row in rows
        if row.law.role is Role.embedding and not row.law.in_stack and row.gradient is not None
    ]
    return tuple(sum(of_seed) / len(found) for of_seed in zip(*found, strict=True))


def _branch(row: CoordinateRow, common: Sequence[float]) -> Iterator[CoordinateFinding]:
    """Over the depth gradients show the factors of branches, whatever they are used for."""
    law, expected = row.law, -row.law.gradient
    # A gain has too few entries: chance moves their size by more than the tolerance.
    if row.gradient is None or not law.role.is_matrix or "#" in row.name:
        return
    by_seed = row.gradient.by_seed
    beside = ""
    if common and law.in_stack:
        by_seed = [value - of_all for value, of_all in zip(by_seed, common, strict=True)]
        beside = ", beside the embedding's,"
    measured = sum(by_seed) / len(by_seed)
    tolerance = max(BRANCH, BRANCH_SHARE * abs(expected))
    if abs(measured - expected) > tolerance and len({value > expected for value in by_seed}) == 1:
        yield CoordinateFinding(
            "gradient",
            row.name,
            measured,
            expected,
            f"has a gradient that goes{beside} as {_power(law, measured)} instead of "
            f"{_power(law, expected)}: a residual branch's factor is not the law's",
        )


def _activations(row: CoordinateRow) -> Iterator[CoordinateFinding]:
    if row.law.role.sums_over_width and _strays(row, row.input, 0.0):
        assert row.input is not None
        yield CoordinateFinding(
            "input",
            row.name,
            row.input.value,
            0.0,
            "is reached, before any training, by activations that go as "
            f"{_power(row.law, row.input.value)}",
        )
    explained = row.change_explained
    if row.change is None or explained is None:
        return
    limit = explained if row.law.over == "density" else max(explained, 0.0)
    if not _strays(row, row.change, limit):
        return
    yield CoordinateFinding(
        "change",
        row.name,
        row.change.value,
        explained,
        f"puts out what changes as {_power(row.law, row.change.value)}, where its update, its "
        f"alignment and what reaches it explain {_power(row.law, explained)}",
    )


def _strays(row: CoordinateRow, found: Exponent | None, limit: float) -> bool:
    """Whether it grows by more than the limit, or, over the density, which falls, by less too."""
    if row.law.over != "density" or found is None:
        return _above(found, limit)
    high = found.value if found.interval is None else found.interval[1]
    below = found.value < -LOOSE + min(limit, 0.0) and high < min(limit, 0.0)
    return _above(found, max(limit, 0.0)) or below


def _above(found: Exponent | None, limit: float) -> bool:
    """Beyond the tolerance for what training does, by the interval's lower end too."""
    if found is None:
        return False
    low = found.value if found.interval is None else found.interval[0]
    return found.value > limit + LOOSE and low > limit


def _decay(rows: Sequence[CoordinateRow], found: Measurements) -> Iterator[CoordinateFinding]:
    for row in rows:
        if "#" in row.name:
            continue
        fitted = fit_exponent(found.widths, decay_sizes(found, row.name))
        if fitted is not None and abs(fitted.value) > SHARP:
            yield CoordinateFinding(
                "decay",
                row.name,
                fitted.value,
                0.0,
                f"decays by a share a step that goes as {_power(row.law, fitted.value)}: its decay "
                "is coupled to its learning rate",
            )


def _power(law: Law, exponent: float) -> str:
    return f"{law.symbol}^{round(exponent, 2) + 0.0:+.2f}"
