"""Sweeps that end when each verdict is clear: what they ask for, and what is said of them."""

import dataclasses
import math

import pytest

from scalex_eqx.experiments import Setting, Sweep, UsageError, analyse, parse_recipe
from scalex_eqx.experiments._drift import Verdict
from scalex_eqx.experiments._fits import to_json
from scalex_eqx.experiments._until import Until, analysis, gone_through, rounds, runs_of, wanted
from scalex_eqx.experiments._wording import conclusions, rules

GLOBAL, FULL = map(parse_recipe, ("standard:adam:global", "standard:adam:full"))
SWEEP = Sweep(
    recipes=(GLOBAL, FULL),
    sizes=(256, 64, 128),
    learning_rates=tuple(2.0**k for k in range(-10, -4)),
    seeds=(0, 1, 2, 3),
    setting=Setting(base_width=64, depth=2, steps=250),
)
UNTIL = Until(budget=1.0, work={64: 1.0, 128: 4.0, 256: 16.0})


def loss(member):
    """One learning rate drifts, and per-layer rates don't; seeds differ a little."""
    exponent = -1.0 if member.recipe == GLOBAL else 0.0
    best = -6.5 + exponent * math.log2(member.size / 64) + 0.02 * (member.seed % 3)
    return 2.4 + 0.01 * member.seed + 0.025 * (math.log2(member.learning_rate) - best) ** 2


def known_in(store):
    return lambda asked: {member: store[member] for member in asked if member in store}


def followed(until=UNTIL):
    """The search as the command makes it: round by round, from what the store holds."""
    store, asked, begun = {}, [], []
    for members in rounds(SWEEP, until, known_in(store), lambda *told: begun.append(told)):
        asked.append(members)
        store |= {member: loss(member) for member in members}
    # How much may come never grows, and at the end it is what was done.
    most = [work for _, _, work, _ in begun]
    assert most == sorted(most, reverse=True) and begun[-1][2] == begun[-1][3]
    decisions, losses = gone_through(SWEEP.recipes, until.search(SWEEP), known_in(store))
    return decisions, losses, asked


def test_recipes_are_searched_side_by_side_and_nothing_is_asked_for_twice():
    decisions, losses, batches = followed()
    assert {member.recipe for member in batches[0]} == {GLOBAL, FULL}
    assert [d.verdict for d in decisions.values()] == [Verdict.DRIFTS, Verdict.TRANSFERS]
    asked = [member for members in batches for member in members]
    assert len(asked) == len(set(asked)) == len(losses)
    # The same store again wants nothing more; one that lacks a run, that run alone.
    search = UNTIL.search(SWEEP)
    kept = {member: loss for member, loss in losses.items() if member != asked[-1]}
    again, _ = gone_through(SWEEP.recipes, search, known_in(kept))
    assert wanted(again) == [asked[-1]]


def test_the_report_says_what_was_searched():
    decisions, losses, _ = followed()
    one, full = (analysis(r, decisions[r], losses, SWEEP, UNTIL) for r in SWEEP.recipes)
    assert one.verdict == "drifts" and one.sentence.startswith("standard:adam:global drifts: p = ")
    assert full.verdict == "transfers" and "costs 0.000 nats" in full.sentence
    assert one.searched is not None and full.searched is not None
    assert full.searched.runs == len(runs_of(FULL, losses)) == 25
    assert full.searched.share == pytest.approx((15 + 3 * 4 + 7 * 16) / (24 * 21))
    assert "25 runs, 0.28 of the grid's work, 1 look" in full.sentence
    assert [len(width.by_seed) for width in full.sizes] == [3, 1, 3]
    (name, value) = conclusions(full)[-1]
    assert name == "search" and "interval at 95.8 % for 6 looks at most" in value
    assert to_json(full)["searched"] == dataclasses.asdict(full.searched)
    assert len(rules(searched=True)) == len(rules()) + 1


def test_a_grid_says_nothing_of_a_search():
    (found,) = analyse(runs_of(FULL, {m: loss(m) for m in SWEEP.members()}))
    assert found.searched is None and "searched" not in to_json(found)
    assert "search" not in dict(conclusions(found))


def test_an_unfinished_search_cannot_tell():
    search = UNTIL.search(SWEEP)
    decisions, losses = gone_through(SWEEP.recipes, search, lambda asked: {})
    found = analysis(FULL, decisions[FULL], losses, SWEEP, UNTIL)
    assert found.verdict == "cannot tell" and "the same command goes on" in found.sentence
    assert found.searched is not None and found.searched.runs == 0


def test_a_spent_budget_is_said():
    until = dataclasses.replace(UNTIL, budget=0.2)
    decisions, losses, _ = followed(until)
    found = analysis(FULL, decisions[FULL], losses, SWEEP, until)
    assert found.verdict == "cannot tell" and "a larger --budget goes on" in found.sentence
    assert found.searched is not None and found.searched.share <= 0.2


def test_seeds_follow_the_given_ones():
    assert UNTIL.search(SWEEP).seeds == tuple(range(8))
    given = dataclasses.replace(SWEEP, seeds=(7, 3))
    assert UNTIL.search(given).seeds == (7, 3, 8, 9, 10, 11, 12, 13)
    with pytest.raises(UsageError, match=r"--seeds has 9 values; give at most 8"):
        UNTIL.search(dataclasses.replace(SWEEP, seeds=tuple(range(9))))


def test_what_it_decides_with_is_written_down_and_read():
    assert Until.from_json(UNTIL.to_json()) == UNTIL
    assert UNTIL.search(SWEEP).budget == 24 * 21.0
    with pytest.raises(UsageError, match="--budget is 0"):
        Until(0.0, {})
