import dataclasses
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import track

from .. import diagnostics
from .._usage import shown
from ..diagnostics import GradientKind, Headroom, Results, StressDtype
from ..diagnostics._stress._rules import NOT_STRESSED
from ..experiments import UsageError
from ..experiments._config import check_width
from ..experiments._recipe import PARAMETERIZATIONS
from ..problems._corpus import check_fits
from ._called import called
from ._gradient_sizes import gradient_sizes
from ._help import own_options_first
from ._picture import check_picture, write_picture
from ._problem import TEXT, ProblemOptions
from ._stress_tables import Found, print_differences, print_found, print_headroom, print_json

_DEFAULT = (
    "adam",
    "adam-1e-8",
    "adam_atan2",
    "adafactor",
    "adam_parameter_scaling",
    "lion",
    "sgd",
    "optax.adam",
    "optax.adafactor",
)
_OPTIMIZER = f"""Rules by name, or all: {", ".join(diagnostics.stress_rules)}.
An appended number is a constant epsilon, an appended dtype that of the moments.
Others are measured without an expectation: muon, adam(b2=0.99),
and your own: optax.adan(1e-3), my_rule.py:make."""


@own_options_first
@dataclasses.dataclass(frozen=True)
class Stress(ProblemOptions):
    """Find out at which gradient scales update rules stop doing what their formula says, on this
    device.

    Each rule gets gradients 2^k times those of a typical step, for every k that the dtype has, and
    is held against its own formula in float64. It is safe where the update is within 1 % of the
    formula and within 10 % of its size at scale 1. The exit code is 1 if a rule does not do what
    its formula and the number formats lead to expect, or if two files differ.

    Example: scalex stress --optimizer adam-1e-8 adam_atan2 --width 8192

    Example: scalex stress --problem my_model.py:problem --width 4096

    Example: scalex stress --json > cpu.json; scalex stress --compare cpu.json gpu.json
    """

    optimizer: Annotated[tuple[str, ...], tyro.conf.arg(help=_OPTIMIZER)] = _DEFAULT
    dtype: StressDtype = "float32"
    """Of gradients and weights."""
    gradient: GradientKind = "noisy"
    """How gradients come, in this order:
    always the same, N(0.1, 1), one row in sixteen, Student's t, suddenly 256 times smaller."""
    width: int | None = None
    """Also print how near gradients of the problem's model at this width come to each rule's edge;
    the options of the problem are for this."""
    base_width: int = 64
    """The width at which these gradients are measured, and the model is what its make says."""
    parameterization: str = "standard"
    """Of that model: standard, ntk, mup, mean_field or u_mup."""
    json: bool = False
    """Print JSON, which --compare reads."""
    picture: Path | None = None
    """Draw update against scale into this PNG file."""
    compare: tuple[Path, Path] | None = None
    """Measure nothing, and print where two JSON files differ."""

    def run(self, console: Console) -> int:
        """Prints what was found; returns the exit code."""
        if self.compare is not None:
            return print_differences(console, *map(_read, self.compare))
        rules = self._rules()
        check_picture(self.picture)
        gradients = self._gradients()
        found = {name: self._measured(name, rules[name]) for name in _watched(list(rules))}
        judged = {
            name: diagnostics.stress_expectations(rules[name], result)
            for name, result in found.items()
            if name in diagnostics.stress_rules
        }
        nearest = (
            {}
            if self.width is None
            else _nearest(rules, found, gradients, width=self.width, base_width=self.base_width)
        )
        if self.json:
            print_json(console, found, judged, nearest)
        else:
            device = diagnostics.describe_device()
            kind = f"{self.gradient} gradients 2^k, all in {self.dtype}"
            print_found(console, f"{device.chip} ({device.platform}): {kind}", found, judged)
            if self.width is not None:
                what = "A Transformer" if self.problem == TEXT else f"The model of {self.problem}"
                model = f"{what} of width {self.width}, {self.parameterization} parameterization"
                print_headroom(console, nearest, model)
        if self.picture is not None:
            write_picture(diagnostics.stress_figure(list(found.values())), self.picture)
        return int(any(not e.holds for one in judged.values() for e in one))

    def _measured(self, name: str, rule: diagnostics.StressRule) -> diagnostics.Stress:
        try:
            return diagnostics.stress(
                rule.make(),
                name=name,
                gradient=self.gradient,
                gradient_dtype=self.dtype,
                parameter_dtype=self.dtype,
                shape=rule.shape,
            )
        except Exception as error:
            if name in diagnostics.stress_rules:
                raise
            said = " ".join(str(error).split())
            raise UsageError(f"--optimizer has {name}, which can't be run: {said}") from error

    def _rules(self) -> dict[str, diagnostics.StressRule]:
        """The rules asked for, by name; those that have no limits by what they were called by."""
        known = diagnostics.stress_rules
        names = list(known) if self.optimizer == ("all",) else list(dict.fromkeys(self.optimizer))
        if not names:
            raise UsageError(
                f"--optimizer has no name; give all alone, or some of {', '.join(known)}"
            )
        return {name: known[name] if name in known else _own_rule(name) for name in names}

    def _gradients(self) -> dict:
        """What the model's gradients are at the base width; nothing if no width is asked for."""
        if self.parameterization not in PARAMETERIZATIONS:
            choices = ", ".join(PARAMETERIZATIONS)
            raise UsageError(
                f"--parameterization is {self.parameterization!r}; choose from {choices}"
            )
        if self.width is None:
            self._check_without_width()
            return {}
        check_width("--width", self.width)
        check_width("--base-width", self.base_width)
        problem = self.load(width=(self.width,), base_width=(self.base_width,))
        law = PARAMETERIZATIONS[self.parameterization]
        return gradient_sizes(problem, law, self.base_width, width=self.width)

    def _check_without_width(self) -> None:
        """The rules alone are measured without a model."""
        of_a_model = {field.name for field in dataclasses.fields(ProblemOptions)}
        of_a_model |= {"base_width", "parameterization"}
        for field in dataclasses.fields(self):
            if field.name in of_a_model and getattr(self, field.name) != field.default:
                raise UsageError(
                    f"--{field.name.replace('_', '-')} is given, which is about a model; give "
                    "--width too, or leave it out"
                )


def _watched(names: Sequence[str]) -> Iterable[str]:
    """The names, with a bar on the error stream, out of the way of what is printed."""
    return track(names, "measuring", console=Console(stderr=True), transient=True)


def _own_rule(text: str) -> diagnostics.StressRule:
    """A rule without known limits, by its call."""
    known = ", ".join((*diagnostics.stress_rules, *NOT_STRESSED))
    own = (
        f"all alone, or some of {known}, or one of your own, as optax.adan(1e-3) or my_rule.py:make"
    )
    tx = called(text, "--optimizer", own)
    return diagnostics.StressRule(lambda: tx)


def _nearest(
    rules: Mapping[str, diagnostics.StressRule],
    found: Found,
    gradients: dict,
    *,
    width: int,
    base_width: int,
) -> dict[str, Headroom]:
    """By rule, the weight that is nearest to its edge."""
    nearest = {
        name: diagnostics.headroom(
            rules[name], result, gradients, width=width, base_width=base_width
        )
        for name, result in found.items()
    }
    return {name: one for name, one in nearest.items() if one is not None}


def _read(path: Path) -> Results:
    try:
        # A pipe may never end, nor a device.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is not a file")
        check_fits(path, path.stat().st_size)
        return Results.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
    except (KeyError, TypeError, AttributeError):
        reason = "it has no results in it"
    raise UsageError(
        f"--compare has {shown(path)}: {reason}; name two files of scalex stress --json"
    )
