import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import equinox as eqx
import jax
import tyro
from jaxtyping import PRNGKeyArray, PyTree
from rich.console import Console
from rich.progress import Progress

from .. import diagnostics
from .._parameterize import parameterize
from .._sparsify import sparsify
from .._weight import resolve
from ..experiments import Recipe, Setting, UsageError, parse_learning_rate, parse_recipe
from ..experiments._config import check_distinct, check_positive, check_seeds, given_weight_decay
from ..experiments._numbers import parse_exponent
from ..experiments._recipe import check_gradient_alone
from ..problems import Problem
from ..problems._functions import parameterizing
from ..theory import Parameterization
from ..theory._density import parse_density
from ._help import RECIPE, own_options_first
from ._measured import batches, check_shapes
from ._picture import check_picture, write_picture
from ._problem import ProblemOptions


@dataclasses.dataclass(frozen=True)
class Measuring(ProblemOptions):
    """What the commands share that measure a few steps of a problem's model."""

    # A part of the text is enough for a few steps, and is part of the compiled program.
    _usual_length: ClassVar[int] = 32
    _most_tokens: ClassVar[int | None] = 1 << 20

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help=RECIPE)] = dataclasses.field(
        kw_only=True
    )
    widths: tuple[int, ...] | None = None
    """Widths of the model; of the text's, multiples of the head dimension. The smallest is the
    base. 64 128 256 512 if not given."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each fixes initial draws and batches; intervals are over seeds."""
    steps: int = 10
    """Training steps, at a constant learning rate."""
    learning_rate: str = "2^-8"
    """At the base width, as 2^-8 or 0.004."""
    depth: int | None = None
    """Blocks of the model, if it can be built of several; 2 if not given."""
    weight_decay: float = 0.0
    """Independent weight decay a step, for recipes with adamw."""

    def measured(self) -> diagnostics.CoordinateCheck:
        """Trains and measures, with a progress bar on the error stream."""
        recipe = parse_recipe(self.recipe)
        check_positive(self, "steps", *(() if self.depth is None else ("depth",)))
        self._check_sizes()
        check_distinct("--seeds", self.seeds, 1, "each fixes draws and batches")
        check_seeds(self.seeds)
        (recipe,) = given_weight_decay(self.weight_decay, [recipe])
        check_gradient_alone(recipe, f"scalex {type(self).__name__.lower()}")
        tx = recipe.transformation(parse_learning_rate(self.learning_rate, "--learning-rate"))
        problem = self.load(widths=self._widths)
        setting = Setting(min(self._widths), self.steps, self.depth).of(problem)
        depth = setting.depth
        problem.check_growth(setting.sizes(max(self._widths)), setting.sizes(min(self._widths)))

        def build(size: Any, key: PRNGKeyArray) -> PyTree:
            def make(width: int, depth: int | None = depth) -> PyTree:
                sizes = {"width": width} if depth is None else {"width": width, "depth": depth}
                return problem.build(sizes, key)

            return self._build(make, size, recipe.law, key)

        self._check_model(problem, recipe, build)
        drawn = batches(problem, [(seed, i) for seed in self.seeds for i in range(self.steps)])
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("compiling")

            grown, sizes = self._grown()

            def advance(size: Any, done: int, total: int) -> None:
                progress.update(task, description=f"{grown} {size}", completed=done, total=total)

            try:
                return diagnostics.coordinate_check(
                    build,
                    lambda model, batch: problem.mean_loss(resolve(model), batch),
                    tx,
                    lambda key: (drawn(key),),
                    widths=sizes if grown == "width" else None,
                    depths=sizes if grown == "depth" else None,
                    densities=sizes if grown == "density" else None,
                    size=grown,
                    seeds=self.seeds,
                    steps=self.steps,
                    advance=advance,
                )
            except ValueError as error:
                raise UsageError(str(error)) from None

    @property
    def _widths(self) -> tuple[int, ...]:
        return (64, 128, 256, 512) if self.widths is None else self.widths

    def _check_sizes(self) -> None:
        check_distinct("--widths", self._widths, 2, "an exponent is a slope across widths")

    def _grown(self) -> tuple[Literal["width", "depth", "density"], tuple[Any, ...]]:
        """What grows, and its sizes."""
        return "width", self._widths

    def _build(
        self, make: Callable[..., PyTree], size: Any, law: Parameterization, key: PRNGKeyArray
    ) -> PyTree:
        return parameterize(make, width=size, base_width=min(self._widths), parameterization=law)

    def _check_model(
        self, problem: Problem, recipe: Recipe, build: Callable[[int, PRNGKeyArray], PyTree]
    ) -> None:
        """Refuses, from shapes alone, a model that the recipe doesn't fit, and one that can't be
        held with what its training needs."""
        _, sizes = self._grown()
        with parameterizing():
            model = eqx.filter_eval_shape(lambda: build(max(sizes), jax.random.key(0)))
            if self._grown()[0] == "density":
                # The sparsest may leave an output without an entry.
                eqx.filter_eval_shape(lambda: build(min(sizes), jax.random.key(0)))
        check_shapes(problem, recipe, model, max(self._widths))


