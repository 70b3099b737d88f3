"""The factors against printed numbers, and against formulas of their own in many digits."""

import json
from pathlib import Path

import mpmath
import numpy as np
import pytest
from scipy.special import expit, ndtr

from scalex_eqx.ops import scaled

from . import factor_table

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
DIGITS = 5e-6  # Half a unit in the last of six digits, at worst.


def near(found, expected):
    np.testing.assert_allclose(found, expected, rtol=DIGITS)


@pytest.mark.parametrize("mult", [0.25, 1, 4])
def test_printed_numbers_of_activations(mult):
    name = str(mult)
    for function in ("gelu", "silu"):
        factors = getattr(scaled, f"{function}_factors")(mult, constraint=None)
        near([factors.output, *factors.inputs], GOLDEN[function][name])
    near(scaled.gated_silu_factors(mult).output, GOLDEN["gated_silu"][name])
    softmax = scaled.softmax_factors(4096, mult, constraint=None)
    near([softmax.output, *softmax.inputs], GOLDEN["softmax_4096"][name])


def test_printed_numbers_of_attention_and_loss():
    for name, expected in GOLDEN["attention"].items():
        length, d, causal = name.split(",")
        factors = scaled.attention_factors(int(length), int(d), causal=causal == "True")
        near(factors.output, expected)
        assert factors.inputs == (factors.output,) * 3
    for classes, expected in GOLDEN["cross_entropy"].items():
        near(scaled.cross_entropy_factors(int(classes)).inputs[0], expected)


@pytest.mark.parametrize(("residual", "ratio"), [(1, 1), (0.5, 2)])
def test_printed_taus(residual, ratio):
    taus = scaled.residual_taus(4, residual=residual, attention_ratio=ratio)
    np.testing.assert_allclose(np.ravel(taus), GOLDEN[f"taus_{residual}_{ratio}"], atol=6e-7)


def test_taus_by_the_stream_that_they_stand_for():
    """Undo the factors: the stream is the embedding plus branches, whose shares are asked for."""
    depth, residual, ratio = 7, 0.7, 1.6
    shares = np.ravel(scaled.residual_taus(depth, residual=residual, attention_ratio=ratio))
    branches, skip = [], mpmath.mpf(1)
    for tau in map(mpmath.mpf, shares):
        norm = mpmath.sqrt(1 + tau**2)
        branches = [x / norm for x in branches] + [tau / norm]
        skip /= norm
    square = [float(x**2 / skip**2) for x in branches]
    np.testing.assert_allclose(sum(square), 2 * residual**2, rtol=1e-12)
    np.testing.assert_allclose(sum(square[::2]) / sum(square[1::2]), ratio**2, rtol=1e-12)
    np.testing.assert_allclose(square[2:], square[:-2], rtol=1e-12)
    assert abs(float(sum(x**2 for x in branches) + skip**2) - 1) < 1e-12


@pytest.mark.parametrize("sizes", [(64, 256, 1024), (256, 64, 8)])
def test_products_are_roots_of_the_terms_that_are_summed(sizes):
    fan_in, fan_out, tokens = sizes
    root = [float(1 / mpmath.sqrt(size)) for size in sizes]
    free = scaled.linear_factors(*sizes, constraint=None)
    near([free.output, *free.inputs, *free.weights], root)
    tied = scaled.linear_factors(*sizes)
    near([tied.output, *tied.inputs, *tied.weights], [root[0], root[0], root[2]])
    out = scaled.readout_factors(*sizes)
    near([out.output, *out.inputs, *out.weights], [1 / fan_in, root[1], root[2]])
    near(scaled.embedding_factors(fan_in, tokens).weights[0], np.sqrt(fan_in / tokens))
    near(scaled.norm_factors(tokens).weights[0], root[2])
    product = scaled.matmul_factors(fan_in, fan_out, tokens, constraint=None)
    near([product.output, *product.inputs], [root[1], root[2], root[0]])


def test_convolutions_count_taps_groups_and_strides():
    free = scaled.conv_factors(12, 20, 9, 640, stride=4, groups=2, constraint=None)
    expected = [(6 * 9) ** -0.5, (10 * 9 / 4) ** -0.5, 640**-0.5]
    near([free.output, *free.inputs, *free.weights], expected)


