import dataclasses
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import equinox as eqx
import jax
import tyro
from rich.console import Console

from .. import plan
from .._memory import in_words
from .._usage import UsageError, in_shell, shown
from .._weight import is_trainable
from ..experiments import parse_learning_rate, parse_recipe
from ..experiments._config import given_weight_decay
from ._help import RECIPE, own_options_first
from ._problem import ProblemOptions
from ._training_bar import TrainingBar

if TYPE_CHECKING:
    from ..training import Memory, Trainer, Training


@own_options_first
@dataclasses.dataclass(frozen=True)
class Train(ProblemOptions):
    """Train one model at one size, over all devices of one or several hosts, with the numbers that
    were tuned at a small size.

    Every step is a line of OUT/log.jsonl; the same command again goes on from the newest checkpoint
    in OUT/checkpoints. Needs scalex_eqx[train].

    Example: scalex train standard:adam:full --width 2048 --base-width 128 --learning-rate 2^-7

    Example: scalex train mup:adam:full --width 2048 --base-width 128 --mesh shard=8 --dry
    """

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help=RECIPE)] = dataclasses.field(
        kw_only=True
    )
    width: int = 256
    """The width of the model; of the text's, a multiple of the head dimension."""
    base_width: int = 64
    """The width at which the learning rate was tuned."""
    learning_rate: str = "2^-8"
    """The peak learning rate at the base width, as 2^-8 or 0.004."""
    steps: int = 1000
    """Training steps."""
    depth: int | None = None
    """Blocks of the model, if it can be built of several; 2 if not given."""
    base_depth: int | None = None
    """The depth at which a law for the depth, as of mup.deep(1), changes nothing."""
    base_batch_size: int | None = None
    """The batch size at which a recipe's rule for it changes nothing."""
    base_steps: int | None = None
    """The steps for which the numbers were tuned, for a recipe's rule for the batch size."""
    seed: int = 0
    """Fixes the initial draw and the order of the data."""
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """How the learning rate falls behind its rise; wsd stays, and falls over --decay."""
    warmup: float = 0.1
    """The share of the steps in which the learning rate rises."""
    decay: float = 0.2
    """The share of the steps in which it falls, with --schedule wsd."""
    weight_decay: float = 0.0
    """Independent weight decay a step, for recipes with adamw."""
    clip: float | None = None
    """The largest norm of the effective weights' gradient; none if not given."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """The dtype of the forward and backward pass. Weights and moments are in float32."""
    accumulate: int = 1
    """Into how many parts a batch is cut, that are computed one after the other."""
    recompute: bool = False
    """Keep the inputs of the blocks alone, and compute the rest again in the backward pass."""
    mesh: str = "data"
    """The devices in a grid: data=2,shard=4. data splits the batch, shard weights too, tensor heads
    and inner layers, expert experts. One may stand without a number."""
    evaluate_every: int = 100
    """Steps between evaluations; 0 for the last step alone."""
    save_every: int = 100
    """Steps between checkpoints; 0 for the last step alone."""
    keep: int = 2
    """How many checkpoints stay."""
    scales_every: int = 0
    """Steps between measurements of how large weights, activations and gradients are, which go into
    OUT/scales.jsonl and a picture; 0 for none."""
    coordinator: str | None = None
    """With several processes: HOST:PORT of process 0, or auto on SLURM, TPU slices and Open MPI."""
    processes: int | None = None
    """How many processes there are, beside --coordinator HOST:PORT."""
    process: int | None = None
    """Which of them this is, from 0."""
    dry: bool = False
    """Print the plan, what a step takes on a device and how long it lasts, and train nothing."""
    out: Path = Path("runs/train")
    """The folder for log, checkpoints and picture; all processes have it in common."""

    def run(self, console: Console) -> None:
        if importlib.util.find_spec("orbax") is None and not self.dry:
            raise UsageError(
                "scalex train needs orbax-checkpoint: pip install 'scalex_eqx[train]', or "
                "'.[train]' in a checkout"
            )
        from ..training import (
            Pace,
            Trainer,
            check_agreement,
            check_fits,
            connect,
            failing_together,
            kept_memory,
            memory,
            parse_mesh,
            train,
        )

        pace = Pace(self.evaluate_every, self.save_every, self.keep, self.scales_every)
        training = self._training()
        if self.coordinator is not None:
            connect(self.coordinator, self.processes, self.process)
        elif self.processes is not None or self.process is not None:
            raise UsageError("--processes and --process need a --coordinator; give one")
        with failing_together():
            problem = self.load(width=(self.width,), base_width=(self.base_width,))
        is_first = jax.process_index() == 0
        console = console if is_first else Console(quiet=True)
        self.say_data(problem, console)
        check_agreement({"data": dict(problem.facts), "the command": self._said()})
        trainer = Trainer(training, problem, parse_mesh(self.mesh))
        if self.dry:
            self._say_plan(trainer, console)
        with failing_together():
            check_fits(trainer, kept_memory(trainer))
        found = memory(trainer)
        if self.dry:
            self._say_cost(trainer, found, console)
            return
        with failing_together():
            check_fits(trainer, found)
        kept = f"what is saved is kept; the same command goes on from {in_shell(self.out)}"
        with TrainingBar(console, trainer.batches.examples, kept) as bar:
            train(trainer, self.out, pace=pace, listener=bar)
        if is_first:
            self._draw(trainer, console)
        if self.coordinator is not None:
            jax.distributed.shutdown()

    def _training(self) -> "Training":
        from ..training import Training

        (recipe,) = given_weight_decay(self.weight_decay, [parse_recipe(self.recipe)])
        names = {field.name for field in dataclasses.fields(Training)}
        given: dict[str, Any] = {name: getattr(self, name) for name in names if name != "recipe"}
        given["learning_rate"] = parse_learning_rate(self.learning_rate, "--learning-rate")
        return Training(recipe=recipe, **given)

    def _said(self) -> dict[str, str]:
        """The options, without the one that differs between processes."""
        names = (field.name for field in dataclasses.fields(self))
        return {name: str(getattr(self, name)) for name in names if name != "process"}

    def _say_plan(self, trainer: "Trainer", console: Console) -> None:
        from ..training._mesh import said

        console.print(plan(eqx.filter(trainer.shapes.model, is_trainable), trainer.at_peak))
        console.print(f"mesh: {said(trainer.mesh)}")

    def _say_cost(self, trainer: "Trainer", found: "Memory", console: Console) -> None:
        from ..training import check_fits, operations_of_step, seconds_of_step

        console.print(
            f"on each device: {in_words(found.weights)} of weights, {in_words(found.moments)} of "
            f"moments, {in_words(found.data)} of data, {in_words(found.temporary)} of gradients "
            f"and activations in a step; {_free(found.free)}",
            soft_wrap=True,
        )
        count = operations_of_step(trainer)
        console.print(f"a step: {count:.4g} floating-point operations in matrix products")
        check_fits(trainer, found)
        seconds = seconds_of_step(trainer)
        console.print(
            f"a step lasts {seconds:.3g} s, {count / seconds / 1e9:.4g} billion operations per "
            f"second; {self.steps} steps last {_duration(self.steps * seconds)}, beside "
            "evaluations and checkpoints",
            soft_wrap=True,
        )

    def _draw(self, trainer: "Trainer", console: Console) -> None:
        from ..training import draw, draw_scales, read_log, read_scales
        from ..training._log import LOG
        from ..training._picture import PICTURE
        from ..training._scales import PICTURE as SCALES_PICTURE

        lines = list(read_log(self.out / LOG))
        draw(lines, self.out / PICTURE, examples=trainer.batches.examples)
        console.print(f"wrote {LOG} and {PICTURE} in {shown(self.out)}", soft_wrap=True)
        scales = read_scales(self.out) if self.scales_every else None
        if scales is not None:
            draw_scales(scales, self.out / SCALES_PICTURE)
            console.print(str(scales), soft_wrap=True, markup=False, highlight=False)


def _free(free: int | None) -> str:
    return "how much is free is not known" if free is None else f"{in_words(free)} are free"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, rest = divmod(seconds / 60, 60)
    return f"{hours:.0f} h {rest:.0f} min" if hours else f"{rest:.1f} min"
