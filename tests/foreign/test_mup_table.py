"""muP agrees with microsoft/mup, weight by weight, in what its exponents fix.

An equivalent parameterization moves a factor between multiplier, initial value and learning rate.
It leaves alone a + b, the exponent of the effective weight at initialisation, and a + c under
Adam and 2 a + c under SGD, those of its update.

The table restates what the layers and optimizers of github.com/microsoft/mup do (`mup/layer.py`,
`mup/init.py`, `mup/optim.py`), in powers of the width ratio. Its SGD multiplies the learning rate
of vectors by it, and that of matrices by the ratio of fan-out's to fan-in's; a readout has a
vector's, and is divided by the ratio in the forward pass.
"""

from fractions import Fraction

import equinox as eqx
import jax
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx import Role, theory

HALF = Fraction(1, 2)
# a, b, c of Adam, c of SGD.
MICROSOFT = {
    Role.embedding: (0, 0, 0, -1),
    Role.vector: (0, 0, 0, -1),
    Role.hidden: (0, HALF, 1, 0),
    Role.readout: (1, 0, 0, -1),
    Role.constant: (0, 0, 0, 0),
}
MATRICES = (Role.embedding, Role.hidden, Role.readout)
BASE, RATIO = 16, 4
KEY = jax.random.key(0)


def perceptron(width: int):
    return eqx.nn.MLP(3, 2, width, 2, key=KEY)


def transformer(width: int):
    return sx.nn.Transformer(
        vocabulary_size=7, sequence_length=4, width=width, depth=2, head_dimension=8, key=KEY
    )


def invariants(a, b, adam, sgd):
    return a + b, a + adam, 2 * a + sgd


def measured(make, parameterization) -> dict[str, tuple[Role, float, float]]:
    """Role and exponents a, b of every weight: by multipliers, and by the values' spread."""
    base, wide = (
        sx.weights_with_paths(
            sx.parameterize(make, width=n, base_width=BASE, parameterization=parameterization)
        )
        for n in (BASE, RATIO * BASE)
    )
    found = {}
    for path, weight in wide.items():
        assert weight.spec.role is not None
        a = -np.log(weight.spec.multiplier) / np.log(RATIO)
        # The root mean square of matrices, the deviations of biases from their mean.
        moment = np.std if weight.value.ndim == 1 else rms
        small, large = (moment(np.asarray(w.value, np.float64)) for w in (base[path], weight))
        b = -np.log(large / small) / np.log(RATIO) if small else 0.0
        found[path] = (weight.spec.role, a, b)
    return found


def rms(x) -> float:
    return np.sqrt(np.mean(np.square(x)))


def disagreement(make, parameterization, roles=tuple(MICROSOFT)) -> float:
    """The largest difference from the table, over weights of `roles` and invariants."""
    c = [
        theory.learning_rate_exponents(parameterization, family, sx.full_alignment)
        for family in ("adam", "sgd")
    ]
    return max(
        abs(float(ours) - float(theirs))
        for role, a, b in measured(make, parameterization).values()
        if role in roles
        for ours, theirs in zip(
            invariants(a, b, *(float(table[role]) for table in c)),
            invariants(*MICROSOFT[role]),
            strict=True,
        )
    )


@pytest.mark.parametrize(("make", "weights"), [(perceptron, 6), (transformer, 12)])
def test_every_weight_agrees(make, weights: int):
    assert len(measured(make, sx.mup)) == weights
    # The Transformer's own layers draw anew at each width: 4.5 standard errors of the smallest,
    # 4 x 16 entries, over log 4. Measured spreads of matrices are exact.
    tolerance = 1e-5 if make is perceptron else 4.5 / np.sqrt(2 * 4 * BASE) / np.log(RATIO)
    assert disagreement(make, sx.mup, MATRICES) < tolerance
    # Biases of one spread at all widths are left as drawn: 16 uniform entries.
    assert disagreement(make, sx.mup) < 4.5 * np.sqrt(0.8 / (4 * BASE)) / np.log(RATIO)


@pytest.mark.parametrize("make", [perceptron, transformer])
def test_another_parameterization_does_not(make):
    """Its readout is larger by sqrt(r): a + b is 1/2, not 1."""
    assert disagreement(make, sx.standard) > 0.4
