import dataclasses
import functools
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from .. import optim, theory
from .._needed import statistics_needed
from .._usage import UsageError
from ..optim._budget import check_budget
from ..optim._catalogue import Entry, catalogue
from ..optim._learned._files import is_pinned
from ..optim._numbers import ScalarOrSchedule
from ..optim._rates import GlobalRate
from ..theory import Alignment, Budget, BudgetRule, Parameterization
from ..theory._role import TRAINED
from ._batch_rules import batch_rule_text, parse_batch_rule
from ._call import call_text, parse_call, split_outside
from ._foreign import EXAMPLES, Foreign, foreign, needs_family
from ._numbers import SIZES, parse_exponent, parse_factor

PARAMETERIZATIONS = {
    p.name: p for p in (theory.standard, theory.ntk, theory.mup, theory.mean_field, theory.u_mup)
}
# Those of Everett et al. (2024), which count from a base model.
THE_FOUR = tuple(name for name, law in PARAMETERIZATIONS.items() if law.unit is None)
RATES: dict[str, Alignment | GlobalRate] = {
    "global": optim.global_rate,
    "full": theory.full_alignment,
    "none": theory.no_alignment,
}
_DEEP = re.compile(r"(?P<name>\w+)\.deep\((?P<alpha>[^()]*)\)")

Pairs = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Recipe:
    r"""How a model is scaled and trained, with a text form: `parse_recipe(str(recipe)) == recipe`.

    The text is `parameterization:optimizer:rates`, e.g. `standard:adam:full`, or with arguments
    and with constants $\gamma$, `mup:adam(eps=1e-08):full:embedding=2,hidden=1/2`. Last may stand a
    rule for the batch size, `standard:adam:full:malladi`. What is as it would be if left out is
    left out, and so recipes that train alike are equal.

    **Arguments:**

    - `law`: the parameterization.
    - `entry`: the update rule, out of the catalogue or the user's own.
    - `rates`: `global_rate`, `full_alignment`, `no_alignment`, or exponents by role or path.
    - `arguments`: of the update rule, by name.
    - `multipliers`: the constants by role or path, as `role_multipliers` of
        [`scalex_eqx.scale_by_width`][]; exact.
    - `batch_rule`: how its numbers follow the batch size and the length of training.

    **Raises:** `UsageError` for what has no text form, and what the rule doesn't take.
    """

    law: Parameterization
    entry: Entry | Foreign
    rates: Any
    arguments: Any = ()
    multipliers: Any = ()
    batch_rule: BudgetRule | None = None

    def __post_init__(self) -> None:
        _law_text(self.law)
        if self.rates not in RATES.values():
            object.__setattr__(self, "rates", _in_order("rates", self.rates))
        # What is multiplied by one is as if it weren't.
        factors = {key: x for key, x in dict(self.multipliers).items() if x != 1}
        object.__setattr__(self, "multipliers", _in_order("multipliers", factors))
        try:
            arguments = self.entry.checked(dict(self.arguments))
            # A stored recipe is read also where its file is gone.
            if isinstance(self.entry, Entry) and not any(map(is_pinned, arguments.values())):
                self.entry.rule(**arguments)
        except (ValueError, OverflowError) as error:
            raise UsageError(f"optimizer {self.entry.name!r}: {error}") from None
        object.__setattr__(self, "arguments", tuple(arguments.items()))
        has_family = not isinstance(self.entry, Foreign) or self.entry.family_name is not None
        if not has_family and self.rates is not optim.global_rate:
            raise needs_family(self.optimizer)
        if self.batch_rule is not None:
            self._check_batch_rule(self.batch_rule)

    def _check_batch_rule(self, rule: BudgetRule) -> None:
        batch_rule_text(rule)
        if not self.entry.budget:
            raise UsageError(
                f"recipe {self}: no rule for the batch size is known for {self.entry.name}; leave "
                "it out"
            )
        try:
            check_budget(
                Budget(rule, batch=1, base_batch=1, tokens=1, base_tokens=1), self.entry.family
            )
        except ValueError as error:
            raise UsageError(f"recipe {self}: {error}") from None

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        # Runs are keys by their recipes, and fractions are slow to hash.
        return hash(tuple(getattr(self, field.name) for field in dataclasses.fields(self)))

    def __getstate__(self) -> dict[str, Any]:
        # Texts have another hash in another process.
        return {name: x for name, x in vars(self).items() if name != "_hash"}

    def __str__(self) -> str:
        named = [name for name, one in RATES.items() if one == self.rates]
        rates = named[0] if named else _pairs_text(self.rates)
        parts = [_law_text(self.law), self.optimizer, rates]
        parts += [_pairs_text(self.multipliers)] if self.multipliers else []
        return ":".join(parts + ([batch_rule_text(self.batch_rule)] if self.batch_rule else []))

    @property
    def optimizer(self) -> str:
        """The text of the update rule with its arguments."""
        text = call_text(self.entry.name, dict(self.arguments))
        family = self.entry.family_name if isinstance(self.entry, Foreign) else None
        return text if family is None else f"{text}@{family}"

    @property
    def weight_decay(self) -> float | None:
        """Of the update rule, if it has one that the catalogue knows."""
        return dict(self.arguments).get("weight_decay") if self.entry.decay else None

    @property
    def width_options(self) -> dict[str, Any]:
        """What [`scalex_eqx.scale_by_width`][] is given beside the entry's family."""
        multipliers = {key: float(x) for key, x in self.multipliers}
        return {
            "rates": dict(self.rates) if isinstance(self.rates, tuple) else self.rates,
            "role_multipliers": multipliers or None,
        }

    def with_arguments(self, **arguments: Any) -> "Recipe":
        """The same with these arguments of the update rule beside the others."""
        return dataclasses.replace(self, arguments={**dict(self.arguments), **arguments})

    def transformation(
        self,
        learning_rate: ScalarOrSchedule,
        *,
        budget: Budget | None = None,
        shape: optax.Schedule | None = None,
    ) -> optax.GradientTransformation:
        """The optimizer.

        **Arguments:**

        - `learning_rate`, `budget`: as of its maker.
        - `shape`: the learning rate's over time, with a peak of 1, for a decay that follows it.

        **Raises:** `UsageError` if it lacks a weight decay or takes no budget.
        """
        if budget is not None and not self.entry.budget:
            raise UsageError(f"recipe {self}: {self.entry.name} takes no budget; leave out --batch")
        options = {**self.width_options, **dict(self.arguments)}
        try:
            return self.entry.optimizer(learning_rate, budget=budget, shape=shape, **options)
        except ValueError as error:
            raise UsageError(f"recipe {self}: {error}") from None


