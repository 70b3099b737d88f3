"""Scaling laws that travel with the weights."""

# First: a command that is stopped while the imports below run says so in one line.
from . import _process as _process

# isort: split

from . import (
    diagnostics as diagnostics,
    nn as nn,
    ops as ops,
    optim as optim,
    per_example as per_example,
    theory as theory,
)
from ._checkpoint import load as load, save as save
from ._convert import convert as convert
from ._export import check_laws as check_laws, export_laws as export_laws
from ._fingerprint import fingerprint as fingerprint
from ._fused import Fused as Fused
from ._parameterize import (
    freeze as freeze,
    parameterize as parameterize,
    parameterize_model as parameterize_model,
    unfreeze as unfreeze,
)
from ._plan import Plan as Plan, PlanRow as PlanRow, plan as plan
from ._sharding import (
    SHARDING_RULES as SHARDING_RULES,
    logical_axes as logical_axes,
    shard as shard,
    shardings as shardings,
)
from ._sparsify import (
    cubic_density as cubic_density,
    magnitude_masks as magnitude_masks,
    pruned as pruned,
    remasked as remasked,
    sparsify as sparsify,
    with_masks as with_masks,
)
from ._spec import WeightSpec as WeightSpec
from ._unresolve import unresolve as unresolve
from ._version import __version__ as __version__
from ._weight import (
    Masked as Masked,
    Tie as Tie,
    Weight as Weight,
    effective as effective,
    map_weights as map_weights,
    require_complete as require_complete,
    resolve as resolve,
    weights_with_paths as weights_with_paths,
)
from .optim import (
    adafactor as adafactor,
    adam as adam,
    adam_atan2 as adam_atan2,
    adam_parameter_scaling as adam_parameter_scaling,
    adamw as adamw,
    clip_by_effective_norm as clip_by_effective_norm,
    global_rate as global_rate,
    learned as learned,
    lion as lion,
    micro_adam as micro_adam,
    muon as muon,
    scale_by_adam as scale_by_adam,
    scale_by_muon as scale_by_muon,
    scale_by_width as scale_by_width,
    sgd as sgd,
    sign_ema as sign_ema,
    sign_sgd as sign_sgd,
)
from .per_example import (
    GradientStatistics as GradientStatistics,
    gradient_statistics as gradient_statistics,
)
from .theory import (
    Alignment as Alignment,
    Budget as Budget,
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
    u_mup as u_mup,
)
