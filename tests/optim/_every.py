"""Every optimizer of the library, for tests that are about all of them."""

import functools
from collections.abc import Callable
from typing import Any

from scalex_eqx.optim._catalogue import catalogue

from .._statistics import with_statistics

# What tiny weights need, and what has no default.
_OPTIONS: dict[str, dict[str, Any]] = {
    "adamw": {"weight_decay": 0.1, "decay_mode": "coupled"},
    "adafactor": {"min_factored_size": 2},
}


def every(learning_rate: float, **options: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """The makers by name, with that learning rate; `options` are a maker's own, by its name."""
    made = {
        name: functools.partial(
            entry.maker, learning_rate, **options.get(name, _OPTIONS.get(name, {}))
        )
        for name, entry in catalogue.items()
    }
    micro_adam = made["micro_adam"]
    return {**made, "micro_adam": lambda **given: with_statistics(micro_adam(**given))}
