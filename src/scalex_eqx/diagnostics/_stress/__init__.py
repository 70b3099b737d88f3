from ._expectations import (
    StressExpectation as StressExpectation,
    stress_expectations as stress_expectations,
)
from ._gradients import GradientKind as GradientKind
from ._headroom import Headroom as Headroom, headroom as headroom
from ._picture import stress_figure as stress_figure
from ._result import (
    Stress as Stress,
    StressBand as StressBand,
    StressScale as StressScale,
    stress_table as stress_table,
)
from ._rules import StressRule as StressRule, stress_rules as stress_rules
from ._stress import StressDtype as StressDtype, stress as stress
