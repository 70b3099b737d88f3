"""Layers of Linen and Haiku in dictionaries: names are used where the shapes agree, only there."""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx import Role

BASE, WIDTH = 8, 32
KEY = jax.random.key(0)


def scaled(make, parameterization=sx.mup, width: int = WIDTH, **options):
    return sx.parameterize(
        make, width=width, base_width=BASE, parameterization=parameterization, **options
    )


def said(model) -> dict[str, str]:
    """Axes and role of each array."""
    found = {}
    for path, weight in sx.weights_with_paths(model).items():
        spec = weight.spec
        axes = "" if spec.role is Role.buffer else spec.summary().split(")")[0] + ") "
        found[path] = axes + str(spec.role)
    return found


def tree(shapes: dict[str, Any], width: int) -> dict[str, Any]:
    """Arrays of shapes in which "n" is the width, and numbers are themselves."""

    def of(x: Any) -> Any:
        if isinstance(x, dict):
            return {name: of(value) for name, value in x.items()}
        sizes = [eval(size, {"n": width}) if isinstance(size, str) else size for size in x]
        return jnp.asarray(np.linspace(-1, 1, math.prod(sizes)).reshape(sizes), "float32")

    return of(shapes)


def roles_of(shapes: dict[str, Any], **options) -> dict[str, str]:
    """At the base width, where nothing is computed."""
    return said(scaled(functools.partial(tree, shapes), width=BASE, **options))


EMBEDDING, HIDDEN, VECTOR = "(in, out) embedding", "(in, out) hidden", "(out,) vector"
READOUT, VECTORS = "(in, out) readout", "(out, out) vector"
CONV, CONV2 = "(in, in, out) embedding", "(in, in, in, out) embedding"
DENSE = {"kernel": ("n", "n"), "bias": ("n",)}


# Linen


@pytest.mark.parametrize(
    ("name", "layer", "expected"),
    [
        ("Dense_0", {"kernel": (5, "n"), "bias": ("n",)}, [EMBEDDING, VECTOR]),
        ("Dense_0", {"kernel": ("n", 5)}, [READOUT]),
        ("mine", {"kernel": ("n", "3*n"), "bias": ("3*n",)}, [HIDDEN, VECTOR]),
        ("mine", {"kernel": ("n", 5)}, [READOUT]),
        ("Conv_0", {"kernel": (3, 5, "n"), "bias": ("n",)}, [CONV, VECTOR]),
        ("Conv_0", {"kernel": (3, 3, "n", "n")}, ["(in, in, in, out) hidden"]),
        ("mine", {"kernel": (3, "n", "n"), "bias": ("n",)}, ["(in, in, out) hidden", VECTOR]),
        (
            "heads",
            {"kernel": ("n", "n//4", 4), "bias": ("n//4", 4)},
            ["(in, out, out) hidden", VECTORS],
        ),
        ("stack", {"kernel": (6, "n", "n"), "bias": (6, "n")}, [HIDDEN, VECTOR]),
        (
            "stack",
            {"kernel": (6, 3, 5, "n"), "bias": (6, "n")},
            [CONV, VECTOR],
        ),
        ("Dense_0", {"kernel": (6, "n", "n")}, [HIDDEN]),
        (
            "ConvTranspose_0",
            {"kernel": (3, "n", 5), "bias": ("n",)},
            ["(in, out, in) embedding", VECTOR],
        ),
        ("Embed_0", {"embedding": (50, "n")}, [EMBEDDING]),
        ("LayerNorm_0", {"scale": ("n",), "bias": ("n",)}, [VECTOR] * 2),
        ("norms", {"scale": (6, "n"), "bias": (6, "n")}, [VECTOR] * 2),
        ("RMSNorm_0", {"scale": ("n",)}, [VECTOR]),
    ],
)
def test_layers_of_linen(name: str, layer: dict[str, Any], expected: list[str]):
    found = roles_of({"params": {"Block_0": {name: layer}}})
    path = f"params/Block_0/{name}"
    assert found == {f"{path}/{key}": one for key, one in zip(layer, expected, strict=True)}


def asked(shapes: dict[str, Any], **options) -> str:
    with pytest.raises(ValueError) as caught:
        roles_of(shapes, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("shapes", "path"),
    [
        # The bias has the size of the other axis: this kernel is applied from the left.
        ({"params": {"Dense_0": {"kernel": ("n", 5), "bias": ("n",)}}}, "kernel"),
        # A kernel with a bias of no size at all like its own.
        ({"params": {"Dense_0": {"kernel": ("n", 5), "bias": (7,)}}}, "kernel"),
        # Not the arrays of a layer.
        ({"params": {"Dense_0": {"kernel": (5, "n"), "table": ("n",)}}}, "kernel"),
        # Nothing but its own name speaks for Flax.
        ({"mine": {"kernel": (5, "n")}}, "kernel"),
        ({"mine": {"embedding": (50, "n")}}, "embedding"),
        # The rows grow, and not the columns.
        ({"params": {"Embed_0": {"embedding": ("n", 50)}}}, "embedding"),
        # A convolution or heads.
        ({"params": {"mine": {"kernel": (3, 5, "n")}}}, "kernel"),
        # Six layers from 6 to n, or one from 6 to (6, n)?
        ({"params": {"mine": {"kernel": (6, 6, "n"), "bias": (6, "n")}}}, "kernel"),
        ({"linear": {"w": (5, "n")}}, "w"),
        ({"mine": {"w": ("n", 5), "b": ("n",)}}, "w"),
        ({"mine": {"scale": (6, "n"), "bias": (6, "n")}}, "scale"),
    ],
)
def test_where_shapes_leave_it_open_names_do_not_decide(shapes: dict[str, Any], path: str):
    message = asked(shapes)
    assert f"/{path}: shape" in message
    assert "cannot be told from the growth" in message


