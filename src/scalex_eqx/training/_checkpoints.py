"""Checkpoints of a training, written by Orbax in the background."""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from .._checkpoint._leaves import describe, is_key, leaves_by_path
from .._differences import differences
from .._export import check_laws, export_laws
from .._pages import listed
from .._usage import UsageError, shown
from .._version import __version__
from ._trainer import State, Trainer

_FOLDER = "checkpoints"


class Checkpoints:
    """The last few states of a training, with the laws, the rule and the facts that they belong to.

    Each process writes its own part; a checkpoint has its name once it is whole and on the disk.

    **Arguments:**

    - `folder`: of the training; all hosts have it in common.
    - `trainer`: whose states they are.
    - `keep`: how many stay.
    """

    def __init__(self, folder: Path, trainer: Trainer, *, keep: int = 2):
        self._folder, self._trainer = (folder / _FOLDER).absolute(), trainer
        # Orbax says more than what concerns anybody.
        logging.getLogger("absl").setLevel(logging.ERROR)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    @property
    def last(self) -> int | None:
        """The step of the newest one that is whole; `None` if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: State) -> None:
        """Begins to write a state. The arrays are copied before this returns."""
        if step == self.last:
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_storable(state)),
            training=ocp.args.JsonSave(self._described),
        )
        self._manager.save(step, args=items, force=True)

    def wait(self) -> None:
        """Until all that was begun is on the disk."""
        self._manager.wait_until_finished()

    def restore(self) -> State | None:
        """The newest state, each array where the trainer's mesh has it; `None` if there is none.

        **Raises:** `UsageError` that lists every difference, if it belongs to other laws, another
        update rule, other data or another training.
        """
        step = self.last
        if step is None:
            return None
        self._check(step)
        shapes = self._trainer.shapes
        item = ocp.args.Composite(state=ocp.args.StandardRestore(_storable(shapes)))
        found: Any = self._manager.restore(step, args=item)
        return _restored(found.state, shapes)

    def _check(self, step: int) -> None:
        where = f"checkpoint {step} in {shown(self._folder.parent)}"
        with _named(where):
            item = ocp.args.Composite(training=ocp.args.JsonRestore())
            found: Any = self._manager.restore(step, args=item)
            written: Mapping[str, Any] = found.training
            check_laws(self._trainer.shapes, written["exported"])
        here = self._described
        problems = [
            str(difference)
            for part in ("facts", "leaves")
            for difference in differences(
                {part: written[part]}, {part: here[part]}, "in the checkpoint", "now"
            )
        ]
        if problems:
            raise UsageError(
                listed(f"{where} is of another training:", problems)
                + "\ngive the options that it was trained with, or another --out"
            )

    @property
    def _described(self) -> dict[str, Any]:
        shapes = self._trainer.shapes
        leaves = {path: _said(leaf) for path, leaf in leaves_by_path(shapes).items()}
        facts = self._trainer.training.facts(self._trainer.problem)
        said = {
            "version": __version__,
            "facts": facts,
            "leaves": leaves,
            "exported": export_laws(shapes),
        }
        # As it will be read again, tuples as lists.
        return json.loads(json.dumps(said))

    def close(self) -> None:
        """Waits, and lets go of the folder."""
        self._manager.close()


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except UsageError:
        raise
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise UsageError(
            f"{where}: {error}\ngive the recipe and sizes that it was trained with, or another "
            "--out"
        ) from error


def _said(leaf: Any) -> str:
    found = describe(leaf)
    return f"{found['dtype']}{found['shape']}"


def _storable(state: PyTree) -> PyTree:
    """With the numbers of random keys in place of them."""

    def storable(x: Any) -> Any:
        if not is_key(x):
            return x
        if isinstance(x, jax.ShapeDtypeStruct):
            data = jax.eval_shape(jax.random.key_data, x)
            return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=x.sharding)
        return jax.random.key_data(x)

    return jax.tree.map(storable, state)


def _restored(state: PyTree, like: PyTree) -> PyTree:
    return jax.tree.map(
        lambda x, one: jax.random.wrap_key_data(x, impl=one.dtype) if is_key(one) else x,
        state,
        like,
    )
