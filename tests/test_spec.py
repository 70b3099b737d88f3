import copy
import dataclasses
import gc
import pickle
import threading
from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

import scalex_eqx as sx
from scalex_eqx import Role, WeightSpec

COMPLETE = WeightSpec(
    fan_in=(-1,),
    fan_out=(-2,),
    std=0.25,
    role=Role.hidden,
    parameterization=sx.ntk,
    width_ratio=Fraction(4),
)


def again() -> WeightSpec:
    """Equal to COMPLETE in every field, and made anew."""
    parameterization = dataclasses.replace(sx.ntk)
    assert parameterization is not sx.ntk
    return WeightSpec(
        (-1,),
        (-2,),
        0.25,
        role=Role("hidden"),
        parameterization=parameterization,
        width_ratio=Fraction(8, 2),
    )


@pytest.mark.parametrize(
    "remake",
    [
        lambda _: again(),
        copy.copy,
        copy.deepcopy,
        lambda spec: pickle.loads(pickle.dumps(spec)),
        dataclasses.replace,
        lambda spec: dataclasses.replace(dataclasses.replace(spec, std=1.0), std=0.25),
    ],
)
def test_equal_specs_are_one_object(remake):
    assert remake(COMPLETE) is COMPLETE


@pytest.mark.parametrize(
    "change",
    [
        {"std": 0.5},
        {"std": None},
        {"role": None},
        {"parameterization": sx.standard},
        {"width_ratio": Fraction(2)},
        {"factor_exponent": Fraction(1, 2)},
        {"fan_in": (-2,), "fan_out": (-1,)},
    ],
)
def test_different_specs_differ(change):
    changed = dataclasses.replace(COMPLETE, **change)
    assert changed is not COMPLETE
    assert changed != COMPLETE


def test_specs_made_in_many_threads_are_one_object():
    made: list[WeightSpec] = []
    start = threading.Barrier(8)

    def make():
        start.wait()
        made.extend(WeightSpec((-1,), (-2,), std=1 / n) for n in range(1, 200))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8 * 199
    assert len({id(spec) for spec in made}) == 199


def test_a_spec_that_nothing_uses_is_forgotten():
    def known() -> int:
        gc.collect()
        return len(type(COMPLETE)._known)

    # What other tests have left isn't looked through each time.
    gc.collect()
    gc.freeze()
    try:
        before = known()
        spec = WeightSpec((-1,), (-2,), std=0.123)
        assert known() == before + 1
        del spec
        assert known() == before
    finally:
        gc.unfreeze()


def test_a_spec_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        COMPLETE.std = 1.0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("fan_in", "fan_out", "message"),
    [
        ((0,), (-1,), r"fan_in \(0,\) and fan_out \(-1,\) must be distinct axes .*negative"),
        ((-1,), (-1,), "must be distinct axes"),
        ((-1, -1), (-2,), "must be distinct axes"),
        ((-1,), (-3,), "must together be the last 2 axes; only stack axes stand in front"),
        ((), (-2,), "must together be the last 1 axes"),
    ],
)
def test_wrong_axes_are_refused(fan_in, fan_out, message: str):
    with pytest.raises(ValueError, match=message):
        WeightSpec(fan_in, fan_out)


@pytest.mark.parametrize(
    ("fan_in", "fan_out", "ndim", "stack"),
    [
        ((-1,), (-2,), 2, ()),
        ((-1,), (-2,), 4, (0, 1)),
        ((), (-1,), 1, ()),
        ((), (-1,), 2, (0,)),
        ((-3, -2), (-1,), 4, (0,)),
        ((), (), 1, (0,)),
    ],
)
def test_the_axes_in_front_are_stack_axes(fan_in, fan_out, ndim: int, stack):
    assert WeightSpec(fan_in, fan_out).stack_axes(ndim) == stack


def test_what_a_completed_spec_says():
    assert COMPLETE.is_complete
    assert COMPLETE.multiplier == 4**-0.5
    assert COMPLETE.gradient_exponent == 1
    assert COMPLETE.scale(Fraction(3, 2)) == 1 / 8
    assert COMPLETE.scale(Fraction(0)) == 1.0


def test_what_a_fresh_spec_cannot_say():
    fresh = WeightSpec((-1,), (-2,), std=1.0)
    assert not fresh.is_complete
    assert fresh.multiplier == 1.0
    with pytest.raises(ValueError, match="is not completed: build the model with parameterize"):
        _ = fresh.gradient_exponent
    with pytest.raises(ValueError, match="is not completed"):
        fresh.scale(Fraction(1))


def test_what_a_factor_adds():
    """It multiplies the weight and so its gradient, and nothing else."""
    spec = dataclasses.replace(COMPLETE, factor_exponent=Fraction(1, 2))
    assert spec.multiplier == 1 / 4
    assert spec.gradient_exponent == Fraction(3, 2)
    assert spec.spread_exponent == COMPLETE.spread_exponent == 0


def test_a_buffer_has_no_exponents():
    spec = dataclasses.replace(COMPLETE, role=Role.buffer)
    assert (spec.multiplier, spec.gradient_exponent, spec.spread_exponent) == (1.0, 0, 0)


@pytest.mark.parametrize("exponent", [0.5, "1/2", 1, None])
def test_a_factor_that_is_not_exact(exponent):
    with pytest.raises((ValueError, TypeCheckError)):
        dataclasses.replace(COMPLETE, factor_exponent=exponent)


def test_a_buffer_has_no_factor():
    with pytest.raises(ValueError, match="factor_exponent is 1 of a buffer"):
        WeightSpec((), (), role=Role.buffer, factor_exponent=Fraction(1))


def test_it_prints_in_a_few_words_what_is_known():
    assert repr(COMPLETE) == "WeightSpec((out, in), hidden, ntk, r=4, std=0.25)"
    incomplete = WeightSpec((), (-1,), role=Role.vector, factor_exponent=Fraction(1, 2))
    assert repr(incomplete) == "WeightSpec((out,), vector, incomplete, factor=1/2)"
    frozen = dataclasses.replace(COMPLETE, std=3**-0.5, frozen=True)
    assert repr(frozen) == f"WeightSpec((out, in), hidden, ntk, r=4, std={3**-0.5}, frozen)"
    # A name is not enough where another law has it.
    other = dataclasses.replace(COMPLETE, parameterization=dataclasses.replace(sx.mup, name="ntk"))
    assert repr(other) != repr(COMPLETE) and "LayerExponents" in repr(other)


def test_a_model_prints_in_a_line_a_weight():
    weight = sx.Weight(jnp.ones((64, 8)), dataclasses.replace(COMPLETE, std=3**-0.5))
    line = "Weight(f32[64,8], (out, in), hidden, ntk, r=4, std=0.5774)"
    assert repr(weight) == line
    assert eqx.tree_pformat({"w": weight}) == "{'w': " + line + "}"
    assert repr(sx.Weight(None, COMPLETE)).startswith("Weight(None, (out, in), hidden")

    def make(width: int):
        return eqx.nn.MLP(8, 4, width, 1, key=jax.random.key(0))

    model = sx.parameterize(make, width=64, base_width=16, parameterization=sx.mup)
    assert len(repr(model)) < len(repr(make(64))) + 4 * 40
