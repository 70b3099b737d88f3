"""All that the result of a run depends on, as nested JSON that leaves defaults out.

An option that is added later with a default changes no specification, and so orphans no stored
run. For the same reason a default here never changes: it is part of what old rows mean.
"""

from collections.abc import Mapping

from ._schedule import Schedule

_WARMUP, _SHAPE = 0.1, "cosine"


def specification(
    *,
    problem: Mapping[str, object],
    sizes: Mapping[str, int],
    base: Mapping[str, int],
    recipe: str,
    schedule: Schedule,
    learning_rate: float,
    seed: int,
) -> dict[str, object]:
    """The specification of a run: version 2.

    **Arguments:**

    - `problem`: the facts of the problem.
    - `sizes`, `base`: the model's sizes, and those at which all recipes are the same model.
    - `recipe`: its canonical text.
    - `schedule`, `learning_rate`, `seed`: of the training.
    """
    shape: dict[str, object] = {"warmup": schedule.warmup, "schedule": schedule.shape}
    if schedule.shape == "wsd":
        shape["decay"] = schedule.decay
    return {
        "problem": dict(problem),
        "sizes": dict(sizes),
        "base": dict(base),
        "recipe": recipe,
        "steps": schedule.steps,
        **_without({"warmup": _WARMUP, "schedule": _SHAPE}, shape),
        "learning_rate": learning_rate,
        "seed": seed,
    }


def _without(defaults: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in given.items() if value != defaults.get(name)}
