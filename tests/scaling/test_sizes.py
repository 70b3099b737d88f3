"""Laws over the sizes of a weight: each size grows by itself, the others are held."""

import dataclasses
from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx import Role
from scalex_eqx.theory import gradient_power
from scalex_eqx.theory._power import SIZES

from .size_exponents import CASES, exponents, outside, planted

ROLES = (Role.embedding, Role.hidden, Role.hidden, Role.readout)
PARAMETERIZATIONS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)
INPUTS, OUTPUTS, BASE, RATIOS, SEEDS = 24, 12, 48, (1, 4, 16), 4


def gradients(parameterization, ratios, seed: int) -> tuple[list[float], list[float]]:
    """Root mean squares of the gradients of weights and biases of an MLP, by hand in float64.

    `ratios` are those of the three inner widths. A weight's own ratio is that of its fan-in, the
    embedding's that of its fan-out. The cotangent of the outputs is the same at every width.
    """
    rng = np.random.default_rng(seed)
    widths = [INPUTS, *(BASE * ratio for ratio in ratios), OUTPUTS]
    own = [ratios[0], *ratios]
    a = [float(parameterization.a[role]) for role in ROLES]
    b = [float(parameterization.b[role]) for role in ROLES]
    effective = [
        own[i] ** -(a[i] + b[i]) * rng.standard_normal((widths[i + 1], widths[i])) / sigma
        for i, sigma in enumerate((INPUTS**0.5, BASE**0.5, BASE**0.5, BASE**0.5))
    ]
    x = np.random.default_rng(1000 + seed).standard_normal((INPUTS, 8))
    back = np.random.default_rng(2000 + seed).standard_normal((OUTPUTS, 8))
    values = [x]
    for weight in effective[:-1]:
        values.append(np.tanh(weight @ values[-1]))
    of_weights, of_biases = [0.0] * 4, [0.0] * 4
    for i in reversed(range(4)):
        of_weights[i] = own[i] ** -a[i] * np.sqrt(np.mean((back @ values[i].T) ** 2))
        of_biases[i] = np.sqrt(np.mean(back.sum(axis=1) ** 2))
        back = (effective[i].T @ back) * (1 - values[i] ** 2 if i else 1)
    return of_weights, of_biases


@pytest.mark.parametrize("grows", [0, 1, 2])
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_how_gradients_follow_each_size(parameterization, grows: int):
    """The exponents of 4 seeds' mean over a ratio of 16 are within 0.1 of the theory's."""
    found = np.log2(
        [
            np.mean(
                [
                    gradients(parameterization, [r if i == grows else 1 for i in range(3)], seed)
                    for seed in range(SEEDS)
                ],
                axis=0,
            )
            for r in RATIOS
        ]
    )
    slopes = np.polyfit(np.log2(RATIOS), found.reshape(len(RATIOS), -1), 1)[0]
    growing = [
        {"fan_out": grows == 0, "readout": grows == 2},
        {"fan_in": grows == 0, "fan_out": grows == 1, "readout": grows == 2},
        {"fan_in": grows == 1, "fan_out": grows == 2, "readout": grows == 2},
        {"fan_in": grows == 2},
    ]
    # Biases stand beside the first three, and have their fan-outs.
    roles = [*ROLES, Role.vector, Role.vector, Role.vector]
    expected = []
    for role, sizes in zip(roles, [*growing, *growing[:3]], strict=True):
        power = gradient_power(parameterization, role)
        expected.append(-sum(float(power[size]) for size in SIZES if sizes.get(size)))
    assert np.abs(slopes[:7] - expected).max() < 0.1


def test_every_exponent_of_an_inner_size_that_grows_alone():
    """Of all weights and rules, through `parameterize`; and each fault in the law is seen.

    `size_exponents.py` beside this file measures all sizes and parameterizations.
    """
    name = "the second inner size alone"
    case = dataclasses.replace(CASES[name], grid=(32, 512))
    rows = [{"case": name} | row for row in exponents(case, sx.mup, seeds=4)]
    assert outside(rows) == []
    faults = planted(rows)
    assert {fault["fault"] for fault in faults} >= {"fan_in left out", "fan_out counted twice"}
    assert all(fault["seen"] == fault["exponents"] for fault in faults)


