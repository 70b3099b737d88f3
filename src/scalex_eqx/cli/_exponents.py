import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from rich.console import Console
from rich.table import Table

from .. import theory
from ..experiments import UsageError
from ..experiments._config import check_positive
from ..experiments._numbers import parse_exponent
from ..experiments._recipe import PARAMETERIZATIONS, THE_FOUR
from ..theory import Alignment, Parameterization, Role, Solution
from ..theory._family import families as FAMILIES
from ._budget import rule_tables

_ALIGNMENTS = {a.name: a for a in (theory.full_alignment, theory.no_alignment)}
# So many columns of learning rates fit 80 characters.
_COLUMNS = 6
_DEEPEST = 1000
# Those that are shown together.
_FAMILIES = ("sgd", "adam", "adafactor")


@dataclasses.dataclass(frozen=True)
class Cell:
    """The solution for one parameterization, family and alignment."""

    parameterization: Parameterization
    alignment: Alignment
    solution: Solution

    @property
    def name(self) -> str:
        return f"{self.parameterization.name}, {self.family}, {self.alignment.name}"

    @property
    def family(self) -> str:
        return self.solution.family.name

    def shown(self, role: Role) -> str:
        """The learning rate's exponent, starred at the readout if the logits stop changing."""
        star = "*" if self.solution.trivial and role is Role.readout else ""
        return f"{self.solution.exponents[role]}{star}"


@dataclasses.dataclass(frozen=True)
class Exponents:
    """Print how initial values, multipliers, gradients and learning rates scale with the width.

    A number x says: as r^-x, where r is the width divided by the base width. Learning rates are
    the largest stable ones. One parameterization, family and alignment are shown layer by layer.

    Example: scalex exponents --parameterizations mup --families adam
    """

    parameterizations: tuple[str, ...] = THE_FOUR
    """Out of standard, ntk, mup, mean_field and u_mup, of which r is the width itself."""
    families: tuple[str, ...] = _FAMILIES
    """How updates follow from gradient and weight:
    sgd, adam (also Lion, Adam-atan2), adafactor (also Adam with parameter scaling) or muon."""
    alignments: tuple[str, ...] = tuple(_ALIGNMENTS)
    """full, none, or three numbers alpha,omega,u such as 0.8,0.5,1 or 4/5,1/2,1."""
    depth: int = 1
    """Hidden layers; they matter only where omega is not 1/2."""
    json: bool = False
    """Print JSON with all there is to say of every layer."""
    markdown: bool = False
    """Print tables for a Markdown page."""
    budget: bool = False
    """Print the rules for batch size and training length instead, as powers of their ratios."""

    def run(self, console: Console) -> None:
        if self.budget:
            self._print_budget(console)
            return
        cells = self._solve()
        if self.json:
            text = json.dumps([_as_json(cell) for cell in cells], indent=2)
            console.print(text, soft_wrap=True, markup=False, highlight=False)
            return
        show = _print_markdown if self.markdown else _print_table
        if len(cells) == 1:
            show(console, *_layer_table(cells[0]))
            _print_lines(console, _details(cells[0]))
            return
        for header, rows in _role_tables(cells):
            show(console, header, rows)
        _print_lines(console, _footnotes(cells))

    def _print_budget(self, console: Console) -> None:
        self._check_format()
        if self.json:
            tables = [
                [dict(zip(header, row, strict=True)) for row in rows]
                for header, rows in rule_tables()
            ]
            text = json.dumps({"rules": tables[0], "decay": tables[1]}, indent=2)
            console.print(text, soft_wrap=True, markup=False, highlight=False)
            return
        for header, rows in rule_tables():
            (_print_markdown if self.markdown else _print_table)(console, header, rows)

    def _check_format(self) -> None:
        if self.json and self.markdown:
            raise UsageError("--json and --markdown exclude each other; give one of them")

    def _solve(self) -> list[Cell]:
        self._check_format()
        check_positive(self, "depth")
        if self.depth > _DEEPEST:
            raise UsageError(
                f"--depth is {self.depth}; expected at most {_DEEPEST}: each layer is solved for"
            )
        chosen = (
            [
                _choose(name, PARAMETERIZATIONS, "--parameterizations")
                for name in self.parameterizations
            ],
            [_choose(name, FAMILIES, "--families") for name in self.families],
            [_parse_alignment(text) for text in self.alignments],
        )
        if not all(chosen):
            raise UsageError("--parameterizations, --families and --alignments need a value each")
        return [
            Cell(p, alignment, theory.solve(p, family, alignment, depth=self.depth))
            for p, family, alignment in itertools.product(*chosen)
        ]


def _choose(name: str, choices: dict[str, Any], option: str) -> Any:
    if name not in choices:
        raise UsageError(f"{option} has {name!r}; choose from {', '.join(choices)}")
    return choices[name]


