from ._formats import FORMATS as FORMATS, Format as Format
from ._picture import scales_figure as scales_figure
from ._scales import ScaleRow as ScaleRow, Scales as Scales, scales as scales
