"""Published rules for batch size, training length and weight decay, by their source's name."""

from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

from ._budget import BudgetRule, DecayRule, Growth
from ._parameterization import LayerExponents

kosson_decay = DecayRule("kosson", width=0)
fan_decay = DecayRule("fan", width=LayerExponents(0, "-1/2", 0))
power_lines_decay = DecayRule("power lines", batch=1, tokens="-0.473")
completed_p_decay = DecayRule("Complete(d)P", width=0, batch=1, tokens=-1)
sdew_decay = DecayRule("sdew", batch="1/2")

malladi = BudgetRule(
    "malladi",
    learning_rate=Growth("1/2", None),
    one_minus_b1=Growth(1, None),
    one_minus_b2=Growth(1, None),
    eps=Growth("-1/2", None),
    normalized_by="batch",
)
malladi_sgd = BudgetRule("malladi SGD", gradient_degree=1, learning_rate=Growth(1, None))
completed_p = BudgetRule(
    "Complete(d)P",
    learning_rate=Growth("1/2", "-1/2"),
    one_minus_b1=Growth(1, -1),
    one_minus_b2=Growth(1, -1),
    eps=Growth("-1/2", "1/2"),
    decay=completed_p_decay,
    normalized_by="batch",
)
# Of means and squares of the examples' gradients, which no batch size changes, all that follows it
# is how far a step goes and how far back a mean does.
micro_adam = BudgetRule(
    "micro_adam",
    learning_rate=Growth(1, None),
    one_minus_b1=Growth(1, None),
    one_minus_b2=Growth(1, None),
    eps=Growth(0, None),
    normalized_by="examples",
)
sdew = BudgetRule(
    "sdew",
    learning_rate=Growth(0, None),
    one_minus_b1=Growth(0, None),
    one_minus_b2=Growth("1/2", None),
    eps=Growth("-1/2", None),
    decay=sdew_decay,
    normalized_by="batch",
)

budget_rules: Mapping[str, BudgetRule] = MappingProxyType(
    {
        "malladi": malladi,
        "malladi_sgd": malladi_sgd,
        "micro_adam": micro_adam,
        "completed_p": completed_p,
        "sdew": sdew,
    }
)

decay_rules: Mapping[str, DecayRule] = MappingProxyType(
    {
        "kosson": kosson_decay,
        "fan": fan_decay,
        "power_lines": power_lines_decay,
        "completed_p": completed_p_decay,
        "sdew": sdew_decay,
    }
)

horizons: Mapping[str, Fraction] = MappingProxyType(
    {
        name: Fraction(exponent)
        for name, exponent in {
            "marin": "-0.28",
            "marin_adamh": "-0.3",
            "bjorck": "-0.32",
            "hyperp": "-0.32",
            "marin_muonh": "-0.395",
            "completed_p": "-1/2",
        }.items()
    }
)
