"""Attention heads whose dimension grows, so that the scale of their logits is part of the law."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx

from .._pages import Section, see
from .._weight import path_string
from ._assign import Chosen, Triple
from ._kinds import is_mapping, is_of
from ._names import heads_of, is_attention
from ._nodes import Path


def head_errors(triples: Mapping[Path, Triple], chosen: Chosen) -> list[str]:
    r"""An error for each attention whose logits grow with the dimension $d$ of its heads.

    Queries and keys that are trained are aligned, so that their product grows as $d$ and asks for
    $1 / d$. A scale of $1 / \sqrt d$ goes with that if `factors` says what is left.
    """
    found: dict[Path, str] = {}
    seen: set[Path] = set()
    for path, triple in triples.items():
        for (base, relative), (probe, _) in zip(
            triple.base.parents, triple.probe.parents, strict=True
        ):
            prefix = path[: len(path) - len(relative)]
            if prefix in seen:
                continue
            seen.add(prefix)
            sizes = _head_dimension(base), _head_dimension(probe)
            if sizes[0] is None or sizes[0] == sizes[1]:
                continue
            if not any(other[: len(prefix)] == prefix for other in chosen.factors):
                found[prefix] = _message(base, prefix, *sizes)
    return list(found.values())


def _head_dimension(module: Any) -> int | None:
    """That of a module which divides its logits by the square root of it."""
    if isinstance(module, eqx.nn.MultiheadAttention):
        return module.qk_size
    if is_of(module, "flax.nnx", "MultiHeadAttention"):
        return module.head_dim
    if is_attention(module):
        return heads_of(module)
    if getattr(module, "logit_scale", None) == "1/sqrt(d)":
        return getattr(module, "head_dimension", None)
    return None


def _message(module: Any, prefix: Path, base: int | None, probe: int | None) -> str:
    name, path = type(module).__name__, path_string(prefix)
    queries = "query/*"
    if isinstance(module, eqx.nn.MultiheadAttention):
        queries = "query_proj/weight"
    elif is_mapping(module):
        name = "attention of Flax"
    remedy = (
        f'factors={{{f"{path}/{queries}".strip("/")!r}: "1/2"}} for a scale of 1/d relative to the '
        "base model, or 0 for the scale as it is"
    )
    if getattr(module, "logit_scale", None) is not None:
        remedy = 'logit_scale="1/d"'
    return (
        f"{path or 'the model itself'}: the heads of this {name} grow from {base} to {probe} at "
        "the probe width, and their logits are divided by the square root of that; trained "
        f"queries and keys are aligned, so that the logits grow. Give {remedy}; or let the number "
        f"of heads grow instead{see(Section.heads)}"
    )
