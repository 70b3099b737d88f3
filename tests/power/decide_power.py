"""How often the search of `scalex transfer --until-decided` is wrong, and what it costs.

    python tests/power/decide_power.py [--sweeps 1000] [--out docs/results/decide_power.json]

Synthetic loss curves of three widths with a known drift p, in four shapes, with the curvature and
the noise of docs/results/transfer.json and with twice that noise. Each sweep is judged by the
search, by the search with intervals that ignore that there are several looks, and by the grid of
four seeds. Writes the table that the docs show.
"""

import argparse
import collections
import dataclasses
import functools
import json
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from scalex_eqx.experiments import _optimum
from scalex_eqx.experiments._decide import ERRORS_AT_LOOKS, MOST_SEEDS, Course, Search
from scalex_eqx.experiments._fits import MARGIN, fit_drift, fit_optimum, judge

# Whether a curve is steep above moves no minimum, and takes half of a fit's time.
_optimum._rises_steeply = lambda *_: False

WIDTHS = (64, 128, 256)
RATES = tuple(2.0**exponent for exponent in range(-10, -4))
GRID_SEEDS = 4
# Of a run, as a sweep counts it: blocks of 12 matrices of the width, two of them, and a readout.
WORK = {width: float(24 * width**2 + 256 * width) for width in WIDTHS}
GRID_WORK = len(RATES) * GRID_SEEDS * sum(WORK.values())
MEASURED = Path(__file__).parents[2] / "docs/results/transfer.json"

DRIFTS = (0.0, 0.1, -0.25, 0.25, -0.4, -0.7, -1.0)
UNCORRECTED = (0.05,) * len(ERRORS_AT_LOOKS)
# Of a seed's minimum, in octaves. It adds to the noise, from which the runs can't tell it.
SCATTER = 0.05


@dataclasses.dataclass(frozen=True)
class Case:
    """Loss curves of one recipe whose best learning rate is known.

    **Arguments:**

    - `shape`: around the minimum, one of `SHAPES`.
    - `noise`: as a multiple of what was measured.
    - `drift`: p.
    - `place`: of the minimum at the smallest width, in octaves.
    """

    shape: str
    noise: float
    drift: float
    place: float = -7.5


def kinked(u: float) -> float:
    return u * u * (3 if u > 0 else 1)


def exponential(u: float) -> float:
    """As curved at the minimum as below it, and ever steeper above."""
    return 2 * (math.exp(1.2 * u) - 1 - 1.2 * u) / 1.44 if u > 0 else u * u


def cliff(u: float) -> float:
    return u * u if u < 0.8 else math.inf


SHAPES: dict[str, Callable[[float], float]] = {
    "quadratic": lambda u: u * u,
    "kinked": kinked,
    "exponential": exponential,
    "cliff": cliff,
    "falling": lambda u: -u,
    "rising": lambda u: u,
}


@functools.cache
def measured() -> dict[int, tuple[float, float]]:
    """Curvature, and noise of a run, by width, of the recipe that transfers.

    From the three rates around the lowest mean: what is left when the means over rates and over
    seeds are taken away is the noise.
    """
    runs = json.loads(MEASURED.read_text(encoding="utf-8"))["runs"]
    found = {}
    for width in WIDTHS:
        losses = {
            (run["seed"], run["learning_rate"]): run["held_out_loss"]
            for run in runs
            if run["recipe"] == "standard:adam:full" and run["width"] == width
        }
        table = np.array([[losses[seed, rate] for rate in RATES] for seed in range(GRID_SEEDS)])
        lowest = int(table.mean(0).argmin())
        near = table[:, lowest - 1 : lowest + 2]
        left = near - near.mean(0) - near.mean(1, keepdims=True) + near.mean()
        curvature = float(near.mean(0) @ [0.5, -1.0, 0.5])
        found[width] = (curvature, math.sqrt(float((left**2).sum()) / (2 * (GRID_SEEDS - 1))))
    return found


