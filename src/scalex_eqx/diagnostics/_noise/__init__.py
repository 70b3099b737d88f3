from ._noise import Noise as Noise, NoiseRow as NoiseRow, noise as noise
from ._picture import noise_figure as noise_figure
from ._prediction import Prediction as Prediction
