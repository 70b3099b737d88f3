"""roles, layouts, factors and frozen: what they choose, and what is refused."""

import dataclasses
import functools
import itertools
import re
from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx import Role, Weight, WeightSpec

KEY = jax.random.key(0)
BASE, WIDTH = 8, 32


def scaled(make, parameterization=sx.mup, width: int = WIDTH, **options):
    return sx.parameterize(
        make, width=width, base_width=BASE, parameterization=parameterization, **options
    )


def expect_error(*parts: str):
    return pytest.raises(ValueError, match="(?s)" + ".*".join(map(re.escape, parts)))


def specs(model) -> dict[str, WeightSpec]:
    return {path: weight.spec for path, weight in sx.weights_with_paths(model).items()}


class Dense(eqx.Module):
    """A third-party layer: (in, out), and an embedding of positions."""

    kernel: jax.Array
    position: jax.Array
    linear: eqx.nn.Linear

    def __init__(self, rows: int, columns: int):
        self.kernel = jnp.ones((rows, columns))
        self.position = jnp.ones((5, columns))
        self.linear = eqx.nn.Linear(columns, columns, key=KEY)


class Wide(Dense):
    """A subclass."""

    def __init__(self, rows: int, columns: int):
        super().__init__(rows, columns)


def make(width: int):
    return {"first": Dense(3, width), "second": Wide(width, 2 * width)}


LAYOUTS = {Dense: {"kernel": ("in", "out"), "position": ("in", "out")}}


# The keys


@pytest.mark.parametrize(
    "layouts",
    [
        LAYOUTS,
        {"*/kernel": ("in", "out"), "*/position": ["in", "out"]},
        {"first/*n*l": ("in", "out"), Wide: {"kernel": ("in", "out")}, "*/pos*": ("in", "out")},
        lambda path, x: ("in", "out") if x.ndim == 2 and "linear" not in path else None,
    ],
)
def test_paths_types_and_functions_choose(layouts):
    found = specs(scaled(make, layouts=layouts))
    assert {path: spec.role for path, spec in found.items()} == {
        "first/kernel": Role.embedding,
        "first/position": Role.embedding,
        "first/linear/weight": Role.hidden,
        "first/linear/bias": Role.vector,
        "second/kernel": Role.hidden,
        "second/position": Role.embedding,
        "second/linear/weight": Role.hidden,
        "second/linear/bias": Role.vector,
    }
    assert found["second/kernel"].fan_in == (-2,)
    assert found["second/linear/weight"].fan_in == (-1,)


def test_a_type_stands_for_all_arrays_in_its_modules():
    found = specs(scaled(make, layouts=LAYOUTS, factors={Wide: 1, "first/linear/*": "1/2"}))
    assert {path: spec.factor_exponent for path, spec in found.items()} == {
        path: Fraction(1) if "second" in path else Fraction("linear" in path, 2) for path in found
    }


def test_keys_that_match_nothing_are_listed_with_what_is_near():
    with expect_error(
        "frozen['first/linear/wieght'] matches no array of the model; there are first/linear/we",
        "roles['nothing/*'] matches no array",
        "layouts[Conv] matches no array of the model; there are",
        "factors[Dense]['kernl'] matches no array",
    ):
        scaled(
            make,
            roles={"nothing/*": "hidden"},
            layouts={**LAYOUTS, eqx.nn.Conv: ("out",)},
            factors={Dense: {"kernl": 1}},
            frozen=["first/linear/wieght"],
        )


