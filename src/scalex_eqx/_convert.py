import dataclasses
import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import equinox as eqx
import jax.tree_util as jtu
import optax
from jaxtyping import PyTree

from ._laws import rate_of
from ._pages import Section, listed, see
from ._parameterize import is_tie
from ._parts import Part, blank_state, map_parts, parts
from ._spec import WeightSpec
from ._weight import (
    Weight,
    is_weight,
    path_string,
    rebuilt,
    require_complete,
    weights_with_paths,
)
from .optim import Constant, Degree, Rule
from .theory import Parameterization, equivalence


def convert(
    model: PyTree,
    state: optax.OptState | None = None,
    *,
    to: Parameterization,
    tx: optax.GradientTransformation | optax.MultiSteps | None = None,
) -> tuple[PyTree, Any]:
    r"""A model and its optimizer's state in an equivalent parameterization.

    With $t = a' - a = b - b'$ for each weight, the value becomes $r^t w$, so that the effective
    weight $r^{-a} w$ stays what it is. Its gradient is then $r^{-t}$ as large, and whatever the
    optimizer remembers changes with its degree in gradients and weights. From there on training
    takes the same steps as it would have, up to rounding.

    The optimizer itself stays: it reads the new law from the weights. Whether its step is the
    same step in the new units is checked part by part, from the `scalex_eqx.optim.Rule` that
    each part's state carries.

    **Arguments:**

    - `model`: a model from `parameterize`, at any time of its training, or a part of one, as
        `equinox.partition` makes it.
    - `state`: the state of `tx`, from `tx.init` or after any number of updates. Without one, and
        without `tx`, for a model or a part that no optimizer trains. Parts that have been converted
        alike can be combined again.
    - `to`: the parameterization wanted; $a + b$ of each role must be what it is now, as it is
        within {`standard`, `ntk`} and within {`mup`, `mean_field`}.
    - `tx`: the optimizer that `state` belongs to.

    **Returns:** the model and the state; `None` for that if none is given.

    **Raises:** `ValueError` that names the part, if the parameterizations are not equivalent, if
    `state` is not a state of `tx`, or if the step of `tx` is not the same in other units: one
    learning rate for all weights under Adam or SGD, a constant epsilon, coupled decay, a constant
    floor or epsilon of Adafactor, or a transformation that isn't the library's, such as
    `optax.clip_by_global_norm` (use [`scalex_eqx.clip_by_effective_norm`][]).

    ??? cite "Source"

        Everett et al. (2024), [arXiv:2407.05872](https://arxiv.org/abs/2407.05872): the
        equivalence $(a, b, c) \to (a + t, b - t, c - k t)$ with $k = 2, 1, 0$ for SGD, Adam and
        Adafactor.
    """
    if not isinstance(to, Parameterization):
        raise ValueError(f"to is {to!r}; expected a Parameterization such as scalex_eqx.ntk")
    if (state is None) != (tx is None):
        given, other = ("tx", "state") if state is None else ("state", "tx")
        raise ValueError(
            f"{given} is given and {other} is not; give the optimizer with its state, or neither "
            "for a model that no optimizer trains"
        )
    params = eqx.filter(model, eqx.is_inexact_array)
    require_complete(params)
    moves = _moves(model, to)
    new_state = None if tx is None else _converted_state(params, state, moves, tx)
    new_model = _map_weights_with_path(lambda path, w: moves[path].scaled(w, -moves[path].t), model)
    return new_model, new_state


def _converted_state(
    params: PyTree, state: Any, moves: "dict[str, _Move]", tx: Any
) -> optax.OptState:
    blank = blank_state(tx, params)
    if jtu.tree_structure(blank) != jtu.tree_structure(state):
        raise ValueError(
            "state is not a state of tx for this model: tx.init(model) has another structure or "
            "other scaling laws. Pass the state together with the optimizer and the model that "
            "it was trained with"
        )
    walk = _Walk(moves, parts(blank))
    new_state = map_parts(walk.convert, state)
    walk.finish()
    return new_state


class _Move(NamedTuple):
    """A weight's change of law."""

    old: WeightSpec
    new: WeightSpec

    @property
    def t(self) -> Fraction:
        """The exponent that the multiplier gains."""
        # What moves into the multiplier leaves the initial spread.
        return self.old.spread_exponent - self.new.spread_exponent

    def gain(self, degree: Degree, update: Fraction) -> Fraction:
        """The exponent that a quantity has to gain, if updates gain `update`."""
        return degree.update * update - degree.weight * self.t

    def scaled(self, weight: Weight, exponent: Fraction) -> Weight:
        r"""The value times $r^{-\text{exponent}}$, under the new law."""
        value = weight.value
        if exponent and eqx.is_array(value):
            value = self.new.scale(exponent) * value
        return rebuilt(weight, value, self.new)


