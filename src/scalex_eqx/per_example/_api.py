"""The one call."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from .._weight import is_weight, path_string
from ..ops._wide import wide
from ._backward import Units
from ._batch import batch_size, check_unit, microbatches
from ._chunks import chunked
from ._memory import bytes_of, check_memory, default_memory
from ._result import STATISTICS, GradientStatistics, Statistic, Unit
from ._sums import clip_factors, total
from ._surgery import Plan, Program, planned, surgery, traced, ways, without_clipped
from ._turns import at_once

Loss = Callable[[Any, Any], Array]

_METHODS = ("vmap",)


def gradient_statistics(
    loss: Loss,
    model: PyTree,
    batch: PyTree,
    *,
    statistics: Sequence[Statistic | str] = ("square",),
    of: Unit | str = "example",
    clip: float | Array | None = None,
    method: str | None = None,
    memory: int | None = None,
) -> GradientStatistics:
    r"""Means over a batch of functions of single examples' gradients, beside the batch's gradient.

    $$G = \frac1n \sum_i g_i, \quad \frac1n \sum_i g_i^2, \quad \frac1n \sum_i g_i^4, \quad
    \frac1n \sum_i \operatorname{sign} g_i, \quad \lvert g_i \rvert^2, \quad
    \frac1n \sum_i g_i \min\left(1, \frac{C}{\lvert g_i \rvert}\right)$$

    ```python
    def loss(model, example):
        x, y = example
        return jnp.mean((sx.resolve(model)(x) - y) ** 2)

    found = sx.gradient_statistics(loss, model, (xs, ys), statistics=("square", "norm"))
    updates, state = tx.update(found.gradient, state, params)
    ```

    The loss is that of *one* example. Where a weight is used once by each example, or by each of
    its positions, the statistics are computed in the backward pass that gives $G$, from what the
    weight met and from the cotangents of what came out; nothing has the size of all examples'
    gradients. What such a use is not recognised of takes the plain way, `vmap` over examples.

    **Of tokens.** A token's loss depends on what the weights did at other positions as well, so
    that its own gradient is no matter of one position. What is taken here is the *use* at each
    position: for $L_i = \sum_t \ell_{it}$,

    $$G = \frac{1}{B T} \sum_{i, t} u_{it}, \qquad
    u_{it} = \frac{\partial L_i}{\partial W_t} \text{ with a copy } W_t \text{ of } W
    \text{ for each position } t,$$

    for a matrix $u_{it} = r_{it} s_{it}^\top$, input $s$ and cotangent of the output $r$. It is
    the gradient of the token's loss only where nothing mixes positions, and
    $\sum_t u_{it}^2$ is not the square of the example's gradient. The loss of an example returns
    $\ell_i$, of shape `(T,)`.

    **Arguments:**

    - `loss`: of model and one example: a number, of tokens a vector with the loss of each. It may
        not depend on other examples; for a loss of a whole batch see
        [`scalex_eqx.per_example.from_batch_loss`][].
    - `model`: as the loss takes it; its floating-point arrays are what is differentiated.
    - `batch`: a pytree of arrays whose leading axis numbers the examples. Randomness, such as
        dropout's, belongs here: a key for each example.
    - `statistics`: of `"square"`, `"norm"`, `"sign"`, `"fourth"`, `"clipped"`.
    - `of`: what $g_i$ is of: an `"example"`, a `"token"`, or the mean of a microbatch of so many
        examples that follow each other.
    - `clip`: $C$ of `"clipped"`, over the whole tree.
    - `method`: `"vmap"` takes the plain way for every weight; `None` the cheapest for each.
    - `memory`: how many bytes single units' gradients may take at a time, beside what the batch's
        gradient takes; 64 MiB or the model's size, whichever is more, if not given. One unit's
        gradient is always possible.

    **Returns:** a [`scalex_eqx.GradientStatistics`][].

    **Raises:** `ValueError` for an empty batch, leaves that differ in their leading axis, a loss
    that is no number (of tokens: no vector), complex parameters, unknown names, and of tokens for
    weights whose uses can't be told apart by position, by path.

    ??? cite "Source"

        Roulet and Agarwala (2025), [arXiv:2510.00236](https://arxiv.org/abs/2510.00236), compute
        such statistics by surgery on the traced program; the identity for norms is Goodfellow's
        (2015), [arXiv:1510.01799](https://arxiv.org/abs/1510.01799), and with the matrices of inner
        products over positions Li et al.'s (2021), [arXiv:2110.05679](https://arxiv.org/abs/2110.05679).
    """
    statistics = _checked_statistics(statistics, clip, of)
    if method is not None and method not in _METHODS:
        raise ValueError(
            f"method is {method!r}; expected None, which takes the cheapest way for each weight, "
            f"or {', '.join(map(repr, _METHODS))}"
        )
    if method == "vmap" and of == "token":
        raise ValueError(
            "method='vmap' knows examples only: a use at one position is no gradient of any "
            "parameter; leave method out, or take of='example'"
        )
    size = batch_size(batch)
    check_unit(of, size)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    _check_params(params)
    batch = jax.tree.map(jnp.asarray, batch)
    call = _Call(loss, params, static, batch, statistics, cast(Unit, of), clip)
    memory = default_memory(call.leaves) if memory is None else memory
    check_memory(memory)
    call.check_loss()
    sums, names = call.by_vmap(memory) if method == "vmap" else call.cheapest(memory)
    return call.result(sums, names)


class _Call:
    """One call, with the parameters and the batch as flat lists."""

    def __init__(
        self,
        loss: Loss,
        params: PyTree,
        static: PyTree,
        batch: PyTree,
        statistics: Sequence[Statistic],
        of: Unit,
        clip: Any,
    ):
        self.statistics, self.clip = statistics, clip
        self.of: Unit = of
        self.params = params
        self.leaves, self.tree = jax.tree.flatten(params)
        self.batch, batch_tree = jax.tree.flatten(batch)
        self.size = self.batch[0].shape[0]
        self.examples = of if isinstance(of, int) else 1
        self.tokens = 0

        def of_example(leaves: list[Any], example: list[Any]) -> Array:
            model = eqx.combine(jax.tree.unflatten(self.tree, leaves), static)
            return loss(model, jax.tree.unflatten(batch_tree, example))

        self.of_example = of_example

    @property
    def example(self) -> list[Any]:
        """The shapes of one."""
        return [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in self.batch]

    def check_loss(self) -> None:
        """Refuses a loss that isn't of the shape that is asked for."""
        found = jax.eval_shape(self.of_example, self.leaves, self.example)
        wanted = 1 if self.of == "token" else 0
        shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", jnp.bool_)
        if shape is None or len(shape) != wanted or not jnp.issubdtype(dtype, jnp.floating):
            what = "a vector with the loss of each token" if wanted else "a number"
            raise ValueError(
                f"the loss of one example is {found}; expected {what}, in floating point. "
                "The loss is called with one example, without the batch's leading axis"
            )
        self.tokens = shape[0] if wanted else 0

    @property
    def units(self) -> PyTree:
        """The batch by unit, and the loss of one."""
        return microbatches(self.batch, self.examples) if isinstance(self.of, int) else self.batch

    def of_unit(self, leaves: list[Any], unit: list[Any]) -> Array:
        """The loss of one unit."""
        if not isinstance(self.of, int):
            return self.of_example(leaves, unit)
        return jnp.mean(jax.vmap(self.of_example, in_axes=(None, 0))(leaves, unit))

    def by_vmap(self, memory: int) -> tuple[dict[str, Any], list[str]]:
        """The plain way for all parameters."""

        def losses(leaves: list[Any]) -> Array:
            return jax.vmap(self.of_example, in_axes=(None, 0))(leaves, self.batch)

        values, back = jax.vjp(losses, self.leaves)
        (gradient,) = back(jnp.full(values.shape, 1 / self.examples, values.dtype))
        sums = self._chunked(range(len(self.leaves)), self.statistics, memory)
        sums |= {"loss": jnp.sum(wide(values)) / self.examples, "gradient": gradient}
        return sums, ["vmap"] * len(self.leaves)

    def cheapest(self, memory: int) -> tuple[dict[str, Any], list[str]]:
        """The surgery where it is possible, and the plain way for the rest."""
        program = traced(self.of_example, self.leaves, self.example, tokens=self.tokens)
        plan = planned(program, self.size, memory)
        units = Units(self.examples, self.tokens, memory)
        if self.of == "token":
            self._check_tokens(program)
        elif not plan.tapped and not plan.copied:
            return self.by_vmap(memory)
        rest = self._rest(plan, memory)

        def factors_of(norms: list[Any]) -> Array:
            every = [*norms, *(rest["norm"] if rest else ())]
            return clip_factors(total(every), self.clip)

        clipped = factors_of if "clipped" in self.statistics else None
        sums = surgery(program, plan, self.leaves, self.batch, self.statistics, units, clipped)
        for name, values in rest.items():
            found = iter(values)
            sums[name] = [next(found) if i in plan.left else x for i, x in enumerate(sums[name])]
        return sums, ways(program, plan, self.statistics, units)

    def _rest(self, plan: Plan, memory: int) -> dict[str, Any]:
        if not plan.left:
            return {}
        return self._chunked(sorted(plan.left), without_clipped(self.statistics), memory)

    def _chunked(
        self, which: Sequence[int], statistics: Sequence[str], memory: int
    ) -> dict[str, Any]:
        """Of some parameters alone."""

        def of_some(some: list[Any], unit: list[Any]) -> Array:
            leaves = list(self.leaves)
            for i, leaf in zip(which, some, strict=True):
                leaves[i] = leaf
            return self.of_unit(leaves, unit)

        some, units = [self.leaves[i] for i in which], self.units
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), units)
        several = at_once(memory, lambda: bytes_of(jax.grad(of_some), some, one))
        return chunked(of_some, some, units, statistics, at_once=several, clip=self.clip)

    def _check_tokens(self, program: Program) -> None:
        """Refuses weights whose uses are not by position."""
        paths = [path_string(path) for path, _ in jtu.tree_leaves_with_path(self.params)]
        problems = [f"{paths[i]}: {operation}" for i, operation in program.found.lost.items()]
        for piece, use in program.found.uses.values():
            uses = use.uses * piece.turns
            attributed = use.positions == self.tokens and piece.turns == 1
            if uses not in (1, self.tokens):
                problems.append(f"{paths[piece.weight]}: used {uses} times by an example")
            elif "norm" in self.statistics and not attributed and self.tokens > 1:
                problems.append(f"{paths[piece.weight]}: no telling to which token a use belongs")
        if problems:
            raise ValueError(
                f"of='token' takes weights that each of the {self.tokens} tokens uses once, in a "
                "product, a convolution, a table or as a gain or bias. These are not: "
                + "; ".join(problems)
                + ". Take of='example', which holds for any loss"
            )

    def result(self, sums: dict[str, Any], names: Sequence[str]) -> GradientStatistics:
        """The means."""
        count = self.size * self.tokens if self.tokens else self.size // self.examples

        def tree(leaves: list[Any]) -> PyTree:
            return jax.tree.unflatten(self.tree, leaves)

        def mean(name: str) -> Any:
            if name not in (*self.statistics, "gradient"):
                return None
            found = sums[name] if name == "gradient" else [wide(x) for x in sums[name]]
            return tree([x / count for x in found])

        norms = sums["norm"] if "norm" in self.statistics else None
        weights = jtu.tree_leaves_with_path(self.params, is_leaf=is_weight)
        paths = [path_string(p) for p, x in weights if jax.tree.leaves(x)]
        return GradientStatistics(
            loss=sums["loss"] / count,
            gradient=mean("gradient"),
            square=mean("square"),
            norm=None if norms is None else total(norms),
            norms=None if norms is None else tree(norms),
            sign=mean("sign"),
            fourth=mean("fourth"),
            clipped=mean("clipped"),
            count=count,
            of=self.of,
            ways=tuple(zip(paths, names, strict=True)),
        )