def test_two_keys_that_disagree_are_refused():
    with expect_error("first/kernel: factors['*/kernel'] says 1 and factors[Dense]"):
        scaled(make, layouts=LAYOUTS, factors={"*/kernel": 1, Dense: 2})
    scaled(make, layouts=LAYOUTS, factors={"*/kernel": 1, Dense: "1"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"roles": {"*": "wide"}}, "roles['*']: 'wide' is no role; expected one of embedding"),
        ({"layouts": {"*": ("in", "up")}}, "layouts['*']: ('in', 'up') is no layout; expected"),
        ({"layouts": {"*": "out"}}, "layouts['*']: 'out' is no layout"),
        ({"factors": {"*": 0.5}}, "factors['*']: the exponent is 0.5, of type float"),
        ({"factors": {3: 1}}, "factors has the key 3; expected a path pattern or a module type"),
        ({"frozen": "*"}, "frozen is '*'; expected a collection of keys"),
        ({"frozen": {"*": False}}, "frozen is {'*': False}; expected a collection of keys"),
    ],
)
def test_values_that_make_no_sense(options, message: str):
    with expect_error(message):
        scaled(make, **options)


def test_everything_wrong_is_listed_at_once():
    def make(width: int):
        return {
            "ambiguous": jnp.ones((3, width)),
            "cube": jnp.ones((2, width, width)),
            "growth": jnp.ones((width**2, width)),
            "norm": eqx.nn.WeightNorm(eqx.nn.Linear(width, width, key=KEY)),
            "role": jnp.ones(width),
        }

    with expect_error(
        "factors['x'] matches no",
        "ambiguous: shape (3, 8) at the base width and (3, 16) at the probe width; its role",
        'layouts={"ambiguous": ("in", "out")}, or a readout with',
        '("out", "out")}, where',
        'frozen=["ambiguous"] leaves it as it is',
        "cube: shape (2, 8, 8)",
        "axis -2, axis -1 alone",
        'layouts={"cube": ("out", "in")}',
        "growth: axes (-2,) grow by 4",
        "norm/layer/weight: in an equinox.nn.WeightNorm, which normalises",
        "role: roles says hidden, but its shapes, (8,)",
    ):
        scaled(make, roles={"role": "hidden"}, factors={"x": 1})


# Roles


@pytest.mark.parametrize(
    ("shape", "role", "fans"),
    [
        ((3, -1), "embedding", ((-2,), (-1,))),
        ((3, -1), "readout", ((-1,), (-2,))),
        ((3, -1), "vector", ((), (-1,))),
        ((-1, 3), "embedding", ((-1,), (-2,))),
        ((-1, 3), "readout", ((-2,), (-1,))),
    ],
)
def test_a_role_decides_where_shapes_do_not(shape, role: str, fans):
    def make(width: int):
        return {"w": jnp.ones(tuple(width if size < 0 else size for size in shape))}

    spec = scaled(make, roles={"w": role})["w"].spec
    assert spec.role == role
    assert (spec.fan_in, spec.fan_out) == fans


def test_a_role_that_the_shapes_contradict_must_be_forced():
    def make(width: int):
        return eqx.nn.Linear(width, width, key=KEY)

    with expect_error("weight: roles says readout", "those of hidden", "pass force=True if the"):
        scaled(make, roles={"weight": "readout"})
    forced = specs(scaled(make, roles={"weight": "readout"}, force=True))
    assert forced["weight"].role is Role.readout
    assert forced["bias"].role is Role.vector


def test_a_declared_role_may_be_forced_too():
    def make(width: int):
        return sx.nn.Readout(width, width, key=KEY)

    assert specs(scaled(make, roles={"*": "hidden"}))["weight"].role is Role.hidden
    found = specs(scaled(make, roles={"*": "embedding"}, force=True))
    assert found["weight"].role is Role.embedding


