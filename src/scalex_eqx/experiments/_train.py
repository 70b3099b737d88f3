"""Training the runs of a sweep: those that one program can train form a pack."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from .._usage import UsageError
from .._weight import weights_with_paths
from ..problems import Problem
from ..theory import Role
from ._axes import WIDTH, Axis
from ._config import Member, Setting
from ._program import Program, RunNumbers, build
from ._recipe import Recipe
from ._room import check_memory
from ._setting import MASKS
from ._slots import Progress, Slots, Trained, train


class Pack(NamedTuple):
    """Runs that one program trains.

    **Arguments:**

    - `program`: their static part.
    - `members`, `runs`: which they are, and their numbers.
    - `signature`: equal for packs whose programs are the same.
    - `work`: of one run, in floating-point operations: six for each weight of a matrix, for each
        example. Batches are left out but for what they have grown by.
    - `axis`: what the sizes of the members are.
    """

    program: Program
    members: list[Member]
    runs: list[RunNumbers]
    work: float
    signature: tuple[object, ...]
    axis: Axis = WIDTH

    @property
    def name(self) -> str:
        """For people: what its runs have in common."""
        recipes = dict.fromkeys(str(one.recipe) for one in self.members)
        what = ", ".join(recipes) if len(recipes) < 3 else f"{len(recipes)} recipes"
        return f"{what} {self.axis.noun} {self.members[0].size}"

    @property
    def same(self) -> list[list[int]]:
        """Which runs have equal numbers: at the base width, all recipes with the same rule."""
        found: dict[bytes, list[int]] = {}
        for index, run in enumerate(self.runs):
            numbers = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(run))
            found.setdefault(numbers, []).append(index)
        return list(found.values())

    @property
    def work_of_step(self) -> float:
        """Of a step of one run, which stands for all that have equal numbers."""
        return self.work / self.program.schedule.steps * len(self.runs) / len(self.same)

    def of(self, is_wanted: Callable[[Member], bool]) -> "Pack":
        """The same with some of its runs alone."""
        kept = [i for i, one in enumerate(self.members) if is_wanted(one)]
        members, runs = [self.members[i] for i in kept], [self.runs[i] for i in kept]
        return self._replace(members=members, runs=runs)


@dataclasses.dataclass(frozen=True)
class Kept:
    """What training in rounds keeps from one to the next, so that nothing is compiled twice.

    **Arguments:**

    - `expected`: how many runs a round may have.
    - `built`: the programs of recipes at sizes.
    - `slots`: with what they have compiled.
    """

    expected: int
    built: dict[tuple[int, Recipe], Program] = dataclasses.field(default_factory=dict)
    slots: dict[object, Slots] = dataclasses.field(default_factory=dict)


def packs(
    problem: Problem, setting: Setting, members: Sequence[Member], kept: Kept | None = None
) -> list[Pack]:
    """Puts runs together that differ in numbers alone, small sizes first.

    **Raises:** `ValueError` if a recipe doesn't fit the model, and `UsageError` if the problem's
    functions don't fit each other, before anything is trained.
    """
    found: dict[object, Pack] = {}
    by_recipe = itertools.groupby(
        sorted(members, key=lambda x: (x.size, str(x.recipe))), key=lambda x: (x.size, x.recipe)
    )
    built = {} if kept is None else kept.built
    is_first = not built
    for (size, recipe), own in by_recipe:
        if (size, recipe) not in built:
            built[size, recipe] = _built(problem, setting, size, recipe)
        program = built[size, recipe]
        signature = size, program.signature, None if program.is_traced else recipe
        work = setting.work_at(size) * _work(program)
        pack = found.setdefault(signature, Pack(program, [], [], work, signature, setting.axis))
        for member in own:
            pack.members.append(member)
            pack.runs.append(program.numbers(member.learning_rate, member.seed))
    in_order = sorted(found.values(), key=lambda pack: pack.members[0].size)
    if is_first:
        _check_problems(in_order)
    return in_order


def _built(problem: Problem, setting: Setting, size: int, recipe: Recipe) -> Program:
    own = setting.problem_at(problem, size)
    return build(
        own,
        setting.sizes(size),
        setting.base_sizes(size),
        setting.schedule_at(size),
        recipe,
        setting.budget(recipe, own, size),
    )


def _check_problems(packs: Sequence[Pack]) -> None:
    """Refuses, from shapes alone, functions of a problem's that can't be trained with.

    They are the same for all packs: those of the smallest and the largest size are looked at.
    """
    for pack in (*packs[:1], *packs[-1:]):
        program = pack.program
        made = {name: size for name, size in program.sizes.items() if name != MASKS}
        program.problem.check_growth(made, program.base)
    for pack in packs[:1]:
        pack.program.check()


def check_packs(packs: Sequence[Pack], at_once: int | None) -> None:
    """Refuses before all training what could not be held at its end."""
    for pack in reversed(packs):
        check_memory(pack.program, len(pack.runs), at_once)


# Which of some runs this process may train; it is asked for the next ones as slots are free.
Claim = Callable[[Sequence[Member]], Collection[Member]]


def all_of_them(members: Sequence[Member]) -> Collection[Member]:
    """The claim of a process that is alone."""
    return members


def train_pack(
    pack: Pack,
    *,
    at_once: int | None,
    progress: Progress,
    kept: Kept | None = None,
    claim: Claim = all_of_them,
) -> Iterator[tuple[Member, Trained]]:
    """Trains the runs of a pack that are claimed, and yields each when it has ended.

    Runs with equal numbers are trained once.

    **Raises:** `UsageError` if a loss is no number before the first update: no learning rate is at
    fault then.
    """
    same = pack.same
    runs = [pack.runs[first] for first, *_ in same]
    waiting = iter(range(len(runs)))

    def take(at_most: int) -> list[int]:
        taken: list[int] = []
        while asked := list(itertools.islice(waiting, at_most - len(taken))):
            given = set(claim([pack.members[i] for index in asked for i in same[index]]))
            for index in asked:
                same[index] = [i for i in same[index] if pack.members[i] in given]
            taken += [index for index in asked if same[index]]
        return taken

    slots = None
    if kept is not None:
        if pack.signature not in kept.slots:
            kept.slots[pack.signature] = Slots(pack.program, runs, at_once, kept.expected)
        slots = kept.slots[pack.signature]
    for trained in train(
        pack.program, runs, at_once=at_once, progress=progress, slots=slots, take=take
    ):
        equal = same[trained.index]
        _check_first_loss(pack.members[equal[0]], float(trained.training_losses[0]), pack.axis)
        each = dataclasses.replace(trained, seconds=trained.seconds / len(equal))
        for index in equal:
            yield pack.members[index], each


def _check_first_loss(member: Member, loss: float, axis: Axis) -> None:
    if not math.isfinite(loss):
        raise UsageError(
            f"the loss is {loss} at the first step of {axis.noun} {member.size}, seed "
            f"{member.seed}, before any update; look for numbers that are not finite in the data, "
            "and for logarithms, roots and quotients in the loss"
        )


def _work(program: Program) -> float:
    weights = weights_with_paths(program.shapes).values()
    matrices = [
        math.prod(weight.value.shape)
        for weight in weights
        if weight.spec.role in (Role.hidden, Role.readout)
    ]
    # A model without matrices has no work to be counted, but runs all the same.
    return max(6.0 * program.schedule.steps * sum(matrices), 1.0)
