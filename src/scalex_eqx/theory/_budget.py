import dataclasses
import math
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal, get_args

from ._parameterization import LayerExponents
from ._rational import Exponent, exact

Quantity = Literal["learning_rate", "one_minus_b1", "one_minus_b2", "eps"]

QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
"""What a rule has an exponent of the batch size and of the training length for."""

# As for the factors that follow the width: a number beyond that is no hyperparameter.
_LARGEST = 2.0**100
_LONGEST = 9


def _exact(exponent: Exponent | None, name: str) -> Fraction | None:
    return None if exponent is None else exact(exponent, name)


@dataclasses.dataclass(frozen=True, init=False)
class Growth:
    r"""How a hyperparameter grows with the batch size and with the length of training, exactly.

    $$\frac{\text{value}}{\text{value at the base}} = B^x\, D^y$$

    $B$ is the batch size divided by the base's, and $D$ the number of training tokens divided by
    the base's. `Growth(batch="1/2", tokens="-1/2")` is $\sqrt{B / D}$.

    The sign is that of the published rules. The exponents of the *width* have the other one:
    $r^{-c}$.

    **Arguments:**

    - `batch`, `tokens`: $x$ and $y$; an int, a `Fraction`, or a string such as `"-1/2"` or
        `"-0.32"`. 0 says that it stays, and `None` that the source doesn't say.
    """

    batch: Fraction | None
    tokens: Fraction | None

    def __init__(self, batch: Exponent | None = 0, tokens: Exponent | None = 0):
        object.__setattr__(self, "batch", _exact(batch, "batch"))
        object.__setattr__(self, "tokens", _exact(tokens, "tokens"))

    def __sub__(self, other: "Growth") -> "Growth":
        pairs = ((self.batch, other.batch), (self.tokens, other.tokens))
        return Growth(*(None if x is None or y is None else x - y for x, y in pairs))

    def __str__(self) -> str:
        exponents = (("batch", self.batch), ("tokens", self.tokens))
        return " ".join(f"{size}^{'?' if x is None else x}" for size, x in exponents if x != 0)


@dataclasses.dataclass(frozen=True, init=False)
class DecayRule:
    r"""How the share of a weight that decay takes away in a step follows three sizes, exactly.

    $$\omega = \eta \lambda \;\propto\; r^w\, B^x\, D^y$$

    $\eta$ is the weight's learning rate, $\lambda$ the coefficient of coupled decay, as in AdamW,
    and $r$, $B$ and $D$ are the ratios of width, batch size and training tokens to the base's.
    Only of $\omega$ can published rules be compared, and only one size at a time: a sweep in which
    the tokens grow as the width squared finds $w + 2 y$.

    **Arguments:**

    - `name`: how it is printed.
    - `width`: $w$, of all matrices or, as a `LayerExponents`, by role; `None` if the source doesn't
        say. Then it is 0 for independent decay, and the learning rate's for coupled decay.
    - `batch`, `tokens`: $x$ and $y$; `None` if the source doesn't say. A rule that doesn't say how
        it follows a size can't be used where that size grows.
    """

    name: str
    width: LayerExponents | None
    batch: Fraction | None
    tokens: Fraction | None

    def __init__(
        self,
        name: str,
        *,
        width: Exponent | LayerExponents | None = None,
        batch: Exponent | None = None,
        tokens: Exponent | None = None,
    ):
        if width is not None and not isinstance(width, LayerExponents):
            width = LayerExponents(*[exact(width, "width")] * 3)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "width", width)
        object.__setattr__(self, "batch", _exact(batch, "batch"))
        object.__setattr__(self, "tokens", _exact(tokens, "tokens"))

    @property
    def growth(self) -> Growth:
        """With batch and tokens, at one width."""
        return Growth(self.batch, self.tokens)


