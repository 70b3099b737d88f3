"""What the leaves of a tree are in a file: a description, and bytes."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.sharding import AbstractMesh, NamedSharding
from jaxtyping import PyTree

from .._fingerprint import by_path
from .._weight import Masked, is_weight

Description = dict[str, Any]

_NUMBERS = {"bool": bool, "int": int, "float": float, "complex": complex}


def leaves_by_path(tree: PyTree) -> dict[str, Any]:
    """The leaves that hold numbers, by paths that are unique, in the order of the tree."""
    leaves = jtu.tree_leaves_with_path(tree)
    return by_path((path, leaf) for path, leaf in leaves if holds_numbers(leaf))


def masks_of(tree: PyTree) -> frozenset[int]:
    """The identities of the masks of masked weights, which are kept as bits."""
    nodes = jtu.tree_leaves(tree, is_leaf=is_weight)
    return frozenset(id(node.mask) for node in nodes if type(node) is Masked)


def bits_of(mask: Any) -> np.ndarray:
    """Eight truth values a byte, the first in the lowest bit."""
    return np.packbits(host_array(mask).reshape(-1), bitorder="little")


def truth_values(bits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The mask that `bits_of` has packed."""
    count = math.prod(shape)
    return np.unpackbits(bits, count=count, bitorder="little").astype(np.bool_).reshape(shape)


def holds_numbers(leaf: Any) -> bool:
    """Whether a leaf is an array, the shape of one, or a number: what a checkpoint is about."""
    is_array = hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    return is_array or isinstance(leaf, bool | int | float | complex)


def describe(leaf: Any) -> Description:
    """What a leaf must be to take the place of another: its kind, shape and dtype.

    **Raises:** `TypeError` for what a file can't hold, with what it is and the remedy.
    """
    if not hasattr(leaf, "dtype"):
        kind = next(name for name, known in _NUMBERS.items() if isinstance(leaf, known))
        return {"type": kind}
    if isinstance(leaf, np.ndarray) and type(leaf) not in (np.ndarray, np.memmap):
        raise TypeError(
            f"it is a {type(leaf).__name__}, of which only the numbers would be kept; make it a "
            "plain array with numpy.asarray"
        )
    name = str(leaf.dtype) if is_key(leaf) else dtype_name(leaf.dtype)
    return {"type": "array", "shape": list(leaf.shape), "dtype": name}


def is_key(leaf: Any) -> bool:
    """Whether it is an array of random keys, or the shape of one."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def dtype_name(dtype: Any) -> str:
    """The name that brings `dtype` back, without its byte order: `float32`, `int4`, `U3`.

    **Raises:** `TypeError` where its bytes alone don't say what they mean.
    """
    dtype = np.dtype(dtype)
    name = dtype.str[1:] if dtype.kind in "SU" else dtype.name
    # The bytes of a long double are another number on another processor.
    unclear = (np.void, np.longdouble, np.clongdouble)
    if not dtype.hasobject and dtype.type not in unclear:
        try:
            if dtype.itemsize and np.dtype(name) == dtype.newbyteorder("="):
                return name
        except TypeError:
            pass
    raise TypeError(
        f"its dtype is {dtype}, whose bytes mean nothing elsewhere; convert it, or keep it out of "
        "the tree"
    )


def blank_key_data(leaf: Any) -> jax.ShapeDtypeStruct:
    """The shape of the numbers that random keys like `leaf` consist of."""
    return jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))


def number_text(number: Any) -> str:
    """A Python number as a text that gives it back exactly."""
    kind = next(known for known in _NUMBERS.values() if isinstance(number, known))
    return hex(number) if kind is int else repr(kind(number))


def number_from(text: str, like: Any) -> Any:
    """The number that `number_text` has written, of the type of `like`.

    **Raises:** `ValueError` for another text.
    """
    if isinstance(like, bool):
        if text not in ("True", "False"):
            raise ValueError(f"{text!r} is no bool")
        return text == "True"
    return type(like)(int(text, 16) if isinstance(like, int) else type(like)(text))


def host_array(leaf: Any) -> np.ndarray:
    """The numbers of an array in this process's memory, little-endian, in C order.

    A sharded array is put together from its shards; to ask for all of it would leave a copy with
    it for good.
    """
    if isinstance(leaf, jax.Array):
        leaf = jax.random.key_data(leaf) if is_key(leaf) else leaf
        if len(leaf.sharding.device_set) > 1:
            whole = np.empty(leaf.shape, leaf.dtype)
            for shard in leaf.addressable_shards:
                if shard.replica_id == 0:
                    whole[shard.index] = np.asarray(shard.data)
            leaf = whole
    array = np.asarray(leaf)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)


def check_values(leaf: Any) -> None:
    """Refuses a leaf that has no values to be written.

    **Raises:** `TypeError` or `ValueError` with the reason and the remedy.
    """
    if isinstance(leaf, jax.ShapeDtypeStruct):
        raise TypeError("it is a shape without values; save the tree of arrays")
    if isinstance(leaf, jax.core.Tracer):
        raise TypeError("it is traced; call save outside of jit, grad and vmap")
    if not isinstance(leaf, jax.Array):
        if hasattr(leaf, "dtype") and not isinstance(leaf, np.ndarray | np.generic):
            raise TypeError(
                f"it is a {type(leaf).__name__}; expected a JAX or NumPy array, or a number"
            )
        return
    if leaf.is_deleted():
        raise ValueError("its buffer was donated or deleted; save what the step has returned")
    if not leaf.is_fully_addressable:
        raise ValueError(
            "parts of it belong to other processes; gather it first, with "
            "jax.experimental.multihost_utils.process_allgather(tree, tiled=True)"
        )


def stored_size(stored: Mapping[str, Any]) -> int:
    """The number of bytes of an array with that shape and dtype."""
    return math.prod(stored["shape"]) * np.dtype(stored["dtype"]).itemsize


def placed(array: np.ndarray, like: Any) -> Any:
    """`array` as `like` is: NumPy's or JAX's, in its byte order, on its devices.

    **Raises:** `ValueError` if it can't be had so.
    """
    if isinstance(like, np.generic):
        return array[()]
    if isinstance(like, np.ndarray):
        return array.astype(like.dtype, copy=False)
    x: Any = array.item() if _is_weak_scalar(like, array) else array
    x = jax.random.wrap_key_data(x, impl=like.dtype) if is_key(like) else x
    sharding = _sharding(like)
    x = jnp.asarray(x) if sharding is None else jax.device_put(x, sharding)
    if x.dtype != like.dtype:
        raise ValueError(
            f"JAX makes {x.dtype} of {like.dtype}; set jax_enable_x64, or keep it as a NumPy array"
        )
    return x


def _is_weak_scalar(like: Any, array: np.ndarray) -> bool:
    # A number without a dtype of its own: made of a Python number, it is one again.
    weak = bool(getattr(like, "weak_type", False)) and array.ndim == 0
    return weak and jnp.asarray(array.item()).dtype == array.dtype


def _sharding(like: Any) -> Any:
    """Where `like` is bound to be; `None` if JAX may choose."""
    if isinstance(like, jax.Array) and not like.committed:
        return None
    sharding = like.sharding
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, AbstractMesh):
        mesh = jax.sharding.get_mesh()
        if mesh.empty or mesh.abstract_mesh != sharding.mesh:
            raise ValueError(
                f"its sharding {sharding.spec} is over a mesh without devices; load inside "
                "`with jax.set_mesh(mesh)`"
            )
        return NamedSharding(mesh, sharding.spec)
    return sharding
