import dataclasses
import functools
from fractions import Fraction

import equinox as eqx
import jax
import optax

from .. import optim, theory
from .._weight import weights_with_paths
from ..nn import Transformer
from ..optim import Rates
from ..optim._numbers import ScalarOrSchedule
from ..theory import Budget, Parameterization
from ._errors import UsageError
from ._numbers import SIZES, parse_exponent

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
    "muon",
    "sgd",
)
RATES: dict[str, Rates] = {
    "global": optim.global_rate,
    "full": theory.full_alignment,
    "none": theory.no_alignment,
}
# What their numbers would have to be at another batch size is not known.
_NO_BUDGET = ("adafactor", "lion")
# Those that the Transformer has.
_ROLES = ("embedding", "hidden", "readout", "vector")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is scaled: `parameterization:optimizer:rates`, e.g. `standard:adam:full`.

    `rates` may also be exponents by role, such as measured ones:
    `embedding=0,hidden=9/10,readout=1,vector=0`.
    """

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
        self,
        learning_rate: ScalarOrSchedule,
        *,
        b1: float,
        b2: float,
        eps: float,
        decay: float,
        budget: Budget | None = None,
    ) -> optax.GradientTransformation:
        """The update rule. `decay` is independent of the learning rate and constant in time."""
        rates = RATES[self.rates] if self.rates in RATES else parse_exponents(self.rates)
        if budget is not None and self.optimizer in _NO_BUDGET:
            raise UsageError(f"recipe {self}: {self.optimizer} takes no budget; leave out --batch")
        if self.optimizer == "adamw":
            constant = optax.constant_schedule(1.0)
            return optim.adamw(
                learning_rate,
                decay,
                rates,
                decay_mode="independent",
                weight_decay_schedule=constant,
                b1=b1,
                b2=b2,
                eps=eps,
                budget=budget,
            )
        if self.optimizer == "adam_atan2":
            return optim.adam_atan2(learning_rate, rates, b1=b1, b2=b2, budget=budget)
        if self.optimizer == "adam_parameter_scaling":
            return optim.adam_parameter_scaling(
                learning_rate, rates, b1=b1, b2=b2, eps=eps, budget=budget
            )
        if self.optimizer == "adafactor":
            # Without momentum, as it was published; widths from 32 on are factored.
            return optim.adafactor(learning_rate, rates, min_factored_size=32)
        if self.optimizer == "lion":
            return optim.lion(learning_rate, rates)
        if self.optimizer == "muon":
            # With entries as large as Adam's, so that one learning rate is right for both.
            return optim.muon(learning_rate, rates, scale="rms", b1=b1, b2=b2, eps=eps)
        if self.optimizer == "sgd":
            return optim.sgd(learning_rate, rates, momentum=b1, budget=budget)
        return optim.adam(learning_rate, rates, b1=b1, b2=b2, eps=eps, budget=budget)


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
    choices = {
        "parameterization": tuple(PARAMETERIZATIONS),
        "optimizer": OPTIMIZERS,
        "rates": tuple(RATES),
    }
    if "=" in parts[2]:
        parse_exponents(parts[2])
        del choices["rates"]
    for part, (name, known) in zip(parts, choices.items(), strict=False):
        if part not in known:
            raise UsageError(
                f"recipe {text!r} has an unknown {name} {part!r}; choose from {', '.join(known)}"
            )
    return Recipe(*parts)


def parse_exponents(text: str) -> dict[str, Fraction]:
    """Learning rate exponents, from `embedding=0,hidden=9/10,readout=1,vector=0`.

    Paths of the Transformer's weights may stand beside the roles, and go before them.

    **Raises:** `UsageError` for what is no exponent, no role and no path, and a missing role.
    """
    found: dict[str, Fraction] = {}
    for entry in text.split(","):
        key, _, exponent = entry.partition("=")
        if key in found:
            raise UsageError(f"rates {text!r} has {key!r} twice; give it one exponent")
        try:
            found[key] = parse_exponent(exponent)
        except ValueError:
            raise UsageError(
                f"rates {text!r} has {entry!r}; expected a role and its exponent, {SIZES}, "
                "as hidden=9/10"
            ) from None
    missing = [role for role in _ROLES if role not in found]
    if missing:
        raise UsageError(f"rates {text!r} has no exponent for {missing[0]}; name it")
    paths = _paths() if len(found) > len(_ROLES) else ()
    for key in found:
        if key not in (*_ROLES, *paths):
            known = ", ".join((*_ROLES, *_paths()))
            raise UsageError(f"rates {text!r} has an exponent for {key!r}; there are {known}")
    return found


@functools.cache
def _paths() -> tuple[str, ...]:
    """Those of the Transformer's weights, which are the same at every size."""
    model = eqx.filter_eval_shape(
        Transformer,
        vocabulary_size=1,
        sequence_length=1,
        width=1,
        depth=1,
        head_dimension=1,
        key=jax.random.key(0),
    )
    return tuple(weights_with_paths(model))
