"""Learning rates from measured alignment, against the closed forms of Everett et al. (2024)."""

import dataclasses
import math
from fractions import Fraction
from typing import Any

import jax
import pytest

import scalex_eqx as sx
from scalex_eqx._laws import WeightLaw
from scalex_eqx.diagnostics import CoordinateCheck, CoordinateRow, Exponent, prescribe
from scalex_eqx.diagnostics._coordinates._law import Law
from scalex_eqx.theory._power import SIZES

NAMES = {
    "in/weight": "embedding",
    "first/weight": "hidden",
    "blocks/up/weight/0": "hidden",
    "blocks/up/weight/1": "hidden",
    "gain": "vector",
    "out/weight": "readout",
}
HALF = Fraction(1, 2)


def measured(value: float, spread: float = 0.01) -> Exponent:
    return Exponent(value, (value - spread, value + spread), (value - spread, value + spread))


def row(name: str, role: str, law: Any, alignments: tuple[Exponent | None, ...]) -> CoordinateRow:
    axes = ((), (-1,)) if role == "vector" else ((-1,), (-2,))
    spec = sx.WeightSpec(
        *axes,
        std=1.0,
        role=sx.Role(role),
        parameterization=law,
        width_ratio=Fraction(4),
    )
    family, alignment = sx.theory.adam, sx.full_alignment
    path = name.removesuffix("/0").removesuffix("/1")
    slopes = dict.fromkeys(SIZES, 1.0)
    exact = Law(
        path,
        sx.Role(role),
        sx.Role(role),
        WeightLaw(spec, family, sx.theory.Power()),
        slopes,
        1.0,
        None,
        alignment,
    )
    alpha, omega, u = alignments
    return CoordinateRow(
        name=name,
        law=exact,
        initial=None,
        gradient=None,
        update=None,
        update_expected=None,
        sampling=0.0,
        gradient_sampling=0.0,
        alpha=alpha,
        omega=omega,
        u=u,
        input=None,
        output=None,
        input_change=None,
        first_change=None,
        change=None,
        change_assumed=0.0,
        change_explained=None,
        sizes=(),
    )


def check(
    law: Any, found: dict[str, tuple], findings: tuple = (), names: dict[str, str] = NAMES
) -> CoordinateCheck:
    rows = [row(name, role, law, found.get(name, (None,) * 3)) for name, role in names.items()]
    return CoordinateCheck(
        verdict="passes",
        findings=findings,
        notices=(),
        rows=tuple(rows),
        shares=(),
        loss_drops=(0.5, 0.5),
        trained=True,
        widths=(64, 256),
        seeds=(0, 1),
        steps=10,
    )


AS_ASSUMED = (measured(1.0), measured(0.5), measured(1.0))


def test_alignments_as_assumed_keep_the_preset():
    found = dict.fromkeys(NAMES, AS_ASSUMED)
    prescription = prescribe(check(sx.standard, found))
    assert prescription.rates() == {
        "in/weight": 0,
        "first/weight": 1,
        "blocks/up/weight": 1,
        "gain": 0,
        "out/weight": 1,
    }
    assert prescription.rates(measured_omega=True) == prescription.rates()
    assert "changes no learning rate" in str(prescription)


def test_an_interval_that_contains_the_preset_keeps_it():
    wide = (measured(0.9, spread=0.2), measured(0.6, spread=0.2), measured(0.9, spread=0.2))
    prescription = prescribe(check(sx.standard, dict.fromkeys(NAMES, wide)))
    assert set(prescription.rates(measured_omega=True).values()) == {0, 1}


@pytest.mark.parametrize(("law", "a"), [(sx.standard, 0), (sx.ntk, HALF), (sx.mup, 0)])
def test_a_measured_alpha_gives_its_closed_form(law: Any, a: Fraction):
    """c = max(alpha, u) - a for Adam where nothing is residual: section 2, rows for Adam."""
    found = dict.fromkeys(NAMES, AS_ASSUMED)
    found["first/weight"] = (measured(0.8), measured(0.5), measured(0.7))
    found["blocks/up/weight/0"] = (measured(0.7), measured(0.5), measured(0.6))
    found["blocks/up/weight/1"] = (measured(0.6), measured(0.5), measured(0.9))
    rates = prescribe(check(law, found)).rates()
    assert rates["first/weight"] == Fraction(4, 5) - a
    # A stack has one learning rate: the smallest of its layers'.
    assert rates["blocks/up/weight"] == Fraction(9, 10) - a


