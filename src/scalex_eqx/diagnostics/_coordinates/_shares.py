"""What weight decay and epsilon take of a step, across widths."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..._parts import Part
from ._models import Number, Over, named_weights
from ._run import Measurements

# A share of the update that is worth a word.
_NOTABLE = 0.01


@dataclasses.dataclass(frozen=True)
class StepShares:
    r"""What a step loses on one weight, at each width; means over seeds.

    **Arguments:**

    - `name`: of the weight.
    - `decay`: the share of the weight that the first step takes off without any gradient.
    - `epsilon`: the share of the first update that epsilon takes, $\epsilon / (\epsilon + |g|)$
        with the root mean square of the gradient; `None` if there is no epsilon, or a traced one.
    """

    name: str
    decay: tuple[float, ...]
    epsilon: tuple[float, ...] | None


def shares(found: Measurements, chain: Sequence[Part]) -> list[StepShares]:
    """Those of every trained weight, with the parts of the optimizer."""
    by_width = named_weights(found.models, found.over)
    return [
        StepShares(
            name,
            tuple(float(np.mean([seed[name] for seed in row])) for row in found.decay),
            _epsilon([p for p in chain if p.works_on(path)], name, by_width, found.gradients),
        )
        for name, (path, weight) in by_width[-1].items()
        if weight.spec.is_trained
    ]


def _epsilon(
    chain: Sequence[Part], name: str, by_width: Sequence[dict], gradients: Sequence[Sequence[dict]]
) -> tuple[float, ...] | None:
    for part in chain:
        for constant in part.rule.constants if part.rule is not None else ():
            if constant.name != "eps":
                continue
            degree = constant.degree.update
            found = []
            for weights, seeds in zip(by_width, gradients, strict=True):
                weight = weights[name][1]
                eps = constant.used(weight.spec, weight.value.dtype)
                if eps is None:
                    return None
                size = float(np.mean([seed[name] for seed in seeds])) ** degree
                found.append(eps / (eps + size) if eps + size else 0.0)
            return tuple(found)
    return None


def notable(widths: Sequence[Number], found: Sequence[StepShares], over: Over) -> list[str]:
    """A sentence for each weight of whose update epsilon takes more and more."""
    told = []
    for share in found:
        first, last = (share.epsilon[0], share.epsilon[-1]) if share.epsilon else (0.0, 0.0)
        if last > _NOTABLE and last > 1.5 * first:
            told.append(
                f"{share.name}: epsilon takes {last:.1%} of the first update at {over} "
                f"{widths[-1]} and {first:.1%} at {over} {widths[0]}; let it follow the gradient"
            )
    return told
