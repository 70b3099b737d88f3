"""The published study that the grid repeats in small: its losses, and what it claims.

The source is K. Everett et al., *Scaling Exponents Across Parameterizations and Optimizers*, ICML
2024, arXiv:2407.05872v2: Table E1 for the losses, appendix K for the drift exponents with one
learning rate.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ._drift import MARGIN
from ._judged import Claim, Statement
from ._recipe import THE_FOUR

SOURCE = "Everett et al., ICML 2024, arXiv:2407.05872v2"
PUBLISHED_WIDTH = 16384


class Losses(NamedTuple):
    """A row of Table E1: held-out losses by rates and constants, in nats.

    `default` has the constants 1 for all layers, `tuned` those that were searched for; `scaled`
    has an epsilon by layer beside tuned constants. SGD has none.
    """

    global_default: float
    global_tuned: float
    full_default: float
    full_tuned: float
    none_tuned: float
    full_scaled: float | None = None
    none_scaled: float | None = None


# The rows of 26.8 billion parameters. What the paper prints there as "perf align" is `full`.
TABLE_E1: Mapping[tuple[str, str], Losses] = {
    ("adam", "standard"): Losses(2.625, 2.590, 2.576, 2.572, 2.575, 2.573, 2.576),
    ("adam", "ntk"): Losses(2.592, 2.584, 2.615, 2.591, 2.581, 2.576, 2.577),
    ("adam", "mup"): Losses(2.727, 2.614, 2.646, 2.599, 2.590, 2.601, 2.590),
    ("adam", "mean_field"): Losses(2.638, 2.649, 2.630, 2.633, 2.638, 2.590, 2.583),
    ("adam_parameter_scaling", "standard"): Losses(2.580, 2.577, 2.613, 2.675, 2.577, 2.678, 2.576),
    ("adam_parameter_scaling", "ntk"): Losses(2.570, 2.566, 2.623, 2.667, 2.566, 2.654, 2.554),
    ("adam_parameter_scaling", "mup"): Losses(2.574, 2.575, 2.655, 2.606, 2.575, 2.611, 2.574),
    ("adam_parameter_scaling", "mean_field"): Losses(
        2.624, 2.623, 2.640, 2.772, 2.623, 2.730, 2.602
    ),
    ("sgd", "standard"): Losses(3.657, 3.312, 3.510, 3.385, 3.318),
    ("sgd", "ntk"): Losses(3.732, 3.210, 3.627, 3.313, 3.324),
    ("sgd", "mup"): Losses(4.224, 3.810, 4.184, 3.809, 4.222),
    ("sgd", "mean_field"): Losses(4.131, 4.092, 4.319, 4.092, 3.898),
}

# With Adam, one learning rate and a constant epsilon.
EXPONENTS = {"standard": -0.94, "ntk": -0.71, "mup": -1.15, "mean_field": -0.29}

_CONSTANT = "adam(eps=1e-09,eps_scaling='constant')"
_ABSTRACT = "abstract"


def _exponents(law: str, rates: str, low: float, high: float, rule: str = "adam") -> Statement:
    return Statement("exponent", f"{law}:{rule}:{rates}", None, low, high)


def _lower(first: str, second: str) -> Statement:
    return Statement("loss", first, second)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "With layers' own learning rates, every parameterization transfers",
        _ABSTRACT,
        tuple(_exponents(law, "full", -MARGIN, MARGIN) for law in THE_FOUR),
    ),
    Claim(
        "With one learning rate for all layers, the best one falls as the width grows, in every "
        "parameterization",
        "appendix K: p = -0.94, -0.71, -1.15, -0.29",
        tuple(Statement("exponent", f"{law}:adam:global") for law in THE_FOUR),
    ),
    Claim(
        "It falls fastest in mup, then in standard, ntk and mean_field",
        "appendix K",
        tuple(
            Statement("exponent", f"{one}:adam:global", f"{other}:adam:global")
            for one, other in (("mup", "standard"), ("standard", "ntk"), ("ntk", "mean_field"))
        ),
    ),
    Claim(
        "With layers' own learning rates, standard ends lower than mup",
        f"{_ABSTRACT}; 2.576 and 2.646, tuned 2.572 and 2.599",
        (_lower("standard:adam:full", "mup:adam:full"),),
    ),
    Claim(
        "Layers' own learning rates end lower than one for all in standard, mup and mean_field",
        "2.576 and 2.625, 2.646 and 2.727, 2.630 and 2.638",
        tuple(
            _lower(f"{law}:adam:full", f"{law}:adam:global")
            for law in ("standard", "mup", "mean_field")
        ),
    ),
    Claim(
        "Without tuned constants, one learning rate for all ends lower than the layers' own in ntk",
        "2.592 and 2.615",
        (_lower("ntk:adam:global", "ntk:adam:full"),),
    ),
    Claim(
        "In standard, full alignment ends lower than none",
        "tuned, 2.572 and 2.575",
        (_lower("standard:adam:full", "standard:adam:none"),),
    ),
    Claim(
        "In ntk and mup, no alignment ends lower than full",
        "tuned, 2.581 and 2.591, 2.590 and 2.599",
        tuple(_lower(f"{law}:adam:none", f"{law}:adam:full") for law in ("ntk", "mup")),
    ),
    Claim(
        "With parameter scaling, one learning rate for all ends lower than full alignment's, in "
        "every parameterization",
        "2.580 and 2.613, 2.570 and 2.623, 2.574 and 2.655, 2.624 and 2.640",
        tuple(
            _lower(f"{law}:adam_parameter_scaling:global", f"{law}:adam_parameter_scaling:full")
            for law in THE_FOUR
        ),
    ),
    Claim(
        "With one learning rate for all, parameter scaling ends lower than plain Adam, in every "
        "parameterization",
        "2.580 and 2.625, 2.570 and 2.592, 2.574 and 2.727, 2.624 and 2.638",
        tuple(
            _lower(f"{law}:adam_parameter_scaling:global", f"{law}:adam:global") for law in THE_FOUR
        ),
    ),
    Claim(
        "An epsilon that follows the gradients ends lower than a constant 1e-9 in ntk and "
        "mean_field",
        "tuned, 2.576 and 2.591, 2.590 and 2.633",
        tuple(
            _lower(f"{law}:adam:full", f"{law}:{_CONSTANT}:full") for law in ("ntk", "mean_field")
        ),
    ),
    Claim(
        "In standard and mup it changes less than 0.005 nats",
        "tuned, 2.573 and 2.572, 2.601 and 2.599",
        tuple(
            Statement("loss", f"{law}:adam:full", f"{law}:{_CONSTANT}:full", -0.005, 0.005)
            for law in ("standard", "mup")
        ),
    ),
    Claim(
        "Adam-atan2, which has no epsilon, transfers with layers' own learning rates",
        _ABSTRACT,
        tuple(_exponents(law, "full", -MARGIN, MARGIN, "adam_atan2") for law in THE_FOUR),
    ),
    Claim(
        "With one learning rate for all, Adam ends lower than SGD with momentum, in every "
        "parameterization",
        "2.625 and 3.657, 2.592 and 3.732, 2.727 and 4.224, 2.638 and 4.131",
        tuple(_lower(f"{law}:adam:global", f"{law}:sgd:global") for law in THE_FOUR),
    ),
)
