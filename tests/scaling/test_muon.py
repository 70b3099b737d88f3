"""How Muon's updates follow the width: their entries, and what they do to the batch's inputs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import coordinate_check
from scalex_eqx.optim._stateless import stateless
from scalex_eqx.optim._tree import map_values

WIDTHS = (64, 128, 256)
FEW = 8
# Eight rows of 64 random numbers are orthogonal to within 1 / sqrt(64), and more so at 256.
FINITE = 0.06


def examples(n: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A square layer's inputs, and its gradient over so many of them."""
    rng = np.random.default_rng(n)
    x, back = rng.normal(size=(2, count, n))
    return x, back.T @ x


def orthogonal(g: np.ndarray) -> np.ndarray:
    u, s, v = np.linalg.svd(g, full_matrices=False)
    kept = s > 1e-9 * s[0]
    return u[:, kept] @ v[kept]


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x * x)))


@functools.cache
def slopes(rule: Callable[[np.ndarray], np.ndarray], share: float | None) -> tuple[float, float]:
    """The exponents of the update's entries and of the change that it makes to its own examples.

    `share` is the number of examples as a share of the width; `None` for a few at every width.
    """
    sizes = []
    for n in WIDTHS:
        x, g = examples(n, FEW if share is None else int(share * n))
        update = rule(g)
        sizes.append((rms(update), rms(x @ update.T)))
    fits = np.polyfit(np.log(WIDTHS), np.log(sizes), 1)[0]
    return float(fits[0]), float(fits[1])


def library(g: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(sx.ops.orthogonalized)(g.astype(np.float32)), np.float64)


@pytest.mark.parametrize(("rule", "tolerance"), [(orthogonal, FINITE), (library, 0.1)])
def test_entries_follow_the_rank_and_what_they_do_does_not(rule: Any, tolerance: float):
    """Of rank k, n by n, orthonormal: entries of sqrt(k) / n. Newton-Schulz adds its +-20 %."""
    entries, change = slopes(rule, None)
    assert (entries, change) == pytest.approx((-1, 0), abs=tolerance)
    entries, change = slopes(rule, 1.0)
    assert (entries, change) == pytest.approx((-0.5, 0), abs=tolerance)


def test_an_elementwise_rule_is_not_like_that():
    """The sign: entries of size one at any rank, and changes that grow with the width."""
    for share in (None, 1.0):
        entries, change = slopes(np.sign, share)
        assert entries == 0
        assert change > 0.45


def test_the_rate_of_entries_as_large_as_adams():
    """0.2 sqrt(max) has largest singular values of n^1/2: its rate falls as n^-1/2.

    Where each update is divided by its own root mean square, those are n at a fixed rank and the
    rate falls as n^-1, as for Adam: another rule, and the source of another exponent.
    """

    def by_shape(g: np.ndarray) -> np.ndarray:
        return 0.2 * np.sqrt(max(g.shape)) * orthogonal(g)

    def by_size(g: np.ndarray) -> np.ndarray:
        return 0.2 * orthogonal(g) / rms(orthogonal(g))

    assert slopes(by_shape, None)[1] == pytest.approx(0.5, abs=FINITE)
    assert slopes(by_shape, 1.0)[1] == pytest.approx(0.5, abs=FINITE)
    assert slopes(by_size, None)[1] == pytest.approx(1.0, abs=FINITE)
    assert slopes(by_size, 1.0)[1] == pytest.approx(0.5, abs=FINITE)


def build(parameterization: sx.Parameterization, width: int, key: Any) -> Any:
    def make(n: int) -> list[Any]:
        keys = jax.random.split(key, 3)
        sizes = ((4, n), (n, 2 * n), (2 * n, n))
        layers = [sx.nn.Linear(*s, key=k) for s, k in zip(sizes, keys, strict=True)]
        return [*layers, sx.nn.Readout(n, 2, key=key)]

    return sx.parameterize(make, width=width, base_width=16, parameterization=parameterization)


def loss(model: Any, x: Any) -> Any:
    def apply(row):
        for layer in model[:-1]:
            row = jnp.tanh(layer(row))
        return model[-1](row)

    return jnp.mean(jnp.square(jax.vmap(apply)(x) - jnp.sin(x[:, :2])))


def check(tx: Any, parameterization: sx.Parameterization = sx.standard, count: int = 8) -> Any:
    return coordinate_check(
        functools.partial(build, parameterization),
        loss,
        tx,
        lambda key: (jax.random.normal(key, (count, 4)),),
        widths=(16, 64),
        seeds=(0, 1),
        steps=2,
    )


def findings(result: Any) -> set[tuple[str, str]]:
    return {(finding.kind, finding.weight) for finding in result.findings}


# As many examples as the smallest width has features, and more than the largest has.
@pytest.mark.parametrize(
    ("parameterization", "scale", "count"), [(sx.standard, "spectral", 8), (sx.mup, "rms", 96)]
)
def test_the_coordinate_check_passes(parameterization: Any, scale: Any, count: int):
    result = check(sx.muon(0.02, scale=scale), parameterization, count)
    assert findings(result) == set()
    by_name = {row.name: row for row in result.rows}
    for name in ("1/weight", "2/weight"):
        assert by_name[name].update.value == pytest.approx(-1, abs=0.1)
        assert abs(by_name[name].change.value) < 0.2


def twice() -> optax.GradientTransformation:
    """A factor for shapes that the law has counted already."""

    def scaled(updates, _):
        return map_values(lambda spec, x: x * spec.scale(-spec.spread_exponent), updates)

    return stateless(sx.optim.Rule("twice"), scaled)


EXPONENTS = {"embedding": 0, "hidden": 1, "readout": 1, "vector": 0}


@pytest.mark.parametrize(
    ("tx", "kind"),
    [
        (optax.chain(sx.muon(0.02), twice()), "update"),
        (sx.muon(0.02, rates=EXPONENTS), "rate"),
    ],
)
def test_a_planted_law_is_rejected_by_name(tx: Any, kind: str):
    """A shape counted twice; and Adam's exponent for a hidden matrix."""
    found = findings(check(tx))
    assert {(kind, "1/weight"), (kind, "2/weight")} <= found