def check_on(recipe: Recipe, model: PyTree, budget: Budget | None = None) -> None:
    """Refuses a recipe that names weights which the model lacks, or can't move those it has.

    **Arguments:**

    - `recipe`: to be checked.
    - `model`: completed weights, or their shapes.
    - `budget`: the batch size that its rule is to be used at, if it has one.

    **Raises:** `UsageError`.
    """
    tx = recipe.transformation(1.0, budget=budget)
    try:
        state = jax.eval_shape(tx.init, model)
        if isinstance(recipe.entry, Foreign):
            jax.eval_shape(tx.update, model, state, model)
    except Exception as error:
        if not isinstance(recipe.entry, Foreign) and not isinstance(error, ValueError):
            raise
        said = " ".join(str(error).split())
        raise UsageError(f"recipe {recipe}: {said}") from error


def check_gradient_alone(recipe: Recipe, what: str) -> None:
    """Refuses a recipe whose rule looks at single examples' gradients.

    **Arguments:**

    - `what`: takes the gradient of the batch alone.

    **Raises:** `UsageError`.
    """
    entry = recipe.entry
    if isinstance(entry, Foreign):
        return
    # The rule without its rates, which may name weights of a model.
    if statistics_needed(entry.rule(**dict(recipe.arguments)), {}):
        raise UsageError(
            f"recipe {recipe}: {entry.name} needs the gradient of each example, and {what} "
            "takes that of the batch alone; use transfer, sweep, tune, scales or noise"
        )


def parse_recipe(text: str) -> Recipe:
    """The recipe that `text` names.

    **Raises:** `UsageError` that lists the choices for the part that is unknown.
    """
    parts = split_outside(text, ":")
    if len(parts) > 3 and re.search(r"\.py(#\w+)?$", parts[1]):
        # The colon between a file and a name in it.
        parts[1:3] = [":".join(parts[1:3])]
    if len(parts) not in (3, 4, 5):
        raise UsageError(
            f"recipe {text!r} is not parameterization:optimizer:rates; examples are "
            "standard:adam:full and, with a rule in a file, standard:my_rule.py:make@adam:full"
        )
    law = _parsed_law(text, parts[0])
    entry, arguments = _parsed_optimizer(text, parts[1])
    if "=" not in parts[2] and parts[2] not in RATES:
        raise _unknown(text, "rates", parts[2], RATES)
    rates = RATES.get(parts[2]) or parse_exponents(parts[2])
    # Constants have an equals sign outside of brackets.
    has_constants = parts[3:] and (not parts[3] or len(split_outside(parts[3], "=")) > 1)
    constants = parts[3:4] if has_constants else []
    rules = parts[3 + len(constants) :]
    if len(rules) > 1:
        raise UsageError(f"recipe {text!r} has {rules[0]!r} and {rules[1]!r}; {_ORDER}")
    multipliers = _multipliers(constants[0]) if constants else ()
    rule = parse_batch_rule(rules[0], entry) if rules else None
    return Recipe(law, entry, rates, arguments, multipliers, rule)


