"""Unit-scaled muP: mean-field's exponents, counted from fans of one."""

import dataclasses
from fractions import Fraction
from typing import Literal

from ._parameterization import Parameterization, UnitRules, mean_field
from ._rational import Exponent, exact


def unit_scaled(
    *,
    embedding_rate: Exponent = "1/2",
    bias: Literal["vector", "layer"] = "vector",
    depth: Literal["layers", "branches"] = "layers",
) -> Parameterization:
    r"""Unit-scaled muP: $a$ and $b$ of `mean_field`, counted from fans of one and not from a base.

    $$W_\text{effective} = n^{-a}\, w, \qquad w \sim \mathcal N(0, 1), \qquad
    \eta_w = \eta\, n^{-c},$$

    with $n$ the weight's own fan itself: there is neither a base width nor a $\sigma$. It is muP
    shifted by 1/2 in every role ([`scalex_eqx.theory.shift`][]), so that under Adam and full
    alignment $c$ is 0, 1/2, 0. What the shift does not give is data, each by its name. A weight of
    a stack of $L$ blocks has $\alpha = 1/2$, so that its learning rate falls as $L^{-1/2}$.

    `u_mup` is `unit_scaled()`.

    **Arguments:**

    - `embedding_rate`: what the embeddings' learning rate falls by, $n^{-x}$, beyond the
        prescription's exponent. 1/2 is the published rule, and an observation; 0 is what the
        shift gives.
    - `bias`: `"vector"` adds a bias behind the layer's factor and trains it at $\eta$. `"layer"`
        multiplies it by the layer's own $n^{-a}$ too, so that what it adds changes as
        $n_\text{in}^{-1/2}$ less. It concerns the layers of [`scalex_eqx.nn.unit`][].
    - `depth`: what is counted as the depth of a stack, its `"layers"`, or its residual
        `"branches"`, of which a Transformer's layer has two.

    ??? cite "Source"

        Blake et al., *u-muP: The Unit-Scaled Maximal Update Parametrization* (2024),
        [arXiv:2407.17465](https://arxiv.org/abs/2407.17465). The variants are those of two public
        implementations, `graphcore-research/unit-scaling` (`"layer"`, `"layers"`) and
        `Aleph-Alpha/scaling` (`"branches"`).
    """
    rules = UnitRules(exact(embedding_rate, "embedding_rate"), bias, depth)
    changed = [
        f"{field.name} {getattr(rules, field.name)}"
        for field in dataclasses.fields(rules)
        if getattr(rules, field.name) != field.default
    ]
    name = "u_mup" + (f" ({', '.join(changed)})" if changed else "")
    return dataclasses.replace(mean_field, name=name, branch=Fraction(1, 2), unit=rules)


u_mup = unit_scaled()
