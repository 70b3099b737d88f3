"""How the coefficients of the fixed schedule of `orthogonalized` were found."""

import numpy as np

LEAST = 1e-3
MARGIN = 1 / 64
CUSHION = 1 / 32


def best_quintic(low: float, high: float) -> tuple[np.ndarray, float]:
    """The odd quintic that stays nearest to 1 on [low, high], and how far it strays from it.

    By Remez's exchange: its error takes its largest size at both ends and at the two extrema
    between, with alternating signs.
    """
    inner, coefficients, error = np.linspace(low, high, 4)[1:-1], np.zeros(3), 0.0
    for _ in range(100):
        x = np.array([low, *inner, high])
        signs = np.array([1, -1, 1, -1])
        solution = np.linalg.solve(np.stack([x, x**3, x**5, signs], 1), np.ones(4))
        coefficients, error = solution[:3], float(solution[3])
        a, b, c = coefficients
        moved = np.sqrt(np.sort(np.roots([5 * c, 3 * b, a])))
        if np.max(np.abs(moved - inner)) < 1e-14:
            break
        inner = moved
    return coefficients, error


def schedule(
    steps: int, *, least: float = LEAST, margin: float = MARGIN, cushion: float = CUSHION
) -> np.ndarray:
    """The best quintic for singular values from `least` to 1, then for what each leaves.

    One that is the best from 1e-3 on sends values near its inner minimum to 0.008, which rounding
    in bfloat16 may turn negative: it would become -1 from there. None of these looks at values
    below `cushion` of the largest; smaller ones grow by the slope.
    """
    low, high, found = least, 1.0, []
    for _ in range(steps):
        widest = high * (1 + margin)
        coefficients, error = best_quintic(max(low, cushion * widest), widest)
        found.append(coefficients)
        least_left = coefficients @ [low, low**3, low**5]
        low, high = min(least_left, 1 - error) / (1 + margin), 1 + error
    return np.array(found)