@own_options_first
@dataclasses.dataclass(frozen=True)
class Check(Measuring):
    """Train the transfer run's Transformer, or a problem of your own, for a few steps at several
    widths, and say which of its weights scales wrongly, and why.

    Numbers are exponents p of sizes that grow as width^p, depth^p or density^p. The exit code is 0
    if the check passes, 1 if it is rejected and 3 if it can't be told.

    Example: scalex check mup:adam:full

    Example: scalex check standard:adam:global --picture check.png

    Example: scalex check mup:adam:full --problem my_model.py:problem

    Example: scalex check mup:adam:full --size depth --widths 64 --depths 2 4 8

    Example: scalex check mup:adam:full --size density --widths 128 --densities 1 1/2 1/8
    """

    size: Literal["width", "depth", "density"] = "width"
    """What grows; with depth the parameterization gets a law for it, with density the matrices of
    the trunk get random masks. --widths has one width then: 64, or 256 for the density, if not
    given."""
    depths: tuple[int, ...] | None = None
    """With --size depth: numbers of blocks; the smallest is the base. 2 4 8 16 if not given."""
    alpha: str | None = None
    """With --size depth: residual branches are scaled as depth^-alpha, from 1/2 to 1; 1 if not
    given."""
    densities: tuple[str, ...] | None = None
    """With --size density: shares of the entries that are kept, as many for each output; the base
    is dense. 1/16 1/4 1 if not given."""

    json: bool = False
    """Print JSON."""
    picture: Path | None = None
    """Draw the changes and their exponents into this PNG file."""

    def run(self, console: Console) -> int:
        """Prints what was found; returns the exit code."""
        check_picture(self.picture)
        check = self.measured()
        self._show(check, console)
        return {"passes": 0, "rejected": 1, "inconclusive": 3}[check.verdict]

    def _check_sizes(self) -> None:
        given = {"--depths": self.depths, "--alpha": self.alpha, "--densities": self.densities}
        for option, value in given.items():
            owner = "density" if option == "--densities" else "depth"
            if value is not None and self.size != owner:
                raise UsageError(
                    f"{option} is given, but --size is {self.size}; use --size {owner}"
                )
        if self.size == "width":
            super()._check_sizes()
            return
        if len(self._widths) != 1:
            raise UsageError(
                f"--widths has {len(self._widths)} values; with --size {self.size} give one, such "
                "as --widths 64"
            )
        if self.size == "density":
            check_distinct("--densities", self._densities, 2, "an exponent is a slope over them")
            return
        if self.depth is not None:
            raise UsageError("--depth is given, but --size is depth; use --depths")
        check_distinct("--depths", self._depths, 2, "an exponent is a slope across depths")
        for depth in self._depths:
            if depth < 1:
                raise UsageError(f"--depths has {depth}; expected at least 1")

    @property
    def _widths(self) -> tuple[int, ...]:
        # With few connections an output, and so a narrow model, the law doesn't hold yet.
        usual = {"depth": (64,), "density": (256,)}
        return usual[self.size] if self.size in usual and not self.widths else super()._widths

    @property
    def _depths(self) -> tuple[int, ...]:
        return (2, 4, 8, 16) if self.depths is None else self.depths

    @property
    def _densities(self) -> tuple[Fraction, ...]:
        """Exact, the smallest first."""
        given = ("1/16", "1/4", "1") if self.densities is None else self.densities
        try:
            return tuple(sorted(parse_density(text, "one of --densities") for text in given))
        except ValueError as error:
            raise UsageError(str(error)) from None

    def _grown(self) -> tuple[Literal["width", "depth", "density"], tuple[Any, ...]]:
        sizes = {"depth": lambda: self._depths, "density": lambda: self._densities}
        return (self.size, sizes[self.size]()) if self.size != "width" else super()._grown()

    def _build(
        self, make: Callable[..., PyTree], size: Any, law: Parameterization, key: PRNGKeyArray
    ) -> PyTree:
        if self.size == "width":
            return super()._build(make, size, law, key)
        if self.size == "density":
            model = super()._build(make, self._widths[0], law, key)
            masks = jax.random.fold_in(key, 1)
            return sparsify(model, size, key=masks, pattern="balanced")
        return parameterize(
            make,
            width=self._widths[0],
            base_width=self._widths[0],
            depth=size,
            base_depth=min(self._depths),
            parameterization=self._deep(law),
        )

    def _deep(self, law: Parameterization) -> Parameterization:
        """With the law for the depth that the recipe or --alpha says."""
        if law.branch is not None:
            if self.alpha is not None:
                raise UsageError(f"--alpha is given, and the recipe has {law.name}; give one")
            return law
        try:
            return law.deep(parse_exponent(self.alpha or "1"))
        except ValueError as error:
            raise UsageError(f"--alpha is {self.alpha!r}; expected 1/2 to 1") from error

    def _show(self, check: diagnostics.CoordinateCheck, console: Console) -> None:
        if self.json:
            text = diagnostics.record([check.table()], command="scalex check").to_json()
            console.print(text, soft_wrap=True, markup=False, highlight=False)
        else:
            console.print(str(check), soft_wrap=True, markup=False, highlight=False)
        if self.picture is not None:
            write_picture(diagnostics.coordinate_figure(check), self.picture)