def test_a_name_never_overrules_the_shapes():
    """A kernel whose bias says that it is stored the other way round keeps its axes' order."""
    found = roles_of({"Dense_0": {"kernel": ("3*n", "n"), "bias": ("3*n",)}})
    assert found["Dense_0/kernel"] == "(out, in) hidden"
    assert (
        roles_of({"Dense_0": {"kernel": ("n", "3*n"), "bias": ("3*n",)}})["Dense_0/kernel"]
        == HIDDEN
    )


def test_layouts_go_before_names():
    shapes = {"params": {"Dense_0": {"kernel": (5, "n"), "bias": ("n",)}}}
    found = roles_of(shapes, layouts={"*/kernel": ("out", "in")})
    assert found["params/Dense_0/kernel"] == "(out, in) readout"


ATTENTION = {
    **{name: {"kernel": ("n", "n//4", 4)} for name in ("query", "key", "value")},
    "out": {"kernel": ("n//4", 4, "n")},
}


def test_attention_of_linen_without_biases():
    found = roles_of({"attention": ATTENTION})
    expected = dict.fromkeys(("key", "query", "value"), "(in, out, out) hidden")
    expected |= {"out": "(in, in, out) hidden"}
    assert found == {f"attention/{name}/kernel": one for name, one in expected.items()}
    # One projection alone may be anything.
    assert "query/kernel: shape" in asked({"attention": {"query": ATTENTION["query"]}})


def test_heads_of_linen_that_grow_are_asked_about():
    grown = {name: {"kernel": ("n", 2, "n//2")} for name in ("query", "key", "value")}
    shapes = {"params": {"a": {**grown, "out": {"kernel": (2, "n//2", "n")}}}}
    message = asked(shapes)
    assert "params/a: the heads of this attention of Flax grow from 4 to 8" in message
    assert "factors={'params/a/query/*': \"1/2\"}" in message
    roles_of(shapes, factors={"params/a/query/*": "1/2"})


# Collections that are not trained


@pytest.mark.parametrize("collection", ["batch_stats", "cache", "intermediates"])
def test_collections_beside_the_parameters_are_left_alone(collection: str):
    shapes = {
        "params": {"Dense_0": DENSE},
        collection: {"x": {"mean": ("n",), "big": (2, "n", "n")}},
    }
    found = roles_of(shapes)
    assert found[f"{collection}/x/mean"] == found[f"{collection}/x/big"] == "buffer"
    assert found["params/Dense_0/kernel"] == HIDDEN
    # Without parameters beside it, it is a name like any other.
    alone = asked({"x": {"Dense_0": DENSE}, collection: {"x": {"mean": ("n",)}}})
    assert f"{collection}/x/mean: shape" in alone


def test_the_moving_averages_of_haiku_are_left_alone():
    def make(width: int, dtype: str = "int32"):
        counter = jnp.zeros((), dtype)
        shape = (1, 1, 1, width)
        average = {"hidden": jnp.zeros(shape), "average": jnp.ones(shape), "counter": counter}
        return (
            {"batch_norm": {"scale": jnp.ones(shape), "offset": jnp.zeros(shape)}},
            {"batch_norm/~/mean_ema": average},
        )

    model = scaled(make)
    assert said(model) == {
        "0/batch_norm/scale": "(out, out, out, out) vector",
        "0/batch_norm/offset": "(out, out, out, out) vector",
        "1/batch_norm/~/mean_ema/hidden": "buffer",
        "1/batch_norm/~/mean_ema/average": "buffer",
    }
    with pytest.raises(ValueError, match="mean_ema/hidden: shape"):
        scaled(lambda n: make(n, "float32"))


def test_new_statistics_replace_the_old_ones():
    """As the page says: a model's own step of them, in the weights that hold them."""

    def make(width: int):
        return tree({"params": {"Dense_0": DENSE}, "batch_stats": {"mean": ("n",)}}, width)

    model = scaled(make)
    new = {"mean": jnp.arange(float(WIDTH))}
    put = lambda weight, x: sx.Weight(x, weight.spec)  # noqa: E731
    model["batch_stats"] = sx.map_weights(put, model["batch_stats"], new)
    assert np.array_equal(sx.resolve(model)["batch_stats"]["mean"], new["mean"])
    assert jax.tree.structure(model) == jax.tree.structure(scaled(make))