def _checked_statistics(statistics: Any, clip: Any, of: Any) -> tuple[Statistic, ...]:
    if isinstance(statistics, str):
        raise ValueError(f"statistics is {statistics!r}; expected a tuple: ({statistics!r},)")
    names = tuple(dict.fromkeys(statistics))
    unknown = [repr(name) for name in names if name not in STATISTICS]
    if unknown:
        raise ValueError(
            f"unknown statistics: {', '.join(unknown)}; expected of {', '.join(STATISTICS)}"
        )
    if ("clipped" in names) != (clip is not None):
        raise ValueError(
            "clip is the norm that 'clipped' clips at; give both or neither: "
            f"statistics is {names}, clip is {clip!r}"
        )
    if isinstance(clip, int | float | np.number) and not clip > 0:
        raise ValueError(f"clip is {clip!r}; expected a norm greater than 0")
    if "clipped" in names and of == "token":
        raise ValueError(
            "a token's part over all weights is known when the backward pass is over, and what it "
            "was made of is gone then; 'clipped' is of examples and microbatches"
        )
    return names


def _check_params(params: PyTree) -> None:
    leaves = jtu.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError(
            "the model has no floating-point array that could have a gradient; expected a pytree "
            "with some"
        )
    complex_ones = [
        path_string(path) for path, x in leaves if jnp.issubdtype(x.dtype, jnp.complexfloating)
    ]
    if complex_ones:
        raise ValueError(
            f"complex parameters, of whose gradients squares and signs say little: "
            f"{', '.join(complex_ones)}; keep their real and imaginary parts as two arrays"
        )
