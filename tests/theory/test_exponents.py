"""The tables of exponents, typed in from the paper, against what the package returns."""

import math
from fractions import Fraction

import pytest

from scalex_eqx import theory
from scalex_eqx.theory import Alignment, LayerExponents, Parameterization, Role, UpdateFamily
from scalex_eqx.theory._rational import exact

HALF = Fraction(1, 2)
MATRICES = (Role.embedding, Role.hidden, Role.readout)
BY_NAME = {
    "standard": theory.standard,
    "ntk": theory.ntk,
    "mup": theory.mup,
    "mean_field": theory.mean_field,
}
COLUMNS = (
    ("sgd", theory.full_alignment),
    ("sgd", theory.no_alignment),
    ("adam", theory.full_alignment),
    ("adam", theory.no_alignment),
    ("adafactor", theory.full_alignment),
    ("adafactor", theory.no_alignment),
)

# Embedding, hidden, readout.
A_AND_B = {
    "standard": ("0 0 0", "0 1/2 1/2"),
    "ntk": ("0 1/2 1/2", "0 0 0"),
    "mup": ("-1/2 0 1/2", "1/2 1/2 1/2"),
    "mean_field": ("0 1/2 1", "0 0 0"),
}
GRADIENT = {
    "standard": "1/2 1/2 0",
    "ntk": "1/2 1 1/2",
    "mup": "1/2 1 1/2",
    "mean_field": "1 3/2 1",
}
# SGD full, SGD none, Adam full, Adam none, Adafactor full, Adafactor none.
LEARNING_RATE = {
    "standard": ("-1/2 1/2 1", "-1/2 0 1/2", "0 1 1", "0 1/2 1/2", "0 1/2 1/2", "0 0 0"),
    "ntk": ("-1/2 -1/2 0", "-1/2 -1 -1/2", "0 1/2 1/2", "0 0 0", "0 1/2 1/2", "0 0 0"),
    "mup": ("0 0 0", "0 -1/2 0", "1/2 1 1/2", "1/2 1/2 0", "0 1/2 0", "0 0 0"),
    "mean_field": ("-1 -1 -1", "-1 -3/2 -1", "0 1/2 0", "0 0 -1/2", "0 1/2 0", "0 0 0"),
}
LOGIT_EXPONENT = {"standard": HALF, "ntk": HALF, "mup": Fraction(1), "mean_field": Fraction(1)}

CELLS = [
    pytest.param(name, family, alignment, role, Fraction(cell), id=f"{name}-{family}-{alignment}")
    for name, columns in LEARNING_RATE.items()
    for (family, alignment), column in zip(COLUMNS, columns, strict=True)
    for role, cell in zip(MATRICES, column.split(), strict=True)
]


def fractions(row: str) -> dict[Role, Fraction]:
    return dict(zip(MATRICES, map(Fraction, row.split()), strict=True))


def test_there_are_72_cells():
    assert len(CELLS) == 72


@pytest.mark.parametrize("name", BY_NAME)
def test_multipliers_and_initial_spreads(name: str):
    parameterization = BY_NAME[name]
    a, b = A_AND_B[name]
    assert parameterization.name == name
    assert {role: parameterization.a[role] for role in MATRICES} == fractions(a)
    assert {role: parameterization.b[role] for role in MATRICES} == fractions(b)
    assert parameterization.logit_exponent == LOGIT_EXPONENT[name]


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("role", [Role.vector, Role.constant])
def test_vectors_and_constants_are_not_scaled(name: str, role: Role):
    assert BY_NAME[name].a[role] == BY_NAME[name].b[role] == 0


@pytest.mark.parametrize("name", BY_NAME)
def test_gradient_column(name: str):
    expected = fractions(GRADIENT[name])
    expected |= {Role.vector: LOGIT_EXPONENT[name], Role.constant: Fraction(0)}
    assert theory.gradient_exponents(BY_NAME[name]) == expected


