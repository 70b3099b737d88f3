import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeGuard, TypeVar, no_type_check

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from ._fused import Fused, is_fused, not_an_array
from ._pages import Section, see
from ._spec import WeightSpec

_Value = TypeVar("_Value")

_ONE_LINE = 10_000


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Weight(Generic[_Value]):
    """An array that carries its own scaling law.

    A node of the model's pytree with one child, `value`, and static data, `spec`. Gradients and
    optimizer state have the same nodes, so that an update rule finds the law of each weight in
    the tree that it is handed.

    The forward pass uses [`scalex_eqx.effective`][] of it. It is not an array itself: modules
    that know nothing of weights are run on [`scalex_eqx.resolve`][] of the model.

    `weight: Weight[Float[Array, "out in"]]` annotates a field whose value's dtype and shape are
    checked where a runtime type checker is at work.

    **Arguments:**

    - `value`: the array.
    - `spec`: a [`scalex_eqx.WeightSpec`][].
    """

    value: _Value
    spec: WeightSpec

    if not TYPE_CHECKING:

        @no_type_check
        def __class_getitem__(cls, hint):
            return _CheckedWeight.of(hint)

    def __repr__(self) -> str:
        return eqx.tree_pformat(self, width=_ONE_LINE)

    def __pdoc__(self, **kwargs: Any) -> Any:
        # What Equinox prints models with asks for this; it is there where Equinox is.
        import wadler_lindig as wl

        if not isinstance(self.spec, WeightSpec):
            return None
        value = wl.pdoc(self.value, **kwargs)
        name = type(self).__name__
        return wl.TextDoc(f"{name}(") + value + wl.TextDoc(f", {self.spec.summary()})")

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError(not_an_array("arithmetic"))

    __jax_array__ = __array__ = __getitem__ = __neg__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __matmul__ = __rmatmul__ = __truediv__ = __rtruediv__ = __pow__ = _refuse


@dataclasses.dataclass(frozen=True, eq=False, slots=True, repr=False)
class Masked(Weight):
    r"""A weight of which some entries are left out, for good.

    $$W = r^{-(a + f)}\, (M \odot w)$$

    A node with two children: `value`, and the `mask`, a buffer that goes with it wherever the model
    goes: into `vmap`, `scan`, sharding and checkpoints. [`scalex_eqx.sparsify`][] makes it. What is
    left out is zero, has no gradient, and no update of any rule. Gradients and updates have such
    nodes too, without a mask; the state of an optimizer has plain weights.

    **Arguments:**

    - `value`, `spec`: as of a [`scalex_eqx.Weight`][]. The spec has the `density`.
    - `mask`: truth values of the value's shape; what is true is kept.
    """

    mask: Any


def rebuilt(weight: Weight, value: Any, spec: WeightSpec | None = None) -> Weight:
    """A node like `weight` with another value, and another spec if one is given."""
    spec = weight.spec if spec is None else spec
    return Masked(value, spec, weight.mask) if type(weight) is Masked else Weight(value, spec)


_VALUE = jtu.GetAttrKey("value")
_new = object.__new__
_set_value = Weight.__dict__["value"].__set__
_set_spec = Weight.__dict__["spec"].__set__


def _flatten(weight: Weight) -> tuple[tuple[Any], WeightSpec]:
    return (weight.value,), weight.spec


def _flatten_with_keys(weight: Weight) -> tuple[tuple[tuple[Any, Any]], WeightSpec]:
    return ((_VALUE, weight.value),), weight.spec


def _unflatten(spec: WeightSpec, children: Any) -> Weight:
    weight = _new(Weight)
    _set_value(weight, children[0])
    _set_spec(weight, spec)
    return weight


# A compiled step takes every weight apart and puts it together again at each call. Slots that
# are filled without the frozen class's __init__ are the quickest way; `register_dataclass` calls
# it with keywords, which costs twice as much.
jtu.register_pytree_with_keys(Weight, _flatten_with_keys, _unflatten, _flatten)


_MASK = jtu.GetAttrKey("mask")


def _masked(spec: WeightSpec, children: Any) -> Masked:
    return Masked(children[0], spec, children[1])


jtu.register_pytree_with_keys(
    Masked,
    lambda weight: (((_VALUE, weight.value), (_MASK, weight.mask)), weight.spec),
    _masked,
    lambda weight: ((weight.value, weight.mask), weight.spec),
)


