"""Judges the models of one driver, in the environment of its package: see `table.py`.

    python tests/packages/_run.py case_haiku [MODELS]

Prints a JSON object for each model.
"""

import fnmatch
import importlib
import json
import re
import sys
from importlib import metadata
from typing import Any

import jax
import numpy as np
from _case import SAME, Case

import scalex_eqx as sx
from scalex_eqx.diagnostics import coordinate_check

PARAMETERIZATIONS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)
SEEDS = (0, 1)


def parameterized(case: Case, options: dict, width: int, law=sx.mup, key=None) -> Any:
    key = jax.random.key(0) if key is None else key
    return sx.parameterize(
        lambda width: case.make(width, key),
        width=width,
        base_width=case.base_width,
        parameterization=law,
        **options,
    )


def use_of(case: Case) -> dict[str, Any]:
    """The option by which `parameterize` reads what the model does."""
    batch = case.batch(jax.random.key(1))
    return {"use": lambda model: case.loss(case.outputs(model, *batch), *batch)}


def expected(case: Case, path: str) -> tuple[str, str | None]:
    """Role and layout that are right, by the table written by hand."""
    found = [value for pattern, value in case.arrays.items() if fnmatch.fnmatchcase(path, pattern)]
    if len(found) != 1:
        raise ValueError(f"{case.model}: {len(found)} patterns match {path}; expected one")
    role, _, *layout = found[0]
    return role, layout[0] if layout else None


def role_of(weight: sx.Weight) -> str:
    spec = weight.spec
    if not spec.is_trained:
        return "not trained"
    law = spec.parameterization
    tied = law is not None and law.name.endswith("(tied)")
    return "tied" if tied and spec.role == "embedding" else str(spec.role)


def layout_of(weight: sx.Weight) -> str:
    spec = weight.spec
    count = len(spec.fan_in) + len(spec.fan_out)
    return " ".join("in" if axis in spec.fan_in else "out" for axis in range(-count, 0))


def wrong(case: Case, model: Any) -> dict[str, str]:
    """By path, how what an array was taken for differs from what it is."""
    found = {}
    for path, weight in sx.weights_with_paths(model).items():
        role, layout = expected(case, path)
        accepted = SAME[1] if role == SAME[0] else (role,)
        # In a tied model every embedding has the tied one's exponents.
        accepted += ("tied",) if "embedding" in accepted else ()
        taken = role_of(weight)
        if taken not in accepted:
            found[path] = f"{taken}, not {' or '.join(accepted)}"
        elif layout and taken not in ("not trained", "vector") and layout_of(weight) != layout:
            found[path] = f"({layout_of(weight)}), not ({layout})"
    return found


def refusal(case: Case, options: dict[str, Any]) -> list[str]:
    """The arrays that `parameterize` asks about."""
    try:
        parameterized(case, options, case.width)
    except ValueError as error:
        return re.findall(r"^  (\S+): ", str(error), re.MULTILINE)
    return []


def answers(case: Case, asked: list[str]) -> dict[str, Any]:
    """Those of the case's options that answer a question."""

    def answering(option: Any) -> Any:
        kept = [key for key in option if any(fnmatch.fnmatchcase(path, key) for path in asked)]
        return {key: option[key] for key in kept} if isinstance(option, dict) else kept

    found = {name: answering(option) for name, option in case.options.items()}
    return {name: option for name, option in found.items() if option}


def count(options: dict[str, Any]) -> int:
    return sum(len(value) for value in options.values())


def bitwise(case: Case, options: dict[str, Any]) -> bool:
    """Whether at the base width every parameterization computes what the package's model does.

    Both run as one compiled program, to which the models hand nothing but their arrays.
    """
    batch = case.batch(jax.random.key(2))
    run = jax.jit(lambda arrays: case.outputs(rebuilt(arrays), *batch))
    original = case.make(case.base_width, jax.random.key(0))
    arrays, rebuilt = split(original)
    right = np.asarray(run(arrays))
    same = []
    for law in PARAMETERIZATIONS:
        resolved = sx.resolve(parameterized(case, options, case.base_width, law))
        same.append(np.array_equal(right, np.asarray(run(split(resolved)[0]))))
    return all(same) and bool(np.isfinite(right).all())


def split(model: Any):
    """The arrays of a model, and what makes a model of them."""
    leaves, structure = jax.tree.flatten(model)
    at = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray)]

    def rebuilt(arrays):
        filled = list(leaves)
        for i, array in zip(at, arrays, strict=True):
            filled[i] = array
        return structure.unflatten(filled)

    return [leaves[i] for i in at], rebuilt


def checked(case: Case, options: dict[str, Any]) -> Any:
    widths = (case.base_width, case.width)
    drawn = {w: parameterized(case, options, w) for w in widths if case.drawn_once}

    def build(width, key):
        return drawn[width] if case.drawn_once else parameterized(case, options, width, key=key)

    def loss(model, *batch):
        return case.loss(case.outputs(sx.resolve(model), *batch), *batch)

    return coordinate_check(
        build,
        loss,
        sx.adam(case.learning_rate),
        case.batch,
        widths=widths,
        seeds=SEEDS,
        steps=case.steps,
    )


def judged(case: Case) -> dict[str, Any]:
    package = case.distributions[0]
    asked = refusal(case, {})
    answered = answers(case, asked)
    left = refusal(case, answered) if answered or asked else []
    if left:
        raise ValueError(f"{case.model}: the options leave open {left}")
    without = parameterized(case, answered, case.width)
    options = use_of(case) | dict(case.options_with_use)
    check = checked(case, options)
    return {
        "package": f"{package} {metadata.version(package)}",
        "model": case.model,
        "arrays": len(sx.weights_with_paths(without)),
        "asked": len(asked),
        "options": count(answered),
        "wrong": wrong(case, without),
        "options with use": count(dict(case.options_with_use)),
        "wrong with use": wrong(case, parameterized(case, options, case.width)),
        "bitwise": bitwise(case, options),
        "check": check.verdict,
        "said": check.summary,
        "notices": list(check.notices),
    }


def main() -> None:
    name, *models = sys.argv[1:]
    for case in importlib.import_module(name).CASES:
        if not models or case.model in models:
            print(json.dumps(judged(case)), flush=True)


if __name__ == "__main__":
    main()
