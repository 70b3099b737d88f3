"""Problems of a user's own: what they take, what they refuse, and that they train."""

import textwrap

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalex_eqx.experiments import Member, Setting, Sweep, UsageError, parse_recipe, transfer
from scalex_eqx.experiments._store import Store
from scalex_eqx.experiments._train import packs, train_pack
from scalex_eqx.problems import Problem, digits, load_problem

X = np.random.default_rng(0).standard_normal((48, 3)).astype(np.float32)
Y = np.tanh(X @ np.ones((3, 1), np.float32))
SETTING = Setting(base_width=4, steps=6)


def make(width, key):
    return eqx.nn.MLP(3, 1, width, depth=2, key=key)


def loss(model, batch):
    x, y = batch
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


def problem(**changes):
    given = {"data": (X, Y), "held_out": (X[:10], Y[:10]), "batch_size": 8}
    return Problem(make, loss, **{**given, **changes})


def trained(problem, recipe="mup:adam:full", width=8, setting=SETTING):
    members = [Member(parse_recipe(recipe), width, 0.03, seed) for seed in (0, 1)]
    (pack,) = packs(problem, setting, members)
    found = dict(train_pack(pack, at_once=None, progress=lambda *_: None))
    return [found[member] for member in members]


def test_a_foreign_model_trains_and_is_judged_on_all_that_is_held_out():
    """The judged loss is that of the weights that were trained, in NumPy."""
    for run in trained(problem()):
        assert len(run.training_losses) == 6
        assert 0 < run.metrics["held_out_loss"] < 10
    untrained = trained(problem(), setting=Setting(base_width=4, steps=1))
    key = jax.random.fold_in(jax.random.key(0), 0)
    # The only step is at a rate of zero after its warm-up, at the base width itself.
    (run, _) = trained(problem(), "standard:sgd:global", 4, Setting(base_width=4, steps=1))
    model = make(4, key)
    hidden = np.asarray(X[:10])
    for layer in model.layers[:-1]:
        hidden = np.maximum(hidden @ np.asarray(layer.weight).T + np.asarray(layer.bias), 0)
    last = model.layers[-1]
    expected = hidden @ np.asarray(last.weight).T + np.asarray(last.bias)
    before = float(np.mean((expected - Y[:10]) ** 2))
    assert abs(run.metrics["held_out_loss"] - before) < 0.3 * before
    assert untrained[0].metrics != untrained[1].metrics


def test_batches_read_on_the_host_train_as_those_drawn_on_the_device():
    """One program gets its batches from a function of seed and step, the other from arrays."""
    drawn = problem(batch=lambda data, key: jax.tree.map(lambda x: x[:8], data), batch_size=None)
    read = problem(data=(), read=lambda seed, step: (X[:8], Y[:8]), batch_size=None)
    for one, other in zip(trained(drawn), trained(read), strict=True):
        np.testing.assert_allclose(one.training_losses, other.training_losses, rtol=1e-5)


def test_what_is_read_depends_on_seed_and_step():
    asked = []

    def read(seed, step):
        asked.append((seed, step))
        return X[:8], Y[:8]

    trained(problem(data=(), read=read, batch_size=None))
    assert sorted(set(asked)) == [(seed, step) for seed in (0, 1) for step in range(6)]


def test_metrics_beside_the_loss_are_stored(tmp_path):
    def evaluate(model, held_out):
        x, y = held_out
        error = jax.vmap(model)(x) - y
        return {"held_out_loss": jnp.mean(error**2), "largest": jnp.max(jnp.abs(error))}

    sweep = Sweep(
        recipes=(parse_recipe("mup:sgd:full"),),
        sizes=(4, 8),
        learning_rates=(0.01, 0.02, 0.04),
        seeds=(0,),
        setting=SETTING,
    )
    one = problem(evaluate=evaluate)
    path = transfer(sweep, one, tmp_path)
    keys = sweep.keys(one.facts)
    with Store.open(path, create=False) as store:
        rows = store.rows(keys.values())
    assert len(rows) == 6
    for row in rows.values():
        largest, judged = row.metrics["largest"], row.held_out_loss
        assert largest is not None and judged is not None and largest**2 >= judged
        assert row.specification["problem"]["batch_size"] == 8
        assert row.specification["sizes"]["width"] in (4, 8)
    # Other data is another problem.
    assert problem(data=(X + 1, Y)).facts != problem().facts == problem().facts


def test_digits_have_an_accuracy():
    (run, _) = trained(digits(), width=16, setting=Setting(base_width=8, depth=2, steps=40))
    assert run.metrics["accuracy"] > 0.5  # Of ten classes.
    assert set(run.metrics) == {"held_out_loss", "accuracy"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": None}, "expected one of batch_size"),
        ({"read": lambda seed, step: X}, "batch_size and read"),
        ({"data": ()}, "has no data; give arrays"),
        ({"held_out": ()}, "neither held_out nor evaluate"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"data": (X, Y[:5])}, r"first axes \[\(5,\), \(48,\)\]"),
        ({"evaluate": lambda model, held_out: {"accuracy": 1.0}}, "by which runs are judged"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, said):
    with pytest.raises(UsageError, match=said):
        trained(problem(**changes))


def test_a_depth_that_make_does_not_take_is_refused():
    with pytest.raises(UsageError, match="takes none; leave out --depth"):
        Setting(base_width=4, steps=2, depth=3).of(problem())


FILE = """
import equinox as eqx, jax, jax.numpy as jnp, numpy as np
from scalex_eqx.problems import Problem

def make(width, key):
    return eqx.nn.MLP(3, 1, width, depth=1, key=key)

def loss(model, batch):
    return jnp.mean(jax.vmap(model)(batch) ** 2)

x = np.ones((8, 3), np.float32)
problem = Problem(make, loss, data=x, held_out=x, batch_size=4)
number = 3

def later():
    return problem

def broken():
    raise KeyError("the file of images")
"""


def test_problems_are_loaded_from_files(tmp_path):
    file = tmp_path / "my_model.py"
    file.write_text(textwrap.dedent(FILE), encoding="utf-8")
    for name in ("problem", "later"):
        assert load_problem(f"{file}:{name}").batch_size == 4
    refused = {
        f"{file}:missing": "has no missing; its problems are problem",
        f"{file}:number": "is a int; expected a scalex_eqx.problems.Problem",
        f"{file}:broken": r"broken\(\) failed: KeyError: 'the file of images', in .*my_model.py",
        f"{tmp_path}/other.py:problem": "does not exist; check the path",
        "my_model": "is not FILE.py:NAME; an example is",
    }
    for name, said in refused.items():
        with pytest.raises(UsageError, match=said):
            load_problem(name)
    file.write_text("import a_package_that_is_not_there\n", encoding="utf-8")
    with pytest.raises(UsageError, match="failed: ModuleNotFoundError"):
        load_problem(f"{file}:problem")
