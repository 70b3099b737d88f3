"""The update rules that have names, with what limits each."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import optax

from ...optim._catalogue import catalogue
from ._gradients import SHAPE, Shape
from ._limits import (
    Formats,
    Limit,
    LimitName,
    added_epsilon,
    clamped_epsilon,
    lower_limit,
    squared_epsilon,
    upper_limit,
)


@dataclasses.dataclass(frozen=True)
class StressRule:
    """An update rule by name, with what its formula and its number formats lead to expect.

    **Arguments:**

    - `make`: the rule, with a learning rate of 1.
    - `epsilon`: the limit that its epsilon sets, if it has one.
    - `lower`, `upper`: what underflows and what overflows.
    - `moments`: what the moments are kept in; `None` for the weights' dtype or float32, whichever
        is wider, and `"weights"` for that of weights or gradients, whichever is narrower.
    - `rows`: of how many squares a mean is taken by summing them up first.
    - `explodes`: whether tiny gradients are known to give updates without a limit.
    - `infinity`: what an infinite gradient does, as in [`scalex_eqx.diagnostics.Stress`][].
    - `shape`: of the weight that it is put to the test on.
    """

    make: Callable[[], optax.GradientTransformation]
    epsilon: Limit | None = None
    lower: tuple[LimitName, ...] = ("gradient",)
    upper: tuple[LimitName, ...] = ("gradient",)
    moments: str | None = None
    rows: int = 1
    explodes: bool = False
    infinity: str = "shown"
    shape: Shape = SHAPE

    def formats(self, gradient_dtype: str, parameter_dtype: str) -> Formats:
        """The number formats it works in, given those of gradients and weights."""
        if self.moments == "weights":
            # A square is taken in the gradient's dtype before it is added to the moment.
            narrower = min(gradient_dtype, parameter_dtype, key=_NARROWEST.index)
            return Formats(gradient_dtype, narrower)
        return Formats(gradient_dtype, self.moments or "float32")

    def lower_limits(self, formats: Formats) -> list[Limit]:
        """All that ends its strength at small gradients."""
        epsilon = [] if self.epsilon is None else [self.epsilon]
        return epsilon + [lower_limit(name, formats) for name in self.lower]

    def upper_limits(self, formats: Formats) -> list[Limit]:
        """All that ends its strength at large gradients."""
        return [upper_limit(name, formats, self.rows) for name in self.upper]


_NARROWEST = ("float16", "bfloat16", "float32")
_FOLLOWING = added_epsilon(1e-12, follows_width=True)
_SQUARES: tuple[LimitName, ...] = ("gradient", "first moment", "second moment")


def _rule(
    name: str, epsilon: Limit | None = None, *, options: Mapping[str, Any] | None = None, **limits
) -> StressRule:
    """The catalogue's rule of that name with its own defaults, or with `options`."""
    make = functools.partial(catalogue[name].maker, 1.0, **(options or {}))
    moments = (options or {}).get("moment_dtype")
    return StressRule(make, epsilon, moments=moments, **limits)


def _adam(epsilon: Limit, name: str = "adam", **options: Any) -> StressRule:
    lower: tuple[LimitName, ...] = ("gradient", "first moment")
    return _rule(name, epsilon, options=options, lower=lower, upper=("second moment",))


def _constant_epsilon(eps: float) -> StressRule:
    return _adam(added_epsilon(eps), eps=eps, eps_scaling="constant")


def _optax_adam(eps: float, *, explodes: bool = False) -> StressRule:
    return StressRule(
        lambda: optax.adam(1.0, eps=eps),
        added_epsilon(eps),
        lower=_SQUARES,
        upper=("second moment",),
        moments="weights",
        explodes=explodes,
    )


stress_rules: Mapping[str, StressRule] = MappingProxyType(
    {
        "adam": _adam(_FOLLOWING),
        "adam-1e-8": _constant_epsilon(1e-8),
        "adam-1e-15": _constant_epsilon(1e-15),
        "adam-1e-30": _adam(clamped_epsilon(), eps=1e-30, eps_scaling="constant"),
        "adam-bfloat16": _adam(_FOLLOWING, moment_dtype="bfloat16"),
        "adam_atan2": _rule("adam_atan2"),
        "adam_atan2-bfloat16": _rule("adam_atan2", options={"moment_dtype": "bfloat16"}),
        "adam_parameter_scaling": _adam(_FOLLOWING, "adam_parameter_scaling"),
        "adafactor": _rule("adafactor", squared_epsilon(1e-30, follows_width=True)),
        # A network of 953 numbers for every entry: 64 times fewer of them take seconds.
        "learned": _rule("learned", lower=("gradient", "slow moment"), shape=(16, 16)),
        "lion": _rule("lion", lower=("gradient", "first moment")),
        "sign_sgd": _rule("sign_sgd"),
        "sgd": _rule("sgd", options={"momentum": 0.9}, upper=("sum",)),
        "optax.adam": _optax_adam(1e-8),
        "optax.adam-1e-30": _optax_adam(1e-30, explodes=True),
        "optax.adafactor": StressRule(
            lambda: optax.adafactor(1.0),
            squared_epsilon(1e-30),
            lower=("gradient", "second moment"),
            upper=("mean square",),
            moments="weights",
            rows=128,
        ),
        "optax.lion": StressRule(
            lambda: optax.lion(1.0),
            lower=("gradient", "first moment"),
            moments="weights",
            infinity="hidden",
        ),
    }
)
"""What `scalex stress` knows by name; those of Optax are there for comparison."""

NOT_STRESSED = {
    "micro_adam": "it divides by single examples' gradients, and a stress has one gradient",
    "sign_ema": "what ends its strength is what ends that of lion",
    "adamw": "its update is that of adam, and a decay does not look at the gradient",
    "muon": "what ends the strength of an update that is made of a whole matrix is not derived",
}
"""The rules of the catalogue without limits here, and why."""
