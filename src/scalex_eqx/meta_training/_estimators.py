"""Gradients of a training's mean loss in the numbers of its update rule."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

Estimator = Literal["pes", "unrolled"]


class Episode(NamedTuple):
    """A training in truncations, as functions of the rule's numbers.

    - `begin`: `begin(phi, key)`, the state before the first step.
    - `advance`: `advance(phi, state, key)`, the state after one truncation, and its mean loss.
    - `truncations`: how many there are in a whole training.
    """

    begin: Callable[[Float[Array, " n"], PRNGKeyArray], PyTree]
    advance: Callable[[Float[Array, " n"], PyTree, PRNGKeyArray], tuple[PyTree, Float[Array, ""]]]
    truncations: int


class Particle(NamedTuple):
    """One training, or a pair of them with opposite perturbations.

    - `arms`: their states, along a first axis.
    - `perturbation`: the sum of all perturbations since the training began.
    - `left`: the truncations until it ends.
    - `number`: of the training, among those that this particle has seen.
    """

    arms: PyTree
    perturbation: Float[Array, " n"]
    left: Int[Array, ""]
    number: Int[Array, ""]


def first_particle(
    episode: Episode,
    phi: Float[Array, " n"],
    key: PRNGKeyArray,
    index: Int[Array, ""],
    estimator: Estimator,
) -> Particle:
    """Particle `index`, before it has begun.

    Their first trainings end at different times, so that later each stands at another place.
    """
    left = episode.truncations - index % episode.truncations
    number = jnp.zeros((), jnp.int32)
    arms = _begun(episode, phi, jax.random.fold_in(key, number), estimator)
    return Particle(arms, jnp.zeros_like(phi), left.astype(jnp.int32), number)


def pes(
    episode: Episode,
    phi: Float[Array, " n"],
    particle: Particle,
    keys: tuple[PRNGKeyArray, PRNGKeyArray],
    sigma: float,
) -> tuple[Particle, Float[Array, " n"], Float[Array, ""]]:
    r"""Persistent evolution strategies, one antithetic pair over one truncation.

    $$\xi \leftarrow \xi + \epsilon, \quad \epsilon \sim N(0, \sigma^2), \qquad
    \hat g = \xi\, \frac{L(\phi + \epsilon) - L(\phi - \epsilon)}{2 \sigma^2}$$

    $\xi$ sums up the perturbations since the training began: the estimate has no bias from the
    truncation, as the state that a truncation starts from was perturbed too. Both of a pair see
    the same data.

    **Arguments:**

    - `keys`: that of the particle's trainings, and that of this truncation.
    - `sigma`: $\sigma$.

    **Returns:** the particle, $\hat g$, and the mean loss of both.

    ??? cite "Source"

        Vicol, Metz and Sohl-Dickstein, *Unbiased Gradient Estimation in Unrolled Computation Graphs
        with Persistent Evolution Strategies* (2021),
        [arXiv:2112.13835](https://arxiv.org/abs/2112.13835).
    """
    particle = _renewed(episode, phi, particle, keys[0], "pes")
    noise, order = jax.random.split(keys[1])
    epsilon = jnp.asarray(sigma, phi.dtype) * jax.random.normal(noise, phi.shape, phi.dtype)
    perturbation = particle.perturbation + epsilon

    def advance(sign: Float[Array, ""], arm: PyTree) -> tuple[PyTree, Float[Array, ""]]:
        return episode.advance(phi + sign * epsilon, arm, order)

    arms, losses = jax.vmap(advance)(jnp.asarray([1.0, -1.0], phi.dtype), particle.arms)
    gradient = perturbation * ((losses[0] - losses[1]) / (2 * sigma**2))
    return _moved(particle, arms, perturbation), gradient, jnp.mean(losses)


def unrolled(
    episode: Episode,
    phi: Float[Array, " n"],
    particle: Particle,
    keys: tuple[PRNGKeyArray, PRNGKeyArray],
    sigma: float,
) -> tuple[Particle, Float[Array, " n"], Float[Array, ""]]:
    """The exact gradient of one truncation's mean loss, by differentiating through its steps.

    It knows nothing of how `phi` has changed the state that the truncation starts from. With one
    truncation a training it is exact. The arguments are those of `pes`; `sigma` is not used.
    """
    del sigma
    particle = _renewed(episode, phi, particle, keys[0], "unrolled")
    arm = jax.tree.map(lambda x: x[0], particle.arms)
    _, order = jax.random.split(keys[1])

    def loss(phi: Float[Array, " n"]) -> tuple[Float[Array, ""], PyTree]:
        arm_after, value = episode.advance(phi, arm, order)
        return value, arm_after

    (value, arm), gradient = jax.value_and_grad(loss, has_aux=True)(phi)
    arms = jax.tree.map(lambda x: x[None], arm)
    return _moved(particle, arms, particle.perturbation), gradient, value


ESTIMATORS = {"pes": pes, "unrolled": unrolled}
"""Those by name; each gets the same arguments."""


def _begun(
    episode: Episode, phi: Float[Array, " n"], key: PRNGKeyArray, estimator: Estimator
) -> PyTree:
    arm = episode.begin(phi, key)
    copies = 2 if estimator == "pes" else 1
    return jax.tree.map(lambda x: jnp.stack([x] * copies), arm)


def _renewed(
    episode: Episode,
    phi: Float[Array, " n"],
    particle: Particle,
    key: PRNGKeyArray,
    estimator: Estimator,
) -> Particle:
    """The particle, with a new training where the last one is over."""
    over = particle.left == 0
    number = particle.number + over.astype(jnp.int32)
    fresh = _begun(episode, phi, jax.random.fold_in(key, number), estimator)
    arms = jax.tree.map(lambda new, old: jnp.where(over, new, old), fresh, particle.arms)
    perturbation = jnp.where(over, 0, particle.perturbation)
    left = jnp.where(over, episode.truncations, particle.left)
    return Particle(arms, perturbation, left, number)


def _moved(particle: Particle, arms: PyTree, perturbation: Float[Array, " n"]) -> Particle:
    return Particle(arms, perturbation, particle.left - 1, particle.number)
