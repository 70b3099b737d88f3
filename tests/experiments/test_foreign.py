"""Update rules of the user's own in recipes, of Optax and from files."""

from pathlib import Path
from typing import Any

import jax
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.experiments import UsageError, parse_recipe
from scalex_eqx.experiments._program import Program
from scalex_eqx.experiments._recipe import check_on
from scalex_eqx.experiments._rules import update_rules

from ._updates import assert_same, falling

RULE = """
import dataclasses
import optax

@dataclasses.dataclass
class Numbers:
    b1: "float"

def make(learning_rate, b1=0.5, *, slow=False):
    return optax.adam(learning_rate, Numbers(b1).b1)

def sign(scale=2.0):
    return optax.chain(optax.scale_by_sign(), optax.scale(scale))

def fails(learning_rate):
    raise KeyError("no such thing")

def nothing(learning_rate):
    return None

def needs_more(learning_rate):
    def update(updates, state, params=None, *, value):
        return updates, state
    return optax.GradientTransformationExtraArgs(lambda params: (), update)

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rule.py").write_text(RULE)
    (tmp_path / "broken.py").write_text("import optax\nimport no_such_package\n")
    (tmp_path / "wrong.py").write_text("def make(:\n")
    return tmp_path


@pytest.fixture(autouse=True)
def _as_outside_of_the_tests():
    """Optax's rules don't hold with strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def width(family: str, rates: Any = sx.full_alignment, **options: Any) -> Any:
    return sx.scale_by_width(family, rates, **options)


@pytest.mark.parametrize(
    ("text", "by_hand"),
    [
        (
            "mup:optax.adan(b1=0.95)@adam:full",
            lambda: optax.chain(optax.adan(falling, b1=0.95), width("adam")),
        ),
        (
            "mup:optax.contrib.ademamix@adam:none:readout=2",
            lambda: optax.chain(
                optax.contrib.ademamix(falling),
                width("adam", sx.no_alignment, role_multipliers={"readout": 2.0}),
            ),
        ),
        (
            "mup:optax.scale_by_rms(decay=0.5)@adam:full",
            lambda: optax.chain(
                optax.scale_by_rms(decay=0.5),
                width("adam"),
                sx.optim.scale_by_learning_rate(falling),
            ),
        ),
        ("mup:optax.sgd:global", lambda: optax.chain(optax.sgd(falling))),
        (
            "mup:rule.py:make(b1=0.25)@adam:full",
            lambda: optax.chain(optax.adam(falling, 0.25), width("adam")),
        ),
        (
            "mup:./rule.py:sign@sgd:hidden=1,readout=1,vector=0,embedding=0",
            lambda: optax.chain(
                optax.scale_by_sign(),
                optax.scale(2.0),
                width("sgd", {"hidden": 1, "readout": 1, "vector": 0, "embedding": 0}),
                sx.optim.scale_by_learning_rate(falling),
            ),
        ),
    ],
)
def test_a_rule_of_ones_own_has_the_width_behind_it(text: str, by_hand, folder, model):
    recipe = parse_recipe(text)
    check_on(recipe, model)
    assert_same(recipe.transformation(falling), by_hand(), model)
    assert parse_recipe(str(recipe)) == recipe
    (said,) = update_rules([recipe]).values()
    assert "not this library's" in said


def test_the_bare_rule_is_the_same_at_a_learning_rate_of_one(folder, model):
    for text in ("mup:rule.py:make@adam:global", "mup:rule.py:sign@adam:global"):
        entry: Any = parse_recipe(text).entry
        bare = optax.chain(entry.rule(), optax.scale(-1.0))
        assert_same(bare, parse_recipe(text).transformation(1.0), model)
    assert entry.takes == {"scale": 2.0} and entry.decay_options() == {}


