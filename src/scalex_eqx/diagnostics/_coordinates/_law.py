"""What every weight of a model is meant to do as the width grows."""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import equinox as eqx
import optax
from jaxtyping import PyTree

from ..._parameterize._growth import role_from_growth
from ..._parts import Part, blank_state, degree_at_scaling, parts
from ..._spec import WeightSpec
from ..._weight import Weight, is_trainable
from ...optim._rates import rate_exponent
from ...theory import Alignment, Role, UpdateFamily, as_family, full_alignment, no_alignment
from ._run import stacked_paths


@dataclasses.dataclass(frozen=True)
class Law:
    r"""A weight's exponents: sizes fall as $r^{-\text{exponent}}$.

    **Arguments:**

    - `path`: of the weight; layers of a stack share one.
    - `role`: as the shapes show it at the widths that were built.
    - `spec`: as it is declared.
    - `rate`: $c$, of the learning rate that the optimizer gives it.
    - `family`: of the optimizer's updates.
    - `alignment`: what is assumed of it; that of a weight whose fan-in doesn't grow is 0.
    """

    path: str
    role: Role
    spec: WeightSpec
    rate: Fraction
    family: UpdateFamily
    alignment: Alignment

    @property
    def multiplier(self) -> Fraction:
        """$a$, further factors included."""
        spec = self.spec
        assert spec.parameterization is not None and spec.role is not None
        return spec.parameterization.a[spec.role] + spec.factor_exponent

    @property
    def size(self) -> Fraction:
        """$a + b$, of the initial effective weight."""
        return self.multiplier + self.spec.spread_exponent

    @property
    def gradient(self) -> Fraction:
        """$g$, at initialisation."""
        return self.spec.gradient_exponent

    @property
    def update(self) -> Fraction:
        """$a + c + p g + q b + o$, of the effective update."""
        p, q = self.family.gradient_degree, self.family.weight_degree
        natural = p * self.gradient + q * self.spec.spread_exponent + self.offset
        return self.multiplier + self.rate + natural

    @property
    def offset(self) -> Fraction:
        """$o$, of the family's updates."""
        assert self.spec.role is not None
        return self.family.offset[self.spec.role]

    @property
    def largest_update(self) -> Fraction:
        r"""That of the largest stable learning rate, where nothing in front of it grows.

        $\alpha$ keeps the change of the output at order one. Updates that are relative to the
        weight, and the readout's under SGD, may not outgrow it either.
        """
        grows_in = self.role in (Role.hidden, Role.readout)
        alpha = self.alignment.alpha if grows_in else Fraction(0)
        kept = self.family.weight_degree or (
            self.role is Role.readout and self.family.gradient_degree
        )
        return max(alpha, self.size) if kept else alpha


def laws(
    models: Sequence[PyTree],
    chain: Sequence[Part],
    family: str | UpdateFamily | None,
    alignment: Alignment | None,
) -> dict[str, Law]:
    """The law of every trained weight, layers of a stack by themselves.

    **Arguments:**

    - `models`: the shapes of a model at each width, the smallest first.
    - `chain`: the parts of the optimizer.
    - `family`: of its updates; asked of the optimizer if `None`.
    - `alignment`: assumed; asked of the optimizer if `None`.
    """
    first, last = (stacked_paths(models[i]) for i in (0, -1))
    found = {}
    for name, (path, weight) in last.items():
        if not weight.spec.is_trained:
            continue
        rules = [part for part in chain if part.works_on(path)]
        own = as_family(family) if family is not None else _family(path, rules)
        found[name] = Law(
            path,
            shown_role(first[name][1], weight),
            weight.spec,
            _rate(path, weight.spec, rules),
            own,
            alignment or _assumed(own, rules),
        )
    return found


def optimizer_parts(model: PyTree, tx: optax.GradientTransformation) -> list[Part]:
    """The parts of an optimizer for a model, or for its shapes."""
    return parts(blank_state(tx, eqx.filter(model, is_trainable)))


def may_rescale(chain: Sequence[Part]) -> bool:
    """Whether the optimizer has a part that may scale all gradients alike, before they are used."""
    return any(part.rule is None or "clip" in part.rule.name for part in chain)


def shown_role(small: Weight, large: Weight) -> Role:
    """The role that the shapes of a weight at two widths show."""
    spec = large.spec

    def grows(axes: Sequence[int]) -> bool:
        return any(small.value.shape[axis] != large.value.shape[axis] for axis in axes)

    return role_from_growth(spec, grows(spec.fan_in), grows(spec.fan_out))


def _family(path: str, chain: Sequence[Part]) -> UpdateFamily:
    """By how the updates depend on gradient and weight in front of the first scaling."""
    rules = [part.rule for part in chain]
    declared = next((rule.family for rule in rules if rule and rule.family), None)
    degree = degree_at_scaling(rules)
    known = None if degree is None else _BY_DEGREES.get(tuple(degree))
    return known or declared or _unknown(path)


_BY_DEGREES: dict[tuple[int, ...], UpdateFamily] = {
    (1, 0): as_family("sgd"),
    (0, 0): as_family("adam"),
    (0, 1): as_family("adafactor"),
}


def _unknown(path: str) -> Any:
    raise ValueError(
        f"the optimizer doesn't say how the updates of {path} depend on gradient and weight: chain "
        "scale_by_width behind the rule, or name the family ('sgd', 'adam' or 'adafactor')"
    )


def _rate(path: str, spec: WeightSpec, chain: Sequence[Part]) -> Fraction:
    exponent = Fraction(0)
    for part in chain:
        if part.rule is not None and part.rule.family is not None:
            exponent += rate_exponent(path, spec, part.rule.family, part.rule.rates)
    return exponent


def _assumed(family: UpdateFamily, rules: Sequence[Part]) -> Alignment:
    for part in rules:
        if part.rule is not None and isinstance(part.rule.rates, Alignment):
            return part.rule.rates
    return no_alignment if family.weight_degree else full_alignment
