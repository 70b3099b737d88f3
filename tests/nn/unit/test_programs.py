"""What unit scaling adds to a program: multiplications that are fused, and nothing else."""

import re
from collections import Counter
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import scalex_eqx as sx
from scalex_eqx.nn import unit

from ._without_factors import without_factors

# Of numbers: a factor is multiplied with, after it was made as large as the array; the shares of a
# block's branches are looked up and rooted.
OF_NUMBERS = {"multiply", "broadcast_in_dim", "constant", "add", "rsqrt", "negate"}
OF_STACKS = {"dynamic_slice", "dynamic_update_slice", "reshape", "slice", "convert", "compare"}
OF_STACKS |= {"select", "concatenate"}


def operations() -> Counter[str]:
    """How often each operation stands in the gradient's program, functions and loops included."""

    def make(width):
        return unit.Transformer(
            vocabulary_size=16, width=width, depth=2, head_dimension=8, key=jax.random.key(0)
        )

    model = sx.parameterize(make, width=16, parameterization=sx.u_mup)
    tokens = jnp.zeros((2, 9), int)

    def loss(model, tokens):
        return model.loss(tokens[:, :-1], tokens[:, 1:], mapped=1)

    step: Any = eqx.filter_jit(eqx.filter_grad(loss))
    text = step.lower(model, tokens).as_text()
    return Counter(re.findall(r"\bstablehlo\.(?!return)(\w+)", text))


def test_the_factors_add_no_product_and_no_reduction():
    scaled = operations()
    with without_factors():
        plain = operations()
    added = scaled - plain
    assert set(added) <= OF_NUMBERS | OF_STACKS, added
    assert added["multiply"] > 20 and scaled["dot_general"] == plain["dot_general"] > 20
    # Nothing is saved by it either, but for a root of what is one.
    assert sum((plain - scaled).values()) < 0.05 * plain.total(), plain - scaled
