"""What a run on text is: apart from the training, so that stores are read without JAX."""

from collections.abc import Mapping
from typing import Any

NAME = "text"
UNIT_NAME = "unit-text"
"""The same text, for the Transformer of unit-scaled muP."""

_MODELS = {False: "Transformer", True: "unit-scaled Transformer"}
_DEFAULTS = {"sequence_length": 64, "batch_size": 4, "head_dimension": 16, "held_out_windows": 256}


def identity(digest: str, settings: Mapping[str, int], *, unit: bool = False) -> dict[str, Any]:
    """What decides a run on text, without what is at its default.

    For stored runs: no default here ever changes.
    """
    return {
        "kind": UNIT_NAME if unit else NAME,
        "data": digest,
        **{name: x for name, x in settings.items() if x != _DEFAULTS[name]},
    }


def said(
    name: str,
    digest: str,
    tokens: int,
    windows: int,
    settings: Mapping[str, int],
    *,
    unit: bool = False,
) -> dict[str, str]:
    """The same for people."""
    length = settings["sequence_length"]
    return {
        "model": f"{_MODELS[unit]}, heads of {settings['head_dimension']}",
        "batch": f"{settings['batch_size']} x {length} tokens",
        "held out": f"{windows} windows of {length} tokens",
        "data": f"{name}, {tokens:,} tokens, {_shortened(digest)}",
    }


def _shortened(digest: str) -> str:
    kind, _, own = digest.rpartition(":")
    return f"sha256 {own[:16]}{' of a sample' if kind else ''}"
