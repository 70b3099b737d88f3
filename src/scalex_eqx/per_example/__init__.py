"""Statistics of the gradients of single examples."""

from ._api import gradient_statistics as gradient_statistics
from ._batch_loss import from_batch_loss as from_batch_loss
from ._derived import (
    kurtosis as kurtosis,
    noise_scale as noise_scale,
    sign_agreement as sign_agreement,
    signal_to_noise as signal_to_noise,
    signal_to_noise_by_weight as signal_to_noise_by_weight,
)
from ._result import GradientStatistics as GradientStatistics
