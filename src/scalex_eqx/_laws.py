"""Each weight's law under an optimizer: what plan, conversion and check read, in one place."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from ._spec import WeightSpec
from .optim import Rule
from .optim._rates import rate_power
from .theory import Power, UpdateFamily


@dataclasses.dataclass(frozen=True)
class WeightLaw:
    r"""How what belongs to a weight follows its sizes; see [`scalex_eqx.theory.Power`][].

    **Arguments:**

    - `spec`: of the weight, completed.
    - `family`: of its updates.
    - `rate`: of the learning rate that the optimizer gives it.
    """

    spec: WeightSpec
    family: UpdateFamily
    rate: Power

    @property
    def multiplier(self) -> Power:
        """$a$, further factors included."""
        return self.spec.multiplier_power

    @property
    def spread(self) -> Power:
        """$b$, of the initial weight."""
        return self.spec.spread_power

    @property
    def size(self) -> Power:
        """$a + b$, of the initial effective weight."""
        return self.multiplier + self.spread

    @property
    def gradient(self) -> Power:
        """$g$, at initialisation."""
        return self.spec.gradient_power

    @property
    def offset(self) -> Power:
        """$o$, of the family's updates."""
        assert self.spec.role is not None
        return self.family.offset_power(self.spec.role)

    @property
    def own_update(self) -> Power:
        """$a + c + o$, of the effective update but for what comes of gradient and weight."""
        return self.multiplier + self.rate + self.offset

    @property
    def update(self) -> Power:
        """$a + c + p g + q b + o$, of the effective update."""
        p, q = self.family.gradient_degree, self.family.weight_degree
        return self.own_update + p * self.gradient + q * self.spread


def rate_of(path: str, spec: WeightSpec, rules: Iterable[Rule | None]) -> Power:
    """How the learning rate that rules give a weight follows its sizes.

    **Arguments:**

    - `path`, `spec`: of the weight, completed.
    - `rules`: those that work on it. One without a family scales nothing with the width.
    """
    power = Power()
    for rule in rules:
        if rule is not None and rule.family is not None:
            power += rate_power(path, spec, rule.family, rule.rates)
    return power


def law_data(spec: WeightSpec) -> dict[str, Any]:
    """A weight's law as plain data, for fingerprints and exports.

    What comes to laws later is left out where it says nothing, or every export made before would
    differ.
    """
    law: dict[str, Any] = {
        "fan_in": list(spec.fan_in),
        "fan_out": list(spec.fan_out),
        "role": spec.role and str(spec.role),
        "std": spec.std,
        "factor_exponent": str(spec.factor_exponent),
        "width_ratio": spec.width_ratio and str(spec.width_ratio),
    }
    parameterization = spec.parameterization
    if parameterization is not None and spec.role is not None:
        law["a"] = str(parameterization.a[spec.role])
        law["b"] = str(parameterization.b[spec.role])
        law["logit_exponent"] = str(parameterization.logit_exponent)
        law["parameterization"] = parameterization.name
        if parameterization.branch is not None:
            law["branch"] = str(parameterization.branch)
            law["ends_branch"] = spec.ends_branch
        if parameterization.unit is not None:
            rules = parameterization.unit
            law["unit"] = {"bias": rules.bias, "embedding_rate": str(rules.embedding_rate)}
    if spec.scaled:
        law["scaled"] = True
    if spec.sizes:
        law["sizes"] = {size: str(ratio) for size, ratio in spec.sizes}
    if spec.density is not None:
        law["density"] = str(spec.density)
    if spec.carries_tie:
        law["carries_tie"] = True
    if spec.frozen:
        law["frozen"] = True
    return law
