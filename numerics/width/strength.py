"""What part of an update is left when an epsilon comes near the gradients, role by role."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import scalex_eqx as sx
from numerics.width.gradients import ROLES, Seen

LOST = 0.9
B1, B2 = 0.9, 0.999
# Gradients so many times as large see nothing of an epsilon.
FAR = 2.0**40
CONSTANT, FOLLOWING, ATAN2 = "adam, constant", "adam, with the width", "adam_atan2"

Gradients = dict[str, Float[Array, "batches entries 1"]]


class Role(NamedTuple):
    """All weights of a role as one: a spec, values and gradients of shape (batches, entries)."""

    spec: sx.WeightSpec
    values: np.ndarray
    gradients: np.ndarray


def by_role(weights: dict[str, Seen]) -> dict[str, Role]:
    """The weights of each role joined; what a rule does to an entry depends on nothing else."""
    found = {}
    for role in ROLES:
        own = [weight for weight in weights.values() if weight.spec.role == role]
        gradients = [weight.gradients.reshape(len(weight.gradients), -1) for weight in own]
        values = [weight.value.ravel() for weight in own]
        found[role] = Role(own[0].spec, np.concatenate(values), np.concatenate(gradients, axis=1))
    return found


def parts(roles: dict[str, Role], eps: float) -> dict[tuple[str, str], float]:
    """By role and rule, the root mean square of the update relative to one without epsilon.

    The update is the last of a few, and that without epsilon what the same compiled rule gives
    for gradients 2^40 times as large.
    """
    model = {name: as_weight(role, role.values) for name, role in roles.items()}
    gradients = {name: role.gradients[..., None] for name, role in roles.items()}
    near, far = (
        jax.device_get(_sizes(model, {name: factor * g for name, g in gradients.items()}, eps))
        for factor in (np.float32(1), np.float32(FAR))
    )
    return {key: float(near[key] / far[key]) for key in near}


def as_weight(role: Role, entries: np.ndarray) -> sx.Weight:
    """Entries of a role as one weight, under the law of the role."""
    spec = sx.WeightSpec(
        (-1,),
        (-2,),
        std=1.0,
        role=role.spec.role,
        parameterization=role.spec.parameterization,
        width_ratio=role.spec.width_ratio,
    )
    return sx.Weight(jnp.asarray(entries)[:, None], spec)


@jax.jit
def _sizes(model: dict[str, sx.Weight], gradients: Gradients, eps: Float[Array, ""]):
    rules = {
        CONSTANT: sx.adam(1.0, sx.global_rate, b1=B1, b2=B2, eps=eps, eps_scaling="constant"),
        FOLLOWING: sx.adam(1.0, sx.global_rate, b1=B1, b2=B2, eps=eps, eps_scaling="gradient"),
        ATAN2: sx.adam_atan2(1.0, sx.global_rate, b1=B1, b2=B2),
    }
    found = {}
    for rule, tx in rules.items():
        updates = _last_update(tx, model, gradients)
        for role, weight in updates.items():
            found[role, rule] = jnp.sqrt(jnp.mean(jnp.square(weight.value)))
    return found


def _last_update(tx, model, gradients) -> dict[str, sx.Weight]:
    state, updates = tx.init(model), {}
    for index in range(len(next(iter(gradients.values())))):
        tree = {name: sx.Weight(g[index], model[name].spec) for name, g in gradients.items()}
        updates, state = tx.update(tree, state, model)
    return updates


class Moments(NamedTuple):
    """Adam's corrected moments of a role's gradients, in float64: the mean and the root."""

    mean: np.ndarray
    root: np.ndarray


def moments(gradients: np.ndarray) -> Moments:
    """After the last gradient; entries that never had one are left out."""
    gradients = gradients.astype(np.float64)
    gradients = gradients[:, (gradients != 0).any(axis=0)]
    ages = np.arange(len(gradients))[::-1]
    first, second = ((1 - b) * b**ages / (1 - b ** len(gradients)) for b in (B1, B2))
    return Moments(first @ gradients, np.sqrt(second @ gradients**2))


def ideal_part(found: Moments, eps: float) -> float:
    """What `parts` measures for a constant epsilon, by Adam's formula."""
    mean, root = found
    return float(np.sqrt(np.mean((mean / (root + eps)) ** 2) / np.mean((mean / root) ** 2)))


def epsilon_that_takes_a_tenth(found: Moments) -> float:
    """Found by bisection of its logarithm."""
    low, high = -60.0, 10.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if ideal_part(found, 2.0**middle) > LOST else (low, middle)
    return 2.0**low
