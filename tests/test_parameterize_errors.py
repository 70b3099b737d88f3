"""A model that cannot be given a law is refused, with every offending path."""

import math
import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx import Role, Weight, WeightSpec
from scalex_eqx._parameterize._law import _check_parameterization
from scalex_eqx.nn import Linear, Readout

KEY = jax.random.key(0)


def scaled(make, width: int = 16, base_width: int = 4, parameterization=sx.standard, **more):
    return sx.parameterize(
        make, width=width, base_width=base_width, parameterization=parameterization, **more
    )


def expect_error(*parts: str):
    return pytest.raises(ValueError, match="(?s)" + ".*".join(map(re.escape, parts)))


def matrix(rows: int, columns: int, std: float | None = 1.0, role: Role | None = None) -> Weight:
    return Weight(jnp.ones((rows, columns)), WeightSpec((-1,), (-2,), std, role))


def good(width: int) -> Weight:
    return matrix(width, width)


def test_arrays_whose_role_cannot_be_told():
    class Layer(eqx.Module):
        linear: Linear
        scale: jax.Array
        table: list[jax.Array]

    def make(width: int):
        tables = [jnp.ones((3, width)), jnp.ones((2, width, width))]
        return {
            "layer": Layer(Linear(width, width, key=KEY), jnp.ones(()), tables),
            "count": jnp.zeros((), jnp.int32),
        }

    with expect_error("layer/table/0: shape (3, 4) at the base width and (3, 8)") as caught:
        scaled(make)
    assert "layer/table/1: shape (2, 4, 4) at" in str(caught.value)
    assert "layer/linear" not in str(caught.value)
    assert "layer/scale" not in str(caught.value)
    assert "count" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "growth"),
    [
        (lambda width: matrix(width**2, width), "axes (-2,) grow by 4"),
        (
            lambda width: matrix(width, math.isqrt(width)),
            "axes (-1,) grow by 2 from shape (4, 2) to (16, 4)",
        ),
        (lambda width: matrix(width, 100 - width), "axes (-1,) grow by 23/24"),
    ],
)
def test_an_axis_that_grows_at_another_rate(make, growth: str):
    remedy = "up to rounding, be a n + b at three widths n, or stay at every width"
    with expect_error("a: ", growth, remedy, "c: ", growth):
        scaled(lambda width: {"a": make(width), "b": good(width), "c": make(width)})


@pytest.mark.parametrize(
    "make",
    [
        lambda width: matrix(width, 7 if width == 16 else width),
        lambda width: matrix(width, 16 if width == 16 else 4),
    ],
)
def test_growth_that_stops_or_starts_beyond_the_probe(make):
    with expect_error("w: axes (-1,)", "from shape (4, 4) to (16, "):
        scaled(lambda width: {"w": make(width)})


@pytest.mark.parametrize(
    "depths", [{4: 2, 8: 4, 16: 2}, {4: 2, 8: 2, 16: 4}, {4: None, 8: 2, 16: 2}]
)
def test_a_stack_that_changes_with_the_width(depths):
    def make(width: int):
        depth = depths[width]
        shape = (width, width) if depth is None else (depth, width, width)
        return {"w": Weight(jnp.ones(shape), WeightSpec((-1,), (-2,), std=1.0))}

    with expect_error("w: stack axes", "change with the width"):
        scaled(make)


def test_a_spec_for_more_axes_than_there_are():
    def make(width: int):
        return {"v": Weight(jnp.ones(width), WeightSpec((-1,), (-2,), std=1.0)), "w": good(width)}

    with expect_error("v: the spec is for 2 axes, but the shapes are (4,), (8,), (16,)"):
        scaled(make)


def test_a_role_that_contradicts_the_shapes():
    def make(width: int):
        return {
            "hidden": Readout(width, width, key=KEY),
            "input": Readout(3, width, key=KEY),
            "fine": Readout(width, 3, key=KEY),
        }

    with expect_error(
        "hidden/weight: declared as readout, but its shapes, (4, 4) at the base width and (8, 8)",
        "are those of hidden",
        "input/weight: declared as readout",
        "are those of embedding; change the role or the fan axes",
    ) as caught:
        scaled(make)
    assert "fine" not in str(caught.value)


def test_an_embedding_whose_count_grows():
    with expect_error("weight: declared as embedding", "are those of hidden"):
        scaled(lambda width: sx.nn.Embedding(width, width, key=KEY))


@pytest.mark.parametrize("at", [4, 8, 16])
def test_weights_that_are_there_at_one_width_only(at: int):
    def make(width: int):
        extra = {"x": good(width), "y": jnp.ones(2)} if width == at else {}
        return {"w": good(width), "more": extra}

    with expect_error(f"more/x (only at width {at})", f"more/y (only at width {at})"):
        scaled(make)


def test_a_weight_that_is_missing_at_one_width():
    def make(width: int):
        return {"w": good(width)} | ({} if width == 16 else {"v": good(width)})

    with expect_error("v (only at width 4), v (only at width 8)"):
        scaled(make)


