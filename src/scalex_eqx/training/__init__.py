"""One model trained over many devices and hosts: needs the extra `scalex_eqx[train]`."""

from ._loop import Diverged as Diverged, Listener as Listener, Pace as Pace, train as train
from ._mesh import parse_mesh as parse_mesh
from ._schedule import Schedule as Schedule
from ._trainer import State as State, Trainer as Trainer
from ._training import Training as Training
