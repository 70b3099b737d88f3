"""Update rules that were found by training: a small network, the same for every entry."""

from ._features import FeatureSet as FeatureSet
from ._files import load_rule as load_rule, save_rule as save_rule
from ._network import Form as Form, LearnedRule as LearnedRule
from ._rule import (
    ScaleByLearnedState as ScaleByLearnedState,
    learned as learned,
    scale_by_learned as scale_by_learned,
)
