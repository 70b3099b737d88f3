"""Sums in a low precision, in NumPy, where every operation rounds once and to nearest."""

import ml_dtypes
import numpy as np

DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


def nearest(weights: np.ndarray, step: float, steps: int) -> np.ndarray:
    """w <- round(w + u), the sum in float32: what becomes of the weights, in their dtype."""
    update = np.float32(step)
    for _ in range(steps):
        weights = (weights.astype(np.float32) + update).astype(weights.dtype)
    return weights
