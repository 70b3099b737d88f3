"""Blocks whose activations are computed again in the backward pass."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from .._sharding import of_sequences


class Stack(eqx.Module):
    """A model whose blocks are stacked, and run by a `scan`.

    `recomputes` says whether the backward pass computes a block's activations again from its input,
    instead of keeping them; [`scalex_eqx.nn.recompute_blocks`][] sets it.
    """

    unroll: eqx.AbstractVar[int]
    recomputes: eqx.AbstractVar[bool]


def run_blocks(
    model: Stack, blocks: PyTree, step: Callable[[Any, Array], tuple[Array, Any]], x: Array
) -> tuple[Array, Any]:
    """`step(block, x)` for one block after the other, and what each puts out beside `x`."""
    arrays, static = eqx.partition(blocks, eqx.is_array)

    def one(x: Array, arrays: PyTree) -> tuple[Array, Any]:
        y, more = step(eqx.combine(arrays, static), of_sequences(x))
        return of_sequences(y), more

    if model.recomputes:
        # In a loop of single blocks the compiler can't see that both passes compute the same.
        one = jax.checkpoint(one, prevent_cse=model.unroll > 1)
    return jax.lax.scan(one, x, arrays, unroll=model.unroll)


def recompute_blocks(model: PyTree) -> PyTree:
    """The model, with each stack of blocks keeping only the blocks' inputs for the backward pass.

    The memory of the activations falls from that of all blocks to that of one, and one more
    forward pass is computed. Values and gradients are the same, up to rounding.

    **Arguments:**

    - `model`: holds a [`scalex_eqx.nn.Transformer`][], [`scalex_eqx.nn.Decoder`][] or
        [`scalex_eqx.nn.unit.Transformer`][].

    **Raises:** `ValueError` if it holds none. Blocks of your own take `jax.checkpoint`.
    """
    found = []

    def recomputing(node: Any) -> Any:
        if not is_stack(node):
            return node
        found.append(node)
        new = object.__new__(type(node))
        for field in dataclasses.fields(node):
            value = True if field.name == "recomputes" else getattr(node, field.name)
            object.__setattr__(new, field.name, value)
        return new

    def is_stack(node: Any) -> bool:
        return isinstance(node, Stack)

    model = jax.tree.map(recomputing, model, is_leaf=is_stack)
    if not found:
        raise ValueError(
            "the model has no stack of blocks, a scalex_eqx.nn.Transformer or Decoder, whose "
            "activations could be computed again; put jax.checkpoint around its own blocks"
        )
    return model
