"""How the coefficients of the arc tangent were found."""

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial


def remainder(s: np.ndarray) -> np.ndarray:
    """(atan(q) / q - 1) / q^2 with q^2 = s, by its series where the difference would cancel."""
    s = np.asarray(s, np.float64)
    q = np.sqrt(np.maximum(s, 0.01))
    series = sum((-1) ** (k + 1) * s**k / (2 * k + 3) for k in range(12))
    return np.where(s < 0.01, series, (np.arctan(q) / q - 1) / np.maximum(s, 0.01))


def coefficients(count: int) -> np.ndarray:
    """Of the polynomial through `remainder` at the Chebyshev points of [0, 1]."""
    interpolant = Chebyshev.interpolate(remainder, count - 1, domain=[0, 1])
    polynomial = interpolant.convert(kind=Polynomial, domain=[-1, 1], window=[-1, 1])
    return polynomial.coef.astype(np.float32)
