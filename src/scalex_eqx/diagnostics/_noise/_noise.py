import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from ..._needed import Loss
from .._results import Table
from .._watched import Advance, watched
from ._prediction import Prediction, prediction
from ._sums import Numbers, Sums, numbers, of_batch, stacked_axes
from ._words import printed

ALL = "all weights"

_GROUPS = 8
"""Parts of the batches, each of which is left out once for the errors."""
_APART = 1 << 20
"""What is folded into the key of the batches that are measured: no step has it."""


class NoiseRow(NamedTuple):
    r"""What was measured of the gradients of one weight at one step.

    **Arguments:**

    - `step`: how many steps of training came before.
    - `weight`: its path, with its number in a stack of layers in brackets; or `all weights`.
    - `entries`: how many of its entries have a gradient.
    - `signal_to_noise`: of one example, $\lvert \mu \rvert / \sqrt{\operatorname{tr} \Sigma}$; 0
        where nothing but noise was found.
    - `critical_batch`: the gradient noise scale $\operatorname{tr} \Sigma / \lvert \mu \rvert^2$,
        in examples; `None` where nothing but noise was found.
    - `kurtosis`: the mean over the entries of that of an example's gradient, 3 if it is Gaussian.
    - `sign_ratio`: the ratio of signal to noise of the examples' signs to that of their gradients.
    - `mean_sign_ratio`: that of the signs of batches' gradients to that of the gradients.
    """

    step: int
    weight: str
    entries: int
    signal_to_noise: float
    critical_batch: float | None
    kurtosis: float
    sign_ratio: float | None
    mean_sign_ratio: float | None


@dataclasses.dataclass(frozen=True)
class Noise:
    """Signal and noise of a model's gradients over its training; printed, with a prediction.

    **Arguments:**

    - `rows`: what was measured, by step.
    - `predictions`: by step, which place of the sign is the best.
    - `batch_size`, `examples`: of the training, and how many were measured at each step.
    """

    rows: tuple[NoiseRow, ...]
    predictions: tuple[Prediction, ...]
    batch_size: int
    examples: int

    @property
    def prediction(self) -> Prediction:
        """That of the first step that was measured."""
        return self.predictions[0]

    def table(self) -> Table:
        """All rows, for [`scalex_eqx.diagnostics.record`][]."""
        return Table(
            "noise", ["step", "weight"], NoiseRow._fields, [r._asdict() for r in self.rows]
        )

    def prediction_table(self) -> Table:
        """The predictions, for [`scalex_eqx.diagnostics.record`][]."""
        columns = ["step", "first", "mean", "mean error", "example", "example error"]
        return Table("sign placement", ["step"], columns, [p.cells() for p in self.predictions])

    def __str__(self) -> str:
        return printed(self)


def noise(
    of_example: Loss,
    model: PyTree,
    tx: optax.GradientTransformation,
    draw: Callable[[PRNGKeyArray], Any],
    *,
    steps: int = 100,
    at: Sequence[int] | None = None,
    batches: int = 16,
    key: PRNGKeyArray,
    advance: Advance | None = None,
) -> Noise:
    r"""Signal, noise and tails of the gradients of single examples, as a model is trained.

    With the mean $\mu$ and the variance $\sigma^2$ of an entry of an example's gradient $g_i$:

    $$\mathrm{SNR} = \frac{\lvert \mu \rvert}{\sqrt{\operatorname{tr} \Sigma}}, \qquad
    B_\text{critical} = \frac{\operatorname{tr} \Sigma}{\lvert \mu \rvert^2}, \qquad
    R = \frac{\sum \rho_{s g}}{\sum \rho_{g g}}, \qquad
    \rho_{x y} = \frac{E[x]\, E[y]}{\sqrt{E[x^2]\, E[y^2]}}$$

    $\rho_{g g}$ is the share of the signal in the square of a gradient, which where it is small is
    the squared ratio of signal to noise. With $s = \operatorname{sign} g_i$, $R$ compares the signs
    of examples with their gradients: $\sqrt{2 / \pi} = 0.80$ for Gaussian noise, $\sqrt 2$ for
    Laplace's, and less where noise is skewed and the signs point elsewhere than the mean. Of the
    sums over the entries every one counts as much as any other, as it does in an update by signs.
    All estimates are unbiased in numerator and denominator; errors are those of the jackknife over
    eighths of the batches.

    **Arguments:**

    - `of_example`: `of_example(model, example)`, the loss of one example, of a model with weights:
        resolve it in there. The loss of a batch is the mean.
    - `model`: from [`scalex_eqx.parameterize`][].
    - `tx`: the optimizer.
    - `draw`: `draw(key)`, a batch, whose arrays have one leading axis of examples; traced. Step $t$
        has the key with $t$ folded in. The batches that are measured have other keys.
    - `steps`, `at`: how many are trained, and those that are measured, from 0; 0, 1, 2, 4, ... and
        the last if not given.
    - `batches`: how many are measured at each step, a multiple of 8.
    - `key`: of the batches.
    - `advance`: called with the steps done, and all.

    **Returns:** a [`scalex_eqx.diagnostics.Noise`][].

    **Raises:** `ValueError` for a model without its laws, for steps that are not trained, and for a
    number of batches that can't be parted.

    ??? cite "Source"

        The noise scale is that of McCandlish et al. (2018),
        [arXiv:1812.06162](https://arxiv.org/abs/1812.06162), equation 2.9. That the place of the
        sign follows from signal and noise is said by Roulet and Agarwala (2025),
        [arXiv:2510.00236](https://arxiv.org/abs/2510.00236); the measure is derived here.
    """
    if batches < _GROUPS or batches % _GROUPS:
        raise ValueError(f"batches is {batches}; expected a multiple of {_GROUPS}")
    apart = jax.random.fold_in(key, _APART)
    shapes = jax.eval_shape(draw, key)
    (size,) = {x.shape[0] for x in jax.tree.leaves(shapes)}
    axes = stacked_axes(model)

    def loss(model: PyTree, batch: Any) -> Any:
        return jnp.mean(jax.vmap(of_example, in_axes=(None, 0))(model, batch))

    def look(model: PyTree, step: Any) -> Any:
        del step
        groups = _groups(of_example, model, lambda i: draw(jax.random.fold_in(apart, i)), batches)
        return {
            path: _with_and_without(sums, size, batches, axes[path])
            for path, sums in groups.items()
        }

    rows: list[NoiseRow] = []
    predictions: list[Prediction] = []
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
        whole, without = _total(found)
        rows += [_row(step, ALL, whole), *_rows(step, found)]
        predictions.append(prediction(step, whole, without))
    return Noise(tuple(rows), tuple(predictions), size, size * batches)


