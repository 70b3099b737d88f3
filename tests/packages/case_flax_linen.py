"""Models of Flax Linen: a language model tied by `attend`, a convolutional and a recurrent net."""

from typing import Any

import jax.numpy as jnp
from _case import CLASSES, LENGTH, VOCABULARY, Case, entropy, images, tokens
from flax import linen as nn


class LanguageModel(nn.Module):
    width: int

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(VOCABULARY, self.width, name="embed")
        table = nn.initializers.normal(0.5)
        x = embed(tokens) + self.param("positions", table, (LENGTH, self.width))
        attention = nn.MultiHeadDotProductAttention(self.width // 8, name="attention")
        x = x + attention(nn.LayerNorm()(x), mask=nn.make_causal_mask(tokens))
        y = nn.Dense(4 * self.width, name="up")(nn.LayerNorm()(x))
        x = x + nn.Dense(self.width, name="down")(nn.gelu(y))
        return embed.attend(nn.LayerNorm()(x))


class ConvNet(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.width, (3, 3), strides=2, name="conv")(jnp.moveaxis(x, 1, -1))
        x = nn.relu(nn.BatchNorm(use_running_average=False, name="norm")(x))
        x = nn.Conv(self.width, (3, 3), strides=2, name="second")(x)
        x = nn.relu(nn.GroupNorm(4, name="group_norm")(x))
        return nn.Dense(CLASSES, name="head")(x.mean((1, 2)))


class Recurrent(nn.Module):
    width: int

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(VOCABULARY, self.width, name="embed")(tokens)
        x: Any = nn.RNN(nn.GRUCell(self.width, name="gru"))(x)
        x = nn.RNN(nn.OptimizedLSTMCell(self.width, name="lstm"))(x)
        return nn.Dense(VOCABULARY, name="head")(x)


def maker(model, example):
    """All variables of a model, with the running statistics."""
    return lambda width, key: model(width).init(key, example)


def runner(model, width_of):
    """A Linen module holds its width, the variables know it too."""

    def outputs(variables, inputs, targets):
        module = model(width_of(variables["params"]))
        return module.apply(variables, inputs, mutable=["batch_stats"])[0]

    return outputs


FEATURES = "summed over features"
LM = {
    "*/embed/embedding": ("tied", "looked up, and its transpose is the readout", "in out"),
    "*/positions": ("added", "a row is added to each token", "in out"),
    "*/LayerNorm_*/scale": ("vector", "a gain"),
    "*/LayerNorm_*/bias": ("vector", "a bias"),
    "*/attention/[qkv]*/kernel": ("hidden", FEATURES, "in out out"),
    "*/attention/[qkv]*/bias": ("vector", "a bias"),
    "*/attention/out/kernel": ("hidden", "summed over heads and their dimension", "in in out"),
    "*/attention/out/bias": ("vector", "a bias"),
    "*/up/kernel": ("hidden", FEATURES, "in out"),
    "*/down/kernel": ("hidden", FEATURES, "in out"),
    "*/up/bias": ("vector", "a bias"),
    "*/down/bias": ("vector", "a bias"),
}
CONV = {
    "params/conv/kernel": ("embedding", "summed over pixels", "in in in out"),
    "params/second/kernel": ("hidden", FEATURES, "in in in out"),
    "params/conv/bias": ("vector", "a bias"),
    "params/second/bias": ("vector", "a bias"),
    "params/*norm/scale": ("vector", "a gain"),
    "params/*norm/bias": ("vector", "a bias"),
    "batch_stats/norm/mean": ("not trained", "a running mean"),
    "batch_stats/norm/var": ("not trained", "a running variance"),
    "params/head/kernel": ("readout", FEATURES, "in out"),
    "params/head/bias": ("constant", "a bias"),
}
CELLS = {
    "*/embed/embedding": ("embedding", "looked up", "in out"),
    "params/gru/*/kernel": ("hidden", FEATURES + ", a gate each", "in out"),
    "params/lstm/*/kernel": ("hidden", FEATURES + ", a gate each", "in out"),
    "params/gru/*/bias": ("vector", "a bias"),
    "params/lstm/*/bias": ("vector", "a bias"),
    "params/head/kernel": ("readout", FEATURES, "in out"),
    "params/head/bias": ("constant", "a bias"),
}

row = jnp.zeros((1, LENGTH), int)

CASES = [
    Case(
        "Linen: language model",
        ("flax",),
        maker(LanguageModel, row),
        runner(LanguageModel, lambda p: p["positions"].shape[-1]),
        entropy,
        tokens,
        LM,
        options={
            "layouts": {
                "*/embedding": ("in", "out"),
                "*/positions": ("in", "out"),
                "*/attention/[qkv]*/kernel": ("in", "out", "out"),
                "*/attention/[qkv]*/bias": ("out", "out"),
                "*/attention/out/kernel": ("in", "in", "out"),
                "*/up/kernel": ("in", "out"),
                "*/down/kernel": ("in", "out"),
            }
        },
    ),
    Case(
        "Linen: convolutional",
        ("flax",),
        maker(ConvNet, jnp.zeros((1, 3, 16, 16))),
        runner(ConvNet, lambda p: p["head"]["kernel"].shape[0]),
        entropy,
        images,
        CONV,
        options={
            "layouts": {
                "*/conv/kernel": ("in", "in", "in", "out"),
                "*/second/kernel": ("in", "in", "in", "out"),
                "*/head/kernel": ("in", "out"),
            },
            "frozen": ["batch_stats/*"],
        },
    ),
    Case(
        "Linen: recurrent",
        ("flax",),
        maker(Recurrent, row),
        runner(Recurrent, lambda p: p["head"]["kernel"].shape[0]),
        entropy,
        tokens,
        CELLS,
        options={
            "layouts": {
                "*/embedding": ("in", "out"),
                "*/gru/*/kernel": ("in", "out"),
                "*/lstm/*/kernel": ("in", "out"),
                "*/head/kernel": ("in", "out"),
            }
        },
    ),
]
