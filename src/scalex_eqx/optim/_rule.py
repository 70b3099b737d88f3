import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.tree_util as jtu

from .._spec import WeightSpec
from ..theory import LayerExponents, Power, Role
from ..theory._budget import said_width
from ..theory._family import Family, Norm


class Degree(NamedTuple):
    r"""How a quantity follows a change of units: $\lambda^p \mu^q$ where updates grow by $\lambda$
    and weights by $\mu$.
    """

    update: int = 0
    weight: int = 0


UNCHANGED = Degree(update=1)
"""The degree of an update that is passed on at the size that it came with."""


BY_EXAMPLES = (("normalized_by", "examples"),)
"""The setting of a rule that normalises by each example's gradient, not by that of the batch."""


class Constant(NamedTuple):
    r"""A number that stands in a rule's formula beside gradients or weights.

    **Arguments:**

    - `name`: the argument that sets it.
    - `value`: at the base width, or a function of the spec that gives it; `None` if it is traced.
    - `degree`: that of what it is added to or compared with. A rule is the same rule in other
        units only if the constant changes with them.
    - `scaling`: the multiples $(i, j)$ of the exponents $g$ and $b$ in its own scaling law,
        $r^{-(i g + j b)}$ times the value for each weight.
    - `least`: a function of the state's dtype that gives the least value the rule uses.
    - `width`: exponents $x$ by role of a further factor $r^x$ in its scaling law, whatever the
        parameterization; `None` for none.
    """

    name: str
    value: float | Callable[[WeightSpec], float] | None
    degree: Degree
    scaling: tuple[int, int] = (0, 0)
    least: Callable[[Any], float] | None = None
    width: LayerExponents | None = None

    def base(self, spec: WeightSpec) -> float | None:
        """Its value at the base width for a weight; `None` if it is traced."""
        return self.value(spec) if callable(self.value) else self.value

    def at(self, spec: WeightSpec) -> float | None:
        """Its value for a weight; `None` if it is traced."""
        base = self.base(spec)
        return None if base is None else base * spec.scale(self.power(spec))

    def used(self, spec: WeightSpec, dtype: Any) -> float | None:
        """The same, not below the least that the rule uses for a weight of dtype `dtype`."""
        value = self.at(spec)
        return value if value is None or self.least is None else max(value, self.least(dtype))

    def power(self, spec: WeightSpec) -> Power:
        """Its scaling law for a weight."""
        of_gradient, of_weight = self.scaling
        power = of_gradient * spec.gradient_power + of_weight * spec.spread_power
        if self.width is None or spec.role is None:
            return power
        return power - spec.own(self.width[spec.role])

    @property
    def law(self) -> str:
        """Its scaling law in words; empty if it has none."""
        powers = zip(self.scaling, ("gradient", "initial weight"), strict=True)
        named = [f"the {what}" + "'s square" * (k == 2) for k, what in powers if k]
        if self.width is not None:
            named.append(said_width(self.width))
        return f"scales as {' times '.join(named)}" if named else ""


@jtu.register_static
@dataclasses.dataclass(frozen=True)
class Rule:
    r"""What an update rule is, as a node without leaves in its state.

    `scalex_eqx.plan` and `scalex_eqx.convert` read it. Write one into the state of a rule of your
    own and they know that too.

    **Arguments:**

    - `name`: of the transformation.
    - `fields`: the `Degree` of each field of the state that has the tree of the weights. What is
        not named here, a step count say, has no units.
    - `output`: the `Degree` of the updates that the rule puts out in those that it gets:
        `Degree(1, 0)` for momentum, which keeps their size, `Degree(0, 0)` for Adam, which
        normalises.
    - `family`, `rates`: whose exponents $c$ scale the update by $r^{-c}$, if the rule does that.
    - `constants`: the numbers in its formula.
    - `settings`: what else a reader of the plan should see, as pairs.
    - `norm`: what a rule that normalises makes the same at every width: `"entries"`, their size,
        or `"spectral"`, the largest singular value; see [`scalex_eqx.UpdateFamily`][].
    - `roles`: of the weights that it works on, if it hands on the updates of others.

    Numbers are not compared: two Adams with different epsilon have states of one structure.
    """

    name: str
    fields: tuple[tuple[str, Degree], ...] = ()
    output: Degree = UNCHANGED
    family: Family | None = None
    rates: Any = None
    constants: tuple[Constant, ...] = dataclasses.field(default=(), compare=False)
    settings: tuple[tuple[str, Any], ...] = dataclasses.field(default=(), compare=False)
    norm: Norm = "entries"
    roles: tuple[Role, ...] | None = None
