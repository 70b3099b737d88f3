import dataclasses
from collections.abc import Iterator, Sequence
from fractions import Fraction

from ._alignment import Alignments
from ._assess import ZERO, assess_layers, changes, natural_update
from ._family import Families, Family, as_family, follows_gradient
from ._layers import Infeasible, Layer, Layers, as_layers, check_initialisation
from ._parameterization import Parameterization
from ._role import Role
from ._solution import Alternative, Solution


def solve(
    parameterization: Layers,
    family: Families,
    alignment: Alignments,
    *,
    depth: int | None = None,
    feature_learning: bool = False,
    nontrivial: bool = False,
) -> Solution:
    r"""The exponents $c$ of the largest stable learning rates, $\eta \sim r^{-c}$, exactly.

    Residuals $\rho$ first, from the readout to the embedding, then the sizes $e$ of the
    effective updates, from the embedding to the readout:

    $$\rho_{l-1} = \max(0,\ \rho_l + \omega_l - a_l - b_l)$$

    $$e_l = \rho_l + \max(\alpha_l,\ u_l - r_{l-1}), \qquad e_1 = \rho_1$$

    $$c_l = e_l - (a_l + p\, g_l + q\, b_l + o_l)$$

    where $\rho = 0$ at the readout, and $r_{l-1}$ is the residual that results. Updates may not
    outgrow their initial weight, $e_l \ge a_l + b_l$, in any layer if $q > 0$, and in the readout
    if $p > 0$. Several maxima can exist. This one has the smallest residuals, and for them the
    largest learning rates; `alternatives` has others.

    **Arguments:**

    - `parameterization`: a `Parameterization`, or pairs $(a, b)$ for every layer from embedding
        to readout.
    - `family`: `"sgd"`, `"adam"`, `"adafactor"`, an `UpdateFamily`, or a mapping with one for
        each role, as [`scalex_eqx.theory.as_family`][] takes it.
    - `alignment`: one `Alignment` for all layers, a mapping with one each for `hidden` and
        `readout`, or a sequence with one for every layer behind the embedding. The embedding
        needs none, since its fan-in doesn't grow.
    - `depth`: the number of hidden layers, 1 unless layers are given one by one.
    - `feature_learning`: require that the features in front of the readout change by order one.
    - `nontrivial`: require that the logits do.

    **Returns:** a [`scalex_eqx.theory.Solution`][].

    **Raises:** [`scalex_eqx.theory.Infeasible`][], a `ValueError`, if the parameterization is not
    stable at initialisation or a requirement cannot be met; it names the constraint that cannot
    hold. `ValueError` if numbers of layers contradict each other.

    ??? cite "Source"

        The constraints are those of Everett et al. (2024),
        [arXiv:2407.05872](https://arxiv.org/abs/2407.05872), appendix.
    """
    family = as_family(family)
    layers, notes = as_layers(parameterization, family, alignment, depth)
    check_initialisation(
        _name(parameterization), [(one.name, one.role, one.a, one.b) for one in layers]
    )
    residuals = _required_residuals(layers)
    solution = _largest_rates(layers, family, residuals, notes)
    if nontrivial and solution.trivial:
        if layers[-1].family.weight_degree:
            raise Infeasible(_why_trivial(layers[-1]))
        solution = _largest_rates(layers, family, residuals, notes, bounded=False)
    if feature_learning and not solution.feature_learning:
        raise Infeasible(_why_lazy(layers, residuals, solution))
    alternatives = tuple(
        one
        for one in _alternatives(layers, family, residuals, solution, notes)
        if not (nontrivial and one.solution.trivial)
        and (one.solution.feature_learning or not feature_learning)
    )
    return dataclasses.replace(solution, alternatives=alternatives)


def _name(parameterization: Layers) -> str:
    if isinstance(parameterization, Parameterization):
        return f"parameterization {parameterization.name!r}"
    return "the parameterization by layers"


