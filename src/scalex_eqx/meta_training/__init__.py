"""Training update rules: a small network that becomes good at training others."""

from ._estimators import (
    Episode as Episode,
    Estimator as Estimator,
    Particle as Particle,
    first_particle as first_particle,
    pes as pes,
    unrolled as unrolled,
)
from ._generalisation import (
    Course as Course,
    generalisation as generalisation,
    generalisation_figure as generalisation_figure,
)
from ._outer import Settings as Settings
from ._run import MetaTrained as MetaTrained, meta_train as meta_train
from ._task import Task as Task, courses as courses
