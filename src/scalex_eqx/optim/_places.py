import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
from jaxtyping import PyTree

from .._spec import WeightSpec
from .._weight import Weight, is_array, is_trainable, is_weight, of_kind, rebuilt
from ..ops._wide import joined_dtype

GRADIENTS, WEIGHTS = "the gradients", "the weights"

_is_place = of_kind(Weight, optax.MaskedNode, type(None), eqx.nn.State, eqx.nn.StateIndex)


def is_place(node: Any) -> bool:
    """Whether `node` is what gradients, state and weights all have at one place of the tree.

    What a filter or a mask has taken out keeps its place. Running statistics are no weights.
    """
    return _is_place(node)


class Place(NamedTuple):
    """What gradients, state and weights have at one place of the tree.

    **Arguments:**

    - `names`: of the trees; the gradients come first, and the weights last if they are known.
    - `nodes`: what each has there.
    """

    names: tuple[str, ...]
    nodes: tuple[Any, ...]

    @property
    def spec(self) -> WeightSpec | None:
        """The law expected: that of the state, else of the weights, else of the gradients."""
        for node in self.nodes[1:]:
            if is_weight(node):
                return node.spec
        return self.nodes[0].spec if is_weight(self.nodes[0]) else None

    @property
    def gradient(self) -> Any:
        return _value(self.nodes[0])

    @property
    def has_weights(self) -> bool:
        return self.names[-1] == WEIGHTS

    @property
    def state(self) -> list[Any]:
        """The values in the state."""
        return [_value(node) for node in self.nodes[1 : -1 if self.has_weights else None]]

    @property
    def weight(self) -> Any:
        """The array to be moved, as far as it is known: the weight's, or one of the state."""
        found = [_value(self.nodes[-1])] if self.has_weights else []
        return next(filter(is_array, [*found, *self.state]), None)

    @property
    def expected(self) -> str:
        """The dtype and shape of the array to be moved, as far as they are known."""
        w = self.weight
        if w is None or (self.has_weights and w is _value(self.nodes[-1])):
            return described(w)
        return f"{_name(w.dtype)}[{','.join(map(str, _joined_shape(self.state) or ()))}]"

    def usable_gradient(self) -> Any:
        """The gradient, not narrower than the weight, and zero for whole numbers."""
        node, g, w = self.nodes[0], self.gradient, self.weight
        if not is_array(g):
            # A state has such an array in its place, and no gradient would be another structure.
            absent = node is None and bool(self.state) and is_array(w) and is_whole(w)
            return jnp.zeros_like(w) if absent else node
        new = jnp.asarray(g) if isinstance(g, np.ndarray) and is_trainable(g) else g
        if w is not None and not (is_trainable(w) and is_trainable(g)):
            new = jnp.zeros_like(w) if is_whole(w) else g
        elif self.has_weights and w is not None:
            new = new.astype(joined_dtype(new.dtype, w.dtype))
        if new is g:
            return node
        return rebuilt(node, new) if is_weight(node) else new

    def moved_weight(self) -> Any:
        """The weight, or what stands in the gradients' place where there is no gradient."""
        absent = is_absent(self.nodes[0]) and is_absent(self.usable_gradient())
        return self.nodes[0] if absent else self.nodes[-1]

    def is_usable(self) -> bool:
        """Whether gradient and weight are passed on as they are."""
        return self.usable_gradient() is self.nodes[0] and (
            not self.has_weights or self.moved_weight() is self.nodes[-1]
        )

    def problem(self, keeps_all: bool, takes_complex: bool) -> str | None:
        """What is wrong here, if anything is."""
        spec = self.spec
        if spec is None:
            return self._bare()
        for name, node in zip(self.names, self.nodes, strict=True):
            if is_weight(node):
                if node.spec is not spec:
                    return f"{name} have another law: {_difference(node.spec, spec)}"
            elif not is_absent(node):
                return f"{name} have {described(node)} there; expected a Weight"
        if not spec.is_trained or (self.weight is not None and not is_trainable(self.weight)):
            return None
        return self._missing(keeps_all) or self._unlike(takes_complex)

    def _bare(self) -> str | None:
        """The same for an array without a law."""
        g, w = self.gradient, self.weight
        if not is_array(g) or is_trainable(g) or not is_whole(g):
            return None
        if w is None and g.dtype != jax.dtypes.float0:
            return (
                f"the gradient is {described(g)}; expected floating-point numbers, or, of an array "
                "that is not trained, a call that shows it: tx.update(grads, state, params)"
            )
        return (
            f"the gradient is {described(g)}; expected {described(w)}" if is_trainable(w) else None
        )

    def _missing(self, keeps_all: bool) -> str | None:
        """What is not there, although something else of this weight is."""
        g, w = self.gradient, self.weight
        if not is_array(g):
            if is_absent(g) and w is None:
                return None
            expected = "an array" if w is None else self.expected
            return f"the gradient is {described(g)}; expected {expected}"
        if self.state and keeps_all and not any(map(is_array, self.state)):
            return f"{self.names[1]} has no array for it; expected the state of tx.init(params)"
        if self.has_weights and not is_array(_value(self.nodes[-1])):
            return f"the weight is {described(_value(self.nodes[-1]))}; expected an array"
        return None

    def _unlike(self, takes_complex: bool) -> str | None:
        """What the gradient doesn't share with its weight, or can't be computed with."""
        g, w = self.gradient, self.weight
        if not is_array(g):
            return None
        problem = dtype_problem(g.dtype, takes_complex)
        if problem is not None:
            return f"the gradient {problem}"
        known = [x for x in (_value(node) for node in self.nodes[1:]) if is_array(x)]
        if w is None:
            return None
        if self.has_weights:
            fits = w.shape == g.shape and _joined_shape(self.state) in (None, g.shape)
        else:
            fits = _joined_shape(known) == g.shape
        if not fits:
            return f"the gradient is {described(g)}; expected {self.expected}"
        if _is_complex(g) != any(map(_is_complex, known)):
            return f"the gradient is {described(g)}; expected {described(w)}: both real or complex"
        return None