@dataclasses.dataclass(frozen=True)
class BudgetRule:
    r"""How an optimizer's hyperparameters follow the batch size and the length of training.

    They belong to the optimizer and are the same for all weights, whatever the width's exponents
    of those are. A hyperparameter that isn't named stays.

    **Arguments:**

    - `name`: how it is printed.
    - `gradient_degree`: of the families that it is for: 0 if the size of the update doesn't follow
        the gradient (Adam, a sign), 1 if it does (SGD).
    - `learning_rate`, `eps`: a [`scalex_eqx.theory.Growth`][] each.
    - `one_minus_b1`, `one_minus_b2`: the same for $1 - \beta$, one over the steps that a mean goes
        back.
    - `decay`: a [`scalex_eqx.theory.DecayRule`][]; `None` if the source has none. Weight decay is
        then refused until `with_decay` adds one.
    - `normalized_by`: of rules whose updates are divided by gradients, which gradients: those of
        the whole `"batch"`, whose noise shrinks with it (Adam), or of its `"examples"`, each by
        itself (MicroAdam); `None` if it isn't said. [`scalex_eqx.plan`][] warns of another.
    """

    name: str
    gradient_degree: int = 0
    learning_rate: Growth = Growth()
    one_minus_b1: Growth = Growth()
    one_minus_b2: Growth = Growth()
    eps: Growth = Growth()
    decay: DecayRule | None = None
    normalized_by: Literal["batch", "examples"] | None = None

    def __post_init__(self):
        if self.normalized_by not in ("batch", "examples", None):
            raise ValueError(
                f"normalized_by of budget rule {self.name!r} is {self.normalized_by!r}; expected "
                "'batch', as for Adam, 'examples', as for MicroAdam, or None"
            )
        if self.gradient_degree not in (0, 1):
            raise ValueError(
                f"gradient_degree of budget rule {self.name!r} is {self.gradient_degree!r}; "
                "expected 0, as for Adam, or 1, as for SGD"
            )

    def with_horizon(self, exponent: Exponent) -> "BudgetRule":
        """The rule with this exponent of the training tokens for the learning rate.

        Whatever else the rule doesn't let follow the tokens stays as it is when they grow.
        """
        changed: dict[str, Any] = {
            name: Growth(getattr(self, name).batch, getattr(self, name).tokens or 0)
            for name in QUANTITIES
        }
        changed["learning_rate"] = Growth(self.learning_rate.batch, exponent)
        return dataclasses.replace(self, **changed)

    def with_decay(self, decay: DecayRule) -> "BudgetRule":
        """The rule with another one for weight decay."""
        return dataclasses.replace(self, decay=decay)

    def decay_growth(self, *, coupled: bool) -> Growth:
        r"""That of the coefficient that decay is given: of $\omega$, or of $\lambda$ if coupled."""
        of_step = Growth(None, None) if self.decay is None else self.decay.growth
        return of_step - self.learning_rate if coupled else of_step


