import math

import numpy as np
import pytest

from scalex_eqx.experiments import parse_recipe
from scalex_eqx.experiments._drift import LEVEL, t_interval
from scalex_eqx.experiments._judged import Answer, Claim, Outcome, Statement, judge_claim
from scalex_eqx.experiments._published import CLAIMS, TABLE_E1

A_BELOW_B = Claim("a ends lower than b", "", (Statement("loss", "a", "b"),))
BOTH_STAY = Claim(
    "both stay", "", tuple(Statement("exponent", name, None, -0.25, 0.25) for name in ("a", "b"))
)


def outcomes(**values):
    """Losses and exponents alike, by recipe."""
    return {
        name: Outcome(name, dict(enumerate(own)), dict(enumerate(own)))
        for name, own in values.items()
    }


@pytest.mark.parametrize(
    "b, answer",
    [
        ((2.11, 2.21, 2.31), Answer.HOLDS),
        ((2.09, 2.19, 2.29), Answer.DENIED),
        # What scatters more than it differs.
        ((2.11, 2.19, 2.31), Answer.CANNOT_TELL),
        # The same training is not lower than itself.
        ((2.10, 2.20, 2.30), Answer.DENIED),
    ],
)
def test_a_difference_is_taken_seed_by_seed(b, answer):
    # Seeds differ by ten times as much as recipes do.
    judged = judge_claim(A_BELOW_B, outcomes(a=(2.10, 2.20, 2.30), b=b))
    assert judged.answer == answer
    assert bool(judged.reason) == (answer == Answer.CANNOT_TELL)


@pytest.mark.parametrize(
    "b, answer",
    [
        ((0.01, 0.02, -0.03), Answer.HOLDS),
        ((0.51, 0.52, 0.53), Answer.DENIED),
        ((-0.51, -0.52, -0.53), Answer.DENIED),
        ((0.24, 0.26, 0.25), Answer.CANNOT_TELL),
    ],
)
def test_a_claim_takes_all_of_its_statements(b, answer):
    assert judge_claim(BOTH_STAY, outcomes(a=(0.0, 0.1, -0.1), b=b)).answer == answer


def test_what_is_missing_is_neither_held_nor_denied():
    clear = {"a": (1.0, 1.1, 1.2), "b": (2.0, 2.1, 2.2)}
    assert judge_claim(A_BELOW_B, outcomes(**clear)).answer == Answer.HOLDS
    two_seeds = {name: values[:2] for name, values in clear.items()}
    assert "2 seeds only" in judge_claim(A_BELOW_B, outcomes(**two_seeds)).reason
    absent = judge_claim(A_BELOW_B, outcomes(a=clear["a"]))
    assert (absent.answer, absent.reason) == (Answer.CANNOT_TELL, "b is not in this grid")
    at_the_edge = {**outcomes(**clear), "b": Outcome("b", {}, {}, "edge", "edge")}
    edge = judge_claim(A_BELOW_B, at_the_edge)
    assert (edge.answer, edge.reason, edge.means) == (Answer.CANNOT_TELL, "b: edge", (None,))


def test_one_statement_that_is_denied_denies_the_claim_whatever_is_missing():
    assert judge_claim(BOTH_STAY, outcomes(a=(0.91, 0.92, 0.93))).answer == Answer.DENIED


def test_claims_at_their_bounds_are_answered_wrongly_one_time_in_twenty():
    """Four statements, all at their bound: true by a hair, so that a denial is wrong; or one of
    them false by a hair, and that it holds is wrong."""
    names, draws = "abcd", 500
    claim = Claim("", "", tuple(Statement("exponent", name) for name in names))
    rng = np.random.default_rng(0)
    values = rng.normal(size=(draws, len(names), 4))
    found = [judge_claim(claim, outcomes(**dict(zip(names, x, strict=True)))) for x in values]
    denied = np.mean([one.answer == Answer.DENIED for one in found])
    # Three deviations of a share of 0.05.
    most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)
    assert 0.01 < denied < most
    # As many statements at the level of one would be denied far too often.
    intervals = [[t_interval(x.tolist(), LEVEL) for x in own] for own in values]
    naive = np.mean([any(x is not None and x[0] >= 0 for x in own) for own in intervals])
    assert naive > 0.13
    values[:, 1:] -= 100.0
    found = [judge_claim(claim, outcomes(**dict(zip(names, x, strict=True)))) for x in values]
    assert 0.01 < np.mean([one.answer == Answer.HOLDS for one in found]) < most


def test_the_claims_name_recipes():
    for statement in [one for claim in CLAIMS for one in claim.statements]:
        for name in (statement.first, statement.second):
            assert name is None or str(parse_recipe(name)) == name


def test_the_published_losses_answer_the_published_claims():
    """With default constants, at 26.8 billion parameters; where all are the same, none holds."""
    losses = {
        f"{law}:{rule}:{rates}": loss
        for (rule, law), row in TABLE_E1.items()
        for rates, loss in (("global", row.global_default), ("full", row.full_default))
    }
    found = outcomes(**{name: (loss - 0.001, loss, loss + 0.001) for name, loss in losses.items()})
    printed = [
        claim
        for claim in CLAIMS
        if all(x.of == "loss" and {x.first, x.second} <= set(losses) for x in claim.statements)
    ]
    assert len(printed) == 6
    assert {judge_claim(claim, found).answer for claim in printed} == {Answer.HOLDS}
    same = outcomes(**dict.fromkeys(losses, (2.0, 2.1, 2.2)))
    assert {judge_claim(claim, same).answer for claim in printed} == {Answer.DENIED}