def likeness(nodes: tuple[Any, ...]) -> Any:
    """A key that weights share of which a `Place` says the same; `None` if there isn't one."""
    spec, kinds = getattr(nodes[0], "spec", None), []
    for node in nodes:
        if not is_weight(node) or node.spec is not spec:
            return None
        value = node.value
        if value is None:
            kinds.append(None)
        elif is_array(value):
            kinds.append((type(value), value.shape, value.dtype))
        else:
            return None
    return spec, *kinds


def replaced(
    tree: PyTree, places: dict[int, Place], f: Callable[[Place], Any], column: int
) -> PyTree:
    """`tree` with `f` of some of its places, and the same object where that changes nothing."""
    new = {i: f(place) for i, place in places.items()}
    if all(new[i] is place.nodes[column] for i, place in places.items()):
        return tree
    leaves, treedef = jtu.tree_flatten(tree, is_leaf=is_place)
    return jtu.tree_unflatten(treedef, [new.get(i, leaf) for i, leaf in enumerate(leaves)])


def dtype_problem(dtype: Any, takes_complex: bool) -> str | None:
    """Why a trained weight or a gradient can't have a dtype, if it can't."""
    if not jnp.issubdtype(dtype, jnp.inexact):
        return f"is {_name(dtype)}; expected floating-point numbers"
    if jnp.issubdtype(dtype, jnp.complexfloating) and not takes_complex:
        return (
            f"is {dtype}, and the rule is one of real numbers; use adam or sgd, or make real and "
            "imaginary part two weights"
        )
    if jnp.finfo(dtype).bits < 16:
        return f"is {dtype}, in which most updates are 0; cast it to bfloat16 or wider"
    return None


def is_absent(node: Any) -> bool:
    """Whether a filter or a mask has taken something out here."""
    return node is None or isinstance(node, optax.MaskedNode)


def is_whole(x: Any) -> bool:
    """Whether `x` is an array of integers or truth values, or a gradient of one."""
    kinds = (jnp.integer, jnp.bool_)
    return x.dtype == jax.dtypes.float0 or any(jnp.issubdtype(x.dtype, k) for k in kinds)


def described(x: Any) -> str:
    """An array's dtype and shape, or what else `x` is."""
    if is_weight(x):
        return f"a Weight of {described(x.value)}"
    if is_array(x):
        return f"{_name(x.dtype)}[{','.join(map(str, x.shape))}]"
    return "masked" if isinstance(x, optax.MaskedNode) else repr(x)[:80]


def _value(node: Any) -> Any:
    return node.value if is_weight(node) else node


def _name(dtype: Any) -> str:
    return "float0" if dtype == jax.dtypes.float0 else str(dtype)


def _is_complex(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.complexfloating)


def _joined_shape(arrays: list[Any]) -> tuple[int, ...] | None:
    """That of all together: statistics of rows and columns have length 1 along the others."""
    shapes = [x.shape for x in arrays if is_array(x)]
    if not shapes or len({len(shape) for shape in shapes}) > 1:
        return None if not shapes else ()
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return shapes[0]


def _difference(found: WeightSpec, expected: WeightSpec) -> str:
    said = []
    for field in dataclasses.fields(WeightSpec):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        if a != b:
            a, b = (
                getattr(x, "name", x) if field.name == "parameterization" else x for x in (a, b)
            )
            said.append(f"{field.name} is {a}; expected {b}")
    return ", ".join(said)
