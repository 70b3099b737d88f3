from ._build import plan as plan
from ._data import Plan as Plan, PlanRow as PlanRow
