from fractions import Fraction

from ._alignment import Alignment
from ._family import UpdateFamily
from ._parameterization import Parameterization


def depth_exponent(
    parameterization: Parameterization, family: UpdateFamily, alignment: Alignment
) -> Fraction:
    r"""The exponent $c_L$ of the depth in the learning rates inside residual branches.

    $$c_L = s - (1 + p)\, \alpha, \qquad \eta \sim L^{-c_L}$$

    Each of the $L$ branches is multiplied by $L^{-\alpha}$, and so are the gradients that come
    through it. The residual stream sums over $L$ updates: it changes by order one if each adds
    $L^{-s}$, with $s = 1$ where they are aligned with each other and $s = 1/2$ where they are
    independent, as the alignment's `alpha` says of a layer's fan-in. Updates that are relative to
    the weight ($q > 0$) may not outgrow it, $c_L \ge -p\, \alpha$. It is the same for
    matrices, biases and gains.

    **Arguments:**

    - `parameterization`: with $\alpha$ as `branch`; without one there is no law, and $c_L = 0$.
    - `family`: of the updates.
    - `alignment`: assumed.

    ??? cite "Source"

        For Adam and full alignment it is the rule of CompleteP, Dey et al. (2025),
        [arXiv:2505.01618](https://arxiv.org/abs/2505.01618): $\eta \sim L^{\alpha - 1}$. The
        other families are derived.
    """
    if parameterization.branch is None:
        return Fraction(0)
    gained = family.gradient_degree * parameterization.branch
    rate = alignment.alpha - parameterization.branch - gained
    return max(rate, -gained) if family.weight_degree else rate
