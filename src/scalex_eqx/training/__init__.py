"""One model trained over many devices and hosts: needs the extra `scalex_eqx[train]`."""

from ..experiments._schedule import Schedule as Schedule
from ._checkpoints import Checkpoints as Checkpoints
from ._estimate import (
    Memory as Memory,
    check_fits as check_fits,
    kept_memory as kept_memory,
    memory as memory,
    operations_of_step as operations_of_step,
    seconds_of_step as seconds_of_step,
)
from ._hosts import (
    check_agreement as check_agreement,
    connect as connect,
    failing_together as failing_together,
)
from ._log import read_log as read_log
from ._loop import Diverged as Diverged, Listener as Listener, Pace as Pace, train as train
from ._mesh import parse_mesh as parse_mesh
from ._picture import draw as draw
from ._scales import draw_scales as draw_scales, read_scales as read_scales
from ._trainer import State as State, Trainer as Trainer
from ._training import Training as Training
