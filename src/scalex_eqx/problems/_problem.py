"""What a sweep trains: somebody's model on somebody's data."""

import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._usage import UsageError
from ._functions import (
    calling,
    check_arrays,
    check_batch,
    check_called,
    check_growth,
    check_loss,
    check_metrics,
    check_stateless,
)

JUDGED = "held_out_loss"
"""The metric that runs are judged by."""


def data_key(seed: Any) -> PRNGKeyArray:
    """The key of a run's batches: that of step t is this one with t folded in."""
    return jax.random.fold_in(jax.random.key(seed), 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    r"""A model that can be built at any size, its data, its loss, and how a run is judged.

    ```python
    def make(width, key):
        return eqx.nn.MLP(64, 10, width, depth=2, key=key)

    def loss(model, batch):
        x, y = batch
        logits = jax.vmap(model)(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    problem = Problem(make, loss, data=(x, y), held_out=(x_test, y_test), batch_size=32)
    ```

    A seed fixes a run's initial draw and the order of its data, whatever its recipe and learning
    rate: step $t$ of seed $s$ sees the batch of one key, made of $s$ and $t$.

    **Arguments:**

    - `make`: builds the model, called with sizes by name: `make(width=..., key=...)`, and with
        `depth=...` too if it has such a parameter. It may return any pytree that
        [`scalex_eqx.parameterize`][] takes.
    - `loss`: `loss(model, batch)`, the mean over a batch, to be minimised. It gets plain arrays in
        place of weights, as [`scalex_eqx.resolve`][] makes them.
    - `data`: arrays to train on, a pytree. Every device gets a copy.
    - `held_out`: arrays to judge on.
    - `batch_size`: how many examples a batch has. Examples are numbered along the first axis of
        each array of `data`, and drawn evenly with replacement.
    - `batch`: `batch(data, key)`, the batch of one step, in place of `batch_size`; traced.
    - `read`: `read(seed, step)`, the same on the host, in NumPy, for data that no device holds, in
        place of `data`.
    - `rebatched`: `rebatched(batch_size)`, the same problem with batches of another size, for a
        sweep over those. Where `batch_size` is all that says how large they are, none is needed;
        beside `batch` or `read` it is, and then `batch_size` says how large theirs are.
    - `evaluate`: `evaluate(model, held_out)`: a number, or a mapping of names to numbers, one of
        which is `held_out_loss`; traced. The mean of `loss` over all of `held_out` by default.
    - `judged_at_once`: how many examples of `held_out` that mean takes at a time; as many as a
        batch has by default.
    - `identity`: what else decides a result and no array shows, as JSON: a version to be raised
        when `make` or `loss` changes. Stored runs of another identity are not found again.
    - `said`: facts for the reports, by name.
    - `name`: for people to read.

    **Raises:** `UsageError` if the arguments don't fit together.
    """

    make: Callable[..., PyTree]
    loss: Callable[[PyTree, Any], Float[Array, ""]]
    data: PyTree = ()
    held_out: PyTree = ()
    batch_size: int | None = None
    batch: Callable[[PyTree, PRNGKeyArray], Any] | None = None
    read: Callable[[int, int], Any] | None = None
    rebatched: Callable[[int], "Problem"] | None = None
    evaluate: Callable[[PyTree, PyTree], Any] | None = None
    judged_at_once: int | None = None
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    said: Mapping[str, str] = dataclasses.field(default_factory=dict)
    name: str = "problem"

    def __post_init__(self) -> None:
        object.__setattr__(self, "said", {"model": self.name, **self.said})
        for name in ("make", "loss", "batch", "read", "rebatched", "evaluate"):
            function = getattr(self, name)
            if function is not None and not callable(function):
                kind = type(function).__name__
                raise UsageError(f"the problem's {name} is a {kind}; expected a function")
        self._check_calls()
        try:
            json.dumps(dict(self.identity))
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"the problem's identity is not JSON: {error}; give texts and numbers by name"
            ) from None
        check_arrays("data", self.data)
        check_arrays("held_out", self.held_out)
        self._check_source()
        if self.evaluate is None:
            self._check_held_out()
        if self.judged_at_once is not None and (self.judged_at_once < 1 or self.evaluate):
            raise UsageError(
                f"judged_at_once is {self.judged_at_once}; expected at least 1, and no evaluate, "
                "which judges by itself"
            )

    def _check_calls(self) -> None:
        sizes = {"width": "width", "depth": "depth"} if self.takes_depth else {"width": "width"}
        check_called("make", self.make, (), {**sizes, "key": "key"})
        check_called("loss", self.loss, ("model", "batch"))
        for name, given in (
            ("batch", ("data", "key")),
            ("read", ("seed", "step")),
            ("rebatched", ("batch_size",)),
            ("evaluate", ("model", "held_out")),
        ):
            function = getattr(self, name)
            if function is not None:
                check_called(name, function, given)

    def _check_source(self) -> None:
        given = [name for name in ("batch_size", "batch", "read") if getattr(self, name)]
        if self.rebatched is not None:
            self._check_rebatched()
            given.remove("batch_size")
        if len(given) != 1:
            said = " and ".join(given) or "none of them"
            raise UsageError(
                f"the problem has {said}; expected one of batch_size (examples along the first "
                "axis of data), batch (a function of data and key) and read (a function of seed "
                "and step)"
            )
        if self.read is None and not jax.tree.leaves(self.data):
            raise UsageError("the problem has no data; give arrays, or read=")
        if self.batch_size is not None and self.rebatched is None:
            counts = {jnp.shape(x)[:1] for x in jax.tree.leaves(self.data)}
            if self.batch_size < 1 or len(counts) > 1 or counts == {()} or counts == {(0,)}:
                raise UsageError(
                    f"batch_size is {self.batch_size} and the arrays of data have the first axes "
                    f"{sorted(counts)}; expected at least 1 and one number of examples in all"
                )

    def _check_rebatched(self) -> None:
        if not self.batch_size or self.batch_size < 1 or not (self.batch or self.read):
            raise UsageError(
                f"the problem has rebatched, and batch_size is {self.batch_size}; give rebatched "
                "beside batch or read, with a batch_size that says how large their batches are"
            )

    def at_batch_size(self, batch_size: int) -> "Problem":
        """The same problem with batches of another size.

        **Raises:** `UsageError` if its batches have a size of their own, or the data has too few
        examples.
        """
        if batch_size == self.batch_size:
            return self
        if self.rebatched is not None:
            return self._from_user(batch_size)
        if self.batch_size is None:
            name = "batch" if self.read is None else "read"
            raise UsageError(
                f"the problem's {name} makes batches of one size, and {batch_size} are asked for; "
                "give the problem its batch_size, and rebatched, a function that makes it with "
                "another"
            )
        count = jnp.shape(jax.tree.leaves(self.data)[0])[0]
        if batch_size > count:
            raise UsageError(
                f"a batch of {batch_size} is asked for, and data has {count} examples; take "
                "smaller batches"
            )
        return dataclasses.replace(self, batch_size=batch_size)

    def _from_user(self, batch_size: int) -> "Problem":
        assert self.rebatched is not None
        with calling("rebatched"):
            found = self.rebatched(batch_size)
        if not isinstance(found, Problem) or found.batch_size != batch_size:
            said = getattr(found, "batch_size", type(found).__name__)
            raise UsageError(
                f"the problem's rebatched({batch_size}) returned {said}; expected the problem with "
                f"batch_size={batch_size}"
            )
        if found.facts == self.facts:
            raise UsageError(
                f"the problem's rebatched({batch_size}) has the identity of the one with batches "
                f"of {self.batch_size}, whose runs would be taken for its own; put the batch size "
                "into identity"
            )
        return found

    def _check_held_out(self) -> None:
        """What the loss is averaged over."""
        if not jax.tree.leaves(self.held_out):
            raise UsageError(
                "the problem has neither held_out nor evaluate; give arrays to judge the runs on"
            )
        counts = {jnp.shape(x)[:1] for x in jax.tree.leaves(self.held_out)}
        if len(counts) > 1 or counts == {()} or counts == {(0,)}:
            raise UsageError(
                f"the arrays of held_out have the first axes {sorted(counts)}; expected one number "
                "of examples in all, or evaluate="
            )

    @property
    def takes_depth(self) -> bool:
        """Whether `make` has a parameter `depth`."""
        return "depth" in inspect.signature(self.make).parameters

    def build(self, sizes: Mapping[str, int], key: PRNGKeyArray) -> PyTree:
        """The model at some sizes, as `make` draws it.

        **Raises:** `UsageError` if `make` fails, or the model has a state.
        """
        with calling("make"):
            model = self.make(**sizes, key=key)
        check_stateless(model)
        return model

    def check_growth(self, sizes: Mapping[str, int], others: Mapping[str, int]) -> None:
        """Raises `UsageError` if models of two sizes are of the same shapes, or those of one size
        of different structures."""
        check_growth(self.build, sizes, others)

    def check(self, model: PyTree) -> None:
        """Raises `UsageError` unless loss and metrics are numbers, found from shapes alone.

        **Arguments:**

        - `model`: with the shapes of plain arrays in place of weights.
        """
        key = jax.eval_shape(lambda: jax.random.key(0))
        if self.read is None:
            batch = eqx.filter_eval_shape(self.drawn, self.data, key)
        else:
            batch = self.host_batch(0, 0)
        check_loss(eqx.filter_eval_shape(self.mean_loss, model, batch))
        eqx.filter_eval_shape(self.judged, model, self.held_out)

    def mean_loss(self, model: PyTree, batch: Any) -> Any:
        """The loss of a model whose weights are plain arrays, on a batch."""
        with calling("loss"):
            return self.loss(model, batch)

    def example_loss(self, model: PyTree, example: Any) -> Any:
        """The loss of one example: that of a batch of it alone."""
        return self.mean_loss(model, jax.tree.map(lambda x: x[None], example))

    def host_batch(self, seed: int, step: int) -> Any:
        """What `read` returns, as arrays of the shapes that the first batch had."""
        assert self.read is not None
        with calling("read"):
            batch = jax.tree.map(np.asarray, self.read(seed, step))
        check_batch(batch, self._first_batch, f"seed {seed}, step {step}")
        return batch

    @functools.cached_property
    def _first_batch(self) -> Any:
        assert self.read is not None
        with calling("read"):
            batch = jax.tree.map(np.asarray, self.read(0, 0))
        check_arrays("a batch", batch)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)

    def drawn(self, data: PyTree, key: PRNGKeyArray) -> Any:
        """The batch that belongs to a key."""
        if self.batch is not None:
            with calling("batch"):
                return self.batch(data, key)
        assert self.batch_size is not None
        count = jax.tree.leaves(data)[0].shape[0]
        chosen = jax.random.randint(key, (self.batch_size,), 0, count)
        return jax.tree.map(lambda x: x[chosen], data)

    def judged(self, model: PyTree, held_out: PyTree) -> dict[str, Float[Array, ""]]:
        """The metrics of a model whose weights are plain arrays."""
        if self.evaluate is None:
            return {JUDGED: self._loss_on_all(model, held_out)}
        with calling("evaluate"):
            found = self.evaluate(model, held_out)
        metrics = dict(found) if isinstance(found, Mapping) else {JUDGED: found}
        check_metrics(metrics, JUDGED)
        return {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}

    def _loss_on_all(self, model: PyTree, held_out: PyTree) -> Float[Array, ""]:
        """The mean over all examples, in batches of one size and a last one of the rest."""
        count = jax.tree.leaves(held_out)[0].shape[0]
        size = min(self.judged_at_once or self.batch_size or 64, count)
        whole = count // size

        def batches(x: Any) -> Any:
            return x[: whole * size].reshape(whole, size, *x.shape[1:])

        losses = jax.lax.map(
            lambda batch: self.mean_loss(model, batch), jax.tree.map(batches, held_out)
        )
        if whole * size == count:
            return jnp.mean(losses)
        rest = self.mean_loss(model, jax.tree.map(lambda x: x[whole * size :], held_out))
        return (size * jnp.sum(losses) + (count - whole * size) * rest) / count

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """What decides a run's result beside recipe and sizes, as JSON: a part of its key."""
        facts: dict[str, Any] = {"kind": self.name, **self.identity}
        if "data" not in facts:
            facts["data"] = _digest((self.data, self.held_out))
        if self.batch_size is not None and self.rebatched is None:
            facts.setdefault("batch_size", self.batch_size)
        return facts


def _digest(arrays: PyTree) -> str:
    """SHA-256 of arrays, with their types and shapes."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        x = np.asarray(leaf)
        digest.update(f"{x.dtype.name} {x.shape} ".encode())
        digest.update(np.ascontiguousarray(x, x.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
