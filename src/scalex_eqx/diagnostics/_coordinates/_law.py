"""What every weight of a model is meant to do as the width grows."""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import equinox as eqx
import optax
from jaxtyping import PyTree

from ..._laws import WeightLaw, rate_of
from ..._makers import masks
from ..._parameterize._growth import role_from_growth
from ..._parts import Part, blank_state, degree_at_scaling, norm_at_scaling, parts
from ..._spec import WeightSpec
from ..._weight import Weight, is_trainable
from ...theory import (
    Alignment,
    Role,
    UpdateFamily,
    adafactor,
    adam,
    as_family,
    full_alignment,
    muon,
    no_alignment,
    sgd,
)
from ...theory._family import Families, Family
from ...theory._power import Power, Size, growing_fans
from ._growth import fan_in_slope, sloped, slopes
from ._models import Over, named_weights, stacked_paths

SYMBOLS: dict[Over, str] = {"width": "n", "depth": "L", "density": "rho"}


@dataclasses.dataclass(frozen=True)
class Law:
    r"""A weight's exponents: sizes fall as $r^{-\text{exponent}}$.

    **Arguments:**

    - `path`: of the weight; layers of a stack share one.
    - `role`: as the shapes show it at the widths that were built, unless it is declared to be one
        of which more axes grow: shapes don't tell an inner layer of a fixed size from an embedding
        or a readout.
    - `shown`: as the shapes show it in any case.
    - `declared`: its law over its sizes, under the optimizer.
    - `slopes`: by size, how fast it grows with the width: 1 unless it is rounded or has a width of
        its own. Exponents are those of the width.
    - `fan_in_slope`: the same of the fan-in that the shapes show; over the density of what a mask
        keeps of it.
    - `measured_family`: that of the rules in front of the scaling, where it is another one.
    - `alignment`: what is assumed of it; that of a weight whose fan-in doesn't grow is 0.
    - `over`: whether the exponents are those of the width, of the depth or of the density. Shapes
        show no roles where it is not the width.
    - `in_stack`: whether it stands in the stack that the depth makes longer.
    - `units`: how many outputs it has at each width, as its spec counts them.
    """

    path: str
    role: Role
    shown: Role
    declared: WeightLaw
    slopes: dict[Size, float]
    fan_in_slope: float
    measured_family: UpdateFamily | None
    alignment: Alignment
    over: Over = "width"
    in_stack: bool = False
    units: tuple[int, ...] = ()

    @property
    def symbol(self) -> str:
        """What stands for the size that grows."""
        return SYMBOLS[self.over]

    @property
    def spec(self) -> WeightSpec:
        """As it is declared."""
        return self.declared.spec

    @property
    def family(self) -> UpdateFamily:
        """Of the optimizer's updates, as declared."""
        return self.declared.family

    @property
    def multiplier(self) -> float:
        """$a$, further factors included."""
        return sloped(self.declared.multiplier, self.slopes)

    @property
    def spread(self) -> float:
        """$b$, of the initial weight."""
        return sloped(self.declared.spread, self.slopes)

    @property
    def size(self) -> float:
        """$a + b$, of the initial effective weight."""
        return sloped(self.declared.size, self.slopes)

    @property
    def gradient(self) -> float:
        """$g$, at initialisation."""
        return sloped(self.declared.gradient, self.slopes)

    @property
    def rate(self) -> float:
        """$c$, of the learning rate that the optimizer gives it."""
        return sloped(self.declared.rate, self.slopes)

    @property
    def update(self) -> float:
        """$a + c + p g + q b + o$, of the effective update."""
        return sloped(self.declared.update, self.slopes)

    @property
    def own_update(self) -> float:
        """$a + c + o$ of it."""
        return sloped(self.declared.own_update, self.slopes)

    def aligned(self, exponent: Fraction) -> float:
        """What an alignment's exponent, one of the fan-in, is as one of the width."""
        return float(exponent) * self.fan_in_slope

    @property
    def summed(self) -> float:
        r"""By what sums over what grows raise an update: a change of order one falls as that.

        Over the width it is $\alpha$ of a weight whose fan-in grows, over the density that of
        a masked one, whose outputs sum over what its mask keeps. Over the depth it is the one
        of the residual stream, less what the branch's factor takes of what comes out of a weight
        that the branch doesn't end in.
        """
        parameterization = self.spec.parameterization
        if self.over == "width" and self.spec.carries_tie and parameterization is not None:
            # It stands in front of a sum over the width that has no factor of its own.
            return sloped(Power(readout=parameterization.tie_exponent), self.slopes)
        if self.over == "width":
            return self.aligned(self.alignment.alpha) if self.role.sums_over_width else 0.0
        if self.over == "density":
            # The largest singular value stands for all of a matrix, whatever is left out of it.
            return 0.0 if self.family.norm == "spectral" else self.aligned(self.alignment.alpha)
        if not self.in_stack or parameterization is None:
            return 0.0
        inside = Fraction(0) if self.spec.ends_branch else parameterization.branch or Fraction(0)
        return float(self.alignment.alpha - inside)

    @property
    def largest_update(self) -> float:
        r"""That of the largest stable learning rate, where nothing in front of it grows.

        Updates that are relative to the weight, and the readout's under SGD, may not outgrow it
        either.
        """
        kept = self.family.weight_degree or (
            self.role is Role.readout and self.family.gradient_degree
        )
        return max(self.summed, self.size) if kept else self.summed


