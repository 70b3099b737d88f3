"""Measurements on models and update rules."""

from ._alignment import (
    MeasuredAlignment as MeasuredAlignment,
    MeasuredAlignments as MeasuredAlignments,
    alignment as alignment,
)
from ._alignment_exponents import (
    AlignmentExponents as AlignmentExponents,
    alignment_exponents as alignment_exponents,
)
from ._alignment_picture import alignment_figure as alignment_figure
from ._capture import (
    Captured as Captured,
    NotFollowed as NotFollowed,
    Use as Use,
    capture as capture,
)
from ._compare import TableDifference as TableDifference, compare as compare
from ._coordinates import (
    CoordinateCheck as CoordinateCheck,
    CoordinateFinding as CoordinateFinding,
    CoordinateRow as CoordinateRow,
    StepShares as StepShares,
    coordinate_check as coordinate_check,
    coordinate_figure as coordinate_figure,
)
from ._device import Device as Device, describe_device as describe_device
from ._edges import UnequalEdge as UnequalEdge, unequal_edges as unequal_edges
from ._exponent import Exponent as Exponent
from ._family import (
    Degrees as Degrees,
    Layout as Layout,
    MeasuredFamily as MeasuredFamily,
    Reach as Reach,
    Shape as Shape,
    family as family,
)
from ._gradients import (
    GradientExponent as GradientExponent,
    GradientExponents as GradientExponents,
    gradient_exponents as gradient_exponents,
)
from ._narrow_products import (
    ProductFormats as ProductFormats,
    hidden_fp8 as hidden_fp8,
    hidden_mxfp8 as hidden_mxfp8,
    hidden_nvfp4 as hidden_nvfp4,
    u_mup_fp8 as u_mup_fp8,
    with_narrow_products as with_narrow_products,
)
from ._noise import (
    Noise as Noise,
    NoiseRow as NoiseRow,
    Prediction as Prediction,
    noise as noise,
    noise_figure as noise_figure,
)
from ._prescription import (
    PrescribedWeight as PrescribedWeight,
    Prescription as Prescription,
    prescribe as prescribe,
)
from ._results import Results as Results, Table as Table, record as record
from ._scales import (
    ScaleRow as ScaleRow,
    Scales as Scales,
    scales as scales,
    scales_figure as scales_figure,
)
from ._stress import (
    GradientKind as GradientKind,
    Headroom as Headroom,
    Stress as Stress,
    StressBand as StressBand,
    StressDtype as StressDtype,
    StressExpectation as StressExpectation,
    StressRule as StressRule,
    StressScale as StressScale,
    headroom as headroom,
    stress as stress,
    stress_expectations as stress_expectations,
    stress_figure as stress_figure,
    stress_rules as stress_rules,
    stress_table as stress_table,
)
