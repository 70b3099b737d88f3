from fractions import Fraction

from ._alignment import Alignments
from ._assess import assess
from ._exponents import learning_rate_exponents
from ._family import Families, as_family
from ._parameterization import Parameterization
from ._rational import Exponent, exact
from ._role import TRAINED, Role


def with_embedding_ratio(
    parameterization: Parameterization,
    family: Families,
    alignment: Alignments,
    *,
    ratio: Exponent,
) -> dict[Role, Fraction]:
    r"""Learning-rate exponents with another embedding rate, $r^\rho$ times hidden's.

    $$c_\text{embedding} = (a + c + o)_\text{hidden} - (a + o)_\text{embedding} - \rho$$

    The ratio is that of the updates of *effective* weights, and so means the same in every
    parameterization. For Adam, of which $o = 0$, it is that of learning rates. All other exponents
    are those of [`scalex_eqx.theory.learning_rate_exponents`][]. The dictionary is a `rates` of any
    optimizer of the family:

    ```python
    rates = sx.theory.with_embedding_ratio(sx.standard, "adam", sx.full_alignment, ratio="1/2")
    tx = sx.adam(3e-3, rates)
    ```

    It holds for models of `parameterization`, and for all weights of role `embedding`. A path goes
    before the role: `{**rates, "positions/weight": 0}`.

    **Arguments:**

    - `parameterization`, `family`, `alignment`: as in
        [`scalex_eqx.theory.learning_rate_exponents`][]. Only for families whose updates follow
        neither gradient nor weight, such as `"adam"`: the published ratios are Adam's, and for
        these a mapping is all that an `Alignment` is, also where axes grow at unequal rates.
    - `ratio`: $\rho$; 1 is what full alignment gives.

    **Returns:** a dictionary from each of the five trained roles to its exponent.

    **Raises:** `ValueError` for another family, for a parameterization with a law for the depth,
    and for a ratio with which the embedding's update would grow with the width.

    ??? cite "Source"

        $\rho = 1/2$ where the vocabulary is much larger than the width: Hayou and Liu (2025),
        [arXiv:2506.15025](https://arxiv.org/abs/2506.15025). $\rho = 1$: Everett et al. (2024),
        [arXiv:2407.05872](https://arxiv.org/abs/2407.05872), and Kalra and Barkeshli (2026),
        [arXiv:2605.21486](https://arxiv.org/abs/2605.21486).
    """
    by_role = as_family(family)
    families = [by_role.of_role(role) for role in TRAINED]
    if any(one.gradient_degree or one.weight_degree for one in families):
        raise ValueError(
            f"family {by_role.name!r} has updates that follow the gradient or the weight; expected "
            "one such as 'adam', for which the ratio of the rates is that of the updates"
        )
    if parameterization.branch is not None:
        raise ValueError(
            f"parameterization {parameterization.name!r} has a law for the depth, which a mapping "
            "of exponents of the width leaves out; pass an Alignment, or one without that law"
        )
    rho = exact(ratio, "ratio")
    exponents = learning_rate_exponents(parameterization, by_role, alignment)
    embedding, hidden, *_ = assess(parameterization, by_role, alignment, exponents).layers
    if hidden.update < rho:
        raise ValueError(
            f"with ratio {rho} the embedding's update would grow as r^{rho - hidden.update} in "
            f"{parameterization.name!r}, where hidden's falls as r^{-hidden.update}; expected a "
            f"ratio of at most {hidden.update}"
        )
    return exponents | {Role.embedding: embedding.c + hidden.update - rho - embedding.update}
