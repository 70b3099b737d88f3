import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jaxtyping import PyTree

from .._laws import rate_of
from .._parts import Part, degree_at_scaling, norm_at_scaling
from .._weight import Weight, weights_with_paths
from ..optim import Constant
from ..optim._numbers import lost, vanishes
from ..optim._rates import GlobalRate
from ..theory import Role
from ._data import PlanRow
from ._foreign import Effect
from ._text import short

# What mixes the gradients of all weights, by the name of the function that Optax makes it with.
_MIXING = ("clip_by_global_norm", "scale_by_trust_ratio", "normalize_by_update_norm")

_NORMS = {
    "entries": "entries of one size at all widths",
    "spectral": "largest singular values of one size at all widths, as Muon's have",
}
_SIGMAS = 5.0
_LEAST_DEVIATION = 0.05


def warnings(
    params: PyTree,
    rows: tuple[PlanRow, ...],
    chain: list[Part],
    effects: dict[str, Effect],
    names: dict[str, str],
    gradients: PyTree | None,
) -> tuple[str, ...]:
    """What looks suspicious, a sentence each."""
    weights = weights_with_paths(params)
    trained = {row.path: weights[row.path] for row in rows if row.is_trained}
    return (
        *_growth(trained),
        *_spreads(rows, trained),
        *_clips(chain, names),
        *_frozen(weights, chain, effects, names),
        *_rates(trained, chain, effects, names),
        *_vanishing(rows, chain),
        *_constant_eps(trained, chain),
        *_decay(trained, chain),
        *_budgets(chain),
        *(() if gradients is None else _eps_above_gradient(trained, chain, gradients)),
    )


def _spreads(rows: tuple[PlanRow, ...], trained: dict[str, Weight]) -> Iterator[str]:
    for row in rows:
        if row.found_std is not None and not math.isfinite(row.found_std):
            yield f"{row.path} has entries that are not finite"
        declared = row.path in trained and trained[row.path].spec.std is not None
        if row.found_std is None or not row.intended_std or not declared:
            continue
        # The sample deviation of n normal numbers scatters by 1 / sqrt(2 n).
        sampling = _SIGMAS / math.sqrt(2 * math.prod(row.shape))
        if abs(row.found_std / row.intended_std - 1) > max(sampling, _LEAST_DEVIATION):
            yield (
                f"{row.path} has a spread of {short(row.found_std)}, and {short(row.intended_std)} "
                "was intended; if the model is not trained yet, its declared std is not the one "
                "that it was drawn with"
            )


def _clips(chain: list[Part], names: dict[str, str]) -> Iterator[str]:
    for part in chain:
        if part.rule is None and names.get(part.name) in _MIXING:
            yield (
                f"{names[part.name]} ({part.name}) takes one norm over gradients whose sizes "
                "depend on the parameterization; clip_by_effective_norm doesn't"
            )


def _rates(
    trained: dict[str, Weight], chain: list[Part], effects: dict[str, Effect], names: dict[str, str]
) -> Iterator[str]:
    """What is wrong with the learning rates' scaling, each with the weights that it concerns."""
    found: dict[str, list[str]] = {}
    known: dict[Any, list[str]] = {}
    for path, weight in trained.items():
        if weight.spec.width_ratio != 1 or weight.spec.sizes:
            working, role = (
                tuple(i for i, p in enumerate(chain) if p.works_on(path)),
                weight.spec.role,
            )
            assert role is not None
            if (working, role) not in known:
                at_work = [chain[i] for i in working]
                known[working, role] = list(_rate_problems(role, at_work, effects, names))
            for problem in known[working, role]:
                found.setdefault(problem, []).append(path)
    for problem, paths in found.items():
        whose = "all weights" if len(paths) == len(trained) else ", ".join(paths)
        yield f"{problem} ({whose})"