@pytest.mark.parametrize(
    ("shape", "fan_in", "fan_out", "multiplier"),
    [((-1, 3), 4, 1, 0.25**0.5), ((3, -1), 1, 4, 1.0)],
)
def test_an_inner_layer_of_a_fixed_size_is_hidden(shape, fan_in: int, fan_out: int, multiplier):
    """Its law is hidden's in the fan-in that it has, given or declared."""

    def make(width: int):
        return jnp.ones(tuple(width if size < 0 else size for size in shape))

    def declared(width: int):
        return sx.Weight(make(width), sx.WeightSpec((-2,), (-1,), std=1.0, role=Role.hidden))

    said = {"roles": {"w": "hidden"}, "layouts": {"w": ("in", "out")}}
    given = scaled(lambda width: {"w": make(width)}, parameterization=sx.ntk, **said)["w"].spec
    own = scaled(lambda width: {"w": declared(width)}, parameterization=sx.ntk)["w"].spec
    for spec in (given, own):
        assert spec.role is Role.hidden
        assert (spec.size_ratio("fan_in"), spec.size_ratio("fan_out")) == (fan_in, fan_out)
        assert spec.multiplier == multiplier
        assert spec.gradient_power == sx.theory.gradient_power(sx.ntk, Role.hidden)
    with expect_error("w: roles says hidden", "those of vector"):
        scaled(lambda width: {"w": jnp.ones(width)}, roles={"w": "hidden"})


def test_a_readout_of_features_that_stay_has_a_readouts_law():
    """An inner width that grows by itself: nothing that is said of the readout changes with it."""

    def make(width: int):
        keys = jax.random.split(KEY, 3)
        return {
            "up": eqx.nn.Linear(6, width, use_bias=False, key=keys[0]),
            "down": eqx.nn.Linear(width, 6, use_bias=False, key=keys[1]),
            "last": sx.nn.Readout(6, 3, key=keys[2]),
            "own": eqx.nn.Linear(6, 3, use_bias=False, key=keys[2]),
        }

    roles = dict.fromkeys(("up/weight", "down/weight"), "hidden")
    found = specs(scaled(make, roles=roles | {"own/weight": "readout"}, parameterization=sx.mup))
    for name in ("last/weight", "own/weight"):
        spec = found[name]
        assert (spec.role, spec.width_ratio, spec.multiplier) == (Role.readout, 1, 1.0)
    # The gradient comes through a readout that doesn't grow.
    assert found["up/weight"].size_ratio("readout") == 1
    assert found["up/weight"].scale(found["up/weight"].gradient_power) == 4**-0.5
    assert specs(scaled(make, roles=roles))["own/weight"].role is Role.constant


