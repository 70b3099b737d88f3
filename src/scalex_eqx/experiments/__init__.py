"""The LR-transfer experiment: needs the extra `scalex_eqx[experiments]`."""

from .._usage import UsageError as UsageError
from ..problems import Corpus as Corpus, load_corpus as load_corpus
from ._config import (
    Member as Member,
    Setting as Setting,
    Sweep as Sweep,
    parse_learning_rate as parse_learning_rate,
)
from ._engines import Engine as Engine
from ._fits import (
    RecipeAnalysis as RecipeAnalysis,
    Run as Run,
    Verdict as Verdict,
    analyse as analyse,
)
from ._plot import plot_transfer as plot_transfer
from ._ray import OnRay as OnRay
from ._recipe import Recipe as Recipe, parse_recipe as parse_recipe
from ._report import print_table as print_table
from ._sweep import sweep as sweep
from ._transfer import (
    Reporter as Reporter,
    report as report,
    transfer as transfer,
)
from ._tune import Tuned as Tuned, tune as tune
from ._tuning import Tuning as Tuning
