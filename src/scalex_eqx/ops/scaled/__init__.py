"""Operations that keep arrays of size one, forwards and backwards.

On inputs, weights and output gradients of size one, drawn independently, each has an output and
gradients of size one: the factors of the two passes are chosen apart. Gradients are therefore not
those of the loss, but these times a constant for each weight, which Adam does not see.
"""

from ._activations import gated_silu as gated_silu, gelu as gelu, silu as silu
from ._attention import attention as attention, softmax as softmax
from ._constraint import Constraint as Constraint, Number as Number, constrained as constrained
from ._conv import conv as conv
from ._dropout import dropout as dropout
from ._factors import (
    Factors as Factors,
    add_factors as add_factors,
    attention_factors as attention_factors,
    conv_factors as conv_factors,
    cross_entropy_factors as cross_entropy_factors,
    dropout_factors as dropout_factors,
    embedding_factors as embedding_factors,
    gated_silu_factors as gated_silu_factors,
    gelu_factors as gelu_factors,
    linear_factors as linear_factors,
    log_interpolate as log_interpolate,
    matmul_factors as matmul_factors,
    mean_square_factors as mean_square_factors,
    norm_factors as norm_factors,
    readout_factors as readout_factors,
    residual_factors as residual_factors,
    silu_factors as silu_factors,
    softmax_factors as softmax_factors,
)
from ._losses import cross_entropy as cross_entropy, mean_square as mean_square
from ._mapped import Mapped as Mapped, mapped_size as mapped_size
from ._norms import layer_norm as layer_norm, rms_norm as rms_norm
from ._products import (
    embedding as embedding,
    linear as linear,
    matmul as matmul,
    readout as readout,
)
from ._residual import (
    add as add,
    residual_add as residual_add,
    residual_split as residual_split,
    residual_taus as residual_taus,
)
from ._scale import scale as scale
