"""What the transformations of other libraries do to the numbers in the plan."""

import enum

from .._makers import Maker
from .._parts import Part


class Effect(enum.Enum):
    """What a transformation does to updates that have been scaled by factors."""

    kept = "hands them on"
    multiplied = "multiplies all of them by one number or averages them over steps"
    normalised = "takes their size away"
    decayed = "adds the weights"
    zero = "makes them zero"
    unknown = "can't be told"


_KEPT = ("identity", "monitor", "snapshot", "zero_nans")
_MULTIPLIED = (
    "apply_every",
    "clip_by_global_norm",
    "ema",
    "normalize",
    "normalize_by_update_norm",
    "reduce_on_plateau",
    "scale",
    "scale_by_optimistic_gradient",
    "scale_by_schedule",
    "trace",
)
# Of what depends on a weight's shape, as an orthogonal update does, nothing is told.
_NORMALISED = (
    "clip",
    "clip_by_block_rms",
    "scale_by_acprop",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_adan",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_amsgrad",
    "scale_by_belief",
    "scale_by_factored_rms",
    "scale_by_lion",
    "scale_by_param_block_rms",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_rprop",
    "scale_by_rss",
    "scale_by_sign",
    "scale_by_simplified_ademamix",
    "scale_by_stddev",
    "scale_by_trust_ratio",
    "scale_by_yogi",
)
_EFFECTS = {
    **dict.fromkeys(_KEPT, Effect.kept),
    **dict.fromkeys(_MULTIPLIED, Effect.multiplied),
    **dict.fromkeys(_NORMALISED, Effect.normalised),
    "add_decayed_weights": Effect.decayed,
    "set_to_zero": Effect.zero,
}


def effect(part: Part, maker: Maker | None) -> Effect:
    """What a part without a rule of the library's does; that is only known of Optax's functions."""
    if part.hidden or maker is None or maker.package != "optax":
        return Effect.unknown
    return _EFFECTS.get(maker.name, Effect.unknown)