def _refuse_attribute(name: str, _: Weight) -> NoReturn:
    raise AttributeError(not_an_array(f"attribute {name!r}"))


# Not in a __getattr__, which would slow down every access to the fields.
for _name in dir(jax.Array):
    if not _name.startswith("_"):
        setattr(Weight, _name, property(functools.partial(_refuse_attribute, _name)))


class _CheckedWeight(type):
    """What `Weight[hint]` is: a class whose instances are weights with a value of `hint`."""

    _hint: Any

    # A type checker's wrapper would open a scope of its own for the names of dimensions.
    @no_type_check
    def __instancecheck__(cls, instance):
        return isinstance(instance, Weight) and isinstance(instance.value, cls._hint)

    @no_type_check
    def __instancecheck_str__(cls, instance):
        found = instance.value if isinstance(instance, Weight) else instance
        return f"{eqx.tree_pformat(found, short_arrays=True)} is not the value of a {cls.__name__}"

    @no_type_check
    @staticmethod
    def of(hint):
        name = getattr(hint, "__name__", repr(hint))
        return _CheckedWeight(f"Weight[{name}]", (), {"_hint": hint})


@jtu.register_static
@dataclasses.dataclass(frozen=True)
class Tie:
    """The factor on a tied embedding where it is used as readout: a node without a weight.

    It multiplies the *effective* embedding. Its presence in a model tells `parameterize` that
    the embedding is tied, which changes every weight's gradient exponent.

    **Arguments:**

    - `factor`: at the base width, where it is a constant of the model; `parameterize`
        completes it to the factor at the model's own width.
    """

    factor: float


def is_weight(node: Any) -> TypeGuard[Weight]:
    """Whether `node` is a `Weight`; made for `is_leaf`."""
    # The type alone is asked, here and below: `isinstance` goes on to ask the node for its
    # __class__, and Equinox's modules, of which a model has thousands, answer in Python.
    return issubclass(type(node), Weight)


def effective(x: Weight[Array] | Array) -> Array:
    r"""The effective weight $r^{-(a + f)} w$ of a `Weight`; an array is returned unchanged.

    A `buffer` is returned as it is. What is not trained, a buffer or a frozen weight, has no
    gradient.

    **Arguments:**

    - `x`: a weight, several in one place, or an array, such as a resolved model has there.
    """
    if is_fused(x):
        return _joined(x)
    return _effective_value(x) if isinstance(x, Weight) else x


def _joined(fused: Fused) -> Any:
    values = [_effective_value(part) for part in fused.parts]
    # A filter takes all of them out, or none.
    return None if values[0] is None else jnp.concatenate(values, axis=fused.axis)


def _effective_value(weight: Weight) -> Any:
    # A filter leaves None where it has taken an array out.
    if weight.value is None:
        return None
    multiplier = weight.spec.multiplier
    value = _kept(weight) if type(weight) is Masked else weight.value
    value = value if multiplier == 1.0 else multiplier * value
    return value if weight.spec.is_trained else jax.lax.stop_gradient(value)


def _kept(weight: Masked) -> Any:
    if weight.mask is None:
        raise ValueError(
            "a Masked weight without its mask, which a filter has taken out; put the model "
            "together again with equinox.combine before it is run"
        )
    return kept_entries(weight.value, weight.mask)


def kept_entries(value: Any, mask: Any) -> Any:
    """The value where the mask is true, and zero elsewhere.

    Not a product: what is left out has no gradient, not even one of NaN.
    """
    return jnp.where(mask, value, jnp.zeros((), value.dtype))


def resolve(tree: PyTree) -> PyTree:
    """`tree` with every `Weight` replaced by its effective array: any module then just runs.

    Weights of [`scalex_eqx.nn.unit`][] stay, since their layers scale them.

    Call it inside the loss, so that gradients are those of the weights:

    ```python
    def loss(model, x):
        model = sx.resolve(model)
        return jnp.mean(jax.vmap(model)(x) ** 2)
    ```
    """
    return jtu.tree_map(_resolved, tree, is_leaf=_is_read)


def _resolved(leaf: Any) -> Any:
    if is_weight(leaf) and leaf.spec.scaled:
        return leaf
    return effective(leaf) if _is_read(leaf) else leaf


