"""Models of Haiku: a tied language model, a convolutional net with state, a recurrent one."""

# pyright: reportMissingImports=false

import haiku as hk
import jax
import jax.numpy as jnp
from _case import CLASSES, LENGTH, VOCABULARY, Case, entropy, images, tokens


def language_model(width, tokens):
    embed = hk.Embed(VOCABULARY, width, name="embed")
    table = hk.get_parameter("positions", (LENGTH, width), init=hk.initializers.RandomNormal(0.5))

    def norm(x):
        return hk.LayerNorm(-1, create_scale=True, create_offset=True)(x)

    x = embed(tokens) + table
    mask = jnp.tril(jnp.ones((1, 1, LENGTH, LENGTH), bool))
    attention = hk.MultiHeadAttention(
        width // 8, 8, w_init=hk.initializers.VarianceScaling(), model_size=width, name="attention"
    )
    y = norm(x)
    x = x + attention(y, y, y, mask)
    y = hk.Linear(4 * width, name="up")(norm(x))
    x = x + hk.Linear(width, name="down")(jax.nn.gelu(y))
    return norm(x) @ embed.embeddings.T


def convolutional(width, x):
    x = hk.Conv2D(width, 3, stride=2, name="conv")(jnp.moveaxis(x, 1, -1))
    x = hk.BatchNorm(True, True, 0.9, name="norm")(x, is_training=True)
    x = hk.Conv2D(width, 3, stride=2, name="second")(jax.nn.relu(x))
    x = jax.nn.relu(hk.GroupNorm(4, name="group_norm")(x))
    return hk.Linear(CLASSES, name="head")(x.mean((1, 2)))


def recurrent(width, tokens):
    x = jnp.moveaxis(hk.Embed(VOCABULARY, width, name="embed")(tokens), 1, 0)
    for core in (hk.GRU(width, name="gru"), hk.LSTM(width, name="lstm")):
        x, _ = hk.dynamic_unroll(core, x, core.initial_state(x.shape[1]))
    return jnp.moveaxis(hk.Linear(VOCABULARY, name="head")(x), 0, 1)


def maker(model, example):
    """Parameters and state."""

    def make(width, key):
        transformed = hk.transform_with_state(lambda x: model(width, x))
        return transformed.init(key, example)

    return make


def runner(model, width_of):
    def outputs(variables, inputs, targets):
        parameters, state = variables
        transformed = hk.transform_with_state(lambda x: model(width_of(parameters), x))
        return transformed.apply(parameters, state, None, inputs)[0]

    return outputs


FEATURES = "summed over features"
LM = {
    "*/embed/embeddings": ("tied", "looked up, and its transpose is the readout", "in out"),
    "*/positions": ("added", "a row is added to each token", "in out"),
    "*/layer_norm*/scale": ("vector", "a gain"),
    "*/layer_norm*/offset": ("vector", "a bias"),
    "*/attention/*/w": ("hidden", FEATURES, "in out"),
    "*/attention/*/b": ("vector", "a bias"),
    "0/up/w": ("hidden", FEATURES, "in out"),
    "0/down/w": ("hidden", FEATURES, "in out"),
    "0/up/b": ("vector", "a bias"),
    "0/down/b": ("vector", "a bias"),
}
CONV = {
    "0/conv/w": ("embedding", "summed over pixels", "in in in out"),
    "0/second/w": ("hidden", FEATURES, "in in in out"),
    "0/conv/b": ("vector", "a bias"),
    "0/second/b": ("vector", "a bias"),
    "0/*norm/scale": ("vector", "a gain"),
    "0/*norm/offset": ("vector", "a bias"),
    "1/norm/*/average": ("not trained", "a running statistic"),
    "1/norm/*/hidden": ("not trained", "a running statistic"),
    "0/head/w": ("readout", FEATURES, "in out"),
    "0/head/b": ("constant", "a bias"),
}
CELLS = {
    "*/embed/embeddings": ("embedding", "looked up", "in out"),
    "0/gru/w_[ih]": ("hidden", FEATURES + "; all gates in one", "in out"),
    "0/gru/b": ("vector", "a bias"),
    "0/lstm/*/w": ("hidden", "summed over inputs and features; all gates in one", "in out"),
    "0/lstm/*/b": ("vector", "a bias"),
    "0/head/w": ("readout", FEATURES, "in out"),
    "0/head/b": ("constant", "a bias"),
}

row = jnp.zeros((1, LENGTH), int)
KERNELS = {"layouts": {"*/w": ("in", "out"), "*/embeddings": ("in", "out")}}

CASES = [
    Case(
        "language model",
        ("dm-haiku",),
        maker(language_model, row),
        runner(language_model, lambda p: p["down"]["w"].shape[-1]),
        entropy,
        tokens,
        LM,
        options={"layouts": {**KERNELS["layouts"], "*/positions": ("in", "out")}},
    ),
    Case(
        "convolutional",
        ("dm-haiku",),
        maker(convolutional, jnp.zeros((1, 3, 16, 16))),
        runner(convolutional, lambda p: p["head"]["w"].shape[0]),
        entropy,
        images,
        CONV,
        options={
            "layouts": {
                "0/conv/w": ("in", "in", "in", "out"),
                "0/second/w": ("in", "in", "in", "out"),
                "0/head/w": ("in", "out"),
                "0/norm/*": ("out", "out", "out", "out"),
            },
            "frozen": ["1/*"],
        },
    ),
    Case(
        "recurrent",
        ("dm-haiku",),
        maker(recurrent, row),
        runner(recurrent, lambda p: p["head"]["w"].shape[0]),
        entropy,
        tokens,
        CELLS,
        options={"layouts": {**KERNELS["layouts"], "*/w_[ih]": ("in", "out")}},
    ),
]
