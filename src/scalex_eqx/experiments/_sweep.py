"""A sweep as one call: trained, kept and judged."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..problems import Problem
from ._config import Setting, Sweep, parse_learning_rate
from ._fits import RecipeAnalysis
from ._recipe import Recipe, parse_recipe
from ._transfer import Reporter, report, transfer


def sweep(
    problem: Problem,
    recipes: Sequence[str | Recipe],
    *,
    widths: Sequence[int],
    learning_rates: Sequence[float | str],
    seeds: Sequence[int] = (0, 1, 2, 3),
    steps: int,
    folder: Path | str,
    base_width: int | None = None,
    depth: int | None = None,
    at_once: int | None = None,
    reporter: Reporter | None = None,
    console: Console | None = None,
) -> tuple[RecipeAnalysis, ...]:
    """Trains a problem's model in several recipes, and says for each whether its learning rate
    transfers across width: `scalex transfer` as a function.

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
    - `widths`, `learning_rates`, `seeds`: every recipe is trained with each of them; learning rates
        are peaks at the base width, as numbers or as `"2^-8"`.
    - `steps`: of a run: a linear rise over the first tenth, then a cosine to 0.
    - `folder`: for the store and the report.
    - `base_width`: at which all recipes are the same model; the smallest width by default.
    - `depth`: of the model, if `make` takes one.
    - `at_once`, `reporter`: as for [`scalex_eqx.experiments.transfer`][].
    - `console`: where the table is printed; the terminal unless given.

    **Returns:** an analysis of each recipe, in their order.

    **Raises:** `UsageError` for whatever could not be trained or judged.
    """
    planned = Sweep(
        recipes=tuple(parse_recipe(one) if isinstance(one, str) else one for one in recipes),
        widths=tuple(widths),
        learning_rates=tuple(
            parse_learning_rate(rate) if isinstance(rate, str) else float(rate)
            for rate in learning_rates
        ),
        seeds=tuple(seeds),
        setting=Setting(min(widths, default=0) if base_width is None else base_width, steps, depth),
    )
    return report(transfer(planned, problem, Path(folder), reporter, at_once=at_once), console)
