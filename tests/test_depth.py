"""Depth ratios: which weights stand in a stack, which end a branch, what they get of the law."""

from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx.theory import Role

KEY = jax.random.key(0)
DEEP = sx.mup.deep(1)


def transformer(width: int, depth: int) -> sx.nn.Transformer:
    return sx.nn.Transformer(
        vocabulary_size=5, sequence_length=4, width=width, depth=depth, head_dimension=2, key=KEY
    )


class Branch(eqx.Module):
    norm: eqx.nn.LayerNorm
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self, width: int, key: Any):
        first, second = jax.random.split(key)
        self.norm = eqx.nn.LayerNorm(width)
        self.up = eqx.nn.Linear(width, 2 * width, key=first)
        self.down = eqx.nn.Linear(2 * width, width, key=second)


class Foreign(eqx.Module):
    """Blocks of Equinox, in a list or stacked for a scan."""

    embedding: eqx.nn.Linear
    blocks: Any
    readout: eqx.nn.Linear

    def __init__(self, width: int, depth: int, stacked: bool):
        first, last, *keys = jax.random.split(KEY, depth + 2)
        self.embedding = eqx.nn.Linear(3, width, key=first)
        self.readout = eqx.nn.Linear(width, 2, key=last)
        if stacked:
            self.blocks = eqx.filter_vmap(lambda key: Branch(width, key))(jnp.stack(keys))
        else:
            self.blocks = [Branch(width, key) for key in keys]


def scaled(make: Any, width: int = 8, depth: int = 8, law: Any = DEEP, **options: Any) -> Any:
    return sx.parameterize(
        make, width=width, base_width=4, depth=depth, base_depth=2, parameterization=law, **options
    )


def specs(model: Any) -> dict[str, sx.WeightSpec]:
    return {path: weight.spec for path, weight in sx.weights_with_paths(model).items()}


def foreign(stacked: bool, **options: Any) -> Any:
    return scaled(lambda w, d: Foreign(w, d, stacked), branches=["*/down/*"], **options)


def test_the_stack_of_a_transformer_is_deep_and_nothing_else():
    found = specs(scaled(transformer))
    deep = {path for path, spec in found.items() if spec.size_ratio("depth") != 1}
    assert deep == {path for path in found if path.startswith("blocks/")}
    assert {found[path].size_ratio("depth") for path in deep} == {Fraction(4)}
    ends = {path for path, spec in found.items() if spec.ends_branch}
    assert ends == {"blocks/attention/output/weight", "blocks/mlp/down/weight"}


@pytest.mark.parametrize("alpha", ["1/2", "3/4", 1])
def test_what_a_weight_gets_of_the_law(alpha: Any):
    """CompleteP's table: branches L^-alpha, rates L^(alpha - 1), epsilons L^-alpha."""
    a = float(Fraction(alpha))
    model = scaled(transformer, width=4, law=sx.mup.deep(alpha))
    rows = {row.path: row for row in sx.plan(model, sx.adam(0.01, eps=1e-8)).rows}
    for path, row in rows.items():
        inside = path.startswith("blocks/")
        ends = path.endswith(("output/weight", "down/weight"))
        assert row.multiplier == pytest.approx(4**-a if ends else 1)
        assert row.learning_rate_factor == pytest.approx(4 ** (a - 1) if inside else 1)
        assert row.eps == pytest.approx(1e-8 * (4**-a if inside else 1))


def test_a_list_and_a_stack_of_foreign_blocks_have_the_specs_of_each_other():
    of_list, of_stack = specs(foreign(stacked=False)), specs(foreign(stacked=True))
    assert len(of_list) == 4 + 8 * 6
    for path, spec in of_list.items():
        parts = path.split("/")
        other = "/".join([parts[0], *parts[2:]]) if parts[0] == "blocks" else path
        assert spec == of_stack[other], path
    down = of_list["blocks/7/down/weight"]
    assert (down.role, down.width_ratio, down.size_ratio("depth")) == (Role.hidden, 2, 4)
    assert down.multiplier == 1 / 4
    assert of_list["blocks/7/down/bias"].multiplier == 1 / 4
    assert of_list["blocks/7/up/bias"].multiplier == 1
    assert not of_list["readout/bias"].sizes


