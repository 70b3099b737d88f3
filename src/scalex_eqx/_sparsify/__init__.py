"""Masks on the weights of a model, and the law of their density."""

from ._api import sparsify as sparsify, with_masks as with_masks
from ._prune import (
    cubic_density as cubic_density,
    magnitude_masks as magnitude_masks,
    pruned as pruned,
    remasked as remasked,
)
