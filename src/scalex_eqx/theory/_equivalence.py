import dataclasses

from ._parameterization import LayerExponents, Parameterization, derived
from ._rational import Exponent, exact
from ._role import Role

_MATRICES = (Role.embedding, Role.hidden, Role.readout)


def shift(parameterization: Parameterization, t: Exponent | LayerExponents) -> Parameterization:
    r"""The equivalent parameterization that scales less in the weight and more in the multiplier.

    $$(a, b, c) \to (a + t,\ b - t,\ c - k t), \qquad k = 1 + p - q$$

    where $p$ and $q$ are the family's degrees in the gradient and in the weight. With the new
    $c$, which [`scalex_eqx.theory.solve`][] gives, training is the same in exact arithmetic.

    **Arguments:**

    - `parameterization`: what to start from.
    - `t`: one exponent for all matrices (an int, a `Fraction` or a string), or one for each role.
    """
    if not isinstance(t, LayerExponents):
        t = LayerExponents(*[exact(t, "t")] * 3)
    a, b = parameterization.a, parameterization.b
    return dataclasses.replace(
        parameterization,
        name=f"{parameterization.name} (shifted)",
        a=derived(a, **{role: a[role] + t[role] for role in _MATRICES}),
        b=derived(b, **{role: b[role] - t[role] for role in _MATRICES}),
    )


def equivalence(old: Parameterization, new: Parameterization) -> LayerExponents:
    r"""The $t$ by role that makes `shift(old, t)` have the exponents of `new`.

    $$t = a_\text{new} - a_\text{old} = b_\text{old} - b_\text{new}$$

    Standard and NTK are equivalent, and so are muP and mean-field.

    **Raises:** `ValueError` if there is none: a role's $a + b$ differ, or the laws of the depth.
    """
    if (old.unit is None) != (new.unit is None):
        one, other = (old, new) if old.unit is None else (new, old)
        raise ValueError(
            f"{one.name!r} counts sizes from those of a base model and {other.name!r} from one; a "
            "power of the width does not lead from the one to the other, but a constant besides"
        )
    if old.branch != new.branch:
        raise ValueError(
            f"{old.name!r} and {new.name!r} are not equivalent: the exponent of residual branches "
            f"is {old.branch} in the one and {new.branch} in the other; expected the same"
        )
    for role in _MATRICES:
        sizes = old.a[role] + old.b[role], new.a[role] + new.b[role]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"{old.name!r} and {new.name!r} are not equivalent: a + b of the {role} is "
                f"{sizes[0]} in the one and {sizes[1]} in the other; expected equal sums"
            )
    return LayerExponents(*(new.a[role] - old.a[role] for role in _MATRICES))