def test_numbered_keys_are_a_list():
    def make(width: int, depth: int) -> Any:
        blocks = {f"block_{i}": {"w": jnp.ones((width, width))} for i in range(depth)}
        return {"in": jnp.ones((width, 3)), "out": jnp.ones((2, width)), **blocks}

    layouts = {"in": ("out", "in"), "out": ("out", "in")}
    found = specs(scaled(make, depth=12, layouts=layouts, branches=["block_*/w"]))
    assert [path for path, spec in found.items() if not spec.sizes] == ["in", "out"]
    assert found["block_11/w"].size_ratio("depth") == 6


def test_at_the_base_depth_nothing_changes():
    base = transformer(4, 2)
    model = scaled(transformer, width=4, depth=2)
    assert eqx.tree_equal(sx.resolve(model), sx.resolve(base))
    assert {spec.multiplier for spec in specs(model).values()} == {1.0}
    without = sx.parameterize(
        lambda width: transformer(width, 2), width=4, base_width=4, parameterization=DEEP
    )
    assert sx.fingerprint(without) == sx.fingerprint(model)


def test_without_a_law_a_declared_branch_says_nothing():
    model = sx.parameterize(
        lambda width: transformer(width, 2), width=8, base_width=4, parameterization=sx.mup
    )
    exported = sx.export_laws(model)["laws"]["blocks/mlp/down/weight"]
    assert not {"branch", "ends_branch", "sizes"} & exported.keys()
    assert "branch" not in repr(model)
    assert "depth" not in str(sx.plan(model, sx.adam(0.01)))
    assert "depth" not in sx.plan(model, sx.adam(0.01)).to_json()


def test_a_spread_that_falls_with_the_depth_is_the_base_models():
    """As the way back of GPT-2's branches is drawn."""

    def make(width: int, depth: int) -> Any:
        model = Foreign(width, depth, stacked=True)
        return eqx.tree_at(lambda m: m.blocks.down.weight, model, replace_fn=lambda w: w / depth)

    model = scaled(make, width=4, depth=8, branches=["*/down/*"])
    base = make(4, 2).blocks.down.weight
    found = model.blocks.down.weight
    assert np.sqrt(np.mean(np.square(found.value))) == pytest.approx(
        float(jnp.sqrt(jnp.mean(jnp.square(base)))), rel=1e-5
    )
    # Outside of the stack, and of what isn't drawn, nothing is moved where the width stays.
    fresh = make(4, 8)
    np.testing.assert_array_equal(model.embedding.weight.value, fresh.embedding.weight)
    np.testing.assert_array_equal(model.blocks.up.bias.value, fresh.blocks.up.bias)


def test_the_plan_names_the_depth():
    text = str(sx.plan(scaled(transformer, width=4), sx.adam(0.01)))
    assert "\ndepth ratio 4 of the 8 weights in stacks of blocks\n" in text


def test_coupled_decay_that_follows_the_depth_is_told():
    def warnings(alpha: Any) -> str:
        tx = sx.adamw(0.01, 0.1, decay_mode="coupled")
        plan = sx.plan(scaled(transformer, width=4, law=sx.mup.deep(alpha)), tx)
        return "\n".join(plan.warnings)

    assert "changes with the depth as the learning rate does: L^-1/2 in stacks" in warnings("1/2")
    assert "depth" not in warnings(1)