@pytest.mark.parametrize(
    ("collection", "kept"),
    [
        ("params", {"Dense_0/kernel/scale": ("n",)}),
        ("batch_stats", {"Dense_0/kernel/u": (1, "n"), "Dense_0/kernel/sigma": ()}),
    ],
)
def test_kernels_that_linen_normalises_are_refused(collection: str, kept: dict[str, Any]):
    def shapes(kept: dict[str, Any]) -> dict[str, Any]:
        trees: dict[str, Any] = {"params": {"Dense_0": DENSE}, "batch_stats": {}}
        trees[collection]["Wrap"] = kept
        return trees

    given = {"layouts": {"*/scale": ("out",)}} if collection == "params" else {}
    message = asked(shapes(kept), **given)
    assert "params/Dense_0/kernel: under Linen's Wrap, which normalises the weight" in message
    found = roles_of(shapes(kept), frozen=["params/Dense_0/*"], **given)
    assert found["params/Dense_0/kernel"] == "buffer"
    other = {key.replace("_0", "_1"): shape for key, shape in kept.items()}
    assert roles_of(shapes(other), **given)["params/Dense_0/kernel"] == HIDDEN


# Haiku


@pytest.mark.parametrize(
    ("name", "layer", "expected"),
    [
        ("linear", {"w": (5, "n"), "b": ("n",)}, [EMBEDDING, VECTOR]),
        ("mine", {"w": ("n", 5), "b": (5,)}, [READOUT, "(out,) constant"]),
        ("mlp/~/linear_1", {"w": ("n", 5)}, [READOUT]),
        ("multi_head_attention/query", {"w": ("n", "n")}, [HIDDEN]),
        ("conv2_d", {"w": (3, 3, 5, "n"), "b": ("n",)}, [CONV2, VECTOR]),
        (
            "conv2_d",
            {"w": (3, 3, 5, "n"), "b": ("n", 1, 1)},
            [CONV2, "(out, out, out) vector"],
        ),
        (
            "conv2_d_transpose",
            {"w": (3, 3, "n", 5), "b": ("n",)},
            ["(in, in, out, in) embedding", VECTOR],
        ),
        ("lstm/linear", {"w": ("n+5", "4*n"), "b": ("4*n",)}, [HIDDEN, VECTOR]),
        (
            "gru",
            {"w_i": (5, "3*n"), "w_h": ("n", "3*n"), "b": ("3*n",)},
            [EMBEDDING, HIDDEN, VECTOR],
        ),
        ("layer_norm", {"scale": ("n",), "offset": ("n",)}, [VECTOR] * 2),
        ("embed", {"embeddings": (50, "n")}, [EMBEDDING]),
    ],
)
def test_layers_of_haiku(name: str, layer: dict[str, Any], expected: list[str]):
    found = roles_of({name: layer})
    assert found == {f"{name}/{key}": one for key, one in zip(layer, expected, strict=True)}


# The real ones


def test_modules_of_linen():
    nn = pytest.importorskip("flax.linen")

    class Model(nn.Module):
        width: int

        @nn.compact
        def __call__(self, tokens, images):
            width = self.width
            x = nn.Embed(10, width)(tokens)
            x = nn.MultiHeadDotProductAttention(width // 4)(nn.LayerNorm()(x))
            stack = nn.scan(
                Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
            )
            x, _ = stack(width)(x, None)
            y = nn.BatchNorm(use_running_average=False)(nn.Conv(width, (3, 3))(images))
            cell = nn.OptimizedLSTMCell(width)
            carry, _ = cell(cell.initialize_carry(KEY, (2, width)), y.mean((1, 2)))
            return nn.Dense(3, use_bias=False, name="head")(x.mean(1) + carry[1])

    class Block(nn.Module):
        width: int

        @nn.compact
        def __call__(self, x, _):
            return x + nn.Dense(self.width)(nn.RMSNorm()(x)), None

    def make(width: int):
        return Model(width).init(KEY, jnp.zeros((2, 4), int), jnp.zeros((2, 5, 5, 3)))

    model = scaled(make, width=BASE)
    found = said(model)
    assert {path for path, one in found.items() if one == "buffer"} == {
        "batch_stats/BatchNorm_0/mean",
        "batch_stats/BatchNorm_0/var",
    }
    heads = "params/MultiHeadDotProductAttention_0"
    cell = "params/OptimizedLSTMCell_0"
    assert found == found | {
        "params/Embed_0/embedding": EMBEDDING,
        f"{heads}/query/kernel": "(in, out, out) hidden",
        f"{heads}/query/bias": VECTORS,
        f"{heads}/out/kernel": "(in, in, out) hidden",
        "params/ScanBlock_0/Dense_0/kernel": HIDDEN,
        "params/ScanBlock_0/Dense_0/bias": VECTOR,
        "params/ScanBlock_0/RMSNorm_0/scale": VECTOR,
        "params/Conv_0/kernel": CONV2,
        f"{cell}/hf/kernel": HIDDEN,
        f"{cell}/if/kernel": HIDDEN,
        "params/head/kernel": READOUT,
    }
    sx.adam(1e-2).init(eqx.filter(model, eqx.is_inexact_array))
