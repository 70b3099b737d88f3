"""How stores of layout 1 said what a run was: frozen, as those files are.

Runs had flat specifications in which every number stood, also those that the update rule didn't
take, and the key was made of them. Here they become specifications of version 2.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from ..problems._text_facts import identity, said
from ._rows import canonical
from ._schedule import Schedule
from ._specification import specification

# What each rule took of the four numbers, by the name that it has in the rule, and what stays
# unsaid in the text of a recipe.
_TOOK: dict[str, dict[str, str]] = {
    "adam": {"b1": "b1", "b2": "b2", "eps": "eps"},
    "adamw": {"b1": "b1", "b2": "b2", "eps": "eps", "weight_decay": "weight_decay"},
    "adam_atan2": {"b1": "b1", "b2": "b2"},
    "adam_parameter_scaling": {"b1": "b1", "b2": "b2", "eps": "eps"},
    "adafactor": {},
    "lion": {},
    "muon": {"b1": "b1", "b2": "b2", "eps": "eps"},
    "sgd": {"b1": "momentum"},
}
_UNSAID = {"b1": 0.9, "b2": 0.95, "eps": 1e-12, "weight_decay": 0.0}
_OF_PROBLEM = ("sequence_length", "batch_size", "head_dimension", "held_out_windows")


def key_of(fields: Mapping[str, Any]) -> str:
    """The key that a run had."""
    named = f'{{"result_version":1,"specification":{canonical(fields, "specification")}}}'
    return hashlib.sha256(named.encode()).hexdigest()


def sweep_key_of(configuration: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """The key that a sweep had."""
    texts = canonical(configuration, "configuration"), canonical(environment, "environment")
    return key_of({"configuration": texts[0], "environment": texts[1]})


def recipe_of(name: str, numbers: Mapping[str, Any]) -> str:
    """The recipe's text with those of the numbers that its rule took and that are not usual."""
    parameterization, optimizer, rates = name.split(":", 2)
    said = {
        argument: numbers.get(number, _UNSAID[number])
        for number, argument in _TOOK[optimizer].items()
        if numbers.get(number, _UNSAID[number]) != _UNSAID[number]
    }
    text = ",".join(f"{argument}={float(value)!r}" for argument, value in sorted(said.items()))
    return f"{parameterization}:{optimizer}{f'({text})' if text else ''}:{rates}"


def specification_of(fields: Mapping[str, Any]) -> dict[str, object]:
    """The specification of the same run in version 2.

    **Raises:** `KeyError` if a field is missing, as in what no sweep has written.
    """
    name = f"{fields['parameterization']}:{fields['optimizer']}:{fields['rates']}"
    return specification(
        problem=identity(fields["data"], {one: fields[one] for one in _OF_PROBLEM}),
        sizes={"width": fields["width"], "depth": fields["depth"]},
        base={"width": fields["base_width"]},
        recipe=recipe_of(name, fields),
        schedule=Schedule(fields["steps"], warmup=fields["warmup"]),
        learning_rate=fields["learning_rate"],
        seed=fields["seed"],
    )


def configuration_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A sweep's configuration in which the recipes hold their numbers, and the setting none."""
    setting = dict(fields["setting"])
    numbers = {name: setting.pop(name) for name in _UNSAID if name in setting}
    recipes = [recipe_of(name, numbers) for name in fields["recipes"]]
    text = {name: setting.pop(name) for name in _OF_PROBLEM}
    data = fields["data"]
    kept = {name: value for name, value in fields.items() if name != "data"}
    return {
        **kept,
        "recipes": recipes,
        "setting": setting,
        "problem": identity(data["digest"], text),
        "said": said(data["name"], data["digest"], data["tokens"], data["held_out_windows"], text),
    }
