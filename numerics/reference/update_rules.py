"""Update rules as their papers have them, in NumPy and float64, without a learning rate.

Each is a generator: it is sent a gradient and yields the update. `b1` is 0.9 and `b2` 0.999.
"""

from collections.abc import Callable, Generator, Iterable

import numpy as np

Oracle = Generator[np.ndarray, np.ndarray, None]
B1, B2 = 0.9, 0.999


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def moments(b1: float = B1, b2: float = B2) -> Generator[tuple, np.ndarray, None]:
    """Adam's two moments, corrected for their start at zero (Kingma and Ba 2015, algorithm 1)."""
    g = yield (np.empty(0), np.empty(0))
    m, v, t = np.zeros_like(g), np.zeros_like(g), 0
    while True:
        t += 1
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        g = yield m / (1 - b1**t), v / (1 - b2**t)


def adam(eps: float) -> Oracle:
    inner = moments()
    next(inner)
    g = yield np.empty(0)
    while True:
        mean, square = inner.send(g)
        with np.errstate(invalid="ignore", divide="ignore"):
            update = mean / (np.sqrt(square) + eps)
        g = yield np.where(square == 0, 0.0, update)


def adam_atan2() -> Oracle:
    """Everett et al. 2024, with the factor that makes a constant gradient's update one."""
    inner = moments()
    next(inner)
    g = yield np.empty(0)
    while True:
        mean, square = inner.send(g)
        g = yield 4 / np.pi * np.arctan2(mean, np.sqrt(square))


def adafactor(weights: np.ndarray, eps: float = 1e-30, floor: float = 1e-3) -> Oracle:
    """Shazeer and Stern 2018, algorithms 4 and 6, for a matrix that is factored."""
    g = yield np.empty(0)
    row, column, t = np.zeros(g.shape[0]), np.zeros(g.shape[1]), 0
    while True:
        t += 1
        beta, square = 1 - t**-0.8, g**2 + eps
        row = beta * row + (1 - beta) * square.mean(1)
        column = beta * column + (1 - beta) * square.mean(0)
        update = g / np.sqrt(np.outer(row, column) / row.mean())
        g = yield max(rms(weights), floor) * update / max(1.0, rms(update))


def adam_parameter_scaling(weights: np.ndarray, eps: float, floor: float = 1e-3) -> Oracle:
    inner = adam(eps)
    next(inner)
    g = yield np.empty(0)
    while True:
        g = yield max(rms(weights), floor) * inner.send(g)


def lion(b1: float = 0.9, b2: float = 0.99) -> Oracle:
    """Chen et al. 2023, algorithm 2."""
    g = yield np.empty(0)
    m = np.zeros_like(g)
    while True:
        update, m = np.sign(b1 * m + (1 - b1) * g), b2 * m + (1 - b2) * g
        g = yield update


def sign_sgd() -> Oracle:
    g = yield np.empty(0)
    while True:
        g = yield np.sign(g)


def sgd(momentum: float = 0.9) -> Oracle:
    g = yield np.empty(0)
    trace = np.zeros_like(g)
    while True:
        trace = momentum * trace + g
        g = yield trace


def last_update(oracle: Oracle, gradients: Iterable[np.ndarray]) -> np.ndarray:
    """What the rule yields for the last of some gradients."""
    update = next(oracle)
    for gradient in gradients:
        update = oracle.send(gradient.astype(np.float64))
    return update


# By the rule's name in scalex_eqx.diagnostics.stress_rules; made from the weights.
ORACLES: dict[str, Callable[[np.ndarray], Oracle]] = {
    "adam": lambda _: adam(1e-12),
    "adam-1e-8": lambda _: adam(1e-8),
    "adam-1e-15": lambda _: adam(1e-15),
    "adam-1e-30": lambda _: adam(1e-30),
    "adam-bfloat16": lambda _: adam(1e-12),
    "adam_atan2": lambda _: adam_atan2(),
    "adam_atan2-bfloat16": lambda _: adam_atan2(),
    "adafactor": adafactor,
    "adam_parameter_scaling": lambda w: adam_parameter_scaling(w, 1e-12),
    "lion": lambda _: lion(),
    "sign_sgd": lambda _: sign_sgd(),
    "sgd": lambda _: sgd(),
}