def _parse_alignment(text: str) -> Alignment:
    if text in _ALIGNMENTS:
        return _ALIGNMENTS[text]
    try:
        alpha, omega, u = map(parse_exponent, text.split(","))
    except ValueError:
        raise UsageError(
            f"--alignments has {text!r}; expected full, none, or three numbers alpha,omega,u "
            "such as 0.8,0.5,1, none beyond 10"
        ) from None
    # A decimal is a rounded number, and is read as one.
    return Alignment(text, *(x if "/" in text else float(x) for x in (alpha, omega, u)))


def _role_tables(cells: Sequence[Cell]) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Headers and rows: a line for each parameterization and role."""
    by_name = itertools.groupby(cells, key=lambda cell: cell.parameterization.name)
    groups = [list(group) for _, group in by_name]
    for start in range(0, len(groups[0]), _COLUMNS):
        header = ["", "role", "init", "mult.", "grad."]
        columns = [group[start : start + _COLUMNS] for group in groups]
        header += [f"{cell.family} {cell.alignment.name}" for cell in columns[0]]
        yield header, [row for group in columns for row in _role_rows(group)]


def _role_rows(cells: Sequence[Cell]) -> Iterator[list[str]]:
    p = cells[0].parameterization
    for role, gradient in theory.gradient_exponents(p).items():
        exponents = (p.b[role], p.a[role], gradient)
        yield [p.name, role, *map(str, exponents), *(cell.shown(role) for cell in cells)]


def _layer_table(cell: Cell) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a line for each layer, and one for equal layers that follow each other."""
    header = ["layer", "init", "mult.", "grad.", "rate", "update", "change", "binding"]
    rows: list[list[str]] = []
    binding = [entry.split(": ") for entry in cell.solution.binding]
    for one in cell.solution.layers:
        numbers = (one.b, one.a, one.initial_gradient, one.c, one.update, one.residual)
        names = ", ".join(name for layer, name in binding if layer == one.name)
        row = [*map(str, numbers), names]
        if rows and rows[-1][1:] == row:
            first = rows[-1][0].split(" to ")[0]
            rows[-1][0] = f"{first} to {one.name.removeprefix('hidden ')}"
        else:
            rows.append([one.name, *row])
    for role in (Role.vector, Role.constant):
        gradient = theory.gradient_exponents(cell.parameterization)[role]
        rows.append([role, "0", "0", str(gradient), cell.shown(role), "", "", ""])
    return header, rows


def _details(cell: Cell) -> Iterator[str]:
    yield f"{cell.name}: {cell.solution.verdict}."
    yield from _alternatives(cell)
    yield from cell.solution.notes


def _footnotes(cells: Sequence[Cell]) -> Iterator[str]:
    for cell in cells:
        if cell.solution.trivial:
            yield f"* {cell.name}: {cell.solution.verdict}."
            yield from _alternatives(cell)
    yield from dict.fromkeys(note for cell in cells for note in cell.solution.notes)


def _alternatives(cell: Cell) -> Iterator[str]:
    for alternative in cell.solution.alternatives:
        rates = ", ".join(f"{role} {c}" for role, c in alternative.solution.exponents.items())
        yield f"Alternative: {rates}; {alternative.why}."


def _print_table(console: Console, header: list[str], rows: list[list[str]]) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for index, name in enumerate(header):
        table.add_column(name.replace(" ", "\n"), overflow="fold", no_wrap=index < 2)
    for before, row in itertools.pairwise([[""], *rows]):
        # A parameterization is named once, in the first of its rows.
        table.add_row(*(["", *row[1:]] if row[0] == before[0] else row))
    console.print(table, markup=False, highlight=False)
    console.print()


def _print_markdown(console: Console, header: list[str], rows: list[list[str]]) -> None:
    lines = [header, ["---"] * len(header), *rows]
    text = "\n".join(f"| {' | '.join(line)} |".replace("*", r"\*") for line in lines)
    console.print(text + "\n", soft_wrap=True, markup=False, highlight=False)


def _print_lines(console: Console, lines: Iterator[str]) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _as_json(cell: Cell) -> dict[str, Any]:
    solution = cell.solution
    s = cell.alignment
    return {
        "parameterization": cell.parameterization.name,
        "family": cell.family,
        "alignment": {"alpha": str(s.alpha), "omega": str(s.omega), "u": str(s.u)},
        "learning_rate": _texts(solution.exponents),
        "stable": solution.stable,
        "trivial": solution.trivial,
        "feature_learning": solution.feature_learning,
        "verdict": solution.verdict,
        "notes": list(solution.notes),
        "binding": list(solution.binding),
        "alternatives": [
            {"learning_rate": _texts(one.solution.exponents), "why": one.why}
            for one in solution.alternatives
        ],
        "layers": [
            {"name": one.name}
            | _texts(
                {
                    "init": one.b,
                    "multiplier": one.a,
                    "gradient": one.initial_gradient,
                    "gradient_in_training": one.gradient,
                    "learning_rate": one.c,
                    "update": one.update,
                    "change": one.residual,
                }
            )
            for one in solution.layers
        ],
    }


def _texts(exponents: dict[Any, Fraction]) -> dict[str, str]:
    return {str(name): str(exponent) for name, exponent in exponents.items()}
