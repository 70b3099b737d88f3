"""Differential equations of diffrax: a neural ODE, and a controlled one."""

# pyright: reportMissingImports=false

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from _case import Case, entropy, linear, points, squares

STATE = 4


class ODE(eqx.Module):
    """A vector field of a few coordinates, as in the documentation's example of a neural ODE."""

    field: eqx.nn.MLP

    def __init__(self, width, key):
        self.field = eqx.nn.MLP(STATE, STATE, width, 2, activation=jax.nn.softplus, key=key)

    def __call__(self, x):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: self.field(y)),
            diffrax.Tsit5(),
            t0=0.0,
            t1=1.0,
            dt0=0.25,
            y0=x[:STATE],
            stepsize_controller=diffrax.PIDController(rtol=1e-2, atol=1e-3),
            max_steps=16,
        )
        return solution.ys[-1]


class CDE(eqx.Module):
    """A state as wide as the model, moved by a path of two channels, and a readout at its end."""

    initial: eqx.nn.Linear
    field: eqx.nn.MLP
    readout: eqx.nn.Linear
    width: int = eqx.field(static=True)

    def __init__(self, width, key):
        keys = jax.random.split(key, 3)
        self.initial = eqx.nn.Linear(2, width, key=keys[0])
        self.field = eqx.nn.MLP(width, 2 * width, width, 1, final_activation=jnp.tanh, key=keys[1])
        self.readout = eqx.nn.Linear(width, 4, key=keys[2])
        self.width = width

    def __call__(self, path):
        times = jnp.linspace(0.0, 1.0, len(path))
        control = diffrax.LinearInterpolation(times, path)
        term = diffrax.ControlTerm(
            lambda t, y, args: self.field(y).reshape(self.width, 2), control
        ).to_ode()
        solution = diffrax.diffeqsolve(
            term, diffrax.Heun(), 0.0, 1.0, 0.25, self.initial(path[0]), max_steps=8
        )
        return self.readout(solution.ys[-1])


def outputs(model, inputs, targets):
    return jax.vmap(model)(inputs)


def paths(key):
    """Spirals of two channels that turn one way or another, by one of four speeds."""
    labels = jnp.arange(16) % 4
    angle = jnp.linspace(0, 3, 6)[None] * (labels[:, None] - 1.5)
    start = jax.random.uniform(key, (16, 1), maxval=6.0)
    return jnp.stack([jnp.cos(angle + start), jnp.sin(angle + start)], -1), labels


FEATURES = "summed over features"
ARRAYS = {
    **linear("field/layers/0", "embedding", "summed over the state, which stays"),
    **linear("field/layers/1", "hidden", FEATURES),
    **linear("field/layers/2", "readout", FEATURES + "; moves the state, which is the result"),
}
CDE_ARRAYS = {
    **linear("initial", "embedding", "summed over the path's channels"),
    **linear("field/layers/*", "hidden", FEATURES),
    **linear("readout", "readout", FEATURES),
}
CASES = [
    Case("neural ODE", ("diffrax",), ODE, outputs, squares, points, ARRAYS),
    Case("neural CDE", ("diffrax",), CDE, outputs, entropy, paths, CDE_ARRAYS),
]