def test_a_size_left_out_is_seen():
    """The negative control: with the readout's ratio left out the same comparison is off by 1/2."""
    found = [
        np.mean([gradients(sx.mup, [1, 1, r], seed)[0][0] for seed in range(SEEDS)]) for r in RATIOS
    ]
    slope = np.polyfit(np.log2(RATIOS), np.log2(found), 1)[0]
    power = gradient_power(sx.mup, Role.embedding)
    assert abs(slope + float(power.readout)) < 0.1
    # What is left without it doesn't follow the readout's fan-in, and says 0.
    assert abs(slope - 0) > 0.4


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_a_power_is_the_table_where_all_sizes_grow_alike(parameterization):
    table = sx.theory.gradient_exponents(parameterization)
    for role, exponent in table.items():
        assert gradient_power(parameterization, role).total == exponent


def rounded(width: int) -> int:
    """Llama's inner width: 8/3 of the width, rounded up to a multiple of 64."""
    return -(-(8 * width // 3) // 64) * 64


def gated(width: int):
    keys = jax.random.split(jax.random.key(0), 5)

    def linear(size_in, size_out, key):
        return eqx.nn.Linear(size_in, size_out, use_bias=False, key=key)

    inner = rounded(width)
    return {
        "first": linear(8, width, keys[0]),
        "gate": linear(width, inner, keys[1]),
        "up": linear(width, inner, keys[2]),
        "down": linear(inner, width, keys[3]),
        "last": linear(width, 4, keys[4]),
    }


def parameterized(parameterization, width: int = 1024, base_width: int = 384):
    return sx.parameterize(
        gated, width=width, base_width=base_width, parameterization=parameterization
    )


WIDTH_RATIO, INNER_RATIO = Fraction(8, 3), Fraction(rounded(1024), rounded(384))


def test_the_exact_ratios_of_rounded_sizes():
    assert Fraction(43, 16) == INNER_RATIO
    specs = {path: w.spec for path, w in sx.weights_with_paths(parameterized(sx.mup)).items()}
    width_sizes = ("fan_in", "fan_out", "readout")
    sizes = {path: [spec.size_ratio(s) for s in width_sizes] for path, spec in specs.items()}
    r, inner = WIDTH_RATIO, INNER_RATIO
    assert sizes == {
        "first/weight": [1, r, r],
        "gate/weight": [r, inner, r],
        "up/weight": [r, inner, r],
        "down/weight": [inner, r, r],
        "last/weight": [r, 1, 1],
    }
    assert specs["down/weight"].width_ratio == inner


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_what_a_rounded_weight_gets(parameterization):
    """Multiplier, spread, epsilon and the rates of Adam and SGD, each from its own sizes."""
    model, base = parameterized(parameterization), gated(384)
    r, inner, a_and_b = float(WIDTH_RATIO), float(INNER_RATIO), parameterization.logit_exponent
    a, b = float(parameterization.a.hidden), float(parameterization.b.hidden)
    down = sx.weights_with_paths(model)["down/weight"]
    assert down.spec.multiplier == pytest.approx(inner**-a)
    spread = jnp.std(down.value) / jnp.std(base["down"].weight)
    assert float(spread) == pytest.approx(inner**-b, rel=0.01)
    adam = {row.path: row for row in sx.plan(model, sx.adam(1.0, eps=1e-8)).rows}["down/weight"]
    assert adam.learning_rate_factor == pytest.approx(inner ** -(1 - a))
    gradient = r ** -(float(a_and_b) - 0.5) * r**-0.5 * inner**-a
    assert adam.eps == pytest.approx(1e-8 * gradient)
    gate = {row.path: row for row in sx.plan(model, sx.sgd(1.0)).rows}["gate/weight"]
    # The update's entries are the gradient's: rate x gradient is what Adam's rate is.
    of_gate = r ** -(float(a_and_b) - 0.5) * inner**-0.5 * r**-a
    assert gate.learning_rate_factor is not None
    assert gate.learning_rate_factor * of_gate == pytest.approx(r ** -(1 - a))


def test_equal_growth_has_no_sizes_of_its_own():
    model = parameterized(sx.mup, width=768)
    assert all(w.spec.sizes == () for w in sx.weights_with_paths(model).values())
    assert "sizes" not in str(sx.plan(model, sx.adam(1.0)))


@pytest.mark.parametrize("fixed", [1, 64, 4096])
def test_features_that_are_joined_with_some_that_stay(fixed: int):
    """A fan of n + b has its own exact ratio, however large b is, and a line in the plan."""

    def make(width: int):
        sizes = {"first": (8, width), "up": (width + fixed, width), "last": (width, 4)}
        keys = zip(jax.random.split(jax.random.key(0), 3), sizes.items(), strict=True)
        return {name: eqx.nn.Linear(*size, use_bias=False, key=key) for key, (name, size) in keys}

    def built(**options) -> dict:
        return sx.parameterize(make, base_width=64, parameterization=sx.mup, **options)

    model, ratio = built(width=256), Fraction(256 + fixed, 64 + fixed)
    spec = model["up"].weight.spec
    assert [spec.size_ratio(size) for size in ("fan_in", "fan_out", "readout")] == [ratio, 4, 4]
    assert f"width ratio 4; {ratio} of up/weight" in str(sx.plan(model, sx.adam(1.0)))
    assert built(width=64)["up"].weight.spec.width_ratio == 1
    if fixed > 64:
        # Two widths are on a line whatever the fan is.
        with pytest.raises(ValueError, match=r"be a n \+ b at three widths n"):
            built(width=256, probe_width=256)


def test_readouts_of_different_rates():
    def make(width: int):
        model = gated(width)
        return model | {"second": eqx.nn.Linear(rounded(width), 3, key=jax.random.key(1))}

    message = "the readouts grow at different rates: last/weight by 8/3, second/weight by 43/16"
    with pytest.raises(ValueError, match=message):
        sx.parameterize(make, width=1024, base_width=384, parameterization=sx.mup)


@pytest.mark.parametrize("rule", [sx.adam, sx.sgd])
def test_the_check_of_a_model_with_rounded_sizes(rule):
    """It passes, and it rejects a rate by the width where the weight's own ratio is another."""

    def model(width: int, key):
        def make(width):
            keys = jax.random.split(key, 4)
            inner = -(-(8 * width // 3) // 32) * 32
            sizes = ((8, width), (width, inner), (inner, width), (width, 4))
            return [
                eqx.nn.Linear(*size, use_bias=False, key=k)
                for size, k in zip(sizes, keys, strict=True)
            ]

        return sx.parameterize(make, width=width, base_width=32, parameterization=sx.mup)

    def loss(model, x, y):
        first, up, down, last = sx.resolve(model)
        h = x @ first.weight.T
        h = h + jax.nn.relu(h @ up.weight.T) @ down.weight.T
        return optax.softmax_cross_entropy_with_integer_labels(h @ last.weight.T, y).mean()

    def batch(key):
        x = jax.random.normal(key, (32, 8))
        return x, jnp.argmax(x[:, :4], axis=1)

    check = sx.diagnostics.coordinate_check(
        model, loss, rule(0.03 if rule is sx.adam else 0.3), batch, widths=(32, 128), seeds=(0, 1)
    )
    assert not check.findings
    by_path = {row.name: row for row in check.rows}
    assert by_path["2/weight"].law.slopes["fan_in"] == pytest.approx(
        np.log2(352 / 96) / np.log2(128 / 32)
    )
