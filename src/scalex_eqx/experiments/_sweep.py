"""A sweep as one call: trained, kept and judged."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from rich.console import Console

from ..problems import Problem
from ._config import parse_learning_rate
from ._engines import Engine
from ._fits import RecipeAnalysis
from ._planned import Asked, inverse_density, planned
from ._recipe import Recipe, parse_recipe
from ._schedule import DECAY, Shape
from ._transfer import Reporter, report, transfer


def sweep(
    problem: Problem,
    recipes: Sequence[str | Recipe],
    *,
    widths: Sequence[int] = (),
    depths: Sequence[int] = (),
    batch_sizes: Sequence[int] = (),
    densities: Sequence[Fraction | int | float | str] = (),
    learning_rates: Sequence[float | str],
    seeds: Sequence[int] = (0, 1, 2, 3),
    steps: int,
    schedule: Shape = "cosine",
    warmup: float = 0.1,
    decay: float = DECAY,
    folder: Path | str,
    base_width: int | None = None,
    width: int | None = None,
    depth: int | None = None,
    base_depth: int | None = None,
    base_batch_size: int | None = None,
    base_steps: int | None = None,
    same_steps: bool = False,
    at_once: int | None = None,
    until_decided: bool = False,
    budget: float = 1.0,
    engine: Engine | None = None,
    reporter: Reporter | None = None,
    console: Console | None = None,
) -> tuple[RecipeAnalysis, ...]:
    """Trains a problem's model in several recipes, and says for each whether its learning rate
    transfers across width, depth or batch size: `scalex transfer` as a function.

    ```python
    analyses = sweep(
        problem,
        ["standard:adam:global", "standard:adam:full"],
        widths=[64, 128, 256],
        learning_rates=[2.0**k for k in range(-10, -2)],
        steps=250,
        folder="runs/mine",
    )
    ```

    Every run is kept in the folder as soon as it has ended; the same call again trains only what is
    missing there. Table, picture, page and JSON are written beside it.

    **Arguments:**

    - `problem`: what is trained.
    - `recipes`: as [`scalex_eqx.experiments.parse_recipe`][] reads them, or made by it.
    - `widths`, `depths`, `batch_sizes`, `densities`: one of them, with two values or more, is what
        the sweep is over. Densities are 1 over a whole number: the model's matrices get [random
        masks](../sparsity.md), as many entries for each output, and the base is dense.
    - `learning_rates`, `seeds`: every recipe is trained with each of them at every size; learning
        rates are peaks at the base sizes, as numbers or as `"2^-8"`.
    - `steps`: of a run. Over batch sizes it is the number at the base batch size, and others have
        as many examples.
    - `schedule`, `warmup`, `decay`: how the learning rate rises and falls, by default linearly over
        the first tenth and as a cosine to 0; see [`scalex_eqx.training.Schedule`][].
    - `folder`: for the store and the report.
    - `width`, `depth`: of the model, where they are not swept over; a depth if `make` takes one.
    - `base_width`, `base_depth`, `base_batch_size`: at which laws and rules change nothing; by
        default the smallest that is swept over, and what is fixed.
    - `base_steps`: how long the training was for which the numbers were tuned, if that isn't as
        long: for [rules for the batch size](../sizes.md) that follow the training length.
    - `same_steps`: over batch sizes, whether all have as many steps.
    - `at_once`, `until_decided`, `budget`, `engine`, `reporter`: as for
        [`scalex_eqx.experiments.transfer`][].
    - `console`: where the table is printed; the terminal unless given.

    **Returns:** an analysis of each recipe, in their order.

    **Raises:** `UsageError` for whatever could not be trained or judged.
    """
    swept = {
        "widths": widths,
        "depths": depths,
        "batch_sizes": batch_sizes,
        "inverse_densities": [*map(inverse_density, densities)],
    }
    asked = Asked(
        **{name: tuple(sizes) for name, sizes in swept.items() if len(sizes)},
        width=width,
        depth=depth,
        base_width=base_width,
        base_depth=base_depth,
        base_batch_size=base_batch_size,
        base_steps=base_steps,
        same_steps=same_steps,
        schedule=schedule,
        warmup=warmup,
        decay=decay,
    )
    chosen = planned(
        [parse_recipe(one) if isinstance(one, str) else one for one in recipes],
        asked,
        learning_rates=[
            parse_learning_rate(rate) if isinstance(rate, str) else float(rate)
            for rate in learning_rates
        ],
        seeds=seeds,
        steps=steps,
    )
    store = transfer(
        chosen,
        problem,
        Path(folder),
        reporter,
        at_once=at_once,
        until_decided=until_decided,
        budget=budget,
        engine=engine,
    )
    return report(store, console)
