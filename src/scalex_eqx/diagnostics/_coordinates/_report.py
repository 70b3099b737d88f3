"""The coordinate check: what was found, as a table and in a sentence."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import optax
from jaxtyping import Array

from ...theory import Alignment
from ...theory._family import Families
from .._columns import columns
from .._exponent import Exponent
from .._results import Table
from ._conflicts import Conflicts, conflicts
from ._judge import LOOSE, CoordinateFinding, findings
from ._law import SYMBOLS, Law, laws, may_rescale, optimizer_parts
from ._models import Build, Number, Over, plural, shapes, sizes_of
from ._notices import broken_assumptions, declarations
from ._rows import CoordinateRow, loss_drops, rows, starves
from ._run import Advance, Batch, Measurements, measure
from ._shares import StepShares, notable, shares
from ._unjudged import unjudged

Verdict = Literal["passes", "rejected", "inconclusive"]


@dataclasses.dataclass(frozen=True)
class CoordinateCheck:
    """What a coordinate check found; printed, a table and a sentence.

    **Arguments:**

    - `verdict`: `"rejected"`, with the culprits in `findings`; `"inconclusive"` if nothing was
        found but the loss didn't fall either, or there are `unjudged` weights; else `"passes"`.
    - `findings`: what is wrong, the worst first.
    - `notices`: assumed alignments that don't hold, weights that could not be judged, and those of
        whose update epsilon takes more and more.
    - `rows`: the exponents of every use of every weight.
    - `shares`: what weight decay and epsilon take of a step, by weight and width.
    - `loss_drops`: by width, the share of the initial loss that training took off.
    - `trained`: whether that was enough at every width.
    - `widths`, `seeds`, `steps`: at which, and after how many steps.
    - `unjudged`: the trained weights that the check can't vouch for; a notice for each says why.
    - `over`: what grows: `"width"`, `"depth"` or `"density"`; then the numbers of `widths` are
        depths, or densities.
    """

    verdict: Verdict
    findings: tuple[CoordinateFinding, ...]
    notices: tuple[str, ...]
    rows: tuple[CoordinateRow, ...]
    shares: tuple[StepShares, ...]
    loss_drops: tuple[float, ...]
    trained: bool
    widths: tuple[Number, ...]
    seeds: tuple[int, ...]
    steps: int
    unjudged: tuple[str, ...] = ()
    over: Over = "width"

    @property
    def summary(self) -> str:
        """The verdict, the worst offender and the likely cause, in a sentence."""
        if self.verdict == "rejected":
            worst = self.findings[0]
            alike = len({f.weight for f in self.findings if f.kind == worst.kind}) - 1
            more = f" ({alike} more like it)" if alike else ""
            return f"rejected: {worst.weight} {worst.text}{more}"
        drops = ", ".join(f"{100 * drop:.1f} %" for drop in self.loss_drops)
        if self.verdict == "inconclusive" and self.trained:
            return f"inconclusive: {_some(self.unjudged)} not judged; the notes say why"
        if self.verdict == "inconclusive" and not all(drop > -0.1 for drop in self.loss_drops):
            return (
                "inconclusive: the loss rose; train at a smaller learning rate, and see that the "
                "optimizer has one"
            )
        if self.verdict == "inconclusive":
            fell = f"the loss fell by {drops} at the {plural(self.over)}"
            return f"inconclusive: {fell}; train longer or faster"
        return f"passes: nothing found, and the loss fell by {drops}"

    def __str__(self) -> str:
        numbers = f"{len(self.seeds)} seeds, {self.steps} steps"
        head = f"{plural(self.over)} {_listed(self.widths)}, {numbers}"
        header = ["weight", "role", "init", "meant", "update", "meant", "largest", "alpha"]
        header += ["omega", "u", "change", "assumed", "explained"]
        lines = [header, *(_cells(row) for row in self.rows)]
        alike: dict[str, list[str]] = {}
        for finding in self.findings:
            alike.setdefault(finding.text, []).append(finding.weight)
        return "\n".join(
            [
                f"{head}: exponents of sizes that grow as {SYMBOLS[self.over]}^p",
                columns(lines, text=2),
                *(f"- {_some(weights)} {text}" for text, weights in alike.items()),
                *(f"note: {text}" for text in self.notices),
                self.summary,
            ]
        )

    def table(self, name: str = "coordinates") -> Table:
        """The rows as a table that can be stored and compared."""
        return Table(
            name,
            keys=("weight",),
            columns=("weight", "role", *(field for field, _ in _COLUMNS)),
            rows=[
                {
                    "weight": row.name,
                    "role": str(row.law.role),
                    **{field: value(row) for field, value in _COLUMNS},
                }
                for row in self.rows
            ],
            tolerance=0.1,
        )


def _value(exponent: Exponent | None) -> float | None:
    return None if exponent is None else exponent.value


_COLUMNS: tuple[tuple[str, Callable[[CoordinateRow], float | None]], ...] = (
    ("initial", lambda row: _value(row.initial)),
    ("initial_expected", lambda row: -row.law.size),
    ("gradient", lambda row: _value(row.gradient)),
    ("gradient_expected", lambda row: -row.law.gradient),
    ("update", lambda row: _value(row.update)),
    ("update_expected", lambda row: row.update_expected),
    ("update_largest", lambda row: -row.law.largest_update),
    ("alpha", lambda row: _value(row.alpha)),
    ("omega", lambda row: _value(row.omega)),
    ("u", lambda row: _value(row.u)),
    ("first_change", lambda row: _value(row.first_change)),
    ("change", lambda row: _value(row.change)),
    ("change_assumed", lambda row: row.change_assumed),
    ("change_explained", lambda row: row.change_explained),
)


def _cells(row: CoordinateRow) -> list[str]:
    shown = dict(_COLUMNS)
    fields = ("initial", "initial_expected", "update", "update_expected", "update_largest")
    fields += ("alpha", "omega", "u", "change", "change_assumed", "change_explained")
    return [row.name, str(row.law.role), *(_shown(shown[field](row)) for field in fields)]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value + 0.0:+.2f}".replace("-0.00", "+0.00")


def _some(names: Sequence[str]) -> str:
    """One name, or several in front of a predicate in the singular."""
    if len(names) == 1:
        return names[0]
    if len(names) < 4:
        return f"{', '.join(names)}: each"
    return f"{', '.join(names[:2])} and {len(names) - 2} more: each"


def _listed(numbers: Sequence[Number]) -> str:
    return ", ".join(map(str, numbers))


def coordinate_check(
    build: Build,
    loss: Callable[..., Array],
    tx: optax.GradientTransformation,
    batch: Batch,
    *,
    widths: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    densities: Sequence[Fraction | int | float | str] | None = None,
    size: Over = "width",
    seeds: Sequence[int] = (0, 1, 2, 3),
    steps: int = 10,
    alignment: Alignment | None = None,
    family: Families | None = None,
    least_drop: float = 0.02,
    advance: Advance | None = None,
) -> CoordinateCheck:
    r"""Trains a model for a few steps at several widths, and says which weight scales wrongly.

    ```python
    def build(width, key):
        return sx.parameterize(
            lambda width: Model(width, key=key),
            width=width, base_width=64, parameterization=sx.mup,
        )

    check = sx.diagnostics.coordinate_check(build, loss, sx.adam(0.01), batch)
    print(check)
    ```

    Sizes are root mean squares, and an exponent $p$ says that one grows as $n^p$ with the width.
    Of every weight it measures what can be told with certainty first:

    1. its shapes, hence its role;
    2. the effective weight's initial size, meant to be $-(a + b)$;
    3. the size of its first update, meant to be $-(a + c + p\, g + q\, b)$, with gradient and
       weight as measured in this run;
    4. the share that weight decay takes off in a step, meant to be the same at every width.

    Then what depends on how the model trains: whether the learning rate is the largest stable one
    under the assumed `alignment`; and after the last step the measured alignments
    $\alpha, \omega, u$ and the change of what comes out, beside what the theory says with the
    assumed alignment and with the measured one. An alignment that is not as assumed is a notice:
    it is no mistake of the model's. A change that nothing explains is.

    **Arguments:**

    - `build`: `build(width, key)` makes the model with [`scalex_eqx.parameterize`][].
    - `loss`: `loss(model, *inputs)`, a scalar.
    - `tx`: the optimizer; its first step must not have a learning rate of zero.
    - `batch`: `batch(key)` makes the inputs of a step, the same at every width.
    - `widths`: at least two; 64, 128, 256 and 512 unless given.
    - `size`: `"width"`, or `"density"`: then `build(density, key)` masks a model of one width with
        [`scalex_eqx.sparsify`][], exponents are those of the density $\rho$, and sizes of masked
        weights, their gradients and updates those over the entries that are kept. Or `"depth"`:
        then `build(depth, key)` makes models of one width, and
        exponents are those of the depth $L$. Of the layers of a stack the first, the middle and
        the last are compared. A gradient that doesn't go as the law says is a finding for every
        family of updates, since it shows the factors of residual branches.
    - `depths`, `densities`: with that size; 2, 4, 8 and 16, or 1/16, 1/4 and 1, unless given.
    - `seeds`: intervals are over seeds.
    - `steps`: how many. The activations looked at are those on the batch of the first.
    - `alignment`: assumed; by default what `tx` takes its rates from, or the family's usual one.
    - `family`: of the updates, for optimizers of other libraries.
    - `least_drop`: the share of the initial loss that has to be gone at every width; if it isn't,
        and nothing certain is wrong, the check is inconclusive.
    - `advance`: called as `advance(width, done, total)` while it runs.

    **Returns:** a `CoordinateCheck`.

    **Raises:** `ValueError` for sizes that are too few or of the other kind, a model with arrays
    without a scaling law, models that differ in more than that size, a first update of zero,
    and an optimizer whose family is not known.
    """
    given: dict[Over, Sequence[Any] | None] = {
        "width": widths,
        "depth": depths,
        "density": densities,
    }
    ordered = sizes_of(size, given)
    _check_arguments(seeds, steps)
    looked = dict.fromkeys((1, steps))
    models = shapes(build, ordered, size)
    chain = optimizer_parts(models[-1], tx)
    law = laws(ordered, models, chain, family, alignment, size)
    known = conflicts(loss, batch, models, law, chain, size)
    found = measure(
        build,
        loss,
        tx,
        batch,
        widths=ordered,
        models=models,
        seeds=seeds,
        steps=list(looked),
        spectral=frozenset(one.path for one in law.values() if one.family.norm == "spectral"),
        advance=advance,
        over=size,
    )
    return judge(
        found, law, least_drop, shares(found, chain), known=known, rescaled=may_rescale(chain)
    )


def judge(
    found: Measurements,
    laws: Mapping[str, Law],
    least_drop: float,
    shares: Sequence[StepShares] = (),
    *,
    known: Conflicts = Conflicts(),  # noqa: B008
    rescaled: bool = False,
) -> CoordinateCheck:
    """The check's result, from what was measured and what was meant."""
    judged, notices = rows(found, laws, rescaled=rescaled)
    _check_moved(judged)
    wrong = tuple(findings(judged, found, known.findings))
    drops = tuple(loss_drops(found))
    # Written so that a loss that is not a number counts as one that didn't fall.
    trained = all(drop >= least_drop for drop in drops)
    lost, told = unjudged(judged, laws, found)
    notices += [*known.notices, *told, *declarations(laws, found)]
    starving = starves(found.losses, found.widths, least_drop, LOOSE)
    starved = _starved(wrong) if starving and not trained else ()
    if starved:
        wrong = tuple(sorted(wrong, key=lambda f: (not f.certain, f not in starved)))
        notices.append(
            f"the loss fell by {drops[0]:.1%} at {found.over} {found.widths[0]} and by "
            f"{drops[-1]:.1%} at {found.over} {found.widths[-1]}: less and less, as what is found "
            "explains"
        )
    return CoordinateCheck(
        _verdict(wrong, trained or bool(starved), bool(lost)),
        wrong,
        (*notices, *broken_assumptions(judged), *notable(found.widths, shares, found.over)),
        tuple(judged),
        tuple(shares),
        drops,
        trained,
        found.widths,
        found.seeds,
        found.steps[-1],
        tuple(lost),
        found.over,
    )


def _verdict(wrong: Sequence[CoordinateFinding], trained: bool, lost: bool) -> Verdict:
    if any(finding.certain for finding in wrong) or (wrong and trained):
        return "rejected"
    return "passes" if trained and not lost else "inconclusive"


def _starved(wrong: Sequence[CoordinateFinding]) -> tuple[CoordinateFinding, ...]:
    """The findings of updates that fall too fast with the width."""
    return tuple(
        finding
        for finding in wrong
        if finding.kind in ("rate", "gradient")
        and finding.measured is not None
        and finding.expected is not None
        and finding.measured < finding.expected
    )


def _check_arguments(seeds: Sequence[int], steps: int) -> None:
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds are {list(seeds)}; expected at least one, each once")
    if steps < 1:
        raise ValueError(f"steps is {steps}; expected at least 1")


def _check_moved(judged: Sequence[CoordinateRow]) -> None:
    if judged and all(row.update is None for row in judged):
        raise ValueError(
            "the first update is zero or not finite for every weight; the check needs a learning "
            "rate that isn't zero at the first step, without a warm-up"
        )