def laws(
    widths: Sequence[Any],
    models: Sequence[PyTree],
    chain: Sequence[Part],
    family: Families | None,
    alignment: Alignment | None,
    over: Over = "width",
) -> dict[str, Law]:
    """The law of every trained weight, layers of a stack by themselves.

    **Arguments:**

    - `widths`, `models`: the shapes of a model at each width, the smallest first.
    - `chain`: the parts of the optimizer.
    - `family`: of its updates; asked of the optimizer if `None`.
    - `alignment`: assumed; asked of the optimizer if `None`.
    - `over`: what the models differ in.
    """
    by_width = named_weights(models, over)
    of_deepest = stacked_paths(models[-1])
    found = {}
    for name, (path, weight) in by_width[-1].items():
        if not weight.spec.is_trained:
            continue
        weights = [of_width[name][1] for of_width in by_width]
        rules = [part for part in chain if part.works_on(path)]
        measured = _measured_family(rules)
        spec = weight.spec
        assert spec.role is not None
        shown = shown_role(weights[0], weight) if over == "width" else spec.role
        declared = as_family(family) if family is not None else _family(path, rules, measured)
        own = declared.of_role(spec.role)
        found[name] = Law(
            path,
            spec.role if growing_fans(shown) < growing_fans(spec.role) else shown,
            shown,
            WeightLaw(spec, own, rate_of(path, spec, [part.rule for part in rules])),
            slopes(widths, [one.spec for one in weights]),
            _summed_slope(over, widths, weights),
            measured if measured is not None and _degrees(measured) != _degrees(own) else None,
            alignment or _assumed(own, rules),
            over,
            over == "depth" and name not in of_deepest,
            tuple(_units(one) for one in weights),
        )
    return found


def _summed_slope(over: Over, widths: Sequence[Any], weights: Sequence[Weight]) -> float:
    """How fast the number of products grows that an output of a weight sums over."""
    if over == "density":
        return 0.0 if weights[-1].spec.density is None else 1.0
    return fan_in_slope(widths, weights)


def _units(weight: Weight) -> int:
    return math.prod(weight.value.shape[axis] for axis in weight.spec.fan_out)


def optimizer_parts(model: PyTree, tx: optax.GradientTransformation) -> list[Part]:
    """The parts of an optimizer for a model, or for its shapes."""
    params = eqx.filter(model, is_trainable)
    blank = blank_state(tx, params)
    return parts(blank, masks(tx, blank, params))


def may_rescale(chain: Sequence[Part]) -> bool:
    """Whether the optimizer has a part that may scale all gradients alike, before they are used."""
    return any(part.rule is None or "clip" in part.rule.name for part in chain)


def shown_role(small: Weight, large: Weight) -> Role:
    """The role that the shapes of a weight at two widths show."""
    spec = large.spec

    def grows(axes: Sequence[int]) -> bool:
        return any(small.value.shape[axis] != large.value.shape[axis] for axis in axes)

    return role_from_growth(spec, grows(spec.fan_in), grows(spec.fan_out))


def _family(path: str, chain: Sequence[Part], measured: UpdateFamily | None) -> Family:
    """The declared one. Where that is wrong, the first updates are not as it says."""
    rules = [part.rule for part in chain]
    declared = next((rule.family for rule in rules if rule and rule.family), None)
    return declared or measured or _unknown(path)


def _measured_family(chain: Sequence[Part]) -> UpdateFamily | None:
    """By how the updates depend on gradient and weight in front of the first scaling."""
    rules = [part.rule for part in chain]
    degree = degree_at_scaling(rules)
    if degree == (0, 0) and norm_at_scaling(rules) == "spectral":
        return muon
    return None if degree is None else _BY_DEGREES.get(tuple(degree))


def _degrees(family: UpdateFamily) -> tuple[Fraction, Fraction, str]:
    return family.gradient_degree, family.weight_degree, family.norm


_BY_DEGREES: dict[tuple[int, ...], UpdateFamily] = {
    (1, 0): sgd,
    (0, 0): adam,
    (0, 1): adafactor,
}


def _unknown(path: str) -> Any:
    raise ValueError(
        f"the optimizer doesn't say how the updates of {path} depend on gradient and weight: chain "
        "scale_by_width behind the rule, or name the family ('sgd', 'adam', 'adafactor' or 'muon')"
    )


def _assumed(family: UpdateFamily, rules: Sequence[Part]) -> Alignment:
    for part in rules:
        if part.rule is not None and isinstance(part.rule.rates, Alignment):
            return part.rule.rates
    return no_alignment if family.weight_degree else full_alignment