@pytest.mark.parametrize(("name", "family", "alignment", "role", "expected"), CELLS)
def test_learning_rate_cell(
    name: str, family: str, alignment: Alignment, role: Role, expected: Fraction
):
    exponents = theory.learning_rate_exponents(BY_NAME[name], family, alignment)
    assert exponents[role] == expected
    assert type(exponents[role]) is Fraction


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize(("family", "alignment"), COLUMNS)
def test_learning_rates_of_vectors_and_constants(name: str, family: str, alignment: Alignment):
    exponents = theory.learning_rate_exponents(BY_NAME[name], family, alignment)
    assert set(exponents) == {*MATRICES, Role.vector, Role.constant}
    assert exponents[Role.vector] == (-LOGIT_EXPONENT[name] if family == "sgd" else 0)
    assert exponents[Role.constant] == 0


def test_a_parameterization_of_ones_own():
    mine = Parameterization("mine", LayerExponents(0, "1/4", HALF), LayerExponents(0, "1/4", 0))
    assert mine.a.hidden == Fraction(1, 4)
    assert theory.gradient_exponents(mine)[Role.hidden] == Fraction(3, 4)
    exponents = theory.learning_rate_exponents(mine, "adam", theory.full_alignment)
    assert [exponents[role] for role in MATRICES] == [0, Fraction(3, 4), HALF]


@pytest.mark.parametrize("name", BY_NAME)
def test_tied_readout_has_logit_exponent_one(name: str):
    tied = BY_NAME[name].tied()
    b = fractions(A_AND_B[name][1])[Role.embedding]
    assert tied.logit_exponent == 1
    assert (tied.a.readout, tied.b.readout) == (1 - b, b)
    assert (tied.a.embedding, tied.a.hidden) == (BY_NAME[name].a.embedding, BY_NAME[name].a.hidden)
    assert tied.name != name


def test_tied_standard_has_the_gradients_of_mup():
    tied = theory.gradient_exponents(theory.standard.tied())
    assert [tied[role] for role in (Role.hidden, Role.vector)] == [1, 1]
    assert tied[Role.embedding] == tied[Role.readout] == 1


def test_a_family_of_ones_own_that_follows_both_gradient_and_weight():
    # c = s - a - g - b; the embedding's relative update, r^-(c + g), is of order one.
    family = UpdateFamily("both", gradient_degree=1, weight_degree=1)
    exponents = theory.learning_rate_exponents(theory.standard, family, theory.full_alignment)
    assert [exponents[role] for role in MATRICES] == [-HALF, 0, HALF]


def test_a_family_is_what_its_degrees_say_and_not_its_name():
    signs = UpdateFamily("sign descent", gradient_degree=0, weight_degree=0)
    assert theory.learning_rate_exponents(
        theory.mup, signs, theory.full_alignment
    ) == theory.learning_rate_exponents(theory.mup, "adam", theory.full_alignment)
    assert theory.as_family(signs) is signs


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize(("family", "shifts"), [("sgd", 2), ("adam", 1), ("adafactor", 0)])
@pytest.mark.parametrize("alignment", [theory.full_alignment, theory.no_alignment])
def test_moving_a_factor_from_spread_to_multiplier(
    name: str, family: str, shifts: int, alignment: Alignment
):
    t = Fraction(3, 8)
    old = BY_NAME[name]
    moved = Parameterization(
        "moved",
        LayerExponents(*(old.a[role] + t for role in MATRICES)),
        LayerExponents(*(old.b[role] - t for role in MATRICES)),
    )
    before = theory.learning_rate_exponents(old, family, alignment)
    after = theory.learning_rate_exponents(moved, family, alignment)
    assert [after[r] for r in MATRICES] == [before[r] - shifts * t for r in MATRICES]


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (("1/2", 0, 0), (0, HALF, HALF), "embedding has a = 1/2 and b = 0, but .* a [+] b = 0"),
        ((0, 0, 0), (0, 0, HALF), "hidden( 1)? has a = 0 and b = 0, but .* a [+] b = 1/2"),
        ((0, 0, 0), (0, HALF, "1/4"), "readout has a = 0 and b = 1/4, but .* a [+] b >= 1/2"),
    ],
)
def test_an_unstable_parameterization_is_refused(a, b, message: str):
    unstable = Parameterization("shaky", LayerExponents(*a), LayerExponents(*b))
    with pytest.raises(ValueError, match=f"'shaky' is not stable.* its {message}"):
        theory.gradient_exponents(unstable)
    with pytest.raises(ValueError, match=message):
        theory.learning_rate_exponents(unstable, "adam", theory.full_alignment)


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match="'adamax' is unknown: expected sgd, adam, adafactor"):
        theory.learning_rate_exponents(theory.mup, "adamax", theory.full_alignment)