def attention(width: int, heads: int | None = None):
    """With `heads` their number stays, and their dimension grows."""
    return {"layer": eqx.nn.MultiheadAttention(heads or width // 4, width, key=KEY)}


def test_heads_that_grow_ask_for_the_scale_of_their_logits():
    few = functools.partial(attention, heads=2)
    key = "layer/query_proj/weight"
    with expect_error("layer: the heads of this MultiheadAttention grow from", f'{key}\': "1/2"'):
        scaled(few)
    assert specs(scaled(few, factors={key: "1/2"}))[key].factor_exponent == Fraction(1, 2)
    assert specs(scaled(few, factors={key: 0}))[key].factor_exponent == 0
    assert specs(scaled(attention))[key].factor_exponent == 0


@pytest.mark.parametrize("scale", ["1/sqrt(d)", "1/d"])
def test_the_same_of_the_librarys_own(scale):
    def make(width: int):
        return sx.nn.CausalSelfAttention(
            width, head_dimension=width // 2, logit_scale=scale, key=KEY
        )

    if scale == "1/d":
        assert specs(scaled(make))["query/weight"].role is Role.hidden
        return
    with expect_error("the model itself: the heads of this CausalSelfAttention", 'scale="1/d"'):
        scaled(make)


def test_force_does_not_cover_axes_that_grow_at_another_rate():
    with expect_error("w: axes (-2,) grow by 4"):
        scaled(lambda n: {"w": jnp.ones((n * n, n))}, roles={"w": "hidden"}, force=True)


# Layouts


@pytest.mark.parametrize(
    ("layout", "role", "stack"),
    [
        (("out", "in"), Role.hidden, (0,)),
        (("in", "out", "in"), Role.hidden, ()),
        (("out", "out", "in"), Role.hidden, ()),
        (("out", "out", "out"), Role.vector, ()),
        (("out",), None, ()),
    ],
)
def test_layouts_of_three_axes(layout, role, stack):
    def make(width: int):
        return {"w": jnp.ones((2, width, width))}

    if role is None:
        with expect_error("w: "):
            scaled(make, layouts={"w": layout})
    else:
        spec = scaled(make, layouts={"w": layout})["w"].spec
        assert (spec.role, spec.stack_axes(3)) == (role, stack)


def test_a_layout_precedes_what_is_known_of_a_module():
    class Transposed(eqx.nn.Linear):
        def __init__(self, width: int):
            super().__init__(5, width, use_bias=False, key=KEY)

    assert specs(scaled(Transposed))["weight"].role is Role.embedding
    layouts = {Transposed: {"weight": ("in", "out")}}
    assert specs(scaled(Transposed, layouts=layouts))["weight"].role is Role.readout


def test_a_layout_without_axes_makes_a_stack_of_scalars():
    model = scaled(lambda n: {"s": jnp.ones(3), "v": jnp.ones(n)}, layouts={"s": ()})
    assert model["s"].spec.stack_axes(1) == (0,)
    with expect_error("v: stack axes change with the width"):
        scaled(lambda n: {"v": jnp.ones(n)}, layouts={"v": ()})


def test_layouts_that_cannot_be():
    with expect_error("w: the layout ('out', 'in') is for at least 2 axes, but the shapes are (8"):
        scaled(lambda n: {"w": jnp.ones(n)}, layouts={"w": ("out", "in")})
    own = Weight(jnp.ones((BASE, BASE)), WeightSpec((-1,), (-2,), std=1.0))
    with expect_error("layouts gives ('in', 'out'), but this is a Weight that declares fan_in"):
        scaled(lambda _: {"w": own}, layouts={"w": ("in", "out")})
    assert scaled(lambda _: {"w": own}, layouts={"w": ("out", "in")})["w"].spec.fan_in == (-1,)


# Factors


@pytest.mark.parametrize("own", [False, True])
def test_a_factor_is_in_the_forward_pass_only(own: bool):
    """muP of a hidden weight: a = 0, b = 1/2, g = 1."""

    def make(width: int):
        layer = sx.nn.Linear if own else eqx.nn.Linear
        return layer(width, width, use_bias=False, key=KEY)

    plain, model = scaled(make).weight, scaled(make, factors={"weight": "1/2"}).weight
    assert np.array_equal(plain.value, model.value)
    assert (plain.spec.multiplier, model.spec.multiplier) == (1.0, 4**-0.5)
    assert (plain.spec.gradient_exponent, model.spec.gradient_exponent) == (1, Fraction(3, 2))
    expected = np.asarray(plain.value, np.float64) / 2
    np.testing.assert_allclose(sx.effective(model), expected, rtol=1e-6)
    assert model.spec.std == plain.spec.std


def test_at_the_base_width_a_factor_is_one():
    model = scaled(lambda n: {"v": jnp.ones(n)}, width=BASE, factors={"v": 3})
    assert model["v"].spec.multiplier == 1.0


# Frozen arrays


def frozen_model(width: int):
    keys = jax.random.split(KEY, 2)
    return {
        "encoder": eqx.nn.Linear(width, width * width, key=keys[0]),
        "head": eqx.nn.Linear(width, 2, key=keys[1]),
        "table": jnp.ones((3, width, width)),
    }


@pytest.mark.parametrize(
    "frozen",
    [
        ["encoder/*", "table"],
        {"*e*r/*", "tab?e"},
        lambda path, _: not path.startswith("head"),
    ],
)
def test_frozen_arrays_stay_and_have_no_gradient(frozen):
    """Whatever their shapes."""
    model = scaled(frozen_model, sx.mean_field, frozen=frozen)
    assert {path for path, s in specs(model).items() if s.role is Role.buffer} == {
        "encoder/weight",
        "encoder/bias",
        "table",
    }
    sx.require_complete(model)
    plain = frozen_model(WIDTH)
    assert np.array_equal(model["encoder"].weight.value, plain["encoder"].weight)
    assert model["encoder"].weight.spec.multiplier == 1.0
    assert np.array_equal(sx.resolve(model)["encoder"].weight, plain["encoder"].weight)

    def loss(model):
        model = sx.resolve(model)
        return jnp.sum(model["encoder"](jnp.ones(WIDTH))) + jnp.sum(model["head"].weight)

    gradient = eqx.filter_grad(loss)(model)
    assert not np.any(gradient["encoder"].weight.value)
    assert np.all(np.asarray(gradient["head"].weight.value) != 0)


def test_a_type_may_be_frozen():
    model = scaled(lambda n: eqx.nn.MLP(3, 2, n, 1, key=KEY), frozen=[eqx.nn.Linear])
    assert not any(spec.is_trained for spec in specs(model).values())
    assert Role.buffer not in {spec.role for spec in specs(model).values()}


def test_a_weight_may_declare_that_it_is_not_trained():
    def make(width: int):
        buffer = Weight(jnp.ones((3, width * width)), WeightSpec((), (-1,), role=Role.buffer))
        return {"mask": buffer, "w": sx.nn.Linear(width, width, key=KEY)}

    model = scaled(make)
    assert model["mask"].spec.role is Role.buffer
    assert model["mask"].spec.gradient_exponent == 0
    assert jax.grad(lambda w: jnp.sum(sx.effective(w)))(model["mask"]).value.any() == np.False_


def test_a_buffer_has_no_law_beside():
    with expect_error("second/kernel: not trained, so that it has no scaling law, but factors"):
        scaled(
            make,
            layouts=LAYOUTS,
            roles={"second/kernel": "buffer"},
            factors={"second/kernel": 1},
            frozen={"first/*"},
        )


PARAMETERIZATIONS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)


@pytest.mark.parametrize("width", [BASE, 3 * BASE])
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_a_frozen_weight_is_the_trained_one_without_its_training(parameterization, width: int):
    options = {"layouts": LAYOUTS, "factors": {"first/kernel": "1/2"}}
    plain = scaled(make, parameterization, width, **options)
    model = scaled(make, parameterization, width, frozen=["first/*"], **options)
    for path, weight in sx.weights_with_paths(model).items():
        other = sx.weights_with_paths(plain)[path]
        assert np.array_equal(weight.value, other.value)
        assert np.array_equal(sx.effective(weight), sx.effective(other))
        assert weight.spec == dataclasses.replace(other.spec, frozen=path.startswith("first"))
    gradient = jax.grad(lambda w: jnp.sum(sx.effective(w)))(model["first"].kernel)
    assert not np.any(gradient.value)
    state = sx.adam(1e-2).init(eqx.filter(model, eqx.is_inexact_array))
    moments = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, Weight))
    frozen = [w for w in moments if isinstance(w, Weight) and w.spec.frozen]
    assert frozen and all(w.value is None for w in frozen)
    assert sx.fingerprint(model) != sx.fingerprint(plain)


