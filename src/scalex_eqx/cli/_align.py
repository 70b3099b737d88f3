import dataclasses

from rich.console import Console

from .. import diagnostics
from ..diagnostics import Prescription, prescribe
from ..experiments import UsageError, parse_recipe
from ..experiments._config import check_distinct
from ._check import Measuring
from ._help import own_options_first


@own_options_first
@dataclasses.dataclass(frozen=True)
class Align(Measuring):
    """Measure how aligned the weights of the transfer run's Transformer are with what reaches
    them, and print the learning rates that this allows, beside those of the presets.

    alpha, omega and u are exponents fitted over the widths, with intervals over the seeds; full,
    none, measured and omega are exponents c of learning rates that go as width^-c. An alignment
    whose interval contains the assumed value keeps it. The last lines are recipes for scalex
    transfer.

    Example: scalex align standard:adam:full --steps 50 --widths 64 128 256
    """

    json: bool = False
    """Print JSON."""

    def run(self, console: Console) -> int:
        """Prints the prescription; returns the exit code."""
        check_distinct("--seeds", self.seeds, 2, "the intervals are over seeds")
        try:
            prescription = prescribe(self.measured())
        except ValueError as error:
            raise UsageError(str(error)) from None
        if self.json:
            results = diagnostics.record([prescription.table()], command="scalex align")
            text = results.to_json()
        else:
            text = "\n".join([str(prescription), "", *self._recipes(prescription)])
        console.print(text, soft_wrap=True, markup=False, highlight=False)
        return 0

    def _recipes(self, prescription: Prescription) -> list[str]:
        """One with omega as assumed, and one with omega as measured if that differs."""
        recipe = parse_recipe(self.recipe)
        found = []
        for measured_omega in (False, True):
            exponents = prescription.by_role(measured_omega=measured_omega)
            found.append(str(dataclasses.replace(recipe, rates=exponents)))
        said = ("as assumed", "as measured")
        lines = [f"  {text}   (omega {how})" for text, how in zip(found, said, strict=True)]
        return ["for scalex transfer --recipes:", *(lines if found[0] != found[1] else lines[:1])]