class Losses(dict):
    """The losses of one sweep, drawn when they are asked for."""

    def __init__(self, case: Case, number: int):
        self.case = case
        name = f"{case.shape} {case.noise} {case.drift} {case.place} {number}"
        self.rng = np.random.default_rng(list(name.encode()))
        # Every sweep has a phase of its own against the octaves of the grid.
        self.first = case.place + self.rng.uniform(-0.5, 0.5)
        self.places: dict[tuple[int, int], float] = {}

    def __missing__(self, key: tuple[int, int, int]) -> float | None:
        width, rate, seed = key
        curvature, noise = measured()[width]
        if (width, seed) not in self.places:
            place = self.first + self.case.drift * math.log2(width / WIDTHS[0])
            self.places[width, seed] = place + SCATTER * self.rng.standard_normal()
        height = SHAPES[self.case.shape](rate / 1e6 - self.places[width, seed])
        drawn = self.case.noise * noise * self.rng.standard_normal()
        self[key] = 2.4 + curvature * height + drawn if math.isfinite(height) else None
        return self[key]


def by_search(losses: Losses, errors: tuple[float, ...] = ERRORS_AT_LOOKS) -> dict[str, Any]:
    search = Search(WIDTHS, RATES, tuple(range(MOST_SEEDS)), WORK, GRID_WORK, errors)
    course = Course(search, losses)
    collections.deque(course.steps(), maxlen=0)
    decision = course.decision()
    return {
        "outcome": outcome(str(decision.verdict), decision.drift.exponent),
        "runs": len(decision.points),
        "work": decision.work / GRID_WORK,
        "seeds": max(point.seed for point in decision.points) + 1,
    }


def by_grid(losses: Losses) -> dict[str, Any]:
    optima = {
        seed: [
            fit_optimum(RATES, [losses[w, round(math.log2(rate) * 1e6), seed] for rate in RATES])
            for w in WIDTHS
        ]
        for seed in range(GRID_SEEDS)
    }
    drift = fit_drift(WIDTHS, optima)
    runs = len(WIDTHS) * len(RATES) * GRID_SEEDS
    found = outcome(str(judge(drift)[0]), drift.exponent)
    return {"outcome": found, "runs": runs, "work": 1.0, "seeds": GRID_SEEDS}


def outcome(verdict: str, exponent: float | None) -> str:
    if verdict == "drifts" and exponent is not None:
        return "drifts up" if exponent > 0 else "drifts down"
    return verdict


WAYS: dict[str, Callable[[Losses], dict[str, Any]]] = {
    "search": by_search,
    "uncorrected": functools.partial(by_search, errors=UNCORRECTED),
    "grid": by_grid,
}


def cases(sweeps: int) -> list[tuple[Case, str, int]]:
    found = [
        (Case(shape, noise, drift), way)
        for noise in (1.0, 2.0)
        for shape in ("quadratic", "kinked", "exponential", "cliff")
        for drift in DRIFTS
        for way in WAYS
        if way == "search" or (noise == 1 and (abs(drift) == MARGIN or way == "grid"))
    ]
    # No minimum within reach: of any width, and of the largest.
    found += [(Case(shape, 1.0, 0.0), "search") for shape in ("falling", "rising")]
    found += [(Case("quadratic", 1.0, -1.0, place=-15.4), "search")]
    return [(case, way, sweeps) for case, way in found]


def row(job: tuple[Case, str, int]) -> dict[str, Any]:
    """How many sweeps of a case ended how, and their means."""
    case, way, sweeps = job
    ends = [WAYS[way](Losses(case, number)) for number in range(sweeps)]
    counts = collections.Counter(end["outcome"] for end in ends)
    return {
        **dataclasses.asdict(case),
        "way": way,
        "sweeps": sweeps,
        **{n: counts[n] for n in ("transfers", "drifts up", "drifts down", "cannot tell")},
        **{n: round(float(np.mean([e[n] for e in ends])), 4) for n in ("runs", "work", "seeds")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sweeps", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/results/decide_power.json"))
    arguments = parser.parse_args()
    rows = []
    with ProcessPoolExecutor(arguments.processes) as pool:
        for found in pool.map(row, cases(arguments.sweeps)):
            print(found, flush=True)
            rows.append(found)
    near = {str(w): {"curvature": c, "noise": n} for w, (c, n) in measured().items()}
    command = f"python tests/power/decide_power.py --sweeps {arguments.sweeps}"
    content = {"command": command, "measured": near, "scatter": SCATTER, "rows": rows}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
