"""What is asked of a user's functions: whatever is wrong with one is said in a line, with its name,
and before anything is trained where shapes show it."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._usage import UsageError
from .._user_code import user_line


@contextmanager
def calling(name: str) -> Iterator[None]:
    """Whatever a function of the user's raises becomes a `UsageError` that names its line."""
    try:
        yield
    except (UsageError, MemoryError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise UsageError(
            f"the problem's {name} failed: {type(error).__name__}: {said}{user_line(error)}"
        ) from error


@contextmanager
def parameterizing() -> Iterator[None]:
    """A model that takes no law is a mistake of the user's."""
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"the problem's model: {error}") from error


def check_called(
    name: str, function: Callable, positional: Sequence[str], named: Mapping[str, str] | None = None
) -> None:
    """Refuses a function that can't be called as it will be."""
    named = named or {}
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # Some functions of C have none.
        return
    try:
        signature.bind(*positional, **named)
    except TypeError as error:
        call = ", ".join([*positional, *(f"{key}=..." for key in named)])
        raise UsageError(
            f"the problem's {name} is called as {name}({call}), and takes {signature}: {error}"
        ) from None


def check_arrays(what: str, tree: PyTree) -> None:
    """Refuses what is no array of numbers, by its path."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        dtype = getattr(leaf, "dtype", None)
        dtype = np.asarray(leaf).dtype if dtype is None else dtype
        if not any(
            jnp.issubdtype(dtype, kind) for kind in (np.number, np.bool_, jax.dtypes.extended)
        ):
            raise UsageError(
                f"{what}{jax.tree_util.keystr(path)} of the problem has the type {dtype}; expected "
                "arrays of numbers"
            )


def check_stateless(model: PyTree) -> None:
    """Refuses a model with layers that keep a state beside their weights."""

    def is_state(x: Any) -> bool:
        return isinstance(x, (eqx.nn.State, eqx.nn.StateIndex))

    found = jax.tree_util.tree_flatten_with_path(model, is_leaf=is_state)[0]
    names = [jax.tree_util.keystr(path) or "the model" for path, x in found if is_state(x)]
    if names:
        raise UsageError(
            f"the problem's model has a state, {names[0]}, as BatchNorm keeps it: training has a "
            "place for weights alone; use a layer without one, such as LayerNorm or GroupNorm"
        )


def check_growth(
    build: Callable[..., PyTree], sizes: Mapping[str, int], others: Mapping[str, int]
) -> None:
    """Refuses a `make` whose models are as large at one size as at another, or never the same."""
    key = jax.random.key(0)

    def built(at: Mapping[str, int]) -> PyTree:
        return eqx.filter(eqx.filter_eval_shape(build, at, key), _is_shape)

    model = built(sizes)
    if jax.tree.structure(model) != jax.tree.structure(built(sizes)):
        raise UsageError(
            "the problem's make returns another structure at each call, as with a function that is "
            "made inside it and kept in the model; define that function outside"
        )
    grown = next((name for name in sizes if sizes[name] != others[name]), None)
    if grown is None:
        return
    if [x.shape for x in jax.tree.leaves(model)] == [
        x.shape for x in jax.tree.leaves(built(others))
    ]:
        raise UsageError(
            f"the problem's make returns arrays of the same shapes at the {grown}s {sizes[grown]} "
            f"and {others[grown]}; use the {grown} in it"
        )


def _is_shape(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct)


def check_batch(batch: Any, first: Any, where: str) -> None:
    """Refuses a batch of other shapes than the first: one program trains on all."""
    found = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    if jax.tree.structure(found) != jax.tree.structure(first) or found != first:
        raise UsageError(
            f"the problem's read returns {_in_words(found)} at {where}, and {_in_words(first)} at "
            "seed 0, step 0; expected the same shapes and types"
        )


def check_loss(loss: Any) -> None:
    """Refuses a loss that is no real number, by its shape."""
    if not _is_number(loss, np.floating):
        raise UsageError(
            f"the problem's loss returns {_in_words(loss)}; expected one real number: the mean "
            "over the batch"
        )


def check_metrics(metrics: Mapping[Any, Any], judged: str) -> None:
    """Refuses metrics that are no numbers, and those without the judged one."""
    if judged not in metrics:
        raise UsageError(
            f"the problem's evaluate returned {', '.join(map(str, metrics)) or 'nothing'}; "
            f"expected a number, or a mapping with {judged!r}, by which runs are judged"
        )
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise UsageError(
                f"the problem's evaluate has a metric {name!r}; expected names in text"
            )
        if not _is_number(value, np.number, np.bool_):
            raise UsageError(
                f"the problem's evaluate returns {_in_words(value)} for {name!r}; expected a number"
            )


def _is_number(x: Any, *kinds: type) -> bool:
    if isinstance(x, (bool, int, float)):
        return True
    dtype = getattr(x, "dtype", None)
    if dtype is None or getattr(x, "shape", None) != ():
        return False
    return any(jnp.issubdtype(dtype, kind) for kind in kinds) and not jnp.issubdtype(
        dtype, np.complexfloating
    )


def _in_words(tree: Any) -> str:
    """A type and shape, or of several the first few."""
    if hasattr(tree, "shape") and hasattr(tree, "dtype"):
        return f"{tree.dtype}{list(tree.shape)}"
    if isinstance(tree, (tuple, list, dict)):
        leaves = jax.tree.leaves(tree)
        more = ", ..." if len(leaves) > 3 else ""
        return f"a {type(tree).__name__} of {', '.join(map(_in_words, leaves[:3]))}{more}"
    return repr(tree)[:40]
