"""How weights are split over a mesh, by the names of their axes; no device is needed for it."""

from functools import partial

import equinox as eqx
import jax
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec as P

import scalex_eqx as sx
from scalex_eqx._weight import is_trainable

KEY = jax.random.key(0)


def mesh(**sizes: int) -> AbstractMesh:
    kinds = (AxisType.Auto,) * len(sizes)
    return AbstractMesh(tuple(sizes.values()), tuple(sizes), axis_types=kinds)


def block(width, key):
    attention, mlp = jax.random.split(key)
    return sx.nn.DecoderBlock(
        attention_norm=sx.nn.RMSNorm(width),
        attention=sx.nn.GroupedQueryAttention(
            width, head_dimension=4, key_value_heads=2, key=attention
        ),
        mlp_norm=sx.nn.RMSNorm(width),
        mlp=sx.nn.MixtureOfExperts(width, 2 * width, experts=4, top_k=2, key=mlp),
    )


@pytest.fixture(scope="module")
def decoder():
    def make(width):
        return sx.nn.Decoder(
            vocabulary_size=16, width=width, depth=3, block=partial(block, width), key=KEY
        )

    return scaled(make)


def scaled(make):
    """The shapes of a model with its laws."""

    def build():
        model = sx.parameterize(make, width=32, base_width=16, parameterization=sx.mup)
        return eqx.filter(model, eqx.is_array)

    return jax.eval_shape(build)


def partitions(tree, mesh, *rules):
    found = sx.weights_with_paths(sx.shardings(tree, mesh, *rules))
    return {path: w.value.spec for path, w in found.items() if w.value is not None}


# By hand, from what each axis is: blocks in front, then experts, then out and in.
EXPECTED = {
    "token_embedding/weight": P("tensor", "shard"),
    "blocks/attention_norm/gain": P(None, "shard"),
    "blocks/attention/query/weight": P(None, "tensor", "shard"),
    "blocks/attention/key/weight": P(None, None, "shard"),
    "blocks/attention/output/weight": P(None, "shard", "tensor"),
    "blocks/mlp/router/weight": P(None, None, "shard"),
    "blocks/mlp/experts/up/weight": P(None, "expert", "tensor", "shard"),
    "blocks/mlp/experts/down/weight": P(None, "expert", "shard", "tensor"),
    "readout/weight": P("tensor", "shard"),
}


def test_each_axis_is_split_by_its_rule(decoder):
    found = partitions(decoder, mesh(data=2, shard=2, tensor=2, expert=2))
    assert {path: found[path] for path in EXPECTED} == EXPECTED
    whole = partitions(decoder, mesh(data=16))
    assert all(spec == P(*[None] * len(spec)) for spec in whole.values())


@pytest.fixture(scope="module")
def masked():
    """A Transformer with its laws and masks, as shapes."""

    def make(width):
        return sx.nn.Transformer(
            vocabulary_size=16, sequence_length=8, width=width, depth=2, head_dimension=4, key=KEY
        )

    def build():
        model = sx.parameterize(make, width=32, base_width=16, parameterization=sx.mup)
        return eqx.filter(sx.sparsify(model, "1/4", key=KEY), eqx.is_array)

    return jax.eval_shape(build)


@pytest.mark.parametrize(
    "tx",
    [
        sx.adam(1e-2),
        sx.muon(1e-2),
        optax.chain(sx.clip_by_effective_norm(1.0), sx.sgd(1e-2, momentum=0.9)),
    ],
    ids=["adam", "muon", "sgd"],
)
def test_moments_and_masks_lie_as_their_weights(masked, tx):
    split = mesh(shard=8, tensor=2)
    places = sx.shardings(masked, split)
    up = places.blocks.mlp.up.weight
    assert up.value.spec == up.mask.spec == P(None, "tensor", "shard")
    own = partitions(masked, split)
    state = jax.eval_shape(tx.init, eqx.filter(masked, is_trainable))
    moments = partitions(state, split)
    assert len(moments) >= len(own)
    for path, spec in moments.items():
        (weight,) = (name for name in own if path.endswith(f"/{name}"))
        assert spec == own[weight], path


def test_statistics_of_rows_and_columns_are_split_where_they_are_long(masked):
    state = jax.eval_shape(
        sx.adafactor(1e-2, min_factored_size=16).init, eqx.filter(masked, is_trainable)
    )
    found = partitions(state, mesh(shard=2, tensor=2))
    path = "blocks/mlp/up/weight"
    # Means over inputs, and over outputs: (2, 128, 1) and (2, 1, 32).
    assert found[f"0/row/{path}"] == P(None, "tensor", None)
    assert found[f"0/column/{path}"] == P(None, None, "shard")


def test_modules_of_others_are_split_by_their_roles():
    """Equinox's own layers: what their roles are was read from their shapes, or from their use."""

    def make(width):
        return eqx.nn.MLP(8, 4, width, depth=2, key=KEY)

    found = partitions(scaled(make), mesh(shard=2, tensor=2))
    assert found["layers/0/weight"] == P("shard", "tensor")
    assert found["layers/1/weight"] == P("tensor", "shard")
    assert found["layers/2/weight"] == P("tensor", "shard")
    assert found["layers/1/bias"] == P("shard")


def test_a_mesh_that_divides_no_axis_is_refused_by_its_name(decoder):
    with pytest.raises(ValueError) as error:
        sx.shardings(decoder, mesh(expert=3, tensor=5))
    said = str(error.value)
    assert said.startswith("the mesh expert=3, tensor=5 doesn't split all weights evenly:")
    assert "blocks/mlp/experts/up/weight: its axis experts of 4 is split over expert=3" in said
    assert "token_embedding/weight: its axis vocabulary of 16 is split over tensor=5" in said
    assert "attention_norm" not in said


def test_rules_of_ones_own(decoder):
    rules = {**sx.SHARDING_RULES, "key_value_heads": ("tensor",), "vocabulary": ()}
    found = partitions(decoder, mesh(tensor=2), rules)
    assert found["blocks/attention/key/weight"] == P(None, "tensor", None)
    assert found["readout/weight"] == P(None, None)
    with pytest.raises(ValueError, match="tensor would split both inner and width"):
        sx.shardings(decoder, mesh(tensor=2), {**rules, "width": ("tensor",)})
    with pytest.raises(ValueError, match=r"'width' is 'tensor'; expected names"):
        sx.shardings(decoder, mesh(tensor=2), {"width": "tensor"})


def test_names_are_checked_and_are_no_part_of_the_law(decoder):
    layer = sx.nn.Linear(4, 8, use_bias=True, key=KEY)
    named = sx.nn.named_axes(layer, "inner", "width")
    assert (named.weight.spec.axes, named.bias.spec.axes) == (("inner", "width"), ("inner",))
    assert sx.fingerprint(named) == sx.fingerprint(layer)
    with pytest.raises(ValueError, match=r"axes is \('width',\); expected a tuple of at least 2"):
        sx.WeightSpec(fan_in=(-1,), fan_out=(-2,), axes=("width",))


def test_arrays_are_placed_and_the_rest_is_left_alone():
    one = jax.make_mesh((1,), ("shard",), axis_types=(AxisType.Explicit,))
    placed = sx.shard({"layer": sx.nn.Linear(4, 8, key=KEY), "name": "a"}, one)
    assert placed["name"] == "a"
    weight = placed["layer"].weight.value
    assert weight.sharding.mesh == one and tuple(weight.sharding.spec) == (None, None)
