from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from .._weight import Weight, effective
from ..theory import Role
from ._init import check_positive, constant, normal


class Linear(eqx.Module):
    r"""$y = W x + b$, with $W \sim \mathcal N(0, 1 / \text{in})$ and $b = 0$ at the base width.

    Its role follows from which of its features grow with the width: an input projection is an
    embedding, a matrix between two growing layers is hidden. For the logits use `Readout`.

    Features inside the model whose number stays, as those of a bottleneck, a router or key-value
    heads, look like outputs or inputs of the model. `role=Role.hidden` says what they are.
    """

    weight: Weight[Float[Array, "out in"]]
    bias: Weight[Float[Array, " out"]] | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = False,
        role: Role | None = None,
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `in_features`, `out_features`: the sizes of input and output.
        - `use_bias`: whether to add a bias.
        - `role`: of the weight, a promise that `parameterize` checks; inferred if not given. The
            bias of a hidden one is a `vector`.
        - `dtype`: of the weights; JAX's default float if not given.
        - `key`: for the initial draw.
        """
        check_positive(in_features=in_features, out_features=out_features)
        std, shape = in_features**-0.5, (out_features, in_features)
        self.weight = normal(shape, std, role=role, dtype=dtype, key=key)
        # Where the number of features stays, a bias inside the model looks like the readout's.
        of_bias = Role.vector if role == Role.hidden else None
        self.bias = constant(out_features, 0.0, dtype, role=of_bias) if use_bias else None

    def __check_init__(self):
        check_fields(self.weight, self.bias)

    def __call__(
        self, x: Float[Array, " in"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " out"]:
        """**Arguments:**

        - `x`: one example's features; use `jax.vmap` for more.
        - `key`: ignored; with it the layer fits into `equinox.nn.Sequential`.
        """
        return apply_linear(self.weight, self.bias, x)


class Readout(eqx.Module):
    r"""The logits $y = W x + b$, $W \sim \mathcal N(0, 1 / \text{in})$ at the base width.

    A `Linear` that promises that its input grows with the width and its output does not;
    `parameterize` holds it to that.
    """

    weight: Weight[Float[Array, "out in"]]
    bias: Weight[Float[Array, " out"]] | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = False,
        dtype: Any = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:** those of [`scalex_eqx.nn.Linear`][]."""
        check_positive(in_features=in_features, out_features=out_features)
        std, shape = in_features**-0.5, (out_features, in_features)
        self.weight = normal(shape, std, role=Role.readout, dtype=dtype, key=key)
        self.bias = constant(out_features, 0.0, dtype) if use_bias else None

    def __check_init__(self):
        check_fields(self.weight, self.bias)

    def __call__(
        self, x: Float[Array, " in"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " out"]:
        """**Arguments:**

        - `x`: one example's features.
        - `key`: ignored; with it the layer fits into `equinox.nn.Sequential`.
        """
        return apply_linear(self.weight, self.bias, x)


def apply_linear(weight: Any, bias: Any, x: Float[Array, " in"]) -> Float[Array, " out"]:
    # With x on the left, mapping over examples gives (examples, out) without a transpose.
    y = x @ effective(weight).T
    return y if bias is None else y + effective(bias)


def check_fields(
    weight: Weight[Float[Array, "out in"]], bias: Weight[Float[Array, " out"]] | None
) -> None:
    """Runtime type checkers look at arguments, not at fields."""
