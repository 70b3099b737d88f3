"""Base width + target width → a model whose every weight has its scaling law."""

from ._api import parameterize as parameterize, parameterize_model as parameterize_model
from ._freeze import freeze as freeze, unfreeze as unfreeze
from ._shared import is_tie as is_tie, second_factor as second_factor
