import dataclasses
from fractions import Fraction

from ._family import Family, follows_gradient
from ._role import Role


@dataclasses.dataclass(frozen=True)
class LayerSolution:
    r"""One layer of a [`scalex_eqx.theory.Solution`][]. All exponents are of $1/r$.

    **Arguments:**

    - `name`: such as `"hidden 3"`, and `role`.
    - `a`, `b`, `c`: of multiplier, initial spread and learning rate.
    - `initial_gradient`, `gradient`: of the gradient's entries at initialisation and in training.
    - `update`: of the effective weight's update.
    - `residual`: of the change of the layer's output; for the readout, of the logits' change.
    - `terms`: the exponents whose minimum the residual is, by name: `alpha`, `u` and `omega` are
        the products that [`scalex_eqx.Alignment`][] names, `update` is the embedding's own
        update, and `vector` that of the biases and gains.
    """

    name: str
    role: Role
    a: Fraction
    b: Fraction
    c: Fraction
    initial_gradient: Fraction
    gradient: Fraction
    update: Fraction
    residual: Fraction
    terms: tuple[tuple[str, Fraction], ...]


@dataclasses.dataclass(frozen=True)
class Alternative:
    """Other learning rates that are stable too, and larger for some of the layers.

    **Arguments:**

    - `why`: a sentence that says what is gained, and for what.
    - `solution`: the exponents and what they do.
    """

    why: str
    solution: "Solution"


@dataclasses.dataclass(frozen=True)
class Solution:
    """Learning-rate exponents and what training does with them in the limit of large width.

    **Arguments:**

    - `family`: of the updates.
    - `layers`: a [`scalex_eqx.theory.LayerSolution`][] for each, from embedding to readout.
    - `exponents`: those of the learning rates by role. Where the hidden layers' differ it is the
        largest of them. A role that the model doesn't have is left out.
    - `faults`: what makes it unstable, a sentence each.
    - `notes`: what was rounded or summed up on the way.
    - `alternatives`: where there are several maxima, the others.
    """

    family: Family
    layers: tuple[LayerSolution, ...]
    exponents: dict[Role, Fraction]
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    alternatives: tuple[Alternative, ...]

    @property
    def stable(self) -> bool:
        """Whether activations and logits change by order one at most."""
        return not self.faults

    @property
    def logits(self) -> Fraction:
        """The exponent of the logits' change."""
        return self.layers[-1].residual

    @property
    def trivial(self) -> bool:
        """Whether the logits' change vanishes as the width grows."""
        return self.logits > 0

    @property
    def feature_learning(self) -> bool:
        """Whether the features in front of the readout change by order one."""
        return self.layers[-2].residual == 0

    @property
    def binding(self) -> tuple[str, ...]:
        """The constraints that hold with equality, such as `"hidden 3: u"`.

        `alpha`, `u` and `omega` are the largest of the products that change a layer's output,
        `size` is the size of the initial weight, which its update may not exceed.
        """
        return tuple(
            f"{layer.name}: {name}" for layer in self.layers for name in self._binding(layer)
        )

    @property
    def verdict(self) -> str:
        """Stability, the logits' change and feature learning, with reasons."""
        if self.faults:
            more = f"; and {len(self.faults) - 3} more" if len(self.faults) > 3 else ""
            return f"unstable: {'; '.join(self.faults[:3])}{more}"
        return f"stable; {self._on_logits()}; {self._on_features()}"

    def _binding(self, layer: LayerSolution) -> list[str]:
        # The logits have to be bounded; a residual equals the smallest of its terms.
        level = min(layer.residual, Fraction(0)) if layer.role is Role.readout else layer.residual
        named = [name for name, value in layer.terms if value == level]
        # Biases and gains are given rates that fit what the matrices do, not the other way round.
        matrix = [name for name in named if name != "vector"]
        return (matrix or named) + ["size"] * self._is_bounded(layer)

    def _is_bounded(self, layer: LayerSolution) -> bool:
        """Whether only the size of the initial weight keeps the update from being larger."""
        q = self.family.of_role(layer.role).weight_degree
        follows = follows_gradient(self.family, (one.role for one in self.layers[:-1]))
        applies = q or (follows and layer.role is Role.readout)
        return bool(applies) and layer.update == layer.a + layer.b

    def _on_logits(self) -> str:
        if not self.trivial:
            return "the logits change by order one"
        said = f"trivial in the limit, the logits' change falls as r^-{self.logits}: "
        if not self._is_bounded(self.layers[-1]):
            return said + "the learning rates are too small to change them"
        if self.family.of_role(Role.readout).weight_degree:
            return said + "a readout update no larger than its weight is too small to change them"
        return said + (
            "a larger update of the readout would exceed its initial size and enlarge the "
            "gradients of all layers before it"
        )

    def _on_features(self) -> str:
        features = self.layers[-2]
        if self.feature_learning:
            return "features are learned"
        said = f"lazy, the features' change falls as r^-{features.residual}: "
        if dict(self.layers[-1].terms)["omega"] == 0:
            return said + "more would make the logits grow, for the readout's omega"
        if self._is_bounded(features):
            return said + f"an update of {features.name} no larger than its weight is too small"
        return said + "the learning rates ask for no more"
