import dataclasses

import optax

from .. import optim, theory
from ..optim import Rates
from ..optim._numbers import ScalarOrSchedule
from ..theory import Parameterization
from ._errors import UsageError

PARAMETERIZATIONS = {
    p.name: p for p in (theory.standard, theory.ntk, theory.mup, theory.mean_field)
}
OPTIMIZERS = (
    "adam",
    "adamw",
    "adam_atan2",
    "adam_parameter_scaling",
    "adafactor",
    "lion",
    "sgd",
)
RATES: dict[str, Rates] = {
    "global": optim.global_rate,
    "full": theory.full_alignment,
    "none": theory.no_alignment,
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is scaled: `parameterization:optimizer:rates`, e.g. `standard:adam:full`."""

    parameterization: str
    optimizer: str
    rates: str

    def __str__(self) -> str:
        return f"{self.parameterization}:{self.optimizer}:{self.rates}"

    @property
    def law(self) -> Parameterization:
        """The parameterization itself."""
        return PARAMETERIZATIONS[self.parameterization]

    def transformation(
        self, learning_rate: ScalarOrSchedule, *, b1: float, b2: float, eps: float, decay: float
    ) -> optax.GradientTransformation:
        """The update rule. `decay` is independent of the learning rate and constant in time."""
        rates = RATES[self.rates]
        if self.optimizer == "adamw":
            constant = optax.constant_schedule(1.0)
            return optim.adamw(
                learning_rate, decay, rates, weight_decay_schedule=constant, b1=b1, b2=b2, eps=eps
            )
        if self.optimizer == "adam_atan2":
            return optim.adam_atan2(learning_rate, rates, b1=b1, b2=b2)
        if self.optimizer == "adam_parameter_scaling":
            return optim.adam_parameter_scaling(learning_rate, rates, b1=b1, b2=b2, eps=eps)
        if self.optimizer == "adafactor":
            # Without momentum, as it was published; widths from 32 on are factored.
            return optim.adafactor(learning_rate, rates, min_factored_size=32)
        if self.optimizer == "lion":
            return optim.lion(learning_rate, rates)
        if self.optimizer == "sgd":
            return optim.sgd(learning_rate, rates, momentum=b1)
        return optim.adam(learning_rate, rates, b1=b1, b2=b2, eps=eps)


def parse_recipe(text: str) -> Recipe:
    """The recipe that `text` names.

    **Raises:** `UsageError` that lists the choices for the part that is unknown.
    """
    parts = text.split(":")
    if len(parts) != 3:
        raise UsageError(
            f"recipe {text!r} is not parameterization:optimizer:rates; an example is "
            "standard:adam:full"
        )
    choices = (
        ("parameterization", tuple(PARAMETERIZATIONS)),
        ("optimizer", OPTIMIZERS),
        ("rates", tuple(RATES)),
    )
    for part, (name, known) in zip(parts, choices, strict=True):
        if part not in known:
            raise UsageError(
                f"recipe {text!r} has an unknown {name} {part!r}; choose from {', '.join(known)}"
            )
    return Recipe(*parts)
