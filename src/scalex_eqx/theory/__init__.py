"""The scaling laws as exact data: this package imports no JAX."""

from ._alignment import (
    Alignment as Alignment,
    depends_on_depth as depends_on_depth,
    full_alignment as full_alignment,
    no_alignment as no_alignment,
)
from ._assess import assess as assess
from ._budget import (
    Budget as Budget,
    BudgetRule as BudgetRule,
    DecayRule as DecayRule,
    Growth as Growth,
)
from ._budget_rules import (
    budget_rules as budget_rules,
    completed_p as completed_p,
    completed_p_decay as completed_p_decay,
    decay_rules as decay_rules,
    fan_decay as fan_decay,
    horizons as horizons,
    kosson_decay as kosson_decay,
    malladi as malladi,
    malladi_sgd as malladi_sgd,
    micro_adam as micro_adam,
    power_lines_decay as power_lines_decay,
    sdew as sdew,
    sdew_decay as sdew_decay,
)
from ._density import density_exponent as density_exponent
from ._depth import depth_exponent as depth_exponent
from ._embedding_ratio import with_embedding_ratio as with_embedding_ratio
from ._equivalence import equivalence as equivalence, shift as shift
from ._exponents import (
    gradient_exponents as gradient_exponents,
    gradient_power as gradient_power,
    learning_rate_exponents as learning_rate_exponents,
)
from ._family import (
    FamilyByRole as FamilyByRole,
    UpdateFamily as UpdateFamily,
    adafactor as adafactor,
    adam as adam,
    as_family as as_family,
    muon as muon,
    sgd as sgd,
)
from ._layers import Infeasible as Infeasible
from ._parameterization import (
    LayerExponents as LayerExponents,
    Parameterization as Parameterization,
    UnitRules as UnitRules,
    mean_field as mean_field,
    mup as mup,
    ntk as ntk,
    standard as standard,
)
from ._power import Power as Power
from ._role import Role as Role
from ._solution import (
    Alternative as Alternative,
    LayerSolution as LayerSolution,
    Solution as Solution,
)
from ._solve import solve as solve
from ._unit import u_mup as u_mup, unit_scaled as unit_scaled
