"""What a report says of its runs beside their losses."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ._axes import BATCH_SIZE, DEPTH, INVERSE_DENSITY, WIDTH
from ._config import Sweep
from ._members import loss_of
from ._rows import Row
from ._rules import batch_rules, update_rules


class Noted:
    """What a report says of all runs together: of them, not of the sweep, which may have been
    resumed elsewhere."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.finished = ""
        self._first: dict[str, tuple[str, dict[str, Any]]] = {}

    def loss_of(self, row: Row) -> float | None:
        """Notes the run, and returns its loss."""
        found = row.result["environment"]
        self.seconds += row.result["seconds"]
        self.finished = max(self.finished, row.created)
        name = str(found)
        if name not in self._first or row.created < self._first[name][0]:
            self._first[name] = row.created, found
        return loss_of(row)

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Each once, in the order of their first runs."""
        return [found for _, found in sorted(self._first.values(), key=lambda entry: entry[0])]


def report_facts(sweep: Sweep, said: Mapping[str, str], noted: Noted) -> dict[str, str]:
    """What was trained, on what, and where, for people to read."""
    name, *rest = said["model"].split(", ")
    own = {key: text for key, text in said.items() if key not in ("model", "batch")}
    return {
        "recipes": ", ".join(map(str, sweep.recipes)),
        sweep.axis.plural: _sizes(sweep),
        "learning rates": ", ".join(f"2^{np.log2(r):.4g}" for r in sorted(sweep.learning_rates)),
        "seeds": ", ".join(map(str, sweep.seeds)),
        "model": ", ".join([name, *_fixed(sweep), *rest]),
        "training": f"{_steps(sweep, said)}, {sweep.setting.schedule_at(sweep.sizes[0])}",
        **update_rules(sweep.recipes),
        **batch_rules(sweep.recipes),
        **own,
        "machine": _each_once(
            f"{e['device']}, {e['processor']}, {e['cores']} cores" for e in noted.environments
        ),
        "versions": _each_once(
            ", ".join(f"{name} {e[name]}" for name in ("python", "jax", "equinox", "optax"))
            for e in noted.environments
        ),
        "training time": f"{noted.seconds:.0f} s, compilation included",
        "finished": noted.finished,
    }


def _sizes(sweep: Sweep) -> str:
    setting, sizes = sweep.setting, sorted(sweep.sizes)
    base = {
        WIDTH: setting.base_width,
        DEPTH: setting.base_depth,
        BATCH_SIZE: setting.base_batch_size,
        INVERSE_DENSITY: 1,
    }[sweep.axis]
    said = ", ".join(map(str, sizes))
    return said if base is None else f"{said} (base {base})"


def _fixed(sweep: Sweep) -> list[str]:
    """The model's sizes that the sweep is not over, where they are given."""
    setting = sweep.setting
    said = []
    if setting.width is not None:
        base = "" if setting.width == setting.base_width else f" (base {setting.base_width})"
        said.append(f"width {setting.width}{base}")
    if setting.depth is not None:
        base = "" if setting.base_depth is None else f" (base {setting.base_depth})"
        said.append(f"depth {setting.depth}{base}")
    return said


def _steps(sweep: Sweep, said: Mapping[str, str]) -> str:
    setting = sweep.setting
    if sweep.axis != BATCH_SIZE:
        return f"{setting.steps} steps" + (f" of {said['batch']}" if "batch" in said else "")
    if setting.same_steps:
        return f"{setting.steps} steps at every batch size"
    steps = ", ".join(str(setting.steps_at(size)) for size in sorted(sweep.sizes))
    return f"{steps} steps, as many examples at every batch size"


def _each_once(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
