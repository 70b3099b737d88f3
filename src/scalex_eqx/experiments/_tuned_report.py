"""What a tuning has found: on the terminal, and as JSON."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .._usage import UsageError, shown
from ._gain import Holds, describe_gain
from ._tune import Best, Tuned
from ._write import written_whole

TUNED_FILES = ("landscape.png", "tuned.json")
_STYLES = {
    Holds.HOLDS: "bold green",
    Holds.DOES_NOT: "bold red",
    Holds.CANNOT_TELL: "bold yellow",
}


def check_tuned_files(folder: Path) -> None:
    """Refuses, before the training, a folder where a file could not be written."""
    for name in TUNED_FILES:
        if (folder / name).is_dir():
            raise UsageError(
                f"{shown(folder / name)} is a folder, in place of a file; move it away, or name "
                "another folder with --out"
            )


def print_tuned(tuned: Tuned, console: Console) -> None:
    """Prints both recipes with their losses, and whether the gain holds."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in ("learning rate", "loss (nats)"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("recipe", overflow="fold")
    for name, best in (("as given", tuned.untuned), ("tuned", tuned.tuned)):
        spread = "" if best.spread is None else f" ± {best.spread:.4f}"
        rate = f"2^{math.log2(best.learning_rate):.4g}"
        cells = (name, rate, f"{best.loss:.4f}{spread}", best.recipe)
        table.add_row(*map(Text, cells))
    console.print(table)
    tuning, base = tuned.tuning, tuned.tuning.setting.base_width
    tried = len(tuned.trials)
    seeds = "1 seed" if len(tuning.seeds) == 1 else f"the mean over {len(tuning.seeds)} seeds"
    console.print(
        f"width {base}, {seeds}, {tried} sets of constants; ± is the standard deviation over "
        "seeds. The tuned loss is the lowest of many and so flatters: other seeds follow."
    )
    for one in tuned.gains:
        console.print(f"gain at width {one.width}: {describe_gain(one)}")
    if tuned.verdict is not None:
        style = _STYLES[tuned.verdict]
        console.print(Text(f"the gain {_clause(tuned.verdict)}: {tuned.reason}", style=style))


def _clause(verdict: Holds) -> str:
    return "can't be told to hold or not" if verdict is Holds.CANNOT_TELL else str(verdict)


def write_tuned(tuned: Tuned, facts: Mapping[str, object], path: Path) -> None:
    """Writes everything as strict JSON, infinite losses as null."""
    tuning = tuned.tuning
    content = {
        "recipe": tuned.tuned.recipe,
        "learning_rate": tuned.tuned.learning_rate,
        "base_width": tuning.setting.base_width,
        "octaves": tuned.octaves,
        "tuned": dataclasses.asdict(tuned.tuned),
        "untuned": dataclasses.asdict(tuned.untuned),
        "verdict": tuned.verdict,
        "reason": tuned.reason,
        "gains": [
            {"width": one.width, "mean": one.mean, "interval": one.interval, "level": one.level}
            | {"by_seed": dict(one.by_seed)}
            for one in tuned.gains
        ],
        "asked": {
            "recipe": str(tuning.recipe),
            "setting": dataclasses.asdict(tuning.setting),
            "learning_rate": tuning.learning_rate,
            "seeds": tuning.seeds,
            "trials": tuning.trials,
            "sampler": tuning.sampler,
            "reach": tuning.reach,
            "check_widths": tuning.check_widths,
            "check_seeds": tuning.fresh_seeds,
        },
        "facts": dict(facts),
        "rates": {
            name: [[rate, _finite(loss)] for rate, loss in curve.items()]
            for name, curve in zip(("untuned", "tuned"), tuned.rates, strict=True)
        },
        "trials": [[*octaves, _finite(loss)] for octaves, loss in tuned.trials.items()],
    }
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    with written_whole(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None


def plan_words(best: Best, base_width: int) -> list[str]:
    """The words of `scalex plan` for a recipe that was tuned."""
    rate = repr(best.learning_rate)
    return ["plan", best.recipe, "--learning-rate", rate, "--base-width", str(base_width)]
