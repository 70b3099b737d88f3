"""The compiled functions of one training."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh
from jaxtyping import Array, Float, Int, PyTree

from .._sharding import shardings
from .._usage import UsageError
from .._weight import is_trainable, resolve
from ..diagnostics._scales._measure import Found, measured
from ..experiments._program import Program
from ..experiments._recipe import check_gradient_alone, check_on
from ..nn import recompute_blocks
from ..problems import Problem
from ..problems._functions import parameterizing
from ..problems._problem import data_key
from ._batches import Batches, replicated, whole
from ._evaluation import Evaluation
from ._training import Training


class State(NamedTuple):
    """What training changes. With the seed, `step` says which batch is next.

    **Arguments:**

    - `step`: how many updates there were.
    - `model`: its arrays.
    - `optimizer`: of the update rule.
    """

    step: Int[Array, ""]
    model: PyTree
    optimizer: PyTree


class Trainer:
    """Start, step and evaluation of a training on a mesh.

    **Arguments:**

    - `training`: what is trained.
    - `problem`: on what.
    - `mesh`: of all devices of all hosts, with automatic axes, as `parse_mesh` makes it.

    **Raises:** `UsageError` if recipe, problem, sizes, batch and mesh don't fit each other, from
        shapes alone; and for axes of explicit sharding.
    """

    def __init__(self, training: Training, problem: Problem, mesh: Mesh):
        self.training, self.problem = training.of(problem), problem
        self.mesh = _automatic(mesh)
        setting = self.training.setting
        sizes, base = setting.sizes(training.width), setting.base_sizes(training.width)
        recipe = training.recipe
        budget = setting.budget(recipe, problem, training.width)
        schedule = setting.schedule_at(training.width)
        self._program = Program(problem, sizes, base, schedule, recipe, budget=budget)
        problem.check_growth(sizes, base)
        self.optimizer = self.training.optimizer(budget)
        self.at_peak = self.training.optimizer(budget, at_peak=True)
        with parameterizing():
            model = eqx.filter_eval_shape(self._program.built, recipe.law, jax.random.key(0))
            if training.recompute:
                recompute_blocks(model)  # Which is there to be refused.
        self._static = eqx.filter(model, _is_shape, inverse=True)
        check_gradient_alone(recipe, "scalex train")
        check_on(recipe, _trainable(model), budget)
        problem.check(eqx.filter_eval_shape(resolve, model))
        self.batches = Batches(problem, self.mesh, training.accumulate)
        self.evaluation = Evaluation(problem, self.mesh, self.batches.part_size, self._plain)

    @functools.cached_property
    def shapes(self) -> State:
        """Of the state, with the place of each array."""
        bare = jax.eval_shape(self._start, np.int32(0))
        try:
            places = shardings(bare, self.mesh)
        except ValueError as error:
            raise UsageError(f"--mesh: {error}") from None
        return jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), bare, places
        )

    @property
    def places(self) -> State:
        """The sharding of each array of the state."""
        return jax.tree.map(lambda x: x.sharding, self.shapes)

    def start(self) -> State:
        """The initial state, each part of which is drawn where it belongs.

        It is that of one device, whatever the mesh.
        """
        with jax.set_mesh(self.mesh):
            return self._started(np.int32(self.training.seed))

    @functools.cached_property
    def _started(self) -> Any:
        return jax.jit(self._start, out_shardings=self.places)

    def _start(self, seed: Any) -> State:
        key = jax.random.fold_in(jax.random.key(seed), 0)
        built = self._program.built(self.training.recipe.law, key)
        model = eqx.filter(built, eqx.is_array)
        optimizer = self.optimizer.init(_trainable(model))
        return State(jnp.zeros((), jnp.int32), model, optimizer)

    @functools.cached_property
    def data(self) -> PyTree:
        """The problem's, on every device."""
        return replicated(self.problem.data, self.mesh)

    def step(self, state: State, batch: PyTree) -> tuple[State, Float[Array, ""]]:
        """One update, and the loss before it. The state that is handed in is used up.

        **Arguments:**

        - `batch`: what `batch` returns for the step.
        """
        return self.compiled(state, self.data, batch)

    def batch(self, step: int) -> PyTree:
        """What a step is given; read while the devices compute the one before."""
        return self.batches.of_step(self.training.seed, step)

    @functools.cached_property
    def compiled(self) -> Any:
        """The step's compiled program."""
        return self.lowered().compile()

    def lowered(self) -> Any:
        """The step before it is compiled, from shapes alone."""
        step = jax.jit(self._step, donate_argnums=0, out_shardings=(self.places, whole(self.mesh)))
        with jax.set_mesh(self.mesh):
            return step.lower(self.shapes, *self.sources)

    @property
    def sources(self) -> tuple[PyTree, PyTree]:
        """The shapes of the data and of what a step is given beside them."""

        def of(x: Any, place: Any) -> Any:
            x = x if hasattr(x, "dtype") else np.asarray(x)
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

        data = jax.tree.map(lambda x: of(x, whole(self.mesh)), self.problem.data)
        return data, None if self.problem.read is None else self.batches.placed_shapes

    def _step(self, state: State, data: PyTree, batch: PyTree) -> tuple[State, Float[Array, ""]]:
        batch = self._in_parts(state, data, batch)
        loss, gradient = self.gradient(state.model, batch)
        params = _trainable(state.model)
        updates, optimizer = self.optimizer.update(gradient, state.optimizer, params)
        model = eqx.apply_updates(state.model, updates)
        return State(state.step + 1, model, optimizer), loss

    def _in_parts(self, state: State, data: PyTree, batch: PyTree) -> PyTree:
        """What a step is given; drawn where the problem has its data on the devices."""
        if self.problem.read is not None:
            return batch
        key = jax.random.fold_in(data_key(self.training.seed), state.step)
        return self.batches.in_parts(self.problem.drawn(data, key))

    def sizes(self, state: State, batch: PyTree) -> Found:
        """How large weights, activations and gradients are in front of a step, on its first part.

        **Arguments:**

        - `batch`: what `batch` returns for the step.
        """
        with jax.set_mesh(self.mesh):
            return self._sizes(state, self.data, batch)

    @functools.cached_property
    def _sizes(self) -> Any:
        def loss(model: PyTree, batch: PyTree) -> Float[Array, ""]:
            # Blocks that are computed again would be seen twice.
            plain = self._computed(resolve(model))
            return self.problem.mean_loss(plain, self._computed(batch)).astype(jnp.float32)

        def found(state: State, data: PyTree, batch: PyTree) -> Found:
            part = jax.tree.map(lambda x: x[0], self._in_parts(state, data, batch))
            return measured(loss, eqx.combine(state.model, self._static), part)

        return jax.jit(found, out_shardings=whole(self.mesh))

    def gradient(self, model: PyTree, batch: PyTree) -> tuple[Float[Array, ""], PyTree]:
        """The mean loss over a batch's parts, and its gradient, which lies as the weights do."""
        grad = eqx.filter_value_and_grad(self._loss)
        parts = self.training.accumulate

        if parts == 1:
            return self._lying(grad(model, jax.tree.map(lambda x: x[0], batch)))

        def add(total: PyTree, part: PyTree) -> tuple[PyTree, None]:
            return jax.tree.map(jnp.add, total, self._lying(grad(model, part))), None

        zeros = jax.tree.map(jnp.zeros_like, eqx.filter(model, eqx.is_inexact_array))
        total, _ = jax.lax.scan(add, self._lying((jnp.zeros(()), zeros)), batch)
        return jax.tree.map(lambda x: x / parts, total)

    def _lying(self, found: tuple[Float[Array, ""], PyTree]) -> tuple[Float[Array, ""], PyTree]:
        loss, gradient = found
        places = shardings(gradient, self.mesh)
        return loss, jax.lax.with_sharding_constraint(gradient, places)

    def _loss(self, model: PyTree, batch: PyTree) -> Float[Array, ""]:
        loss = self.problem.mean_loss(self._plain(model), self._computed(batch))
        return loss.astype(jnp.float32)

    def _plain(self, model: PyTree) -> PyTree:
        """The model with plain arrays for weights, in the dtype that is computed in."""
        plain = self._computed(resolve(eqx.combine(model, self._static)))
        return recompute_blocks(plain) if self.training.recompute else plain

    def _computed(self, tree: PyTree) -> PyTree:
        if self.training.compute == "float32":
            return tree
        dtype = jnp.dtype(self.training.compute)
        return jax.tree.map(lambda x: x.astype(dtype) if is_trainable(x) else x, tree)

    def evaluate(self, state: State) -> Mapping[str, float]:
        """The metrics of a state's model on all of the held-out examples."""
        with jax.set_mesh(self.mesh):
            return self.evaluation(state.model)


def _automatic(mesh: Mesh) -> Mesh:
    """The mesh, which has to leave the splitting to the compiler.

    With explicit axes each operation of the model would have to say how its result lies: a lookup
    of tokens in a split embedding does not.
    """
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    others = [name for name, kind in kinds.items() if kind != AxisType.Auto]
    if others:
        raise UsageError(
            f"the mesh has axes of another kind than AxisType.Auto, {', '.join(map(str, others))}; "
            "the operations of a model don't say how their results lie, which explicit axes ask "
            "for: make the mesh with scalex_eqx.training.parse_mesh, or with jax.make_mesh(..., "
            f"axis_types=(AxisType.Auto,) * {mesh.devices.ndim})"
        )
    return mesh


def _is_shape(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct)


def _trainable(model: PyTree) -> PyTree:
    """What the update rule sees: integers and keys, which have no gradient, are left out."""
    return eqx.filter(model, is_trainable)
