"""What is known of the gradients of a batch."""

from typing import Literal

import equinox as eqx
from jaxtyping import Array, Float, PyTree

Statistic = Literal["square", "norm", "sign", "fourth", "clipped"]
STATISTICS: tuple[Statistic, ...] = ("square", "norm", "sign", "fourth", "clipped")

Unit = Literal["example", "token"] | int


class GradientStatistics(eqx.Module):
    r"""The gradients $g_1, \dots, g_n$ of $n$ units of a batch, and means over them.

    Trees have the model's structure, with `None` where it has no floating-point array: weights stay
    [`scalex_eqx.Weight`][] nodes with their laws, so that update rules take each of them. What was
    not asked for is `None`. Statistics are in float32 at least.

    **Arguments:**

    - `loss`: its mean over the batch.
    - `gradient`: $G = \frac1n \sum_i g_i$, what `equinox.filter_grad` of the mean loss gives.
    - `square`, `fourth`, `sign`: the means of $g_i^2$, $g_i^4$ and $\operatorname{sign} g_i$.
    - `clipped`: the mean of $g_i \min(1, C / \lvert g_i \rvert)$.
    - `norm`: $\lvert g_i \rvert^2$ over the whole tree: $(n,)$, of tokens
        $(\text{examples}, \text{tokens})$.
    - `norms`: the same of each weight by itself: a tree of such arrays.
    - `count`: $n$.
    - `of`: what a unit is, as it was asked for.
    - `ways`: of each weight's path, the way that was taken; see `method`.
    """

    loss: Float[Array, ""]
    gradient: PyTree
    square: PyTree | None
    norm: Float[Array, " *units"] | None
    norms: PyTree | None
    sign: PyTree | None
    fourth: PyTree | None
    clipped: PyTree | None
    count: int = eqx.field(static=True)
    of: Unit = eqx.field(static=True)
    ways: tuple[tuple[str, str], ...] = eqx.field(static=True)

    @property
    def method(self) -> dict[str, str]:
        """By each weight's path: `"surgery"`, `"gram"` or `"vmap"`."""
        return dict(self.ways)

    @property
    def examples(self) -> int:
        """How many examples a unit has; 1 for tokens."""
        return self.of if isinstance(self.of, int) else 1