_ORDER = "behind the rates stand constants, as hidden=2, and then a rule for the batch size"


def _parsed_law(text: str, part: str) -> Parameterization:
    deep = _DEEP.fullmatch(part)
    name = deep["name"] if deep else part
    if name not in PARAMETERIZATIONS:
        raise _unknown(text, "parameterization", name, PARAMETERIZATIONS)
    if not deep:
        return PARAMETERIZATIONS[name]
    try:
        return PARAMETERIZATIONS[name].deep(parse_exponent(deep["alpha"]))
    except ValueError:
        raise UsageError(
            f"recipe {text!r} has {part!r}; expected an exponent from 1/2 to 1, as {name}.deep(1)"
        ) from None


def _law_text(law: Parameterization) -> str:
    for name, known in PARAMETERIZATIONS.items():
        if law == known:
            return name
        if law.branch is not None and law == known.deep(law.branch):
            return f"{name}.deep({law.branch})"
    raise UsageError(
        f"parameterization {law.name!r} has no text form; recipes take "
        f"{', '.join(PARAMETERIZATIONS)}, with a law for the depth as mup.deep(1)"
    )


def _parsed_optimizer(text: str, part: str) -> tuple[Entry | Foreign, dict[str, Any]]:
    called, *family = split_outside(part, "@")
    call = parse_call(called)
    if call.name in catalogue and not family:
        if call.positional:
            raise UsageError(f"{called!r} has an argument without a name; write it as name=value")
        return catalogue[call.name], call.named
    if call.name in catalogue:
        raise UsageError(f"{part!r}: {call.name} has a family of its own; leave out @{family[0]}")
    if "." not in call.name:
        raise UsageError(
            f"recipe {text!r} has an unknown optimizer {call.name!r}; choose from "
            f"{', '.join(catalogue)}, or one of your own as {EXAMPLES}"
        )
    if call.positional:
        raise UsageError(
            f"{called!r} has an argument without a name; the sweep gives it the learning rate, "
            "and others are written as name=value"
        )
    return foreign(call.name, "@".join(family) if family else None), call.named


def _unknown(text: str, kind: str, part: str, known: Mapping[str, Any]) -> UsageError:
    return UsageError(
        f"recipe {text!r} has an unknown {kind} {part!r}; choose from {', '.join(known)}"
    )


def parse_exponents(text: str) -> dict[str, Fraction]:
    """Learning rate exponents, from `embedding=0,hidden=9/10,readout=1,vector=0`.

    Paths of weights, which may hold wildcards, may stand beside the roles, and go before them.

    **Raises:** `UsageError` for what is no exponent.
    """
    return _parsed_pairs("rates", text, parse_exponent, f"its exponent, {SIZES}, as hidden=9/10")


def _multipliers(text: str) -> dict[str, Fraction]:
    expected = "its factor, a positive number such as 2 or 1/2, as hidden=1/2"
    return _parsed_pairs("multipliers", text, parse_factor, expected)


def _parsed_pairs(what: str, text: str, parse: Any, expected: str) -> dict[str, Fraction]:
    found: dict[str, Fraction] = {}
    for entry in split_outside(text, ","):
        key, _, value = entry.partition("=")
        if key in found:
            raise UsageError(f"{what} {text!r} has {key!r} twice; give it once")
        try:
            found[key] = parse(value)
        except ValueError:
            key = ""
        if not key.strip():
            raise UsageError(
                f"{what} {text!r} has {entry!r}; expected a role or path and {expected}"
            )
    return found


def _in_order(what: str, pairs: Any) -> Pairs:
    """Roles in their order, then paths by name.

    **Raises:** `UsageError` for what has no text.
    """
    if not isinstance(pairs, Mapping | tuple):
        raise UsageError(
            f"{what} {pairs!r} have no text form; expected {', '.join(RATES)} or numbers by role"
        )
    roles = list(map(str, TRAINED))
    named = {str(key): Fraction(x) for key, x in dict(pairs).items()}
    for key in named:
        if not key.isprintable() or any(len(split_outside(key, x)) > 1 for x in ":,="):
            raise UsageError(f"{what} has the path {key!r}, which can't be written in a recipe")
    order = sorted(named, key=lambda key: (roles.index(key) if key in roles else len(roles), key))
    return tuple((key, named[key]) for key in order)


def _pairs_text(pairs: Pairs) -> str:
    return ",".join(f"{key}={x}" for key, x in pairs)
