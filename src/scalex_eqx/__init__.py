"""Scaling laws that travel with the weights."""

from . import nn as nn, optim as optim, theory as theory
from ._parameterize import parameterize as parameterize
from ._spec import WeightSpec as WeightSpec
from ._weight import (
    Tie as Tie,
    Weight as Weight,
    effective as effective,
    map_weights as map_weights,
    require_complete as require_complete,
    resolve as resolve,
    weights_with_paths as weights_with_paths,
)
from .optim import (
    adam as adam,
    adamw as adamw,
    global_rate as global_rate,
    scale_by_adam as scale_by_adam,
    scale_by_width as scale_by_width,
)
from .theory import (
    Alignment as Alignment,
    LayerExponents as LayerExponents,
    Parameterization as Parameterization,
    Role as Role,
    UpdateFamily as UpdateFamily,
    full_alignment as full_alignment,
    mean_field as mean_field,
    mup as mup,
    no_alignment as no_alignment,
    ntk as ntk,
    standard as standard,
)