@dataclasses.dataclass(frozen=True)
class Budget:
    r"""A batch size and a training length, beside those that the hyperparameters were tuned at.

    $$\text{value} = \text{value at the base} \times B^x\, D^y$$

    with the exponents of `rule`, $B$ = `batch / base_batch` and $D$ = `tokens / base_tokens`. Hand
    it to an optimizer, whose hyperparameters are then those at the base:

    ```python
    budget = sx.Budget(sx.theory.malladi, batch=512, base_batch=128)
    tx = sx.adam(3e-3, b1=0.95, b2=0.99, budget=budget)
    ```

    Nothing here follows the width, and no number of steps changes: how long a schedule lasts, and
    that training ends after so many tokens, is yours to say.

    **Arguments:**

    - `rule`: a [`scalex_eqx.theory.BudgetRule`][], such as `scalex_eqx.theory.malladi`.
    - `batch`, `base_batch`: in any unit, the same for both: examples or tokens.
    - `tokens`, `base_tokens`: what all of training sees, in any unit. Leave both out where they are
        equal, if the rule doesn't follow them.

    **Raises:** `ValueError` for a number that isn't positive and finite, for one of a pair without
    the other, and for a rule that follows the tokens if they are left out.
    """

    rule: BudgetRule
    _: dataclasses.KW_ONLY
    batch: int | float | Fraction
    base_batch: int | float | Fraction
    tokens: int | float | Fraction | None = None
    base_tokens: int | float | Fraction | None = None

    def __post_init__(self):
        if not isinstance(self.rule, BudgetRule):
            raise ValueError(
                f"rule is {self.rule!r}; expected a BudgetRule such as scalex_eqx.theory.malladi"
            )
        for name in ("batch", "base_batch", "tokens", "base_tokens"):
            if getattr(self, name) is not None or name in ("batch", "base_batch"):
                _check_positive(name, getattr(self, name))
        if (self.tokens is None) != (self.base_tokens is None):
            raise ValueError(
                f"tokens is {self.tokens!r} and base_tokens {self.base_tokens!r}; give both, or "
                "neither"
            )
        for name, ratio in (("batch", self.batch_ratio), ("tokens", self.token_ratio)):
            if not 1 / _LARGEST <= ratio <= _LARGEST:
                raise ValueError(
                    f"{name} is {float(getattr(self, name)):.4g} and base_{name} "
                    f"{float(getattr(self, f'base_{name}')):.4g}; expected a ratio between 2^-100 "
                    "and 2^100"
                )
        follows = dict(_tokens(self.rule))
        if self.tokens is None and any(follows.values()):
            said = ", ".join(f"{name} tokens^{y}" for name, y in follows.items() if y)
            raise ValueError(
                f"budget rule {self.rule.name!r} follows the training length ({said}); give tokens "
                "and base_tokens, equal ones if it stays"
            )

    @property
    def batch_ratio(self) -> Fraction:
        """$B$, exact."""
        return Fraction(self.batch) / Fraction(self.base_batch)

    @property
    def token_ratio(self) -> Fraction:
        """$D$, exact; 1 if no tokens were given."""
        if self.tokens is None or self.base_tokens is None:
            return Fraction(1)
        return Fraction(self.tokens) / Fraction(self.base_tokens)

    def factor(self, quantity: Quantity) -> float:
        """What a hyperparameter is multiplied by, exactly 1 where nothing grows.

        **Arguments:**

        - `quantity`: `"learning_rate"`, `"eps"`, `"one_minus_b1"` or `"one_minus_b2"`.

        **Raises:** `ValueError` if the rule doesn't say how it follows a size that grows.
        """
        if quantity not in QUANTITIES:
            raise ValueError(f"quantity is {quantity!r}; expected one of {', '.join(QUANTITIES)}")
        return self._factor(quantity, getattr(self.rule, quantity))

    def decay_factor(self, *, coupled: bool) -> float:
        r"""What the coefficient of weight decay is multiplied by, the width left aside.

        **Arguments:**

        - `coupled`: whether it is $\lambda$, which the learning rate multiplies, or the share
            $\omega$ that a step takes away, as for independent decay.

        **Raises:** `ValueError` if the rule doesn't say how decay follows a size that grows.
        """
        return self._factor("weight decay", self.rule.decay_growth(coupled=coupled))

    def _factor(self, what: str, growth: Growth) -> float:
        sizes = (
            ("batch size", growth.batch, self.batch_ratio),
            ("training length", growth.tokens, self.token_ratio),
        )
        factor = 1.0
        for size, exponent, ratio in sizes:
            if ratio == 1 or exponent == 0:
                continue
            if exponent is None:
                raise ValueError(self._unsaid(what, size, ratio))
            factor *= _raised(ratio, exponent, f"{what}: {size}")
        return factor

    def _unsaid(self, what: str, size: str, ratio: Fraction) -> str:
        if what == "weight decay":
            remedy = (
                "rule.with_decay(scalex_eqx.theory.DecayRule(name, batch=..., tokens=...)), with "
                "the exponents of the share that a step takes away"
            )
        elif size == "training length":
            remedy = (
                "rule.with_horizon('-0.32'), say: published exponents of the learning rate go from "
                "-0.28 to -1/2"
            )
        else:
            remedy = f"dataclasses.replace(rule, {what}=scalex_eqx.theory.Growth(batch=...))"
        return (
            f"budget rule {self.rule.name!r} doesn't say how {what} follows the {size}, which is "
            f"{said_ratio(ratio)} times the base's; give it an exponent: {remedy}"
        )


def _check_positive(name: str, value: Any) -> None:
    is_number = isinstance(value, int | float | Fraction) and not isinstance(value, bool)
    if not is_number or not 0 < value <= sys.float_info.max:
        raise ValueError(f"{name} is {value!r}; expected a positive, finite number")


def said_ratio(ratio: Fraction) -> str:
    """Exactly, unless that takes many digits."""
    exactly = str(ratio)
    return exactly if len(exactly) <= _LONGEST else f"{float(ratio):.4g}"


def said_width(width: LayerExponents) -> str:
    """Exponents of the width by role, in words."""
    exponents = {role: getattr(width, role) for role in ("embedding", "hidden", "readout")}
    if len(set(exponents.values())) == 1:
        return f"width^{width.hidden}"
    return ", ".join(f"{role} width^{exponent}" for role, exponent in exponents.items())


def _tokens(rule: BudgetRule) -> Iterator[tuple[str, Fraction | None]]:
    """The exponents of the training tokens in a rule."""
    for name in QUANTITIES:
        yield name, getattr(rule, name).tokens
    if rule.decay is not None:
        yield "decay", rule.decay.tokens


def _raised(ratio: Fraction, exponent: Fraction, what: str) -> float:
    try:
        factor = float(ratio) ** float(exponent)
    except OverflowError:
        factor = math.inf
    if not 1 / _LARGEST <= factor <= _LARGEST:
        raise ValueError(
            f"{what} to the power {exponent} at the ratio {said_ratio(ratio)} is {factor:.3g}; "
            "expected a factor between 2^-100 and 2^100. Check the exponent"
        )
    return factor