def test_a_file_is_known_by_its_content(folder, model):
    recipe = parse_recipe("mup:rule.py:make@adam:full")
    assert str(recipe) == f"mup:{recipe.entry.name}@adam:full"
    assert recipe.entry.name.startswith("rule.py#")
    (folder / "rule.py").write_text(RULE.replace("0.5", "0.75"))
    changed = parse_recipe("mup:rule.py:make@adam:full")
    assert changed != recipe
    assert_same(
        changed.transformation(0.1), optax.chain(optax.adam(0.1, 0.75), width("adam")), model
    )
    # A stored recipe is still read, for reports, but not run as something else.
    again = parse_recipe(str(recipe))
    assert again == recipe
    with pytest.raises(UsageError, match=r"rule.py has changed since, and is another rule now; le"):
        again.transformation(0.1)
    (folder / "rule.py").unlink()
    assert parse_recipe(str(recipe)) == recipe


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            "optax.adan",
            r"optax.adan has no family, .*; write optax.adan@FAMILY, or use the rates g",
        ),
        (
            "optax.adan@adamm",
            "unknown family 'adamm'; families are sgd, adam, adafactor, muon: sgd",
        ),
        ("optax.adan(1e-3)@adam", "the sweep gives it the learning rate, and others are written"),
        ("optax.adan(learning_rate=1)@adam", "the sweep gives optax.adan its learning rate; leave"),
        ("optax.adann@adam", "optax.adann: optax has no 'adann'; did you mean adan, adam"),
        ("optax.contrib.nope@adam", "optax.contrib has no 'nope'"),
        (
            "no_such_package.adam@adam",
            "no package 'no_such_package' is installed; install it, or n",
        ),
        ("optax.adam.b1@adam", "optax.adam has no 'b1'"),
        ("math.pi@adam", "math.pi is a float; expected a function that returns an optax.Gradient"),
        ("math.sqrt(x=2)@adam", r"math.sqrt.*takes no keyword arguments|math.sqrt: "),
        ("optax.adan(b9=1)@adam", r"unexpected keyword argument 'b9'; it takes b1, b2, b3, eps"),
        ("optax.add_noise@adam", "missing a required argument: 'eta'; it takes eta, gamma"),
        ("optax.constant_schedule(value=1)@adam", "returns a function; expected an optax.Gradient"),
        ("none.py:make@adam", "none.py: No such file or directory; name a file of Python"),
        ("rule.py@adam", "'rule.py' names no update rule; examples are optax.adan@adam or my_rule"),
        ("rule.py:mak@adam", "rule.py has no 'mak'; did you mean make"),
        ("rule.py:number@adam", "number is a int; expected a function that returns"),
        ("rule.py:make(b2=1)@adam", "unexpected keyword argument 'b2'; it takes b1, slow"),
        ("rule.py:fails@adam", "rule.py#.*:fails: KeyError: 'no such thing', in .*rule.py, line 1"),
        ("rule.py:nothing@adam", "nothing returns a NoneType; expected an optax.Gradient"),
        ("rule.py:needs_more@adam", "missing 1 required keyword-only argument: 'value'"),
        ("broken.py:make@adam", "broken.py can't be run: ModuleNotFoundError: .*broken.py, line 2"),
        ("wrong.py:make@adam", "wrong.py can't be run: SyntaxError"),
        ("-x-@adam", "unknown optimizer '-x-'; choose from adam"),
        ("-x.y-@adam", "'-x.y-' names no update rule; examples are"),
    ],
)
def test_a_mistake_is_one_line(optimizer: str, message: str, folder, model):
    with pytest.raises(UsageError, match=message) as caught:
        check_on(parse_recipe(f"standard:{optimizer}:full"), model)
    assert "\n" not in str(caught.value)


def test_a_budget_is_refused(model):
    recipe = parse_recipe("mup:optax.adan@adam:full")
    budget = sx.Budget(sx.theory.malladi, batch=4, base_batch=1)
    with pytest.raises(UsageError, match="adan takes no budget; leave out --batch"):
        recipe.transformation(0.1, budget=budget)


def test_an_argument_of_ones_own_rule_is_never_taken_for_a_number_of_the_law():
    def program(text: str) -> str:
        # All else that a program has is not asked for.
        one = object.__new__(Program)
        object.__setattr__(one, "recipe", parse_recipe(text))
        return one.rule

    one, other = (program(f"mup:some.rule(eps_scaling={x})@adam:full") for x in (1, 2))
    assert one != other
    same = (program(f"mup:adam{x}:full") for x in ("", "(eps_scaling='constant')"))
    assert len(set(same)) == 1