def test_a_frozen_array_that_an_option_speaks_of_must_have_that_law():
    with expect_error("table: shape", 'or give it the role "buffer"'):
        scaled(frozen_model, frozen=["encoder/*", "table"], roles={"table": "embedding"})


def test_freezing_and_unfreezing():
    model = scaled(make, layouts=LAYOUTS)
    frozen = sx.freeze(model, lambda path, _: "linear" not in path)
    trained = {path for path, spec in specs(frozen).items() if spec.is_trained}
    assert trained == {path for path in specs(model) if "linear" in path}
    for one, other in zip(jax.tree.leaves(frozen), jax.tree.leaves(model), strict=True):
        assert one is other
    assert jax.tree.structure(sx.unfreeze(frozen, ["*"])) == jax.tree.structure(model)
    assert sx.freeze(model, [Wide])["second"].kernel.spec.frozen
    with expect_error("freeze['first/kernal'] matches no array of the model; there are first/ker"):
        sx.freeze(model, ["first/kernal"])
    with expect_error("unfreeze is given no weight of the model"):
        sx.unfreeze(model, lambda path, _: False)
    with expect_error("weights whose spec is not completed"):
        sx.freeze(sx.nn.Linear(4, 4, key=KEY), ["*"])


def test_a_buffer_stays_one():
    model = scaled(make, layouts=LAYOUTS, roles={"first/kernel": "buffer"})
    assert specs(sx.freeze(model, ["first/*"]))["first/kernel"] == specs(model)["first/kernel"]
    with expect_error("unfreeze['first/kernel'] matches no array"):
        sx.unfreeze(model, ["first/kernel"])


