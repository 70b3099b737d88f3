"""How strongly updates, weights and activations point the same way, measured."""

import math
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..ops._wide import wide
from ._capture import Captured, NotFollowed, Use, capture
from ._columns import columns

_USE = re.compile(r"#\d+(?=$|/)")
_Measured = Float[Array, "*stack"] | None


class MeasuredAlignment(eqx.Module):
    r"""One use $z = W x$ of a weight with $n$ terms in its sum, before and after training.

    $W_0, x_0, z_0$ belong to the initial weights, $W = W_0 + \Delta W$, $x = x_0 + \Delta x$ and
    $z$ to those now, and $\|\cdot\|$ is the root mean square of all entries, examples included.

    | field | $\log_n$ of | defined |
    |---|---|---|
    | `alpha` | $\|\Delta W\, x_0\| / (\|\Delta W\| \|x_0\|)$ | always |
    | `omega` | $\|W_0\, \Delta x\| / (\|W_0\| \|\Delta x\|)$ | if the fan-in grows |
    | `u` | $\|\Delta W\, \Delta x\| / (\|\Delta W\| \|\Delta x\|)$ | if the fan-in grows |
    | `total` | $\|W x\| / (\|W\| \|x\|)$ | always |

    1/2 is what independent entries have, 1 is the most there can be; `total` is the paper's
    log-alignment ratio. At a single width these are monitors, not exponents: a constant factor
    of 2 is worth 0.17 at $n = 64$. Where something has not changed they are NaN, where they are
    not defined `None`: `omega` and `u` of an embedding, and all of an elementwise use. A lookup of
    rows counts as the product with one-hot vectors.

    The other fields are sizes, $\|W_0\|$ (multiplier included), $\|\Delta W\|$, $\|x_0\|$,
    $\|\Delta x\|$, $\|z_0\|$, $\|z - z_0\|$. Arrays have one entry for each layer of a stack.

    ??? cite "Source"

        Everett et al. (2024), [arXiv:2407.05872](https://arxiv.org/abs/2407.05872), section 3.
        As there, $\alpha$ is taken with the initial input and $\omega$ with the initial weight.
    """

    alpha: _Measured
    omega: _Measured
    u: _Measured
    total: _Measured
    weight: Float[Array, "*stack"]
    weight_change: Float[Array, "*stack"]
    input: Float[Array, "*stack"]
    input_change: Float[Array, "*stack"]
    output: Float[Array, "*stack"]
    output_change: Float[Array, "*stack"]
    fan_in: int = eqx.field(static=True)


class MeasuredAlignments(eqx.Module):
    """The alignment of every use of every weight; printed, it is a table.

    **Arguments:**

    - `uses`: a `MeasuredAlignment` by the weight's path; a second use of the same weight has `#2`
        behind it.
    - `not_followed`: the weights whose uses were not all found, with the reason.
    - `order`: the names of the uses in the order in which the model reaches them. `jit` sorts
        the keys of `uses`.
    - `flow`: as in `Captured`.
    """

    uses: dict[str, MeasuredAlignment]
    not_followed: tuple[NotFollowed, ...] = eqx.field(static=True)
    order: tuple[str, ...] = eqx.field(static=True)
    flow: tuple[tuple[str, str], ...] = eqx.field(static=True, default=())

    def by_layer(self) -> dict[str, MeasuredAlignment]:
        """NumPy numbers, the layers of a stack apart and numbered behind the path: `path/0`."""
        uses = jax.device_get(self.uses)
        return dict(pair for name in self.order for pair in _layers(name, uses[name]))

    def __str__(self) -> str:
        header = ["weight", "fan-in", "alpha", "omega", "u", "total", "|dW|", "|dx|", "|dz|"]
        rows = [[name, *_cells(use)] for name, use in self.by_layer().items()]
        lost = [f"not followed: {entry.path} {entry.reason}" for entry in self.not_followed]
        return "\n".join([columns([header, *rows]), *lost])


def alignment(
    apply: Callable[..., Any], initial_model: PyTree, model: PyTree, *inputs: Any
) -> MeasuredAlignments:
    r"""Measures $\alpha$, $\omega$ and $u$ of every weight between two states of a model.

    ```python
    measure = eqx.filter_jit(functools.partial(sx.diagnostics.alignment, apply))
    print(measure(initial_model, model, tokens))
    ```

    Two forward passes, and for each product three more of the same shape: about six forward passes
    as measured on a small Transformer. Nothing has to be kept in training but the initial weights,
    so that it can be done every some steps, on any batch.

    Changes are those of the weights as they are used. A forward pass that converts them to a
    short dtype rounds small changes, and what is then measured is the rounding: measure in
    float32.

    **Arguments:**

    - `apply`, `inputs`: as in [`scalex_eqx.diagnostics.capture`][].
    - `initial_model`: the model at initialisation.
    - `model`: the same model now.

    **Returns:** a `MeasuredAlignments`, made of arrays only: it may be returned from `jit`.

    **Raises:** `ValueError` as `capture` does, and if the two models don't use their weights in
    the same way.
    """
    return with_alignment(apply, initial_model, model, *inputs)[1]


