"""Update rules as `optax.GradientTransformation`s over trees of weights."""

from ._adafactor import (
    ScaleByFactoredRmsState as ScaleByFactoredRmsState,
    adafactor as adafactor,
    scale_by_factored_rms as scale_by_factored_rms,
)
from ._adam import (
    AdamMoments as AdamMoments,
    ScaleByAdamState as ScaleByAdamState,
    adam as adam,
    adamw as adamw,
    scale_by_adam as scale_by_adam,
)
from ._adam_atan2 import (
    ScaleByAdamAtan2State as ScaleByAdamAtan2State,
    adam_atan2 as adam_atan2,
    scale_by_adam_atan2 as scale_by_adam_atan2,
)
from ._adam_bytes import ScaleByAdamBytesState as ScaleByAdamBytesState
from ._average import (
    AverageState as AverageState,
    average_weights as average_weights,
    averaged as averaged,
)
from ._cautious import CautiousState as CautiousState, cautious as cautious
from ._clip import (
    clip_by_effective_norm as clip_by_effective_norm,
    clip_by_rms as clip_by_rms,
)
from ._clipped_mean import ClippedMeanState as ClippedMeanState, clipped_mean as clipped_mean
from ._decay import (
    AddWeightDecayState as AddWeightDecayState,
    add_weight_decay as add_weight_decay,
)
from ._learned import (
    FeatureSet as FeatureSet,
    Form as Form,
    LearnedRule as LearnedRule,
    ScaleByLearnedState as ScaleByLearnedState,
    learned as learned,
    load_rule as load_rule,
    save_rule as save_rule,
    scale_by_learned as scale_by_learned,
)
from ._learning_rate import (
    ScaleByLearningRateState as ScaleByLearningRateState,
    scale_by_learning_rate as scale_by_learning_rate,
)
from ._lion import (
    ScaleByLionState as ScaleByLionState,
    lion as lion,
    scale_by_lion as scale_by_lion,
    scale_by_sign as scale_by_sign,
    sign_sgd as sign_sgd,
)
from ._low_precision import (
    KahanState as KahanState,
    LowPrecisionMode as LowPrecisionMode,
    MasterState as MasterState,
    StochasticRoundingState as StochasticRoundingState,
    low_precision as low_precision,
)
from ._micro_adam import (
    SecondMoment as SecondMoment,
    micro_adam as micro_adam,
    scale_by_micro_adam as scale_by_micro_adam,
)
from ._moments import MomentDtype as MomentDtype
from ._muon import (
    MuonScale as MuonScale,
    ScaleByMuonState as ScaleByMuonState,
    muon as muon,
    scale_by_muon as scale_by_muon,
)
from ._parameter_scaling import (
    adam_parameter_scaling as adam_parameter_scaling,
    scale_by_parameter_rms as scale_by_parameter_rms,
)
from ._rates import (
    Rates as Rates,
    global_rate as global_rate,
    scale_by_width as scale_by_width,
)
from ._rule import Constant as Constant, Degree as Degree, Rule as Rule
from ._sgd import (
    ScaleByMomentumState as ScaleByMomentumState,
    scale_by_gradient as scale_by_gradient,
    scale_by_momentum as scale_by_momentum,
    sgd as sgd,
)
from ._sign_ema import (
    Placement as Placement,
    ScaleBySignEmaState as ScaleBySignEmaState,
    scale_by_sign_ema as scale_by_sign_ema,
    sign_ema as sign_ema,
)
from ._skip import SkipNonfiniteState as SkipNonfiniteState, skip_nonfinite as skip_nonfinite
from ._stateless import StatelessState as StatelessState
from ._unannotated import Unannotated as Unannotated
