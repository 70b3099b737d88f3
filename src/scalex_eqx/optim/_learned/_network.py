"""The small network that a learned rule is."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._features import Features, FeatureSet

Form = Literal["magnitude", "direction", "matched"]

EXPONENT = 1e-3
r"""$\lambda_2$, what the magnitude is multiplied by before the exponential."""


class LearnedRule(eqx.Module):
    r"""An update rule whose formula is a small network, the same for every entry of every weight.

    $$d, m = \operatorname{MLP}(\text{features}), \qquad
    u = d\, e^{\lambda_2 m}, \quad \frac{d}{\operatorname{RMS}(d)} \quad\text{or}\quad
    \frac{d\, e^{\lambda_2 m}}{\operatorname{RMS}(d\, e^{\lambda_2 m})}$$

    for the forms `"magnitude"`, `"direction"` and `"matched"`. Two hidden layers of ReLUs. The
    features have a size of one whatever the width: so has $u$, and the rule is of Adam's family.

    The decay rates of the moments are learned too, $1 - \beta = (1 - \beta_0) e^{10 \theta_\beta}$.

    **Arguments:**

    - `hidden`: the number of ReLUs in a layer. With the published features, forms of two outputs
        have 197 parameters at 4, 953 at 16, 2409 at 32, the seven decay rates among them.
    - `features`: a [`scalex_eqx.optim.FeatureSet`][].
    - `form`: see above. Of the last two every step's update has a root mean square of one.
    - `key`: draws the weights, normal ones cut off at two and of size $1 / \sqrt{\text{fan-in}}$.

    ??? cite "Source"

        Thérien et al., *µLO* (2024), [arXiv:2406.00153](https://arxiv.org/abs/2406.00153), whose
        form is `"magnitude"`. *Celo2*, [arXiv:2602.19142](https://arxiv.org/abs/2602.19142), takes
        the direction alone and divides it by its RMS. The features differ from the published ones
        in their floors: those are absolute there, and the tensor's own here.
    """

    layers: tuple[eqx.nn.Linear, ...]
    decays: Float[Array, " decays"]
    features: FeatureSet = eqx.field(static=True)
    form: Form = eqx.field(static=True)

    def __init__(
        self,
        hidden: int = 16,
        *,
        features: FeatureSet | None = None,
        form: Form | str = "magnitude",
        key: PRNGKeyArray,
    ):
        if form not in get_args(Form):
            raise ValueError(f"form is {form!r}; expected {', '.join(map(repr, get_args(Form)))}")
        if not isinstance(hidden, int) or hidden < 1:
            raise ValueError(f"hidden is {hidden!r}; expected an int of at least 1")
        self.features = FeatureSet() if features is None else features
        self.form = form  # pyright: ignore[reportAttributeAccessIssue]
        sizes = (self.features.count, hidden, hidden, 1 if form == "direction" else 2)
        keys = jax.random.split(key, 3)
        self.layers = tuple(
            _linear(n, m, key) for n, m, key in zip(sizes[:-1], sizes[1:], keys, strict=True)
        )
        self.decays = jnp.zeros(len(self.features.decays), jnp.float32)

    @property
    def parameters(self) -> int:
        """How many numbers meta-training finds."""
        return sum(x.size for x in jax.tree.leaves((self.layers, self.decays)))

    def __call__(
        self, features: Sequence[Features], times: Float[Array, " times"]
    ) -> Float[Array, "..."]:
        r"""$d$ or $d\, e^{\lambda_2 m}$ of one tensor, whose size the caller may divide by.

        **Arguments:**

        - `features`: the normalised ones, those that are full first.
        - `times`: the features of the time.
        """
        first, second, last = (_in_dtype(layer, times) for layer in self.layers)
        x = jax.nn.relu(_first(first, features, times))
        x = jax.nn.relu(_product(second.weight, x) + _along(second.bias, x))
        out = _product(last.weight, x) + _along(last.bias, x)
        if self.form == "direction":
            return out[0]
        return out[0] * jnp.exp(jnp.asarray(EXPONENT, out.dtype) * out[1])


def _linear(fan_in: int, fan_out: int, key: PRNGKeyArray) -> eqx.nn.Linear:
    layer = eqx.nn.Linear(fan_in, fan_out, dtype=jnp.float32, key=key)
    weight = jax.random.truncated_normal(key, -2, 2, (fan_out, fan_in), jnp.float32)
    values = (weight * fan_in**-0.5, jnp.zeros(fan_out, jnp.float32))
    return eqx.tree_at(lambda one: (one.weight, one.bias), layer, values)


def _in_dtype(layer: eqx.nn.Linear, like: Float[Array, "..."]) -> Any:
    return jax.tree.map(lambda x: x.astype(like.dtype), layer)


def _first(
    layer: Any, features: Sequence[Features], times: Float[Array, " times"]
) -> Float[Array, "hidden ..."]:
    """The first layer, in which features of one shape are taken together.

    What is the same along a row is multiplied once a row, and the times once in all: of the
    published features 16 of 39 are left for every entry of a matrix.
    """
    count = sum(len(group.places) for group in features)
    bias = layer.bias + jnp.matmul(layer.weight[:, count:], times, precision="highest")
    parts = [
        _product(layer.weight[:, jnp.asarray(group.places)], group.values) for group in features
    ]
    # The full ones come first, and have the shape of all.
    total = parts[0] + _along(bias, parts[0])
    for part in parts[1:]:
        total = total + part
    return total


def _product(matrix: Float[Array, "n m"], x: Float[Array, "m ..."]) -> Float[Array, "n ..."]:
    return jnp.tensordot(matrix, x, 1, precision="highest")


def _along(bias: Float[Array, " n"], x: Float[Array, "m ..."]) -> Float[Array, "n ..."]:
    return bias.reshape(-1, *[1] * (x.ndim - 1))
