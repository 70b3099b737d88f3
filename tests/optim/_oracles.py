"""Each rule written from its formula, in NumPy: one weight, one update at a time.

An oracle is a generator: it is sent a gradient and the weight, and yields the update before the
learning rate. `eps_scale` is r^-g and `floor_scale` r^-b of the weight.
"""

from collections.abc import Generator

import numpy as np

Oracle = Generator[np.ndarray, tuple[np.ndarray, np.ndarray], None]


def sgd(eps_scale: float, floor_scale: float) -> Oracle:
    g, _ = yield np.empty(0)
    while True:
        g, _ = yield g


def momentum(eps_scale: float, floor_scale: float) -> Oracle:
    g, _ = yield np.empty(0)
    trace = np.zeros_like(g)
    while True:
        trace = 0.9 * trace + g
        g, _ = yield trace


def nesterov(eps_scale: float, floor_scale: float) -> Oracle:
    g, _ = yield np.empty(0)
    trace = np.zeros_like(g)
    while True:
        trace = 0.9 * trace + g
        g, _ = yield g + 0.9 * trace


def adam(eps_scale: float, floor_scale: float, eps: float = 1e-2) -> Oracle:
    g, _ = yield np.empty(0)
    m, v, t = np.zeros_like(g), np.zeros_like(g), 0
    while True:
        t += 1
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        root = np.sqrt(v / (1 - 0.999**t))
        g, _ = yield m / (1 - 0.9**t) / (root + eps * eps_scale)


def adam_atan2(eps_scale: float, floor_scale: float, a: float = 4 / np.pi, b: float = 1) -> Oracle:
    g, _ = yield np.empty(0)
    m, v, t = np.zeros_like(g), np.zeros_like(g), 0
    while True:
        t += 1
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        mean, root = m / (1 - 0.9**t), np.sqrt(v / (1 - 0.999**t))
        g, _ = yield a * np.arctan2(mean, b * root)


def lion(eps_scale: float, floor_scale: float) -> Oracle:
    g, _ = yield np.empty(0)
    m = np.zeros_like(g)
    while True:
        update = np.sign(0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
        g, _ = yield update


def sign(eps_scale: float, floor_scale: float) -> Oracle:
    g, _ = yield np.empty(0)
    while True:
        g, _ = yield np.sign(g)


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


def adam_parameter_scaling(eps_scale: float, floor_scale: float, floor: float = 0.5) -> Oracle:
    inner = adam(eps_scale, floor_scale)
    next(inner)
    g, w = yield np.empty(0)
    while True:
        g, w = yield max(rms(w), floor * floor_scale) * inner.send((g, w))


def adafactor(
    eps_scale: float, floor_scale: float, eps: float = 1e-4, floor: float = 0.5, least: int = 3
) -> Oracle:
    g, w = yield np.empty(0)
    row = column = full = t = 0.0
    while True:
        t += 1
        beta, square = 1 - t**-0.8, g**2 + eps * eps_scale**2
        if g.ndim == 2 and min(g.shape) >= least:
            row = beta * row + (1 - beta) * square.mean(1)
            column = beta * column + (1 - beta) * square.mean(0)
            estimate = np.outer(row, column) / np.mean(row)
        else:
            estimate = full = beta * full + (1 - beta) * square
        u = g / np.sqrt(estimate)
        g, w = yield max(rms(w), floor * floor_scale) * u / max(1, rms(u))