def test_no_weight_at_all():
    with expect_error("without a single Weight or floating-point array: there is nothing to scale"):
        scaled(lambda width: {"width": width, "count": jnp.zeros(3, jnp.int32)})


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"probe_width": 4}, "probe_width and base_width are both 4"),
        ({"width": 0}, "width is 0; expected a positive integer"),
        ({"base_width": -4}, "base_width is -4; expected a positive integer"),
        ({"probe_width": 0}, "probe_width is 0; expected a positive integer"),
    ],
)
def test_widths_that_make_no_sense(widths, message: str):
    with expect_error(message):
        scaled(good, **widths)


def test_a_model_that_has_a_law_already():
    def make(width: int):
        return {"done": scaled(good, width=width), "fresh": good(width)}

    with expect_error(
        "done: this Weight is completed already; give parameterize a fresh"
    ) as caught:
        scaled(make)
    assert "fresh:" not in str(caught.value)


def test_a_matrix_without_a_spread():
    def make(width: int):
        return {"a": matrix(width, width, std=None), "b": matrix(3, width, std=None)}

    with expect_error("a: a hidden weight of standard", "b: a readout weight", "has no std"):
        scaled(make)
    with expect_error("a: a hidden weight of mup"):
        scaled(make, parameterization=sx.mup)


def test_a_matrix_that_keeps_its_spread_needs_none():
    model = scaled(lambda width: matrix(width, width, std=None), parameterization=sx.ntk)
    assert model.spec.std is None
    assert model.spec.role is Role.hidden
    assert jnp.all(model.value == 1)


def test_different_problems_are_listed_together():
    def make(width: int):
        return {
            "array": jnp.ones((3, width)),
            "growth": matrix(width, width**2),
            "role": matrix(width, width, role=Role.readout),
            "spread": matrix(width, width, std=None),
        }

    with expect_error("array: ", "growth: ", "role: ", "spread: "):
        scaled(make)


def test_an_unstable_parameterization_is_named():
    half = sx.LayerExponents("1/2", "1/2", "1/2")
    with expect_error("'shaky' is not stable"):
        scaled(good, parameterization=sx.Parameterization("shaky", half, half))


@pytest.mark.parametrize("width", [0, -8])
def test_a_width_is_a_positive_integer(width):
    for name in ("width", "base_width", "probe_width"):
        with expect_error(f"{name} is {width!r}; expected a positive integer"):
            scaled(good, **{name: width})


def test_a_weight_of_no_array_is_named():
    def make(width):
        return {"good": good(width), "bad": sx.Weight(None, good(width).spec)}

    with expect_error("bad: a Weight of NoneType"):
        scaled(make)


def test_a_second_readout_beside_a_tied_one_is_refused():
    def make(width):
        keys = jax.random.split(jax.random.key(0))
        return {
            "embedding": sx.nn.Embedding(7, width, key=keys[0]),
            "tied": sx.nn.TiedReadout(width),
            "value": sx.nn.Readout(width, 1, key=keys[1]),
        }

    with expect_error("readouts of its own: value/weight"):
        scaled(make)


def test_paths_that_read_alike_are_kept_apart():
    """A key with a slash in it, beside nested ones."""

    def make(width):
        wide, narrow = sx.nn.Linear(4, width, key=KEY), sx.nn.Readout(width, 4, key=KEY)
        return {"a/b": wide.weight, "a": {"b": narrow.weight}}

    model = scaled(make)
    assert model["a/b"].spec.role == sx.Role.embedding
    assert model["a"]["b"].spec.role == sx.Role.readout


def test_a_model_in_place_of_its_maker_is_refused():
    with expect_error(
        "make is a MLP; expected a function of the width that builds the model",
        "did you mean scalex_eqx.parameterize_model(model, base, probe, ...)?",
    ):
        scaled(eqx.nn.MLP(2, 2, 8, 1, key=KEY))


@pytest.mark.parametrize(
    ("word", "law"),
    [("standard", sx.standard), ("muP", sx.mup), ("mean-field", sx.mean_field), ("ntk", sx.ntk)],
)
def test_a_word_for_a_parameterization_is_told_the_object(word: str, law: sx.Parameterization):
    """Where a runtime type checker is at work, it would refuse a call of `parameterize` first."""
    with expect_error(f"parameterization is {word!r}; ", f"did you mean scalex_eqx.{law.name}?"):
        _check_parameterization(word)
    assert getattr(sx, law.name) is law


@pytest.mark.parametrize("value", ["abc", None, sx.full_alignment])
def test_other_things_for_a_parameterization_are_not_guessed_at(value: Any):
    with pytest.raises(ValueError, match=r"such as scalex_eqx\.mup$"):
        _check_parameterization(value)


def test_a_whole_number_of_numpy_is_a_width():
    widths: Any = {"width": np.int64(16), "base_width": np.int32(4)}
    model = scaled(good, **widths)
    assert model.spec.width_ratio == 4
