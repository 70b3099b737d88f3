"""Update rules as `optax.GradientTransformation`s over trees of weights."""

from ._adam import (
    ScaleByAdamState as ScaleByAdamState,
    adam as adam,
    adamw as adamw,
    scale_by_adam as scale_by_adam,
)
from ._decay import (
    AddWeightDecayState as AddWeightDecayState,
    add_weight_decay as add_weight_decay,
)
from ._rates import (
    Rates as Rates,
    global_rate as global_rate,
    scale_by_learning_rate as scale_by_learning_rate,
    scale_by_width as scale_by_width,
)