class _Walk:
    """Follows the updates through the parts of an optimizer, and converts each part's state.

    What it follows is the exponent that every weight's update gains by the change of units. A
    gradient gains $t$; the step that is subtracted from $r^t w$ has to have gained $-t$.
    """

    def __init__(self, moves: dict[str, _Move], blank: list[Part]):
        self.moves = moves
        self.trained = {path: move for path, move in moves.items() if move.old.is_trained}
        self.gained = {path: move.t for path, move in self.trained.items()}
        # Their numbers are those of the optimizer that goes on; a state may have older ones.
        self.rules = iter(blank)
        self.errors: list[str] = []

    def convert(self, part: Part) -> Any:
        """The part's state in the new units."""
        rule = next(self.rules).rule
        if rule is None:
            self.errors.append(_unknown(part))
            return part.state
        self._check_constants(part, rule)
        fields = {
            name: _map_weights_with_path(
                functools.partial(self._convert_field, degree), getattr(part.state, name)
            )
            for name, degree in rule.fields
        }
        for path, move in self.trained.items():
            if part.works_on(path):
                self.gained[path] = move.gain(rule.output, self.gained[path])
                before, after = (rate_of(path, spec, [rule]) for spec in move)
                self.gained[path] += (after - before).total
        return part.state._replace(**fields) if fields else part.state

    def _convert_field(self, degree: Degree, path: str, weight: Weight) -> Weight:
        move = self.moves[path]
        gain = move.gain(degree, self.gained[path]) if path in self.trained else Fraction(0)
        return move.scaled(weight, gain)

    def _check_constants(self, part: Part, rule: Rule) -> None:
        for constant in rule.constants:
            wrong = [
                path
                for path, move in self.trained.items()
                if part.works_on(path) and not self._follows(constant, path)
            ]
            if wrong:
                self.errors.append(
                    f"{part.name}: {constant.name} of {rule.name} would have to change with the "
                    f"units of {', '.join(wrong)}, and does not"
                )

    def _follows(self, constant: Constant, path: str) -> bool:
        """Whether a constant changes with the units as its formula asks."""
        move = self.trained[path]
        before, after = map(constant.base, move)
        if before == after == 0:
            return True
        return before == after and (
            move.gain(constant.degree, self.gained[path])
            == (constant.power(move.new) - constant.power(move.old)).total
        )

    def finish(self) -> None:
        """Refuses, with everything that was found, if the steps are not the same steps."""
        wrong = [path for path, move in self.trained.items() if self.gained[path] != -move.t]
        if wrong and not self.errors:
            self.errors.append(
                "the learning rates do not follow the weights: those of "
                f"{', '.join(wrong)} would have to have other exponents, which one learning rate "
                "for all weights and exponents given by hand do not; use rates=full_alignment or "
                "another Alignment"
            )
        if self.errors:
            heading = "converting would not continue the same training:"
            raise ValueError(listed(heading, self.errors) + see(Section.conversion))


def _unknown(part: Part) -> str:
    if isinstance(part.state, optax.MaskedState):
        return f"{part.name} masks weights, and nothing inside keeps arrays that would tell which"
    return (
        f"{part.name} is a {type(part.state).__name__} of a transformation that is not this "
        "library's, so that how it depends on the units of gradients and weights is not known; use "
        "one of the library's rules, or put a scalex_eqx.optim.Rule into its state"
    )


def _moves(model: PyTree, to: Parameterization) -> dict[str, _Move]:
    """The change of law of every weight, by its path."""
    weights = weights_with_paths(model)
    laws = {w.spec.parameterization for w in weights.values() if w.spec.parameterization}
    # Of a part the tie itself may stand in another part.
    if any(law.is_tied for law in laws) or any(map(is_tie, jtu.tree_leaves(model, is_leaf=is_tie))):
        # The factor between the two uses is the same in all parameterizations: a + b is 0 for
        # an embedding and 1 for a tied readout.
        to = to.tied()
    for law in laws:
        equivalence(law, to)
    return {
        path: _Move(w.spec, dataclasses.replace(w.spec, parameterization=to))
        for path, w in weights.items()
    }


def _map_weights_with_path(f: Callable[[str, Weight], Weight], tree: PyTree) -> PyTree:
    return jtu.tree_map_with_path(
        lambda path, leaf: f(path_string(path), leaf) if is_weight(leaf) else leaf,
        tree,
        is_leaf=is_weight,
    )