def longer(width: int, depth: int) -> Any:
    return {**vars(Foreign(width, depth, stacked=True)), "positions": jnp.ones((3 * depth, width))}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scaled(transformer, law=sx.mup), r"depth is given, but .* use mup\.deep\(1\)"),
        (
            lambda: scaled(lambda w, d: Foreign(w, d, True)),
            r"(?s)no array of the stack ends a residual branch.*branches=\[",
        ),
        (
            lambda: scaled(lambda w, d: Foreign(w, d, True), branches=["*/down/*", "readout/*"]),
            r"(?s)readout/weight: branches says.*readout/bias: branches says",
        ),
        (lambda: scaled(lambda w: transformer(w, 2)), "does not take two arguments"),
        (lambda: scaled(lambda w, d: transformer(w, 2)), "does make.* use its depth"),
        (lambda: scaled(transformer, depth=0), "depth is 0; expected a positive integer"),
        (
            lambda: scaled(longer, branches=["*/down/*"], layouts={"positions": ("in", "out")}),
            r"positions: axis 0 of shape \(6, 4\) grows with the depth",
        ),
        (
            lambda: sx.parameterize(
                transformer, width=8, base_width=4, depth=2, parameterization=DEEP
            ),
            "base_depth is missing",
        ),
        (
            lambda: sx.parameterize(
                lambda w: transformer(w, 2),
                width=8,
                base_width=4,
                branches=["*/down/*"],
                parameterization=sx.mup,
            ),
            "branches is given, but parameterization mup has no law for the depth",
        ),
    ],
)
def test_what_is_refused(call: Any, message: str):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_block_that_is_like_none_is_refused():
    def make(width: int, depth: int) -> Any:
        blocks = [{"w": jnp.ones((width, width))} for _ in range(depth)]
        return [*blocks[:2], *({"other": block["w"]} for block in blocks[2:])]

    with pytest.raises(ValueError, match=r"2/other: only in the deeper model"):
        scaled(make, branches=["*/w"])


def test_conversion_keeps_the_step_of_a_deep_model():
    """The same training in another parameterization: both have the branch's law."""

    def make(width: int, depth: int) -> Any:
        return Foreign(width, depth, stacked=True)

    def loss(model: Any) -> Any:
        model = sx.resolve(model)
        x = jax.vmap(model.embedding)(jnp.eye(3))
        for i in range(4):
            block = jax.tree.map(lambda w, i=i: w[i] if eqx.is_array(w) else w, model.blocks)
            x = x + jax.vmap(block.down)(jnp.tanh(jax.vmap(block.up)(x)))
        return jnp.mean(jnp.square(jax.vmap(model.readout)(x) - 1))

    tx = sx.adam(0.01)
    model = scaled(make, depth=4, law=sx.standard.deep("1/2"), branches=["*/down/*"])
    params = eqx.filter(model, eqx.is_inexact_array)
    state = tx.init(params)
    other, other_state = sx.convert(model, state, to=sx.ntk.deep("1/2"), tx=tx)
    after = []
    for m, s in ((model, state), (other, other_state)):
        for _ in range(2):
            gradient = eqx.filter_grad(loss)(m)
            update, s = tx.update(gradient, s, eqx.filter(m, eqx.is_inexact_array))
            m = eqx.apply_updates(m, update)
        after.append(sx.resolve(m).blocks.down.weight)
    np.testing.assert_allclose(after[0], after[1], rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="exponent of residual branches"):
        sx.convert(model, state, to=sx.ntk, tx=tx)


def test_files_and_laws_know_the_depth(tmp_path: Any):
    model, shallow = (scaled(transformer, width=4, depth=d) for d in (4, 2))
    law = sx.export_laws(model)["laws"]["blocks/mlp/down/weight"]
    assert (law["branch"], law["ends_branch"], law["sizes"]) == ("1", True, {"depth": "2"})
    sx.check_laws(model, sx.export_laws(model))
    with pytest.raises(ValueError, match="blocks/mlp/down/weight"):
        sx.check_laws(model, sx.export_laws(shallow))
    assert sx.fingerprint(model) != sx.fingerprint(shallow)
    path = tmp_path / "model.ckpt"
    sx.save(path, model)
    assert eqx.tree_equal(sx.load(path, model), model)
    frozen = sx.freeze(model, ["blocks/*"])
    assert frozen.blocks.mlp.down.weight.spec.multiplier == 1 / 2
    down = model.blocks.mlp.down.weight
    np.testing.assert_array_equal(sx.resolve(model).blocks.mlp.down.weight, down.value / 2)
