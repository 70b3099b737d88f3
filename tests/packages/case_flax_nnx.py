"""Models of Flax NNX: a language model tied by `attend`, a convolutional and a recurrent net."""

from typing import Any

import jax
import jax.numpy as jnp
from _case import CLASSES, LENGTH, VOCABULARY, Case, entropy, images, tokens
from flax import nnx


class LanguageModel(nnx.Module):
    def __init__(self, width, rngs):
        self.embed = nnx.Embed(VOCABULARY, width, rngs=rngs)
        self.positions = nnx.Embed(LENGTH, width, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(3)])
        self.attention = nnx.MultiHeadAttention(
            width // 8, width, deterministic=True, decode=False, rngs=rngs
        )
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens) + self.positions(jnp.arange(tokens.shape[-1]))
        x = x + self.attention(self.norms[0](x), mask=nnx.make_causal_mask(tokens))
        x = x + self.down(jax.nn.gelu(self.up(self.norms[1](x))))
        return self.embed.attend(self.norms[2](x))


class ConvNet(nnx.Module):
    def __init__(self, width, rngs):
        self.conv = nnx.Conv(3, width, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.second = nnx.Conv(width, width, (3, 3), strides=2, rngs=rngs)
        self.group_norm = nnx.GroupNorm(width, num_groups=4, rngs=rngs)
        self.head = nnx.Linear(width, CLASSES, rngs=rngs)

    def __call__(self, x):
        x = jax.nn.relu(self.norm(self.conv(jnp.moveaxis(x, 1, -1))))
        x = jax.nn.relu(self.group_norm(self.second(x)))
        return self.head(x.mean((1, 2)))


class Recurrent(nnx.Module):
    def __init__(self, width, rngs):
        self.embed = nnx.Embed(VOCABULARY, width, rngs=rngs)
        self.gru = nnx.RNN(nnx.GRUCell(width, width, rngs=rngs))
        self.lstm = nnx.RNN(nnx.OptimizedLSTMCell(width, width, rngs=rngs))
        self.head = nnx.Linear(width, VOCABULARY, rngs=rngs)

    def __call__(self, tokens):
        features: Any = self.gru(self.embed(tokens))
        features = self.lstm(features)
        return self.head(features)


def maker(model):
    return lambda width, key: model(width, nnx.Rngs(key))


def outputs(model, inputs, targets):
    return model(inputs)


FEATURES = "summed over features"
LM = {
    "embed/embedding*": ("tied", "looked up, and its transpose is the readout", "in out"),
    "positions/embedding*": ("embedding", "looked up", "in out"),
    "norms/*/scale*": ("vector", "a gain"),
    "norms/*/bias*": ("vector", "a bias"),
    "attention/[qkv]*/kernel*": ("hidden", FEATURES, "in out out"),
    "attention/[qkv]*/bias*": ("vector", "a bias"),
    "attention/out/kernel*": ("hidden", "summed over heads and their dimension", "in in out"),
    "attention/out/bias*": ("vector", "a bias"),
    "up/kernel*": ("hidden", FEATURES, "in out"),
    "down/kernel*": ("hidden", FEATURES, "in out"),
    "up/bias*": ("vector", "a bias"),
    "down/bias*": ("vector", "a bias"),
}
CONV = {
    "conv/kernel*": ("embedding", "summed over pixels", "in in in out"),
    "second/kernel*": ("hidden", FEATURES, "in in in out"),
    "conv/bias*": ("vector", "a bias"),
    "second/bias*": ("vector", "a bias"),
    "*norm/scale*": ("vector", "a gain"),
    "*norm/bias*": ("vector", "a bias"),
    "norm/mean*": ("not trained", "a running mean"),
    "norm/var*": ("not trained", "a running variance"),
    "head/kernel*": ("readout", FEATURES, "in out"),
    "head/bias*": ("constant", "a bias"),
}
CELLS = {
    "embed/embedding*": ("embedding", "looked up", "in out"),
    "[gl]*/cell/dense_[ih]/kernel*": ("hidden", FEATURES + "; all gates in one", "in out"),
    "[gl]*/cell/dense_[ih]/bias*": ("vector", "a bias"),
    "head/kernel*": ("readout", FEATURES, "in out"),
    "head/bias*": ("constant", "a bias"),
}

MATRIX = ("in", "out")
CASES = [
    Case(
        "NNX: language model",
        ("flax",),
        maker(LanguageModel),
        outputs,
        entropy,
        tokens,
        LM,
        options={
            "layouts": {
                "*/embedding*": MATRIX,
                "attention/[qkv]*/kernel*": ("in", "out", "out"),
                "attention/[qkv]*/bias*": ("out", "out"),
                "attention/out/kernel*": ("in", "in", "out"),
                "up/kernel*": MATRIX,
                "down/kernel*": MATRIX,
            }
        },
    ),
    Case(
        "NNX: convolutional",
        ("flax",),
        maker(ConvNet),
        outputs,
        entropy,
        images,
        CONV,
        options={
            "layouts": {
                "conv/kernel*": ("in", "in", "in", "out"),
                "second/kernel*": ("in", "in", "in", "out"),
                "head/kernel*": MATRIX,
            },
            "frozen": ["norm/mean*", "norm/var*"],
        },
    ),
    Case(
        "NNX: recurrent",
        ("flax",),
        maker(Recurrent),
        outputs,
        entropy,
        tokens,
        CELLS,
        options={
            "layouts": {"embed/*": MATRIX, "*/cell/*/kernel*": MATRIX, "head/kernel*": MATRIX}
        },
    ),
]