def test_a_layer_that_normalises_its_weight_may_be_frozen():
    def make(width: int):
        return {
            "norm": eqx.nn.WeightNorm(eqx.nn.Linear(width, width, key=KEY)),
            "head": eqx.nn.Linear(width, 2, key=KEY),
        }

    with expect_error("norm/layer/weight: in an equinox.nn.WeightNorm", "norm/g: in an equinox"):
        scaled(make)
    model = sx.resolve(scaled(make, frozen=[eqx.nn.WeightNorm]))
    x = jnp.ones(WIDTH)
    assert np.array_equal(model["norm"](x), make(WIDTH)["norm"](x))


def test_spectral_norm_is_refused():
    def make(width: int):
        linear = eqx.nn.Linear(width, width, key=KEY)
        return eqx.nn.make_with_state(eqx.nn.SpectralNorm)(linear, "weight", key=KEY)

    with expect_error("0/layer/weight: in an equinox.nn.SpectralNorm, which normalises"):
        scaled(make)


# What an error suggests


def shapes_to_read():
    """Every shape of up to four axes and every set of them that grows, where a choice is left."""
    for axes in (2, 3, 4):
        for grows in itertools.product((False, True), repeat=axes):
            if any(grows) and not (axes == 2 and all(grows)):
                yield grows


@pytest.mark.parametrize("grows", list(shapes_to_read()), ids=str)
def test_every_suggestion_is_accepted_and_is_what_it_says(grows):
    """It is pasted as it stands in the error."""

    def make(width: int):
        shape = tuple(width if axis else 3 + i for i, axis in enumerate(grows))
        return {"a[0]*": jax.ShapeDtypeStruct(shape, jnp.float32), "v": jnp.ones(width)}

    def built(**options):
        shapes = (make(32), make(8), make(16))
        return sx.parameterize_model(
            *shapes, parameterization=sx.standard, values="keep", **options
        )["a[0]*"].spec

    with pytest.raises(ValueError) as caught:
        built()
    message = str(caught.value)
    found = re.findall(r"(?:it is|or) ([^{]*?) with layouts=(\{.*?\})", message)
    roles = set()
    for said, layouts in found:
        (role,) = [role for role in Role if role in said]
        assert built(layouts=eval(layouts)).role is role
        roles.add(role)
    # Of more axes that grow nothing can be said but that it is used entry by entry.
    expected = {1: {Role.embedding, Role.readout, Role.vector}, 2: {Role.hidden}}
    assert roles == expected.get(sum(grows), {Role.vector})
    if sum(grows) == 1:
        vector = ", ".join(['"out"'] * len(grows))
        assert 'layouts={"a[[]0][*]": (' + vector + ")}" in message
    (frozen,) = re.findall(r"frozen=(\[.*?\"\])", message)
    assert built(frozen=eval(frozen)).role is Role.buffer


def test_flax_attention_and_conv_layouts_are_among_them():
    for shape, layout in {
        (-1, 1, 1): ("out", "out", "out"),
        (-1, 4): ("out", "out"),
        (3, -1, -1): ("out", "out", "in"),
        (-1, -1, 4): ("in", "out", "out"),
        (-1, 4, -1): ("in", "in", "out"),
        (3, 3, -1, -1): ("in", "in", "in", "out"),
        (3, 3, 1, -1): ("in", "in", "in", "out"),
    }.items():
        with expect_error(f'layouts={{"w": {layout}}}'.replace("'", '"')):
            scaled(lambda n, shape=shape: {"w": jnp.ones([n if s < 0 else s for s in shape])})
