"""An optimizer's state is read by the rule that wrote it only."""

import warnings
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import scalex_eqx as sx


def make(width: int) -> Any:
    return sx.nn.MLP(2, width, 3, key=jax.random.key(0))


MODEL = sx.parameterize(make, width=8, base_width=4, parameterization=sx.mup)
PARAMS = eqx.filter(MODEL, eqx.is_inexact_array)


def state(tx: Any) -> Any:
    return {"state": tx.init(PARAMS)}


def eps(spec: sx.WeightSpec) -> float:
    return 1e-8 if spec.role == "readout" else 1e-9


REFUSED = [
    (
        sx.adam(0.1),
        sx.adam(0.1, b2=0.95),
        "state/0/rule: b2 is 0.999 in the file, 0.95 in the tree",
    ),
    (sx.adam(0.1), sx.adam(0.1, b2=0.9990001), "b2 is 0.999 in the file, 0.9990001 in the tree"),
    (sx.adam(0.1), sx.adam(0.1, b1=0.8), "b1 is 0.9 in the file, 0.8 in the tree"),
    (sx.adam(0.1), sx.adam(0.1, eps=1e-8), "eps is 1e-12 in the file, 1e-08 in the tree"),
    (sx.adam(0.1), sx.adam(0.1, eps_scaling="constant"), "eps's law is scales as the gradient in"),
    (sx.adam(0.1, eps=eps), sx.adam(0.1, eps=lambda spec: 1e-9), "eps is (up/weight 1e-09, "),
    (
        sx.adam(0.1),
        sx.adam(0.1, sx.global_rate),
        "state/1/rule: rates is (alpha 1, omega 1/2, u 1)",
    ),
    (sx.lion(0.1), sx.lion(0.1, b2=0.9), "b2 is 0.99 in the file, 0.9 in the tree"),
    (sx.sgd(0.1, momentum=0.9), sx.sgd(0.1, momentum=0.5), "momentum is 0.9 in the file, 0.5"),
    (
        sx.optim.scale_by_gradient(),
        sx.optim.scale_by_sign(),
        "rule is scale_by_gradient in the file, scale_by_sign",
    ),
    (sx.adam_atan2(0.1), sx.adam_atan2(0.1, a=1), "a is 1.27324 in the file, 1 in the tree"),
    (
        optax.scale_by_adam(),
        optax.scale_by_belief(),
        "state is ScaleByAdamState in the file, ScaleByBeliefState in the tree",
    ),
]


@pytest.mark.parametrize(("tx", "other", "message"), REFUSED)
def test_the_state_of_another_rule_is_refused(tmp_path: Path, tx: Any, other: Any, message: str):
    sx.save(tmp_path / "a.ckpt", state(tx))
    with pytest.raises(ValueError, match="holds another optimizer than the tree") as caught:
        sx.load(tmp_path / "a.ckpt", state(other))
    assert message in str(caught.value)
    assert str(caught.value).endswith("docs/checkpoints.md#a-checkpoint-of-another-model")
    # The control: its own state is read, without a warning, which would be an error here.
    sx.load(tmp_path / "a.ckpt", state(tx))


@pytest.mark.parametrize(
    ("tx", "other", "message"),
    [
        (sx.adam(0.1), sx.adam(0.2), "learning_rate is 0.1 in the file, 0.2 in the tree"),
        (
            sx.adamw(0.1, 0.1, decay_mode="coupled"),
            sx.adamw(0.1, 0.2, decay_mode="coupled"),
            "weight_decay is 0.1 in the file, 0.2 in the tree",
        ),
        (
            sx.adam(0.1, role_multipliers={"readout": 2.0}),
            sx.adam(0.1, role_multipliers={"readout": 3.0}),
            "role_multipliers is (readout 2) in the file, (readout 3) in the tree",
        ),
    ],
)
def test_what_leaves_the_state_its_meaning_warns(tmp_path: Path, tx: Any, other: Any, message: str):
    sx.save(tmp_path / "a.ckpt", state(tx))
    with pytest.warns(UserWarning, match="settings of the optimizer have changed") as caught:
        sx.load(tmp_path / "a.ckpt", state(other))
    assert message in str(caught[0].message)
    name = message.split(" ")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sx.load(tmp_path / "a.ckpt", state(other), accept=(name,))


def test_what_is_meant_is_accepted(tmp_path: Path):
    tx, other = sx.adam(0.1), sx.adam(0.1, b1=0.8, b2=0.95)
    _, moved = tx.update(jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS), PARAMS)
    sx.save(tmp_path / "a.ckpt", {"state": moved})
    with pytest.raises(ValueError, match="b2 is") as caught:
        sx.load(tmp_path / "a.ckpt", state(other), accept=["b1"])
    assert "b1 is" not in str(caught.value)
    assert "if that is meant, pass accept=('b2',)" in str(caught.value)
    found = sx.load(tmp_path / "a.ckpt", state(other), accept=["b1", "b2"])["state"]
    assert all(map(jnp.array_equal, jax.tree.leaves(found), jax.tree.leaves(moved)))
    # What the tree says of itself stays: the next step uses the new betas.
    assert jax.tree.structure(found) == jax.tree.structure(other.init(PARAMS))


def test_a_name_that_nothing_has_is_refused(tmp_path: Path):
    sx.save(tmp_path / "a.ckpt", state(sx.adam(0.1)))
    with pytest.raises(ValueError, match=r"accept names 'beta2', .* there are b1, b2, eps"):
        sx.load(tmp_path / "a.ckpt", state(sx.adam(0.1)), accept=["beta2"])
    sx.load(tmp_path / "a.ckpt", state(sx.adam(0.1)), accept="b2")
    sx.save(tmp_path / "b.ckpt", MODEL)
    with pytest.raises(ValueError, match=r"accept names 'b2'.* there are no update rules"):
        sx.load(tmp_path / "b.ckpt", MODEL, accept="b2")


def test_laws_come_before_rules_and_are_never_accepted(tmp_path: Path):
    sx.save(tmp_path / "a.ckpt", state(sx.adam(0.1)))
    other = sx.parameterize(make, width=8, base_width=4, parameterization=sx.ntk)
    like = {"state": sx.adam(0.1, b2=0.9).init(eqx.filter(other, eqx.is_inexact_array))}
    with pytest.raises(ValueError, match="other scaling laws") as caught:
        sx.load(tmp_path / "a.ckpt", like, accept=["b2", "rule"])
    assert "parameterization is mup in the file, ntk in the tree" in str(caught.value)


def test_a_rule_within_wrappers_is_found(tmp_path: Path):
    def wrapped(b2: float) -> Any:
        inner = sx.optim.skip_nonfinite(optax.chain(optax.identity(), sx.adam(0.1, b2=b2)))
        return optax.MultiSteps(inner, 2)

    sx.save(tmp_path / "a.ckpt", state(wrapped(0.9)))
    with pytest.raises(ValueError, match=r"state/\S+/rule: b2 is 0\.9 in the file, 0\.99 in"):
        sx.load(tmp_path / "a.ckpt", state(wrapped(0.99)))


def test_injected_numbers_come_from_the_file(tmp_path: Path):
    """They are arrays of the state: the rule knows none, and none is compared."""

    def injected(b2: float) -> Any:
        return optax.inject_hyperparams(sx.adam)(learning_rate=0.1, b2=b2)

    sx.save(tmp_path / "a.ckpt", state(injected(0.9)))
    found = sx.load(tmp_path / "a.ckpt", state(injected(0.99)))["state"]
    assert found.hyperparams["b2"] == jnp.float32(0.9)