def _required_residuals(layers: Sequence[Layer], *, lazy: bool = False) -> list[Fraction]:
    """How far each layer's change must fall so that those behind it stay bounded.

    `lazy` also lets it fall until a layer's update meets the input's change no worse than the
    input: then u no longer limits the learning rate.
    """
    residuals = [ZERO]
    for layer in reversed(layers):
        s = layer.alignment
        if s is not None:
            required = residuals[-1] + s.omega - layer.size
            residuals.append(max(ZERO, required, s.u - s.alpha if lazy else ZERO))
    return residuals[::-1]


def _largest_rates(
    layers: Sequence[Layer],
    family: Family,
    residuals: Sequence[Fraction],
    notes: tuple[str, ...],
    *,
    bounded: bool = True,
) -> Solution:
    """The largest learning rates that keep every layer's change at or below its residual.

    `bounded`: whether the readout's update is kept at or below its initial size where p > 0 in
    front of it.
    """
    follows = follows_gradient(family, (layer.role for layer in layers[:-1]))
    of_vector = family.of_role(Role.vector).gradient_degree
    updates, largest, previous = [], ZERO, ZERO
    for layer, residual in zip(layers, residuals, strict=True):
        s = layer.alignment
        update = residual if s is None else residual + max(s.alpha, s.u - previous)
        if layer.family.weight_degree or (follows and bounded and layer is layers[-1]):
            update = max(update, layer.size)
        updates.append(update)
        largest = max(largest, previous)
        previous = min(changes(layer, update, previous).values())
    readout = layers[-1]
    backward = min(readout.size, updates[-1])
    rates = [
        update - natural_update(layer, layer.a if layer is readout else layer.a + backward)
        for layer, update in zip(layers, updates, strict=True)
    ]
    # Biases and gains stand at every layer and must not add to any of their changes.
    others = {Role.vector: largest - of_vector * backward, Role.constant: ZERO}
    return assess_layers(layers, family, rates, others, notes)


def _alternatives(
    layers: Sequence[Layer],
    family: Family,
    residuals: Sequence[Fraction],
    solution: Solution,
    notes: tuple[str, ...],
) -> Iterator[Alternative]:
    """Other maxima. Each has a larger learning rate somewhere, or it is none."""
    others: dict[str, Solution] = {}
    # What keeps it there is the gradient behind it alone, and not the size of its own weight.
    is_free = not layers[-1].family.weight_degree
    follows = follows_gradient(family, (layer.role for layer in layers[:-1]))
    if is_free and follows and solution.layers[-1].update == layers[-1].size:
        others[
            "a larger learning rate of the readout, for smaller ones of all layers before it: its "
            "update exceeds its initial size, and the gradients grow with it"
        ] = _largest_rates(layers, family, residuals, notes, bounded=False)
    lazy = _required_residuals(layers, lazy=True)
    if lazy != residuals:
        others[
            "larger learning rates of layers where u > alpha, for smaller ones of layers before "
            "them: features that change less meet the update more gently"
        ] = _largest_rates(layers, family, lazy, notes)
    for why, other in others.items():
        if any(new.c < old.c for new, old in zip(other.layers, solution.layers, strict=True)):
            yield Alternative(why, other)


def _why_trivial(readout: Layer) -> str:
    s = readout.alignment
    assert s is not None
    return (
        "the logits' change cannot be of order one: the readout's update may not outgrow its "
        f"weight, which falls as r^-{readout.size} (a + b), and with alpha = {s.alpha} and "
        f"u = {s.u} that changes the logits too little"
    )


def _why_lazy(layers: Sequence[Layer], residuals: Sequence[Fraction], solution: Solution) -> str:
    features, readout = layers[-2:]
    assert readout.alignment is not None
    if residuals[-2]:
        return (
            "features cannot change by order one: bounded logits need a + b + r_L - omega >= 0 of "
            f"the readout, and a + b = {readout.size} with omega = {readout.alignment.omega} "
            f"forces r_L >= {residuals[-2]}"
        )
    return (
        f"features cannot change by order one: the update of {features.name} may not outgrow its "
        f"weight, which forces r_L = {solution.layers[-2].residual}"
    )