def test_a_measured_omega_slows_every_earlier_layer():
    """rho_(l-1) = rho_l + omega_l - (a + b)_l: a readout's omega of 0.7 leaves 0.2 to all before
    it, and u = 1 then binds less than alpha = 1."""
    found = dict.fromkeys(NAMES, AS_ASSUMED)
    found["out/weight"] = (measured(1.0), measured(0.7), measured(1.0))
    prescription = prescribe(check(sx.standard, found))
    assert set(prescription.rates().values()) == {0, 1}
    slowed = prescription.rates(measured_omega=True)
    assert slowed["in/weight"] == slowed["gain"] == Fraction(1, 5)
    assert slowed["first/weight"] == slowed["blocks/up/weight"] == Fraction(6, 5)
    assert slowed["out/weight"] == 1
    assert "fall by up to n^-0.20 more" in str(prescription)
    # muP's readout has room for it: a + b = 1.
    assert set(prescribe(check(sx.mup, found)).rates(measured_omega=True).values()) == {HALF, 1, 0}


@pytest.mark.parametrize("order", [("out/weight", "other/weight"), ("other/weight", "out/weight")])
def test_every_readout_has_its_own_exponent_and_slows_what_is_before_it(order: tuple[str, str]):
    """Whichever the model uses first: an omega of 0.7 leaves 0.2 to all before that readout."""
    names = {name: role for name, role in NAMES.items() if role != "readout"}
    names |= dict.fromkeys(order, "readout")
    found = dict.fromkeys(names, AS_ASSUMED)
    found["out/weight"] = (measured(1.0), measured(0.7), measured(1.0))
    found["other/weight"] = (measured(0.8), measured(0.5), measured(0.6))
    prescription = prescribe(check(sx.standard, found, names=names))
    assert len(prescription.assumed_omega) == 2 and prescription.not_measured == ()
    slowed = prescription.rates(measured_omega=True)
    assert slowed["out/weight"] == 1 and slowed["other/weight"] == Fraction(4, 5)
    assert slowed["in/weight"] == slowed["gain"] == Fraction(1, 5)
    assert slowed["first/weight"] == slowed["blocks/up/weight"] == Fraction(6, 5)


def test_the_exponents_by_role_and_path_are_those_by_path():
    found = dict.fromkeys(NAMES, AS_ASSUMED)
    found["first/weight"] = (measured(0.8), measured(0.5), measured(0.7))
    by_role = prescribe(check(sx.standard, found)).by_role()
    expected = {"embedding": 0, "hidden": 1, "vector": 0, "readout": 1}
    assert by_role == expected | {"first/weight": Fraction(4, 5)}


def test_an_optimizer_takes_the_rates():
    key = jax.random.key(0)
    model = sx.parameterize(
        lambda width: {
            "in": sx.nn.Linear(4, width, key=key),
            "out": sx.nn.Readout(width, 2, key=key),
        },
        width=64,
        base_width=16,
        parameterization=sx.standard,
    )
    found = dict.fromkeys(NAMES, AS_ASSUMED)
    found["out/weight"] = (measured(0.8), measured(0.5), measured(0.8))
    rates = prescribe(check(sx.standard, found)).rates()
    rates = {path: rates[path] for path in ("in/weight", "out/weight")}
    factors = {
        row.path: row.learning_rate_factor for row in sx.plan(model, sx.adam(1.0, rates)).rows
    }
    assert factors["in/weight"] == 1
    factor = factors["out/weight"]
    assert factor is not None and math.isclose(factor, 4**-0.8)


def test_a_rejected_check_prescribes_nothing():
    wrong = sx.diagnostics.CoordinateFinding("initial", "first/weight", -1.0, -0.5, "is wrong")
    with pytest.raises(ValueError, match=r"was rejected: first/weight is wrong. Mend that first"):
        prescribe(check(sx.standard, dict.fromkeys(NAMES, AS_ASSUMED), (wrong,)))


def test_a_single_seed_prescribes_nothing():
    found = check(sx.standard, dict.fromkeys(NAMES, AS_ASSUMED))
    with pytest.raises(ValueError, match="has one seed, and so no interval"):
        prescribe(dataclasses.replace(found, seeds=(0,)))


def test_a_model_that_does_not_train_prescribes_nothing():
    found = check(sx.standard, dict.fromkeys(NAMES, AS_ASSUMED))
    with pytest.raises(ValueError, match="Alignment is that of a model that trains"):
        prescribe(dataclasses.replace(found, trained=False, verdict="inconclusive"))


def test_what_was_not_measured_is_named():
    found = dict.fromkeys(NAMES, AS_ASSUMED) | {"first/weight": (None, None, None)}
    assert prescribe(check(sx.standard, found)).not_measured == ("first/weight",)
    assert "alignment is as assumed: first/weight" in str(prescribe(check(sx.standard, found)))
    assert prescribe(check(sx.standard, dict.fromkeys(NAMES, AS_ASSUMED))).not_measured == ()
    without = dataclasses.replace(check(sx.standard, found), unjudged=("gain", "lost/weight"))
    with pytest.raises(ValueError, match="no row for lost/weight, so that no learning rate"):
        prescribe(without)
