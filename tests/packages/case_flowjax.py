"""A coupling flow and a masked autoregressive flow of flowjax, whose arrays paramax wraps."""

# pyright: reportMissingImports=false

import jax
import jax.numpy as jnp
import paramax
from _case import Case, linear
from flowjax.distributions import Normal
from flowjax.flows import coupling_flow, masked_autoregressive_flow

SIZE = 4


def make_coupling(width, key):
    return coupling_flow(
        key, base_dist=Normal(jnp.zeros(SIZE)), flow_layers=2, nn_width=width, nn_depth=2
    )


def make_autoregressive(width, key):
    return masked_autoregressive_flow(
        key, base_dist=Normal(jnp.zeros(SIZE)), flow_layers=2, nn_width=width, nn_depth=2
    )


def outputs(model, samples):
    return paramax.unwrap(model).log_prob(samples)


def loss(log_probabilities, samples):
    return -log_probabilities.mean()


def samples(key):
    x = jax.random.normal(key, (64, SIZE))
    return (x.at[:, 1:].add(x[:, :-1] ** 2) + 1,)


BASE = {
    "base_dist/bijection/loc": ("constant", "the base distribution's"),
    "base_dist/bijection/scale/args/0": ("constant", "the base distribution's"),
}
FEATURES = "summed over features"
LAST = FEATURES + "; moves the coordinates, which are the result"
CONDITIONER = "bijection/*/conditioner/layers"
COUPLING = BASE | {
    **linear(f"{CONDITIONER}/0", "embedding", "summed over coordinates"),
    **linear(f"{CONDITIONER}/1", "hidden", FEATURES),
    **linear(f"{CONDITIONER}/2", "readout", LAST),
}
MASKED = "bijection/*/masked_autoregressive_mlp/layers"
AUTOREGRESSIVE = BASE | {
    f"{MASKED}/0/weight/args/1": ("embedding", "masked, then summed over coordinates", "out in"),
    f"{MASKED}/1/weight/args/1": ("hidden", "masked, then " + FEATURES, "out in"),
    f"{MASKED}/2/weight/args/1": ("readout", "masked, then " + LAST, "out in"),
    f"{MASKED}/[01]/bias": ("vector", "a bias"),
    f"{MASKED}/2/bias": ("constant", "a bias"),
}
PACKAGES = ("flowjax", "paramax")

CASES = [
    Case(
        "coupling flow",
        PACKAGES,
        make_coupling,
        outputs,
        loss,
        samples,
        COUPLING,
        drawn_once=True,
    ),
    Case(
        "masked autoregressive flow",
        PACKAGES,
        make_autoregressive,
        outputs,
        loss,
        samples,
        AUTOREGRESSIVE,
        options={"layouts": {f"{MASKED}/*/weight/args/1": ("out", "in")}},
        drawn_once=True,
    ),
]
