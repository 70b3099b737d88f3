"""Learned rules in files: arrays and JSON in an `.npz`, and nothing that is run."""

import dataclasses
import functools
import hashlib
import importlib.resources
import io
import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from ..._files import written_whole
from ._features import FeatureSet
from ._network import LearnedRule

SHIPPED = ("default",)
"""The rules that come with the library, by name. Another one gets another name: a stored run is
found by it."""

_FORMAT = 1
_ABOUT = "about"
_PINNED = re.compile(r"(?P<path>.+\.npz)#(?P<digest>[0-9a-f]{8})", re.DOTALL)


class Stored(NamedTuple):
    """A rule from a file, a digest of the rule alone, and what is said of how it was made."""

    rule: LearnedRule
    digest: str
    made: Mapping[str, Any]


def save_rule(
    rule: LearnedRule, path: str | os.PathLike[str], made: Mapping[str, Any] | None = None
) -> None:
    """Writes a learned rule.

    **Arguments:**

    - `rule`: a [`scalex_eqx.optim.LearnedRule`][].
    - `path`: of the file, by convention `.npz`.
    - `made`: how it came about, as JSON: the command, the seed, the time.
    """
    about = {
        "format": _FORMAT,
        "hidden": int(rule.layers[0].weight.shape[0]),
        "form": rule.form,
        "features": dataclasses.asdict(rule.features),
        "made": dict(made or {}),
    }
    arrays: dict[str, Any] = {name: np.asarray(x) for name, x in _named(rule).items()}
    arrays[_ABOUT] = np.array(json.dumps(about))
    with written_whole(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **arrays)


def load_rule(weights: str | os.PathLike[str]) -> Stored:
    """A rule by its name, `"default"`, or from a file.

    **Arguments:**

    - `weights`: `rule.npz#1a2b3c4d` is the file with that digest, and no other that is there now.

    **Raises:** `ValueError` that says what is no learned rule, or that the file has changed.
    """
    name = os.fspath(weights)
    if name in SHIPPED:
        return _shipped(name)
    pin = _PINNED.fullmatch(name)
    if pin is None:
        return _from_file(name)
    stored = _from_file(pin["path"])
    if not stored.digest.startswith(pin["digest"]):
        raise ValueError(
            f"weights {pin['path']!r} have changed since, and are another rule now; leave out "
            f"#{pin['digest']} to use them as they are"
        )
    return stored


def pinned(weights: str) -> str:
    """A file's name with the digest of the rule in it; as it is if it has one.

    **Raises:** `ValueError` if there is no rule.
    """
    return weights if is_pinned(weights) else f"{weights}#{load_rule(weights).digest[:8]}"


def is_pinned(value: Any) -> bool:
    """Whether it is the name of a file with a digest."""
    return isinstance(value, str) and _PINNED.fullmatch(value) is not None


def _from_file(name: str) -> Stored:
    path = Path(name)
    if path.suffix != ".npz":
        raise ValueError(
            f"weights is {name!r}; expected {', '.join(map(repr, SHIPPED))} or a file .npz that "
            "scalex meta-train wrote"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"weights {name!r} can't be read: {error.strerror}") from None
    return _read(name, content)


@functools.cache
def _shipped(name: str) -> Stored:
    folder = importlib.resources.files(__package__ or __name__) / "weights"
    return _read(name, (folder / f"{name}.npz").read_bytes())


def _read(name: str, content: bytes) -> Stored:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            about = json.loads(str(file[_ABOUT]))
            arrays = {key: file[key] for key in file.files if key != _ABOUT}
        if about["format"] != _FORMAT:
            raise ValueError(f"its format is {about['format']}; expected {_FORMAT}")
        rule = _built(about, arrays)
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"weights {name!r} are no learned rule: {said}. Take a file that scalex meta-train or "
            "scalex_eqx.optim.save_rule wrote"
        ) from None
    return Stored(rule, _digest(rule, about), about["made"])


def _digest(rule: LearnedRule, about: Mapping[str, Any]) -> str:
    """Of what decides an update; how the rule was made does not."""
    what = {name: about[name] for name in ("form", "features")}
    arrays = {name: np.asarray(x, "<f4").tobytes().hex() for name, x in _named(rule).items()}
    text = json.dumps({**what, **arrays}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _built(about: Mapping[str, Any], arrays: Mapping[str, Any]) -> LearnedRule:
    listed = about["features"].items()
    given: dict[str, Any] = {
        k: tuple(map(float, x)) if isinstance(x, list) else x for k, x in listed
    }
    features, hidden, form = FeatureSet(**given), about["hidden"], about["form"]

    def make() -> LearnedRule:
        return LearnedRule(hidden, features=features, form=form, key=jax.random.key(0))

    empty = eqx.filter_eval_shape(make)
    expected = _named(empty)
    for name, x in expected.items():
        found = arrays[name]
        if found.shape != x.shape or found.dtype != x.dtype or not np.isfinite(found).all():
            raise ValueError(
                f"{name} is {found.dtype}{list(found.shape)}; expected finite numbers, "
                f"{x.dtype}{list(x.shape)}"
            )
    values = [jnp.asarray(arrays[name]) for name in expected]
    return eqx.combine(jtu.tree_unflatten(_shape(empty)[1], values), empty)


def _named(rule: LearnedRule) -> dict[str, Any]:
    leaves, _ = _shape(rule)
    names = [*(f"layer{i}_{x}" for i in range(3) for x in ("weight", "bias")), "decays"]
    return dict(zip(names, leaves, strict=True))


def _shape(rule: LearnedRule) -> tuple[list[Any], Any]:
    arrays = eqx.filter(rule, lambda x: isinstance(x, jax.Array | jax.ShapeDtypeStruct))
    return jtu.tree_flatten(arrays)
