"""Signal, noise and tails against NumPy, and against noise whose numbers are known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from scalex_eqx.diagnostics._noise._noise import ALL, Noise, _row
from scalex_eqx.diagnostics._noise._prediction import Prediction, prediction
from scalex_eqx.diagnostics._noise._sums import Numbers, _sums, numbers

PARTS, BATCH = 64, 32
EACH = jax.jit(jax.vmap(_sums))


def drawn(kind: str, snr: float, entries: int = 1000, seed: int = 0) -> np.ndarray:
    """Examples' gradients: half of the entries of each sign of the mean."""
    random = np.random.default_rng(seed)
    size = (PARTS, BATCH, entries)
    noise = {
        "gaussian": lambda: random.normal(size=size),
        "laplace": lambda: random.laplace(size=size) / math.sqrt(2),
        "t3": lambda: random.standard_t(3, size=size) / math.sqrt(3),
    }[kind]()
    return (noise + snr * np.where(np.arange(entries) % 2, 1, -1)).astype(np.float32)


def found(g: np.ndarray) -> tuple[Numbers, Numbers]:
    """All batches together, and without each eighth."""
    each, count = jax.device_get(EACH(jnp.asarray(g))), len(g)
    whole = jax.tree.map(lambda x: x.sum(axis=0), each)
    eighths = [jax.tree.map(lambda x, i=i: np.split(x, 8)[i].sum(axis=0), each) for i in range(8)]
    parts = [jax.tree.map(np.subtract, whole, one) for one in eighths]
    without = [numbers(p, count * 7 // 8 * g.shape[1], count * 7 // 8, 0) for p in parts]
    return (
        jax.tree.map(float, numbers(whole, count * g.shape[1], count, 0)),
        Numbers(*map(np.array, zip(*without, strict=True))),
    )


def test_numbers_are_those_of_numpy():
    g = drawn("laplace", 0.3, entries=40)[:8]
    g[:, :, :3] = 0
    mine, _ = found(g)
    x, means = g.reshape(-1, 40).astype(np.float64)[:, 3:], g.mean(1, dtype=np.float64)[:, 3:]
    n, variance = len(x), x.var(0, ddof=1)
    assert mine.entries == 37
    assert mine.signal == pytest.approx((x.mean(0) ** 2 - variance / n).sum(), rel=1e-4)
    assert mine.noise == pytest.approx(variance.sum(), rel=1e-4)
    kurtosis = ((x - x.mean(0)) ** 4).mean(0) / x.var(0) ** 2 * (n + 1) / (n - 1)
    assert mine.kurtosis == pytest.approx(kurtosis.sum(), rel=1e-3)

    def share(y: np.ndarray, z: np.ndarray) -> float:
        product = y.sum(0) * z.sum(0) - (y * z).sum(0)
        return (product / ((len(y) - 1) * np.sqrt((y**2).sum(0) * (z**2).sum(0)))).sum()

    pairs = ((x, x), (x, np.sign(x)), (means, means), (means, np.sign(means)))
    assert mine[4:] == pytest.approx([share(*pair) for pair in pairs], rel=1e-3)


def test_signs_that_point_the_wrong_way_count_against_themselves():
    """Four in five pull a little one way, and the fifth pulls the other way by more than all."""
    random = np.random.default_rng(3)
    g = np.where(random.random((PARTS, BATCH, 200)) < 0.2, -2.0, 0.4).astype(np.float32)
    said = prediction(0, *found(g))
    # E[g] = -0.08, E[g^2] = 0.928, and the mean sign is 0.6. The mean, of 2048, is known to a
    # quarter, and that of 200 entries to 2 per cent.
    assert said.example == pytest.approx(-0.6 * 0.928**0.5 / 0.08, rel=0.15)
    assert said.order[-1] == "example"


SNR = 0.1
SIGNS = {
    "gaussian": scipy.stats.norm,
    "laplace": scipy.stats.laplace(scale=1 / math.sqrt(2)),
    "t3": scipy.stats.t(3, scale=1 / math.sqrt(3)),
}


def ratio(kind: str) -> float:
    """Exactly: the mean of a sign is 2 F(s) - 1, its square is 1; sqrt(2 / pi) for small s."""
    return (2 * SIGNS[kind].cdf(SNR) - 1) / math.sqrt(SNR**2 / (1 + SNR**2))


@pytest.mark.parametrize("kind", SIGNS)
def test_planted_noise_is_found(kind: str):
    """2048 examples of 1000 entries: sum rho is 9.9, with a deviation of sqrt(2000) / 2048 = 0.02
    for noise alone and a fifth of the square root of itself, 2 sqrt(9.9 / 2048) = 0.14, for its
    product with the signal: 1.5 per cent, and half of it for the root. Three of these, and that of
    the sign is as much."""
    whole, without = found(drawn(kind, SNR))
    row = _row(0, ALL, whole)
    assert row.signal_to_noise == pytest.approx(SNR, rel=0.03)
    assert row.critical_batch == pytest.approx(SNR**-2, rel=0.06)
    if kind != "t3":  # Whose fourth moment is infinite.
        assert row.kurtosis == pytest.approx({"gaussian": 3, "laplace": 6}[kind], rel=0.03)
    said = prediction(0, whole, without)
    assert said.example == pytest.approx(ratio(kind), rel=0.03)
    # Means of 32 are nearer to Gaussian noise than what they are the means of; 64 are known to 8 %.
    assert said.mean == pytest.approx(math.sqrt(2 / math.pi), rel=0.2)
    assert 0 < said.example_error < 0.05
    assert said.order[0] == ("last" if kind == "gaussian" else "example")
    assert said.is_clear
    assert f"placement {said.order[0]} > " in str(said)


def test_nothing_but_noise_has_no_signal():
    """Whatever the tails: the sum of 1000 shares, each of deviation sqrt(2) / n, is 0."""
    for kind in SIGNS:
        whole, _ = found(drawn(kind, 0.0, seed=1))
        n = PARTS * BATCH
        for share in (whole.share, whole.sign_share):
            assert abs(share) < 4 * math.sqrt(2 * 1000) / n
        row = _row(0, ALL, whole._replace(signal=-1e-9))
        assert row.critical_batch is None and row.signal_to_noise == 0


def test_what_cannot_be_told_apart_is_said():
    near = Prediction(3, 0.9, 0.1, 0.95, 0.1)
    assert near.order == ("last", "example", "mean") and not near.is_clear
    assert "after 3 steps" in str(near) and "can't be told apart" in str(near)
    table = Noise((), (near,), 4, 64).prediction_table()
    assert dict(table.rows[0])["first"] == "last"
