"""What a solution says: verdicts, alternatives, requirements, depth and layers of one's own."""

from fractions import Fraction

import pytest

from scalex_eqx import theory
from scalex_eqx.theory import Alignment, Infeasible, Parameterization, Role, assess, solve

HALF = Fraction(1, 2)
MATRICES = (Role.embedding, Role.hidden, Role.readout)
TRAINED = (*MATRICES, Role.vector, Role.constant)
PARAMETERIZATIONS = (theory.standard, theory.ntk, theory.mup, theory.mean_field)
FULL, NONE = theory.full_alignment, theory.no_alignment
# The readout sees features that are aligned with it, as in earlier work.
READOUT_ALIGNED = {Role.hidden: FULL, Role.readout: Alignment("aligned", 1, 1, 1)}


def matrices(solution: theory.Solution) -> list[Fraction]:
    return [solution.exponents[role] for role in MATRICES]


@pytest.mark.parametrize("alignment", [FULL, NONE], ids=lambda a: a.name)
@pytest.mark.parametrize("family", ["sgd", "adam", "adafactor"])
@pytest.mark.parametrize("p", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_which_cells_are_trivial_in_the_limit(p: Parameterization, family: str, alignment):
    solution = solve(p, family, alignment)
    starred = (
        p.name in ("mup", "mean_field") and family in ("sgd", "adafactor") and alignment == NONE
    )
    assert solution.stable and solution.feature_learning
    assert solution.trivial == starred
    assert solution.logits == (HALF if starred else 0)
    assert ("trivial in the limit" in solution.verdict) == starred
    assert bool(solution.alternatives) == (starred and family == "sgd")


@pytest.mark.parametrize(
    ("p", "exponents"),
    [(theory.mup, [HALF, 0, -HALF]), (theory.mean_field, [-HALF, -1, Fraction(-3, 2)])],
    ids=["mup", "mean_field"],
)
def test_the_alternative_to_a_trivial_cell_of_sgd(p: Parameterization, exponents):
    solution = solve(p, "sgd", NONE)
    (alternative,) = solution.alternatives
    assert matrices(alternative.solution) == exponents
    assert "larger learning rate of the readout" in alternative.why
    again = assess(p, "sgd", NONE, alternative.solution.exponents)
    assert again.stable and not again.trivial and again.feature_learning
    assert solve(p, "sgd", NONE, nontrivial=True).exponents == alternative.solution.exponents
    # With the readout's rate alone the gradients of all other layers would be too large.
    alone = solution.exponents | {Role.readout: exponents[-1]}
    assert assess(p, "sgd", NONE, alone).faults[:2] == (
        "embedding: its output's change grows as r^1/2 (update)",
        "hidden 1: its output's change grows as r^1/2 (alpha, u)",
    )


@pytest.mark.parametrize("p", [theory.mup, theory.mean_field], ids=lambda p: p.name)
def test_a_trivial_cell_of_adafactor_has_no_alternative(p: Parameterization):
    assert "readout update no larger than its weight" in solve(p, "adafactor", NONE).verdict
    with pytest.raises(Infeasible, match=r"logits' change .* may not outgrow its weight, .* r\^-1"):
        solve(p, "adafactor", NONE, nontrivial=True)


@pytest.mark.parametrize("p", PARAMETERIZATIONS, ids=lambda p: p.name)
@pytest.mark.parametrize("family", ["sgd", "adam", "adafactor"])
def test_earlier_work_excluded_standard_and_ntk(p: Parameterization, family: str):
    if p in (theory.mup, theory.mean_field):
        assert solve(p, family, READOUT_ALIGNED, feature_learning=True).feature_learning
        return
    message = r"r_L - omega >= 0 of the readout, and a \+ b = 1/2 with omega = 1 forces r_L >= 1/2"
    with pytest.raises(Infeasible, match=message):
        solve(p, family, READOUT_ALIGNED, feature_learning=True)
    lazy = solve(p, family, READOUT_ALIGNED)
    assert lazy.stable and not lazy.feature_learning and lazy.layers[-2].residual == HALF
    assert "lazy, the features' change falls as r^-1/2" in lazy.verdict
    assert solve(p, family, FULL, feature_learning=True).feature_learning


def test_a_bounded_update_can_forbid_feature_learning():
    weak = Alignment("weak", "1/4", "1/4", "1/4")
    with pytest.raises(Infeasible, match=r"hidden 2 may not outgrow its weight, .* r_L = 1/4"):
        solve(theory.standard, "adafactor", weak, depth=2, feature_learning=True)
    assert "update of hidden 2 no larger" in solve(theory.ntk, "adafactor", weak, depth=2).verdict
    assert solve(theory.standard, "adam", weak, depth=2, feature_learning=True).feature_learning


def test_one_learning_rate_for_all_is_unstable_and_says_where():
    one_rate = assess(theory.standard, "adam", FULL, dict.fromkeys(TRAINED, 0), depth=2)
    assert not one_rate.stable
    assert one_rate.faults == (
        "hidden 1: its output's change grows as r^1 (alpha, u)",
        "hidden 2: its output's change grows as r^1 (alpha, u)",
        "readout: the logits' change grows as r^1 (alpha, u)",
    )
    assert one_rate.verdict.startswith("unstable: hidden 1: ")
    # The growth adds up from layer to layer; the fault doesn't.
    assert [layer.residual for layer in one_rate.layers] == [0, -1, -2, -3]


def test_faults_beyond_three_are_counted():
    one_rate = assess(theory.standard, "adam", FULL, dict.fromkeys(TRAINED, 0), depth=9)
    assert len(one_rate.faults) == 10 and one_rate.verdict.endswith("; and 7 more")


@pytest.mark.parametrize("role", TRAINED)
def test_a_rate_that_is_too_large_anywhere_is_found(role: Role):
    exponents = solve(theory.mup, "adam", FULL).exponents
    faster = exponents | {role: exponents[role] - Fraction(1, 100)}
    assert assess(theory.mup, "adam", FULL, exponents).stable
    (fault,) = assess(theory.mup, "adam", FULL, faster).faults
    assert fault.startswith(role)
    assert "r^1/100" in fault


def test_relative_updates_that_outgrow_their_weights():
    rates = solve(theory.standard, "adafactor", NONE).exponents | {Role.hidden: -HALF}
    assert (
        "hidden 1: its update outgrows its weight by r^1/2"
        in assess(theory.standard, "adafactor", NONE, rates).faults
    )


def test_biases_change_the_features_too():
    """A lazy solution holds the biases back as well; as fast as usual they move the logits."""
    lazy = solve(theory.standard, "adam", READOUT_ALIGNED)
    assert lazy.exponents[Role.vector] == HALF
    faster = lazy.exponents | {Role.vector: 0}
    moved = assess(theory.standard, "adam", READOUT_ALIGNED, faster)
    assert moved.faults == ("readout: the logits' change grows as r^1/2 (omega)",)
    assert moved.binding[0] == "embedding: vector"
    without = {role: lazy.exponents[role] for role in MATRICES}
    assert assess(theory.standard, "adam", READOUT_ALIGNED, without).stable


def test_rates_that_are_too_small_are_stable_and_useless():
    slow = assess(theory.standard, "adam", FULL, dict.fromkeys(TRAINED, 2))
    assert slow.stable and slow.trivial and not slow.feature_learning
    assert "too small to change them; lazy" in slow.verdict


@pytest.mark.parametrize("family", ["sgd", "adam", "adafactor"])
@pytest.mark.parametrize("p", PARAMETERIZATIONS, ids=lambda p: p.name)
@pytest.mark.parametrize("alpha, u", [(1, 1), (HALF, 1), (1, HALF), ("1/4", "1/3")])
def test_depth_does_not_matter_where_initial_weights_are_independent(p, family, alpha, u):
    alignment = Alignment("", alpha, HALF, u)
    assert not theory.depends_on_depth(alignment)
    shallow = solve(p, family, alignment, depth=1)
    assert matrices(shallow) == matrices(solve(p, family, alignment, depth=9))


def test_aligned_initial_weights_slow_down_all_layers_before_them():
    hidden = Alignment("measured", 1, 0.55, 1)
    by_role = {Role.hidden: hidden, Role.readout: FULL}
    assert theory.depends_on_depth(hidden) and theory.depends_on_depth(by_role)
    assert not theory.depends_on_depth({"hidden": FULL, "readout": hidden})
    assert theory.depends_on_depth([FULL, FULL])
    solution = solve(theory.standard, "adam", by_role, depth=8)
    # 8 times 0.05 at the embedding, 0.05 less behind each hidden layer.
    assert [layer.residual for layer in solution.layers] == [
        Fraction(i, 20) for i in (8, 7, 6, 5, 4, 3, 2, 1, 0, 0)
    ]
    assert solution.exponents[Role.embedding] == Fraction(2, 5)
    # Biases stand at every layer, so that the largest residual is theirs.
    assert solution.exponents[Role.vector] == Fraction(2, 5)
    assert [layer.c for layer in solution.layers[1:-1]] == [
        1 + Fraction(i, 20) for i in range(7, -1, -1)
    ]
    assert solution.exponents[Role.hidden] == 1 + Fraction(7, 20)
    assert "go from 1 to 27/20" in solution.notes[-1]
    assert assess(theory.standard, "adam", by_role, solution.exponents, depth=8).stable
    assert theory.learning_rate_exponents(theory.standard, "adam", by_role, depth=8) == (
        solution.exponents
    )


def test_lazier_earlier_layers_allow_larger_rates_later():
    solution = solve(theory.standard, "adam", Alignment("", HALF, HALF, 1), depth=2)
    assert matrices(solution) == [0, 1, 1]
    assert solution.binding[2:4] == ("hidden 1: omega", "hidden 2: u")
    (alternative,) = solution.alternatives
    assert matrices(alternative.solution) == [HALF, 1, HALF]
    assert alternative.solution.stable and not alternative.solution.trivial
    assert [layer.residual for layer in alternative.solution.layers] == [HALF, HALF, HALF, 0]
    # It is no answer to one who requires feature learning.
    alignment = Alignment("", HALF, HALF, 1)
    required = solve(theory.standard, "adam", alignment, depth=2, feature_learning=True)
    assert required.alternatives == ()


def test_binding_constraints_are_named():
    solution = solve(theory.mup, "sgd", NONE, depth=1)
    assert solution.binding == (
        "embedding: update",
        "hidden 1: alpha",
        "hidden 1: u",
        "hidden 1: omega",
        "readout: size",
    )


def test_gradients_at_the_beginning_and_in_training():
    # Adam without alignment: the readout's update, r^-1/2, exceeds its initial size, r^-1.
    for p, column in ((theory.mup, (HALF, 1, HALF)), (theory.mean_field, (1, Fraction(3, 2), 1))):
        layers = solve(p, "adam", NONE).layers
        assert tuple(layer.initial_gradient for layer in layers) == column
        drop = [layer.initial_gradient - layer.gradient for layer in layers]
        assert drop == [HALF, HALF, 0]
    for layer in solve(theory.standard, "adam", FULL).layers:
        assert layer.gradient == layer.initial_gradient


def test_layers_of_ones_own():
    """Standard, layer by layer, with one hidden layer scaled in its multiplier instead."""
    ab = [(0, 0), (0, HALF), (HALF, 0), (0, HALF)]
    solution = solve(ab, "adam", FULL)
    assert [layer.c for layer in solution.layers] == [0, 1, HALF, 1]
    assert [layer.name for layer in solution.layers] == [
        "embedding",
        "hidden 1",
        "hidden 2",
        "readout",
    ]
    assert assess(ab, "adam", FULL, [0, 1, HALF, 1]).stable
    assert assess(ab, "adam", FULL, [0, 1, 0, 1]).faults[0].startswith("hidden 2: ")
    with pytest.raises(Infeasible, match=r"hidden 2 has a = 0 and b = 0, .* with a \+ b = 1/2"):
        solve([(0, 0), (0, HALF), (0, 0), (0, HALF)], "adam", FULL)


def test_an_alignment_for_each_layer():
    alignments = [FULL, NONE, FULL]
    solution = solve(theory.standard, "adam", alignments)
    assert [layer.c for layer in solution.layers] == [0, 1, HALF, 1]


def test_no_hidden_layers():
    solution = solve(theory.standard, "adam", {"readout": FULL}, depth=0)
    assert [layer.name for layer in solution.layers] == ["embedding", "readout"]
    assert Role.hidden not in solution.exponents
    assert solution.exponents[Role.readout] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([(0, 0), (0, HALF)], FULL, 3), "hidden layers is 3 by depth, 0 by parameterization"),
        (([(0, 0), (0, HALF)], [FULL, FULL], None), "0 by parameterization, 1 by alignment"),
        (([(0, 0)], FULL, None), "hidden layers is -1 by parameterization"),
        ((theory.mup, FULL, -1), "hidden layers is -1 by depth"),
        ((theory.mup, {"hidden": FULL}, None), "alignment has none for readout; it names hidden"),
    ],
)
def test_contradicting_layers_are_refused(arguments, message: str):
    parameterization, alignment, depth = arguments
    with pytest.raises(ValueError, match=message):
        solve(parameterization, "adam", alignment, depth=depth)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"hidden": 1}, "no exponent for embedding, readout; it names hidden"),
        ([0, 1], "has 2 exponents for 3 layers"),
    ],
)
def test_missing_rates_are_refused(rates, message: str):
    with pytest.raises(ValueError, match=message):
        assess(theory.mup, "adam", FULL, rates)


def test_rates_may_be_floats():
    assert assess(theory.mup, "adam", FULL, [0.5, 1, 0.51]).notes == (
        "learning rate of readout: 0.51 read as 51/100",
    )
