"""Which constants to try next.

Optuna keeps nothing: its study is in memory, and is asked and told the same again when a search
goes on. A study in a file of its own would be a second truth beside the store, and a worse one: a
trial whose process has died stays in it as running, and is taken for a bad one for ever, since
`constant_liar` is on (as it must be where trials are asked together). Optuna's grids leave out
points without a word once processes with different seeds share them; the grid here is a product.
"""

import importlib
import itertools
from collections.abc import Generator
from types import ModuleType

from .._usage import UsageError
from ._tuning import Octaves, Tuning

# Trials that train side by side. It decides what is asked when, and so never changes.
TOGETHER = 8
_SEED = 0

Proposals = Generator[list[Octaves], list[float], None]


def proposals(tuning: Tuning) -> Proposals:
    """Batches of constants; each is answered by the losses, infinite where a run diverged.

    The same answers make the same batches. The first trial is the recipe as it is given.

    **Raises:** `UsageError` without Optuna, where the sampler is Optuna's.
    """
    return _grid(tuning) if tuning.sampler == "grid" else _by_optuna(tuning, optuna())


def check_sampler(tuning: Tuning) -> None:
    """Refuses a sampler that isn't installed, before anything is trained."""
    if tuning.sampler != "grid":
        optuna()


def optuna() -> ModuleType:
    """The package.

    **Raises:** `UsageError` if it isn't installed.
    """
    try:
        return importlib.import_module("optuna")
    except ImportError:
        raise UsageError(
            "--sampler tpe and random need Optuna: pip install 'scalex_eqx[tune]', or give "
            "--sampler grid"
        ) from None


def _grid(tuning: Tuning) -> Proposals:
    around = range(-tuning.reach, tuning.reach + 1)
    points = list(itertools.product(around, repeat=len(tuning.roles)))
    for start in range(0, len(points), TOGETHER):
        yield points[start : start + TOGETHER]


def _by_optuna(tuning: Tuning, optuna: ModuleType) -> Proposals:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(sampler=_sampler(tuning.sampler, optuna))
    finally:
        optuna.logging.set_verbosity(level)
    space = {
        role: optuna.distributions.IntDistribution(-tuning.reach, tuning.reach)
        for role in tuning.roles
    }
    study.enqueue_trial(dict.fromkeys(tuning.roles, 0))
    left = tuning.trials
    while left:
        trials = [study.ask(space) for _ in range(min(TOGETHER, left))]
        losses = yield [tuple(trial.params[role] for role in tuning.roles) for trial in trials]
        for trial, loss in zip(trials, losses, strict=True):
            study.tell(trial, loss)
        left -= len(trials)


def _sampler(name: str, optuna: ModuleType):
    if name == "random":
        return optuna.samplers.RandomSampler(seed=_SEED)
    # What is the default in one version is given all the same: defaults have changed.
    return optuna.samplers.TPESampler(seed=_SEED, multivariate=True, constant_liar=True)
