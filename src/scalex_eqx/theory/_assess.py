from collections.abc import Mapping, Sequence
from fractions import Fraction

from ._alignment import Alignments
from ._family import Families, Family, as_family
from ._layers import Layer, Layers, as_layers
from ._rational import Number, rounded
from ._role import Role
from ._solution import LayerSolution, Solution

LearningRates = Mapping[Role, Number] | Mapping[str, Number] | Sequence[Number]
"""Exponents c by role, or one for each layer from embedding to readout."""

ZERO = Fraction(0)


def assess(
    parameterization: Layers,
    family: Families,
    alignment: Alignments,
    learning_rates: LearningRates,
    *,
    depth: int | None = None,
) -> Solution:
    r"""What training does with given learning rates, $\eta \sim r^{-c}$, as the width grows.

    With $e$ the size exponent of the effective update and $r_l$ the residual, the exponent of
    the change of layer $l$'s output,

    $$e_l = a_l + c_l + p\, g_l + q\, b_l + o_l,$$

    $$r_l = \min(e_l - \alpha_l,\ e_l + r_{l-1} - u_l,\ a_l + b_l + r_{l-1} - \omega_l),$$

    and $r_1 = e_1$ for the embedding. The same minimum at the readout is the exponent of the
    logits' change. A negative one means that the change grows with the width.

    **Arguments:**

    - `parameterization`, `family`, `alignment`, `depth`: as in [`scalex_eqx.theory.solve`][].
    - `learning_rates`: exponents $c$ by role, such as all zero for one global learning rate, or
        one for each layer from embedding to readout. By role, `vector` and `constant` may be left
        out: the model then has no such weights.

    **Returns:** a [`scalex_eqx.theory.Solution`][] without alternatives.

    **Raises:** `ValueError` for a role without an exponent or contradicting numbers of layers.
    """
    family = as_family(family)
    layers, notes = as_layers(parameterization, family, alignment, depth)
    rates, rate_notes = _read_rates(learning_rates, layers)
    used = [rates[layer.name] for layer in layers]
    others = {role: rates[role] for role in (Role.vector, Role.constant) if role in rates}
    return assess_layers(layers, family, used, others, (*notes, *rate_notes))


def assess_layers(
    layers: Sequence[Layer],
    family: Family,
    rates: Sequence[Fraction],
    others: Mapping[Role, Fraction],
    notes: tuple[str, ...],
) -> Solution:
    """The verdict on one exponent for each layer, and those of vectors and constants."""
    *_, readout = layers
    readout_update = rates[-1] + natural_update(readout, readout.a)
    backward = min(readout.size, readout_update)
    bias = (
        others[Role.vector] + family.of_role(Role.vector).gradient_degree * backward
        if Role.vector in others
        else None
    )
    solved: list[LayerSolution] = []
    faults: list[str] = []
    previous = ZERO
    for layer, c in zip(layers, rates, strict=True):
        gradient = layer.a if layer is readout else layer.a + backward
        update = c + natural_update(layer, gradient)
        terms = changes(layer, update, previous)
        # A bias and a gain stand beside every matrix but the readout.
        if bias is not None and layer is not readout:
            terms["vector"] = bias
        one = LayerSolution(
            name=layer.name,
            role=layer.role,
            a=layer.a,
            b=layer.b,
            c=c,
            initial_gradient=layer.a if layer is readout else layer.a + readout.size,
            gradient=gradient,
            update=update,
            residual=min(terms.values()),
            terms=tuple(terms.items()),
        )
        solved.append(one)
        faults += _faults(layer, one, previous)
        previous = one.residual
    faults += [
        f"{role}: its update grows as r^{-change}"
        for role, change in ((Role.vector, bias), (Role.constant, others.get(Role.constant)))
        if change is not None and change < 0
    ]
    exponents, said = _by_role(solved, others)
    return Solution(family, tuple(solved), exponents, tuple(faults), (*notes, *said), ())


def natural_update(layer: Layer, gradient: Fraction) -> Fraction:
    """The exponent of the effective update's size at a learning rate that stays constant."""
    p, q = layer.family.gradient_degree, layer.family.weight_degree
    return layer.a + p * gradient + q * layer.b + layer.offset


def changes(layer: Layer, update: Fraction, previous: Fraction) -> dict[str, Fraction]:
    """The exponents of the terms that the change of a layer's output is a sum of."""
    s = layer.alignment
    if s is None:
        return {"update": update}
    return {
        "alpha": update - s.alpha,
        "u": update + previous - s.u,
        "omega": layer.size + previous - s.omega,
    }


def _faults(layer: Layer, solved: LayerSolution, previous: Fraction) -> list[str]:
    """What this layer itself does wrong, also where the change of its input doesn't grow."""
    found = []
    if solved.residual < 0:
        own = changes(layer, solved.update, max(previous, ZERO))
        worst = min(own.values())
        what = "the logits' change" if layer.role is Role.readout else "its output's change"
        named = ", ".join(name for name, value in own.items() if value == worst)
        if worst < 0:
            found.append(f"{layer.name}: {what} grows as r^{-worst} ({named})")
    if layer.family.weight_degree and solved.update < layer.size:
        excess = layer.size - solved.update
        found.append(f"{layer.name}: its update outgrows its weight by r^{excess}")
    return found


def _read_rates(
    learning_rates: LearningRates, layers: Sequence[Layer]
) -> tuple[dict[str, Fraction], tuple[str, ...]]:
    """Exponents by the layers' names and, where given, by `vector` and `constant`."""
    if isinstance(learning_rates, Mapping):
        by_role = {Role(role): c for role, c in learning_rates.items()}
        missing = {layer.role for layer in layers} - set(by_role)
        if missing:
            raise ValueError(
                f"learning_rates has no exponent for {', '.join(sorted(missing))}; it names "
                f"{', '.join(by_role) or 'nothing'}. Add it"
            )
        given = {layer.name: by_role[layer.role] for layer in layers} | {
            role: by_role[role] for role in (Role.vector, Role.constant) if role in by_role
        }
    elif len(learning_rates) != len(layers):
        raise ValueError(
            f"learning_rates has {len(learning_rates)} exponents for {len(layers)} layers; "
            "expected one for each, from embedding to readout"
        )
    else:
        given = {layer.name: c for layer, c in zip(layers, learning_rates, strict=True)}
    read = {name: rounded(c, f"learning rate of {name}") for name, c in given.items()}
    return {name: c for name, (c, _) in read.items()}, tuple(
        note for _, of_one in read.values() for note in of_one
    )


def _by_role(
    solved: Sequence[LayerSolution], others: Mapping[Role, Fraction]
) -> tuple[dict[Role, Fraction], tuple[str, ...]]:
    """Exponents by role, and a note where the hidden layers' differ."""
    hidden = [layer.c for layer in solved[1:-1]]
    exponents = {Role.embedding: solved[0].c}
    if hidden:
        exponents[Role.hidden] = max(hidden)
    exponents |= {Role.readout: solved[-1].c, **others}
    if len(set(hidden)) < 2:
        return exponents, ()
    return exponents, (
        f"the hidden layers' exponents go from {min(hidden)} to {max(hidden)}; the role has the "
        "largest, the smallest learning rate",
    )