def _rate_problems(
    role: Role, chain: list[Part], effects: dict[str, Effect], names: dict[str, str]
) -> Iterator[str]:
    rules = [part.rule for part in chain]
    scaling = [rule for rule in rules if rule is not None and rule.family is not None]
    unknown = [
        f"{names.get(part.name) or type(part.state).__name__} ({part.name})"
        for part in chain
        if part.rule is None and effects[part.name] is Effect.unknown
    ]
    if unknown:
        yield (
            f"{', '.join(unknown)} can't be looked into, so it can't be told how learning rates "
            "follow the width"
        )
    elif not chain:
        yield "no part of the optimizer works on it, so that its gradient itself is added"
    elif not scaling:
        yield (
            "no part of the optimizer scales learning rates with the width; chain scale_by_width "
            "behind the update rule"
        )
    else:
        yield from _lost_factors(chain, effects, names)
    if len(scaling) > 1:
        yield "learning rates are scaled with the width more than once; keep one scale_by_width"
    if any(isinstance(rule.rates, GlobalRate) for rule in scaling):
        yield "one learning rate at every width, by rates=global_rate; the best one may drift"
    degree = degree_at_scaling(rules)
    declared = scaling[0].family if scaling else None
    if declared is None or degree is None:
        return
    family = declared.of_role(role)
    expected = (family.gradient_degree, family.weight_degree)
    if degree != expected:
        yield (
            f"learning rates are scaled as for the family {family.name}, but the updates "
            f"have degrees {tuple(degree)} in gradient and weight, not "
            f"({', '.join(map(str, expected))})"
        )
    norm = norm_at_scaling(rules)
    if degree == expected and norm != family.norm:
        yield (
            f"learning rates are scaled as for the family {family.name}, whose updates have "
            f"{_NORMS[family.norm]}, but these have {_NORMS[norm]}"
        )


def _lost_factors(
    chain: list[Part], effects: dict[str, Effect], names: dict[str, str]
) -> Iterator[str]:
    """What takes the factors of the learning rates away again, behind their scaling."""
    is_scaled = False
    for part in chain:
        rule = part.rule
        if rule is None:
            lost, name = effects[part.name] is Effect.normalised, names.get(part.name)
        else:
            lost, name = rule.output.update != 1, rule.name
        if is_scaled and lost:
            yield (
                f"{name} ({part.name}) stands behind the scaling of learning rates and changes "
                "their factors; chain scale_by_width behind it"
            )
        is_scaled |= rule is not None and rule.family is not None


def _vanishing(rows: tuple[PlanRow, ...], chain: list[Part]) -> Iterator[str]:
    # That keeps updates in float32 up to the end.
    keeps = any(part.rule is not None and part.rule.name == "low_precision" for part in chain)
    for row in rows:
        dtype = "float32" if keeps and jnp.finfo(row.dtype).bits < 32 else row.dtype
        if row.learning_rate and vanishes(row.learning_rate, dtype):
            yield (
                f"{row.path}: the learning rate {short(row.learning_rate)} is "
                f"{lost(row.learning_rate, dtype)}"
            )


def _growth(trained: dict[str, Weight]) -> Iterator[str]:
    if trained and all(weight.spec.role is Role.constant for weight in trained.values()):
        yield "no weight grows with the width; was the model made with the width?"


def _frozen(
    weights: dict[str, Weight], chain: list[Part], effects: dict[str, Effect], names: dict[str, str]
) -> Iterator[str]:
    frozen = [path for path, weight in weights.items() if not weight.spec.is_trained]
    foreign = [
        names.get(part.name, part.name)
        for part in chain
        if part.rule is None and effects[part.name] is not Effect.zero
    ]
    if frozen and foreign:
        yield (
            f"{', '.join(frozen)} are frozen, which {', '.join(foreign)} knows nothing of; weight "
            "decay of another library would move them"
        )


