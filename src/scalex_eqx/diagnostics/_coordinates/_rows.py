"""The exponents of every weight: measured, and as they are meant to be."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ...theory import Role
from .._alignment import MeasuredAlignment, weight_name
from .._exponent import Exponent, fit_exponent
from ._law import Law
from ._models import Number
from ._run import Measurements, without_gradient

_OCTAVES_PER_E = math.log2(math.e)


@dataclasses.dataclass(frozen=True)
class CoordinateRow:
    r"""One use of a weight: exponents $p$ of sizes that grow as $n^p$ with the width $n$.

    Over the depth it is $L^p$, and `first`, `middle` and `last` stand for the number of a layer.

    **Arguments:**

    - `name`: the weight's path, the number of a layer in a stack behind it; a second use has `#2`.
    - `law`: what the weight is meant to do.
    - `initial`: of the effective weight at initialisation; meant to be $-(a + b)$. `None` where
        it starts at zero.
    - `gradient`: of the first gradient; by the theory $-g$.
    - `update`: of the effective weight's first update, over the entries that moved, or by its
        largest singular value where the family's `norm` says so.
    - `update_expected`: what it is meant to be, given the `initial` size if the family's updates
        are relative to the weight, and the `gradient` if they follow that.
    - `sampling`: the standard error of `initial` from the finite number of entries.
    - `gradient_sampling`: that of `gradient` from the finite number of outputs, through each of
        which comes what is as random as the weights behind. 0 for a readout: the loss is behind it.
    - `alpha`, `omega`, `u`: of the alignment ratios after the last step.
    - `input`, `output`: of what reaches the weight, and of what comes out of it, at first.
    - `input_change`, `change`: of the changes of both, after the last step.
    - `first_change`: the last after the first step.
    - `change_assumed`, `change_explained`: what `change` is by theory, with the assumed alignment,
        and with the measured one and what reaches the weight.
    - `sizes`: by width the root mean square of the change of what comes out, geometric mean over
        seeds.
    """

    name: str
    law: Law
    initial: Exponent | None
    gradient: Exponent | None
    update: Exponent | None
    update_expected: float | None
    sampling: float
    gradient_sampling: float
    alpha: Exponent | None
    omega: Exponent | None
    u: Exponent | None
    input: Exponent | None
    output: Exponent | None
    input_change: Exponent | None
    first_change: Exponent | None
    change: Exponent | None
    change_assumed: float
    change_explained: float | None
    sizes: tuple[float, ...]


def rows(
    found: Measurements, laws: Mapping[str, Law], *, rescaled: bool
) -> tuple[list[CoordinateRow], list[str]]:
    """A row for each use, and notices for what is taken off of all.

    **Arguments:**

    - `found`, `laws`: what was measured and what was meant.
    - `rescaled`: whether something in the optimizer, such as a clip, may scale all gradients by
        one factor.
    """
    idle = without_gradient(found.gradients)
    names = [name for name in found.order if weight_name(name) in laws and _is_used(name, found)]
    made = [_row(name, laws[weight_name(name)], found) for name in names if _is_met(name, found)]
    made = [_unmoved(row) if weight_name(row.name) in idle else row for row in made]
    return _common_factor(made) if rescaled else (made, [])


def _is_used(name: str, found: Measurements) -> bool:
    """Whether the model makes this use of the weight at every width."""
    return all(name in seed for step in found.uses.values() for row in step for seed in row)


def _is_met(name: str, found: Measurements) -> bool:
    """Whether something meets the weight there: not every use of a stack is one of all members.

    The first use stands for the weight itself, and has a row in any case.
    """
    last = found.steps[-1]
    met = [math.isfinite(x) for row in _sizes(found, name, "input", last) for x in row]
    return "#" not in name or any(met)


def _unmoved(row: CoordinateRow) -> CoordinateRow:
    """What is left to say of a weight that nothing has moved at first."""
    return dataclasses.replace(
        row, gradient=None, update=None, update_expected=None, change=None, change_explained=None
    )


def _common_factor(rows: list[CoordinateRow]) -> tuple[list[CoordinateRow], list[str]]:
    """Takes off by what the first updates of all weights alike follow the gradients no further.

    Most weights of a deep model stand in its stack, and have their mistakes in common: over the
    depth the others tell.
    """
    off = [
        row.update.value - row.update_expected
        for row in [row for row in rows if not row.law.in_stack] or rows
        if row.update is not None and row.update_expected is not None
    ]
    common = float(np.median(off)) if off else 0.0
    notices = []
    if abs(common) > 0.005:
        notices = [
            f"the first updates of all weights have a factor in common that goes as "
            f"{rows[0].law.symbol}^{common:+.2f}, as from clipping the gradients' norm",
        ]
    moved = [
        row
        if row.update_expected is None
        else dataclasses.replace(row, update_expected=row.update_expected + common)
        for row in rows
    ]
    return moved, notices


def _row(name: str, law: Law, found: Measurements) -> CoordinateRow:
    weight, first, last = weight_name(name), found.steps[0], found.steps[-1]

    def fit(field: str, step: int) -> Exponent | None:
        return fit_exponent(found.widths, list(_sizes(found, name, field, step)))

    sampling = functools.partial(_sampling, found.widths, len(found.seeds))
    gradient = fit_exponent(found.widths, [[s[weight] for s in row] for row in found.gradients])
    initial, change = fit("weight", first), fit("output_change", last)
    alpha, omega, u = (fit(field, last) for field in ("alpha", "omega", "u"))
    into, into_change = fit("input", last), fit("input_change", last)
    # An embedding is summed over where it is the readout too.
    sums = law.role.sums_over_width or "#" in name
    explained = _explained(law, sums, (alpha, omega, u), into, into_change)
    return CoordinateRow(
        name=name,
        law=law,
        initial=initial,
        gradient=gradient,
        update=fit_exponent(found.widths, _updates(found, name)),
        update_expected=_expected(law, initial, gradient),
        sampling=sampling([of_width[weight] for of_width in found.entries]),
        gradient_sampling=0.0 if law.role is Role.readout else sampling(law.units),
        alpha=alpha,
        omega=omega,
        u=u,
        input=into,
        output=fit("output", last),
        input_change=into_change,
        first_change=fit("output_change", first),
        change=change,
        change_assumed=_assumed(law),
        change_explained=explained,
        sizes=tuple(
            2 ** float(np.mean(np.log2(np.maximum(row, 1e-300))))
            for row in _sizes(found, name, "output_change", last)
        ),
    )


def _sizes(found: Measurements, name: str, field: str, step: int) -> Iterator[list[float]]:
    for width in found.uses[step]:
        yield [_size(seed[name], field) for seed in width]


def _size(use: MeasuredAlignment, field: str) -> float:
    """A size, or the ratio behind a logarithm to the base of the fan-in."""
    value = getattr(use, field)
    if value is None:
        return math.nan
    is_logarithm = field in ("alpha", "omega", "u")
    return float(use.fan_in) ** float(value) if is_logarithm else float(value)


def _updates(found: Measurements, name: str) -> list[list[float]]:
    """The first update's root mean square over the entries that it moved.

    Of one that is judged by its largest singular value, that of a matrix of rank one which has it.
    """
    weight = weight_name(name)

    def size(use: MeasuredAlignment, moved: float, peak: float | None) -> float:
        if peak is not None:
            return float(use.weight_change) * peak
        return float(use.weight_change) / math.sqrt(moved) if moved else 0.0

    return [
        [
            size(use[name], moved[weight], peaks.get(weight))
            for use, moved, peaks in zip(*of_width, strict=True)
        ]
        for of_width in zip(found.uses[found.steps[0]], found.moved, found.peaks, strict=True)
    ]


def _expected(law: Law, initial: Exponent | None, gradient: Exponent | None) -> float | None:
    r"""$-(a + c + o) - p g - q b$ with $g$ and $b$ as measured: their sampling errors cancel."""
    p, q = law.family.gradient_degree, law.family.weight_degree
    exponent = -law.own_update
    if p:
        if gradient is None:
            return None
        exponent += float(p) * gradient.value
    if q:
        spread = -law.spread
        if initial is not None:
            spread = initial.value + law.multiplier
        exponent += float(q) * spread
    return exponent


def _assumed(law: Law) -> float:
    """The change of the output, if nothing in front of the weight grows or vanishes."""
    if not law.role.sums_over_width:
        return -law.update
    s = law.alignment
    alpha, omega, u = (law.aligned(x) for x in (s.alpha, s.omega, s.u))
    return -min(law.update - alpha, law.update - u, law.size - omega)


def _explained(
    law: Law,
    sums: bool,
    alignment: tuple[Exponent | None, Exponent | None, Exponent | None],
    into: Exponent | None,
    into_change: Exponent | None,
) -> float | None:
    """The same with alignment, input and its change as measured."""
    update, size = -law.update, -law.size
    alpha, omega, u = alignment
    if sums and alpha is not None:
        terms = [_sum(update, alpha, into)]
        if into_change is not None:
            terms += [_sum(update, u, into_change), _sum(size, omega, into_change)]
    else:
        terms = [_sum(update, into)]
        if into_change is not None:
            terms.append(_sum(size, into_change))
    known = [term for term in terms if term is not None]
    return max(known) if known else None


def _sum(exponent: float, *others: Exponent | None) -> float | None:
    values = [other.value for other in others if other is not None]
    return exponent + sum(values) if len(values) == len(others) else None


def _sampling(widths: Sequence[Number], seeds: int, numbers: Sequence[int]) -> float:
    r"""The standard error of a fitted exponent of a normal sample's root mean square.

    That of $\log_2$ of it is $\log_2(e) / \sqrt{2 N}$ with $N$ entries over all seeds, `numbers`
    for each of them at each width.
    """
    x = np.log2(np.asarray(widths, np.float64))
    x = x - np.mean(x)
    counts = np.array(numbers) * seeds
    return float(np.sqrt(np.sum(x**2 * _OCTAVES_PER_E**2 / (2 * counts))) / np.sum(x**2))


def loss_drops(found: Measurements) -> list[float]:
    """By width, the share of the initial loss that training took off, mean over seeds."""
    first, last = found.losses[:, :, 0], found.losses[:, :, -1]
    return [float(x) for x in np.mean((first - last) / np.abs(first), axis=1)]


def starves(
    losses: np.ndarray, widths: Sequence[Number], least_drop: float, tolerance: float
) -> bool:
    r"""Whether the model learns at the smallest width, and less and less at larger ones.

    With the drop $d$ of the loss at the smallest width $n$ and $d'$ at the largest, $n'$:
    $d \ge$ `least_drop`, and $d' < d\, (n' / n)^{-\text{tolerance}}$ in the mean over seeds and
    for each of them. A loss that rises is another matter.

    **Arguments:**

    - `losses`: (widths, seeds, steps + 1).
    """
    drops = (losses[:, :, 0] - losses[:, :, -1]) / np.abs(losses[:, :, 0])
    # The mean over seeds is one more case.
    drops = np.concatenate([drops, drops.mean(axis=1, keepdims=True)], axis=1)
    shrunk = drops[-1] < drops[0] * (widths[-1] / widths[0]) ** -tolerance
    rises = not (drops[:, -1] > -least_drop).all()
    return bool(drops[0, -1] >= least_drop and shrunk.all()) and not rises


def decay_sizes(found: Measurements, name: str) -> Sequence[Sequence[float]]:
    """By width and seed, the share of a weight that a step without gradient takes off."""
    return [[seed[name] for seed in row] for row in found.decay]