@pytest.mark.parametrize("value", [0.5, True, None])
def test_an_inexact_exponent_is_refused_where_it_has_to_be_exact(value):
    with pytest.raises(ValueError, match=r"alpha is .* exponents are exact: write .*'1/2'"):
        exact(value, "alpha")


def test_an_exponent_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="alpha is 'half'; expected an int, a Fraction"):
        Alignment("mine", "half", HALF, 1)


@pytest.mark.parametrize(
    ("value", "fraction", "note"),
    [
        (0.5, HALF, ()),
        (0.55, Fraction(11, 20), ("hidden: 0.55 read as 11/20",)),
        (-0.3333, Fraction(-1, 3), ("hidden: -0.3333 read as -1/3",)),
        (0.1234567, Fraction(10, 81), ("hidden: 0.1234567 read as 10/81",)),
    ],
)
def test_a_float_becomes_a_nearby_fraction(value: float, fraction: Fraction, note):
    exponents = LayerExponents(0, value, 0)
    # No fraction with a denominator of at most 1000 is nearer.
    nearest = min((Fraction(round(value * d), d) for d in range(1, 1001)), key=distance_to(value))
    assert exponents.hidden == nearest == fraction
    assert exponents.notes == note
    assert exponents == LayerExponents(0, fraction, 0)
    assert hash(exponents) == hash(LayerExponents(0, fraction, 0))


def distance_to(value: float):
    return lambda fraction: (abs(fraction - Fraction(value)), fraction.denominator)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "make",
    [
        lambda x: LayerExponents(0, x, 0),
        lambda x: Alignment("", HALF, x, HALF),
        lambda x: UpdateFamily("", x, 0),
    ],
)
def test_a_float_that_is_not_finite_is_refused(make, value: float):
    with pytest.raises(ValueError, match=r"(hidden|omega|gradient_degree) is .*finite"):
        make(value)


def test_a_solution_has_the_notes_of_all_that_it_is_made_from():
    rough = Parameterization("rough", LayerExponents(0, 0.2, 0), LayerExponents(0, 0.3, HALF))
    family = UpdateFamily("mine", 0.7, 0, LayerExponents(0, 0, 0.1))
    solution = theory.solve(rough, family, Alignment("measured", 0.8, HALF, HALF), depth=3)
    assert solution.notes == (
        "parameterization 'rough': a, hidden: 0.2 read as 1/5",
        "parameterization 'rough': b, hidden: 0.3 read as 3/10",
        "family 'mine': gradient_degree: 0.7 read as 7/10",
        "family 'mine': offset, readout: 0.1 read as 1/10",
        "alignment 'measured': alpha: 0.8 read as 4/5",
    )
    assert theory.solve(theory.ntk, "adam", theory.full_alignment).notes == ()


@pytest.mark.parametrize(
    ("degrees", "message"),
    [
        ((2, 0), "gradient_degree of family 'odd' is 2; expected 0 to 1"),
        ((-1, 0), "gradient_degree of family 'odd' is -1"),
        ((0, -1), "weight_degree of family 'odd' is -1; expected at least 0"),
    ],
)
def test_a_degree_out_of_range_is_refused(degrees, message: str):
    with pytest.raises(ValueError, match=message):
        UpdateFamily("odd", *degrees)