def _constant_eps(trained: dict[str, Weight], chain: list[Part]) -> Iterator[str]:
    for part, constant in _constants(chain, "eps"):
        if constant.scaling != (0, 0) or callable(constant.value):
            continue
        weighs = {
            path: 1 / weight.spec.scale(constant.degree.update * weight.spec.gradient_power)
            for path, weight in trained.items()
            if part.works_on(path) and constant.value != 0
        }
        worst = max(weighs, key=lambda path: weighs[path], default=None)
        if worst is not None and weighs[worst] > 1:
            yield (
                f"epsilon is the same at every width while gradients shrink: in {worst} it weighs "
                f"{short(weighs[worst])} times what it does at the base width"
            )


_NORMALIZED = {
    "batch": "the gradient of the whole batch, whose noise shrinks with it",
    "examples": "the gradients of its examples, which it doesn't change",
}


def _budgets(chain: list[Part]) -> Iterator[str]:
    """Rules for the batch size that are those of another way to normalise."""
    rules = [part.rule for part in chain if part.rule is not None]
    normalizing = [rule for rule in rules if rule.output.update == 0]
    for rule in rules:
        budget: Any = dict(rule.settings).get("budget")
        if budget is None or budget.batch_ratio == 1 or budget.rule.normalized_by is None:
            continue
        meant = budget.rule.normalized_by
        for other in normalizing:
            found = dict(other.settings).get("normalized_by", "batch")
            if found != meant:
                remedy = "micro_adam" if found == "examples" else "malladi"
                yield (
                    f"budget rule {budget.rule.name} is for updates that are divided by "
                    f"{_NORMALIZED[meant]}; {other.name} divides by {_NORMALIZED[found]}: take "
                    f"scalex_eqx.theory.{remedy}"
                )


def _decay(trained: dict[str, Weight], chain: list[Part]) -> Iterator[str]:
    places = {part.name: i for i, part in enumerate(chain)}
    for part, constant in _constants(chain, "weight_decay"):
        behind = chain[places[part.name] + 1 :]
        for scaling in behind:
            rule = scaling.rule
            if rule is None or rule.family is None or constant.value == 0:
                continue
            exponents = {
                role: rate_of(path, weight.spec, [rule]).of_width(role)
                for path, weight in trained.items()
                if scaling.works_on(path)
                and weight.spec.width_ratio != 1
                and (role := weight.spec.role)
            }
            told = [
                f"{role} r^{-exponent}"
                for role, exponent in exponents.items()
                if exponent and role.is_matrix
            ]
            if told:
                yield (
                    "coupled weight decay changes with the width as the learning rate does: "
                    f"{', '.join(told)}; independent decay doesn't"
                )
            of_depth = {
                rate_of(path, weight.spec, [rule]).depth
                for path, weight in trained.items()
                if scaling.works_on(path) and weight.spec.size_ratio("depth") != 1
            }
            for exponent in of_depth - {0}:
                yield (
                    "coupled weight decay changes with the depth as the learning rate does: "
                    f"L^{-exponent} in stacks of blocks; independent decay doesn't"
                )


def _constants(chain: list[Part], name: str) -> Iterator[tuple[Part, Constant]]:
    for part in chain:
        for constant in part.rule.constants if part.rule is not None else ():
            if constant.name == name:
                yield part, constant


def _eps_above_gradient(
    trained: dict[str, Weight], chain: list[Part], gradients: PyTree
) -> Iterator[str]:
    found = {path: weight.value for path, weight in weights_with_paths(gradients).items()}
    for part, constant in _constants(chain, "eps"):
        for path, weight in trained.items():
            eps, gradient = constant.at(weight.spec), found.get(path)
            if eps is None or gradient is None or not part.works_on(path):
                continue
            size = _root_mean_square(gradient)
            # Adafactor's stands beside the square of the gradient.
            if eps ** (1 / constant.degree.update) > size:
                yield (
                    f"{path}: epsilon is {short(eps)} where the gradient's RMS is {short(size)}; "
                    "the update is smaller than its learning rate says"
                )


def _root_mean_square(x: Any) -> float:
    return float(jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.result_type(float))))))