def with_alignment(
    apply: Callable[..., Any], initial_model: PyTree, model: PyTree, *inputs: Any
) -> tuple[Any, MeasuredAlignments]:
    """What `apply` returns of the model now, and what `alignment` does."""
    before, now = capture(apply, initial_model, *inputs), capture(apply, model, *inputs)
    _check_same(before, now)
    measured = {
        _name(path, i): _measure(*pair)
        for path, uses in before.uses.items()
        for i, pair in enumerate(zip(uses, now.uses[path], strict=True))
    }
    return now.result, MeasuredAlignments(measured, now.not_followed, tuple(measured), now.flow)


def _measure(before: Use, now: Use) -> MeasuredAlignment:
    weight_change = _difference(now.weight, before.weight)
    output_change = _difference(_output(before, now), before.output)
    alpha = omega = u = total = None
    if before.kind == "lookup":
        # An input of integers has no size of change.
        input_change, input_moved = None, jnp.zeros_like(before.input_size(before.input))
    else:
        input_change = _difference(now.input, before.input)
        input_moved = before.input_size(input_change)
    if before.fan_in > 1:
        alpha = _log_ratio(before, weight_change, before.input)
        total = _total(now)
        if before.fan_in_grows and input_change is not None:
            omega = _log_ratio(before, before.weight, input_change)
            u = _log_ratio(before, weight_change, input_change)
    return MeasuredAlignment(
        alpha=alpha,
        omega=omega,
        u=u,
        total=total,
        weight=before.weight_size(before.weight),
        weight_change=before.weight_size(weight_change),
        input=before.input_size(before.input),
        input_change=input_moved,
        output=before.output_size(before.output),
        output_change=before.output_size(output_change),
        fan_in=before.fan_in,
    )


def _output(before: Use, now: Use) -> Array:
    """What comes out now, of the members that were chosen before.

    Another choice is no change of a weight, nor of what reaches it.
    """
    if before.is_chosen and before.kind != "elementwise":
        return before.contract(now.weight, now.input)
    return now.output


def _log_ratio(use: Use, weight: Array, x: Array) -> Float[Array, "*stack"]:
    return _log(use.ratio(weight, x), use.fan_in)


def _total(use: Use) -> Float[Array, "*stack"]:
    """Like `_log_ratio` of its own weight and input, whose product is there already."""
    operands = use.weight_size(use.weight) * use.input_size(use.input)
    size = use.output_size(use.output)
    return _log(jnp.where(operands > 0, size / operands, jnp.nan), use.fan_in)


def _log(ratio: Float[Array, "*stack"], fan_in: int) -> Float[Array, "*stack"]:
    return jnp.log(ratio) / math.log(fan_in)


def _difference(now: Array, before: Array) -> Array:
    """In float32 or wider: in a short dtype a small change is rounded once more."""
    if jnp.iscomplexobj(now):
        return now - before
    if not jnp.issubdtype(now.dtype, jnp.floating):
        return now.astype(jnp.float32) - before.astype(jnp.float32)
    return wide(now) - wide(before)


def _check_same(before: Captured, now: Captured) -> None:
    for path in before.uses.keys() | now.uses.keys():
        shapes = [
            jtu.tree_map(jnp.shape, captured.uses.get(path), is_leaf=eqx.is_array)
            for captured in (before, now)
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"initial_model and model do not use {path} in the same way; both must be the "
                "same model, at initialisation and after some training"
            )


def _name(path: str, number: int) -> str:
    return f"{path}#{number + 1}" if number else path


def weight_name(name: str) -> str:
    """The weight's own name, of a layer in a stack with its number, without that of the use."""
    return _USE.sub("", name)


def _layers(name: str, use: MeasuredAlignment) -> Iterator[tuple[str, MeasuredAlignment]]:
    for index in np.ndindex(use.weight.shape):
        yield "/".join([name, *map(str, index)]), jtu.tree_map(operator.itemgetter(index), use)


def _cells(use: MeasuredAlignment) -> list[str]:
    logs = (use.alpha, use.omega, use.u, use.total)
    sizes = (use.weight_change, use.input_change, use.output_change)
    shown = ["-" if x is None or not np.isfinite(x) else f"{x:.2f}" for x in logs]
    return [str(use.fan_in), *shown, *(f"{x:.2g}" for x in sizes)]