def from_effective(array: Any, spec: WeightSpec, like: Weight | None = None) -> Weight:
    """The `Weight` of a law whose effective value is `array`; masked as `like` is."""
    multiplier = spec.multiplier
    # In the array's own dtype, so that the forward pass multiplies by the very same number.
    value = array if multiplier == 1.0 else jnp.asarray(array) / multiplier
    if type(like) is Masked:
        kept = dataclasses.replace(like, value=value)
        return Masked(_kept(kept), spec, like.mask)
    return Weight(value, spec)


def map_weights(f: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """Replaces every `Weight` of `tree` by `f(weight, ...)` and leaves everything else alone.

    **Arguments:**

    - `f`: called with the weight and with what stands at its place in each of `rest`.
    - `tree`: any pytree.
    - `rest`: trees of the same structure.
    """
    return jtu.tree_map(
        lambda leaf, *others: f(leaf, *others) if is_weight(leaf) else leaf,
        tree,
        *rest,
        is_leaf=is_weight,
    )


def path_string(path: tuple[Any, ...]) -> str:
    """A tree path with slashes: `blocks/attention/query/weight`."""
    return jtu.keystr(path, simple=True, separator="/")


def weights_with_paths(tree: PyTree) -> dict[str, Weight]:
    """Every `Weight` of `tree` by its slash-separated path, in the order of the tree."""
    leaves = jtu.tree_leaves_with_path(tree, is_leaf=is_weight)
    return {path_string(path): leaf for path, leaf in leaves if is_weight(leaf)}


def require_complete(tree: PyTree) -> None:
    """Refuses a tree with trainable arrays that no scaling law is known for.

    **Raises:** `ValueError` that lists the path of every floating-point array that stands
    outside a `Weight`, and of every `Weight` that `parameterize` has not completed.
    """
    # Every part of a chain asks this at every trace; paths are only worth their time in an error.
    if not any(map(lacks_law, jtu.tree_leaves(tree, is_leaf=_is_weight_or_state))):
        return
    leaves = jtu.tree_leaves_with_path(tree, is_leaf=_is_weight_or_state)
    bare = [path_string(p) for p, leaf in leaves if not is_weight(leaf) and is_trainable(leaf)]
    incomplete = [
        path_string(p) for p, leaf in leaves if is_weight(leaf) and not leaf.spec.is_complete
    ]
    problems = []
    if bare:
        problems.append(
            f"arrays without a scaling law: {', '.join(bare)}. Make each a Weight, as "
            "scalex_eqx.parameterize does, or keep it out of the trained tree; a resolved model "
            "belongs inside the loss only"
        )
    if incomplete:
        problems.append(
            f"weights whose spec is not completed: {', '.join(incomplete)}. Build the model "
            "with scalex_eqx.parameterize(make, width=..., base_width=..., parameterization=...)"
        )
    if problems:
        raise ValueError("; ".join(problems) + see(Section.no_law))


def lacks_law(leaf: Any) -> bool:
    """Whether `leaf`, a weight or what stands outside of one, has to be refused."""
    return not leaf.spec.is_complete if is_weight(leaf) else is_trainable(leaf)


def of_kind(*kinds: type) -> Callable[[Any], bool]:
    """The function that tells whether a node is of one of several types."""

    @functools.lru_cache(maxsize=1024)
    def is_kind(kind: type) -> bool:
        return issubclass(kind, kinds)

    return lambda node: is_kind(type(node))


# What a forward pass has one array in place of.
_is_read = of_kind(Weight, Fused)

# Running statistics are no weights.
_is_weight_or_state = of_kind(Weight, eqx.nn.State, eqx.nn.StateIndex)

_ARRAYS = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)


def is_array(x: Any) -> bool:
    """Whether `x` is an array of JAX or NumPy, a traced one, or the shape of one."""
    return isinstance(x, _ARRAYS)


def is_trainable(leaf: Any) -> bool:
    """Whether `leaf` is an array of floating-point or complex numbers, or the shape of one."""
    # NumPy doesn't know that bfloat16 is one.
    return isinstance(leaf, _ARRAYS) and _is_inexact(leaf.dtype)


@functools.lru_cache(maxsize=64)
def _is_inexact(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.inexact)
