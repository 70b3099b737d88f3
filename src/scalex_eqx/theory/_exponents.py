import functools
from fractions import Fraction

from ._alignment import Alignments
from ._family import Families
from ._layers import check_initialisation
from ._parameterization import Parameterization
from ._power import Power, own_power
from ._role import Role
from ._solve import solve


def gradient_exponents(parameterization: Parameterization) -> dict[Role, Fraction]:
    r"""The exponents $g$ of the gradient's entries at initialisation, $\sim r^{-g}$.

    With $A = a + b$ of the readout, $g = A + a$ for every weight before the readout and
    $g = a$ for the readout itself, which sees the features and not its own size.

    **Arguments:**

    - `parameterization`: the exponents $a$ and $b$.

    **Returns:** a dictionary from each of the five trained roles to its exponent. For a tied
    embedding (see `Parameterization.tied`) the two uses of the weight have equal exponents.

    **Raises:** `ValueError` if the parameterization does not start at a stable point.

    ??? cite "Source"

        Everett et al. (2024), [arXiv:2407.05872](https://arxiv.org/abs/2407.05872), Table 1,
        column "Gradient".
    """
    a, b = parameterization.a, parameterization.b
    check_initialisation(
        f"parameterization {parameterization.name!r}",
        [(role, role, a[role], b[role]) for role in (Role.embedding, Role.hidden, Role.readout)],
    )
    before_readout = parameterization.logit_exponent
    return {
        Role.embedding: before_readout + a.embedding,
        Role.hidden: before_readout + a.hidden,
        Role.readout: a.readout,
        Role.vector: before_readout,
        Role.constant: Fraction(0),
    }


@functools.cache
def gradient_power(parameterization: Parameterization, role: Role) -> Power:
    r"""How the gradient's entries follow a weight's sizes at initialisation.

    $$|g| \sim r_R^{-(A - 1/2)}\; r_\text{out}^{-1/2}\; r^{-a}$$

    for every weight before the readout, with $r_R$ the ratio of the readout's fan-in,
    $r_\text{out}$ that of the weight's own fan-out and $r$ that of its own width: the fan-in of a
    hidden weight, the fan-out of an embedding or a vector. The readout's own is $r^{-a}$. Where
    all ratios are equal it is $r^{-g}$ of [`scalex_eqx.theory.gradient_exponents`][].

    The back-propagated signal is a sum over the readout's outputs, of entries of size
    $r_R^{-A}$, spread over the neurons of a layer: its norm over a layer of any width is the
    one that it has over the readout's inputs, $r_R^{1/2 - A}$.

    With a law for the depth, the gradient of a weight in a residual branch comes through the
    branch's factor, and is $L^{-\alpha}$ times as large.

    **Arguments:**

    - `parameterization`: the exponents $a$ and $b$.
    - `role`: of the weight.
    """
    gradient_exponents(parameterization)  # Refuses one that is not stable at initialisation.
    own = own_power(role, parameterization.a[role]) + Power(depth=parameterization.branch or 0)
    if role not in (Role.embedding, Role.hidden, Role.vector):
        return own
    half = Fraction(1, 2)
    return own + Power(fan_out=half, readout=parameterization.logit_exponent - half)


def learning_rate_exponents(
    parameterization: Parameterization,
    family: Families,
    alignment: Alignments,
    depth: int = 1,
) -> dict[Role, Fraction]:
    r"""The exponents $c$ of the largest stable learning rates, $\eta \sim r^{-c}$.

    They are those of [`scalex_eqx.theory.solve`][], which has the equations and says more about
    them. For $\alpha = u = s$ and $\omega = 1/2$ they balance the effective weight's update with
    the sum over the fan-in, so that each layer's output changes by order one and no more:

    $$a + c + p g + q b + o = \begin{cases} 0 & \text{embedding, vector} \\
    s & \text{hidden, readout.} \end{cases}$$

    A family that is relative to the weight ($q > 0$) can be asked for less, and so can the
    readout of one that follows the gradient ($p > 0$).

    **Arguments:**

    - `parameterization`: the exponents $a$ and $b$.
    - `family`: `"sgd"`, `"adam"`, `"adafactor"`, an `UpdateFamily`, or a mapping with one for
        each role.
    - `alignment`: one for all layers, or as in [`scalex_eqx.theory.solve`][].
    - `depth`: the number of hidden layers. It matters if
        [`scalex_eqx.theory.depends_on_depth`][] says so.

    **Returns:** a dictionary from each of the five trained roles to its exponent, without
    `hidden` if `depth` is 0. Where the hidden layers' exponents differ it is the largest. The
    embedding's has `embedding_rate` of [`scalex_eqx.theory.unit_scaled`][] added to it.

    **Raises:** `ValueError` if the parameterization does not start at a stable point.

    ??? cite "Source"

        Everett et al. (2024), [arXiv:2407.05872](https://arxiv.org/abs/2407.05872), Table 1.
        With muP and mean-field and no alignment, for SGD and Adafactor, the readout's exponent
        is the largest learning rate but the logits' change vanishes as the width grows.
    """
    exponents = solve(parameterization, family, alignment, depth=depth).exponents
    if parameterization.unit is not None:
        exponents[Role.embedding] += parameterization.unit.embedding_rate
    return exponents
