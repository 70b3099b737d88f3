"""Masks on the weights of a model, and the law of their density."""

from ._api import sparsify as sparsify, with_masks as with_masks