def _groups(
    of_example: Loss, model: PyTree, batch: Callable[[Any], Any], batches: int
) -> dict[str, Sums]:
    """The sums over each group of the batches, which a leading axis numbers."""
    each = batches // _GROUPS

    def group(number: Any) -> Any:
        def add(sums: Any, i: Any) -> Any:
            more = of_batch(of_example, model, batch(number * each + i))
            return jax.tree.map(jnp.add, sums, more), None

        shapes = jax.eval_shape(lambda: of_batch(of_example, model, batch(0)))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.scan(add, zeros, jnp.arange(each))[0]

    return jax.lax.map(group, jnp.arange(_GROUPS))


def _with_and_without(
    groups: Sums, size: int, batches: int, stacked: int
) -> tuple[Numbers, Numbers]:
    """The numbers of all batches of a size, and for each group of them those without it."""
    whole = jax.tree.map(lambda x: jnp.sum(x, axis=0), groups)
    rest = jax.tree.map(lambda all_, one: all_[None] - one, whole, groups)
    left = batches - batches // _GROUPS
    without = jax.vmap(lambda sums: numbers(sums, size * left, left, stacked))(rest)
    return numbers(whole, size * batches, batches, stacked), without


def _total(found: dict[str, tuple[Numbers, Numbers]]) -> tuple[Numbers, Numbers]:
    """Over all weights: the numbers, and for each part of the batches those without it."""
    wholes = [Numbers(*map(np.sum, whole)) for whole, _ in found.values()]
    parts = [
        Numbers(*(np.sum(np.reshape(x, (_GROUPS, -1)), axis=1) for x in without))
        for _, without in found.values()
    ]
    return (
        Numbers(*(np.sum(x, axis=0) for x in zip(*wholes, strict=True))),
        Numbers(*(np.sum(x, axis=0) for x in zip(*parts, strict=True))),
    )


def _rows(step: int, found: dict[str, tuple[Numbers, Numbers]]) -> Iterator[NoiseRow]:
    for path, (whole, _) in found.items():
        flat = Numbers(*(np.reshape(x, -1) for x in whole))
        members = len(flat.entries)
        for i in range(members):
            name = path if members == 1 else f"{path}[{i}]"
            yield _row(step, name, Numbers(*(x[i] for x in flat)))


def _row(step: int, name: str, of: Numbers) -> NoiseRow:
    signal, noise = float(of.signal), float(of.noise)
    is_found = signal > 0 and noise > 0
    return NoiseRow(
        step,
        name,
        int(of.entries),
        math.sqrt(signal / noise) if is_found else 0.0,
        noise / signal if is_found else None,
        float(of.kurtosis) / max(float(of.entries), 1.0),
        _ratio(of.sign_share, of.share),
        _ratio(of.mean_sign_share, of.mean_share),
    )


def _ratio(one: Any, other: Any) -> float | None:
    return float(one / other) if other > 0 else None
