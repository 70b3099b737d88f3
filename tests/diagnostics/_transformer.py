"""The forward pass of `sx.nn.Transformer` in NumPy, with what goes in and out of each weight."""

import math
from typing import Any

import numpy as np

import scalex_eqx as sx

Seen = dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]]


def forward(model: sx.nn.Transformer, tokens: Any, factor: float = 1.0) -> tuple[np.ndarray, Seen]:
    """The logits, and by path the weight, input and output of each use (of each layer in turn).

    Lookups and elementwise uses are left out. `factor` is that of a tied readout.
    """
    weights = {
        path: weight.spec.multiplier * np.asarray(weight.value, np.float64)
        for path, weight in sx.weights_with_paths(model).items()
    }
    seen: Seen = {}

    def product(path: str, x: np.ndarray, layer: int | None = None) -> np.ndarray:
        matrix = weights[path] if layer is None else weights[path][layer]
        seen.setdefault(path, []).append((matrix, x, x @ matrix.T))
        return x @ matrix.T

    tokens = np.asarray(tokens)
    x = weights["token_embedding/weight"][tokens]
    x = x + weights["position_embedding/weight"][: tokens.shape[-1]]
    for layer in range(weights["blocks/attention/query/weight"].shape[0]):
        y = norm(x) * weights["blocks/attention_norm/gain"][layer]
        q, k, v = (
            product(f"blocks/attention/{n}/weight", y, layer) for n in ("query", "key", "value")
        )
        mixed = attention(q, k, v, model.blocks.attention.head_dimension)
        x = x + product("blocks/attention/output/weight", mixed, layer)
        y = norm(x) * weights["blocks/mlp_norm/gain"][layer]
        y = gelu(product("blocks/mlp/up/weight", y, layer))
        x = x + product("blocks/mlp/down/weight", y, layer)
    x = norm(x) * weights["final_norm/gain"]
    if "readout/weight" in weights:
        return product("readout/weight", x), seen
    return factor * product("token_embedding/weight", x), seen


def norm(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, -1, keepdims=True) + 1e-5)


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, size: int) -> np.ndarray:
    out = np.zeros_like(q)
    seq = q.shape[-2]
    for start in range(0, q.shape[-1], size):
        head = slice(start, start + size)
        logits = q[..., head] @ np.swapaxes(k[..., head], -1, -2) / math.sqrt(size)
        logits = np.where(np.tri(seq, dtype=bool), logits, -np.inf)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        out[..., head] = weights / weights.sum(-1, keepdims=True) @ v[..., head]
    return out
