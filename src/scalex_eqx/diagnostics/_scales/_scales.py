import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from ..._needed import Loss
from .._results import Table
from .._watched import Advance, watched
from ._formats import FORMATS
from ._measure import KINDS, measured
from ._sizes import Sizes
from ._words import printed, verdicts


class ScaleRow(NamedTuple):
    """What was measured of one array at one step.

    **Arguments:**

    - `step`: how many steps of training came before.
    - `weight`: its path, with its number in a stack of layers in brackets.
    - `kind`: `"weight"`, as it meets the input, multiplier included; `"input"` and `"output"` of
        the product with it, the output before any factor behind it; `"output gradient"` and
        `"weight gradient"`.
    - `size`: the root mean square.
    - `largest`: in absolute value.
    - `zeroed`, `overflowing`: for each of the formats the share of the entries that aren't zero
        which becomes zero in it, and which is too large for it.
    """

    step: int
    weight: str
    kind: str
    size: float
    largest: float
    zeroed: dict[str, float]
    overflowing: dict[str, float]

    def lost(self, format: str) -> float:
        """The share that a format doesn't hold."""
        return self.zeroed[format] + self.overflowing[format]


@dataclasses.dataclass(frozen=True)
class Scales:
    """The sizes in a model over its training; printed, a verdict on each format.

    **Arguments:**

    - `rows`: what was measured, by step.
    - `most`: the share of lost entries from which on a verdict names an array.
    """

    rows: tuple[ScaleRow, ...]
    most: float = 0.01

    @property
    def steps(self) -> tuple[int, ...]:
        """Those that were measured."""
        return tuple(dict.fromkeys(row.step for row in self.rows))

    def verdicts(self) -> tuple[str, ...]:
        """A sentence for each format and kind that lose more than `most`, the worst of its kind."""
        return verdicts(self.rows, self.most)

    def table(self) -> Table:
        """All rows, for [`scalex_eqx.diagnostics.record`][]."""
        columns = ["step", "weight", "kind", "size", "largest"]
        columns += [f"{what} in {name}" for name in FORMATS for what in ("zero", "overflow")]
        return Table("scales", columns[:3], columns, [_cells(row) for row in self.rows])

    def __str__(self) -> str:
        return printed(self.rows, self.most)


def _cells(row: ScaleRow) -> dict[str, Any]:
    cells: dict[str, Any] = {
        "step": row.step,
        "weight": row.weight,
        "kind": row.kind,
        "size": row.size,
        "largest": row.largest,
    }
    for name in FORMATS:
        cells[f"zero in {name}"] = row.zeroed[name]
        cells[f"overflow in {name}"] = row.overflowing[name]
    return cells


def scales(
    loss: Callable[[PyTree, Any], Any],
    model: PyTree,
    tx: optax.GradientTransformation,
    draw: Callable[[PRNGKeyArray], Any],
    *,
    steps: int = 100,
    at: Sequence[int] | None = None,
    key: PRNGKeyArray,
    most: float = 0.01,
    advance: Advance | None = None,
    of_example: Loss | None = None,
) -> Scales:
    r"""How large all weights, activations and gradients are at first, and as a model is trained.

    For each array the root mean square, the largest entry, and for each number format the share of
    its entries other than zero that the format rounds to zero, or that are too large for it. The
    training is in the dtype of the weights; nothing is rounded.

    The activations are those that a weight meets and what comes out there, found as
    [`scalex_eqx.diagnostics.capture`][] finds them, in any model. The gradient of an output is what
    comes back to it.

    **Arguments:**

    - `loss`: `loss(model, batch)`, of a model with weights: resolve it in there.
    - `model`: from [`scalex_eqx.parameterize`][].
    - `tx`: the optimizer.
    - `draw`: `draw(key)`, a batch; traced. Step $t$ has the key with $t$ folded in.
    - `steps`: how many are trained.
    - `at`: the steps that are measured, from 0; 0, 1, 2, 4, ... and the last if not given.
    - `key`: of the batches.
    - `most`: the share of lost entries from which on a verdict names an array.
    - `advance`: called with the steps done, and all.
    - `of_example`: the loss of one example of a batch, for optimizers that need it.

    **Returns:** a [`scalex_eqx.diagnostics.Scales`][].

    **Raises:** `ValueError` for a model without its laws, and for steps that are not trained.
    """

    def look(model: PyTree, step: Any) -> Any:
        return measured(loss, model, draw(jax.random.fold_in(key, step)))

    rows: list[ScaleRow] = []
    for step, found in watched(
        look,
        loss,
        model,
        tx,
        draw,
        steps=steps,
        at=at,
        key=key,
        advance=advance,
        of_example=of_example,
    ):
        rows += rows_of(step, found)
    return Scales(tuple(rows), most)


def rows_of(step: int, found: dict[str, dict[str, Sizes]]) -> Iterator[ScaleRow]:
    """What was measured at a step, an array at a time."""
    for kind in KINDS:
        for path, sizes in found[kind].items():
            members = len(sizes.size)
            for i in range(members):
                zeroed, overflowing = (
                    dict(zip(FORMATS, np.asarray(x)[:, i].tolist(), strict=True))
                    for x in (sizes.zeroed, sizes.overflowing)
                )
                name = path if members == 1 else f"{path}[{i}]"
                size, largest = float(sizes.size[i]), float(sizes.largest[i])
                yield ScaleRow(step, name, kind, size, largest, zeroed, overflowing)