def test_sums_and_what_is_repeated():
    free = scaled.add_factors((8, 3, 5), (5,), constraint=None)
    near([free.output, *free.inputs], [0.5**0.5, 1, 24**-0.5])
    assert scaled.add_factors((4, 5), (1,), constraint=None).output == 1
    near(scaled.dropout_factors(0.36).output, 0.8)
    near(scaled.mean_square_factors().inputs, [8**-0.5] * 2)
    near(scaled.residual_factors(0.75), [0.6, 0.8])


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        (None, (2.0, 8.0, 4.0)),
        ("to_output_scale", (2.0,) * 3),
        ("to_left_grad_scale", (8.0,) * 3),
        ("to_right_grad_scale", (4.0,) * 3),
        ("gmean", (4.0,) * 3),
        ("hmean", (3 / (1 / 2 + 1 / 8 + 1 / 4),) * 3),
        ("amean", (14 / 3,) * 3),
    ],
)
def test_constraints_make_the_factors_of_activations_one(constraint, expected):
    near(scaled.constrained(constraint, 2.0, 8.0, 4.0), expected)


def test_constraints_that_do_not_fit():
    assert scaled.constrained("to_grad_input_scale", 2.0, 8.0) == (8.0, 8.0)
    with pytest.raises(ValueError, match="for operations with 1 inputs, and this one has 2"):
        scaled.constrained("to_grad_input_scale", 1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scaled.linear_factors(0, 4, 4), "fan_in is 0"),
        (lambda: scaled.softmax_factors(4, -1.0), "mult is -1.0"),
        (lambda: scaled.dropout_factors(1.0), "dropout rate is 1.0"),
        (lambda: scaled.cross_entropy_factors(1), "1 classes; expected at least 2"),
        (lambda: scaled.residual_factors(-0.1), "tau is -0.1"),
        (lambda: scaled.residual_taus(2, residual=0), "residual is 0"),
    ],
)
def test_refuses_sizes_that_make_no_factor(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _mean(f):
    """The mean of f(x), x normal, by Gauss-Hermite quadrature; the integrands are smooth."""
    x, weights = np.polynomial.hermite_e.hermegauss(120)
    return float(np.sum(weights * f(x)) / np.sqrt(2 * np.pi))


@pytest.mark.parametrize("mult", [0.25, 1, 4])
@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_activations_by_quadrature(name, mult):
    """Standard deviation and slope within 10 % of one; the root mean square has a mean besides."""
    gate, slope_of_gate = {
        "gelu": (ndtr, lambda x: np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)),
        "silu": (expit, lambda x: expit(x) * expit(-x)),
    }[name]
    square = _mean(lambda x: (x * gate(mult * x)) ** 2)
    deviation = np.sqrt(square - _mean(lambda x: x * gate(mult * x)) ** 2)
    slope = _mean(lambda x: (gate(mult * x) + mult * x * slope_of_gate(mult * x)) ** 2) ** 0.5
    factors = getattr(scaled, f"{name}_factors")(mult, constraint=None)
    assert abs(deviation * factors.output - 1) < 0.1
    assert abs(slope * factors.inputs[0] - 1) < 0.1
    if (name, mult) == ("gelu", 1):
        np.testing.assert_allclose(square**0.5 * factors.output, 1.151, atol=2e-3)


def test_the_committed_table():
    """It is what two ways of computing agree on, and a wrong number would be refused."""
    path = Path(__file__).parents[3] / "docs/results/unit_factors.json"
    [kept] = json.loads(path.read_text(encoding="utf-8"))["tables"]
    found = factor_table.rows()
    assert len(found) > 70
    for one, other in zip(kept["rows"], found, strict=True):
        near(one.pop("output"), other.pop("output"))
        assert one == other


def test_the_table_refuses_what_two_ways_do_not_agree_on(monkeypatch):
    wrong = scaled.Factors(1.001, (1.0, 1.0))
    monkeypatch.setattr(scaled, "gated_silu_factors", lambda mult: wrong)
    with pytest.raises(ValueError, match=r"gated silu, mult 1/4"):
        factor_table.rows()
