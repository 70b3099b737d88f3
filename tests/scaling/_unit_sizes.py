"""The sizes behind attention in a wide unit-scaled Transformer at the start, position by position.

In the limit of a large width only one thing differs between two positions' features: their
correlation. What each part of a block does to it is written here for random weights and flat
attention, in float64 and without the library, so that the sizes follow from the length, the depth
and the share of positions that have the same token.
"""

import math

import numpy as np
from numpy.polynomial.hermite_e import hermegauss, hermeval

TERMS = 24


def silu_correlation():
    """E[f(g) f(g')] / E[f(g)^2] of f = silu, for unit Gaussians of a correlation, as a series."""
    nodes, weights = hermegauss(80)
    weights = weights / weights.sum()
    f = nodes / (1 + np.exp(-nodes))
    coefficients = [
        np.sum(weights * f * hermeval(nodes, np.eye(k + 1)[k])) ** 2 / math.factorial(k)
        for k in range(TERMS)
    ]
    return np.polynomial.Polynomial(coefficients / np.sum(coefficients))


def taus(depth):
    """The shares of attention and MLP, all hyperparameters one; by layer."""
    return [
        ((depth + 2 * layer) ** -0.5, (depth + 2 * layer + 1) ** -0.5) for layer in range(depth)
    ]


def normed(covariance):
    """Of features whose root mean square is made one at each position."""
    size = np.sqrt(np.diag(covariance))
    return covariance / np.outer(size, size)


def flat(length):
    """The weights of causal attention with equal logits: means over all positions so far."""
    mean = np.tril(np.ones((length, length)))
    return mean / mean.sum(axis=1, keepdims=True)


def squared_factor(length, d):
    """Of attention, as published, at mult 1."""
    return (math.log(length) / length) ** (1 / (1 + 4 * d) - 1)


def layers(length, depth, *, same, d=16):
    """By layer: the size of what goes into attention's output, and the correlations in front.

    `same` is the probability that two positions have the same token. Flat attention over the first
    t positions is a mean A; what it puts out has the covariance s^2 A C A', with the published
    factor s, and on the diagonal of A C A' there are 1 / t only if C is the identity.
    """
    covariance = np.full((length, length), float(same))
    np.fill_diagonal(covariance, 1)
    mean, kernel, found = flat(length), silu_correlation(), []
    for of_attention, of_mlp in taus(depth):
        inner = normed(covariance)
        mixed = squared_factor(length, d) * mean @ inner @ mean.T
        found.append((np.sqrt(np.mean(np.diag(mixed))), inner))
        covariance = (of_attention**2 * mixed + covariance) / (1 + of_attention**2)
        inner = normed(covariance)
        # An up-projection has the features' correlation, its gate's silu that of the series.
        covariance = (of_mlp**2 * inner * kernel(inner) + covariance) / (1 + of_mlp**2)
    return found


def differences(inner, *, d=16, base=1e4):
    """How large gradients of queries are, in units of m / sqrt(d), if those behind are of size one.

    The query's gradient is s m / d sum_j p_j (a_j - mean of a) k_j, where a_j is the gradient times
    the value: only differences between values count, which become small as positions become alike.
    Keys are turned by their positions.
    """
    length = len(inner)
    away = np.subtract.outer(np.arange(length), np.arange(length))
    turned = np.mean(np.cos(away[..., None] * base ** (-np.arange(0, d, 2) / d)), axis=-1)
    total = 0.0
    for p in flat(length):
        centred = inner - (p @ inner)[None] - (p @ inner)[:, None] + p @ inner @ p
        total += squared_factor(length, d) * np.sum(np.outer(p, p) * centred * inner * turned)
    return math.sqrt(total / length)
