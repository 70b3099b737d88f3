"""Low-rank adapters of quax's examples, over frozen matrices, and over trained ones."""

# pyright: reportMissingImports=false

import equinox as eqx
import jax
import quax
from _case import Case, points, squares
from quax.examples import lora


def make(width, key, *, frozen=True):
    keys = jax.random.split(key)
    network = eqx.nn.MLP(8, 4, width, 2, key=keys[0])
    return lora.loraify(network, rank=2, stop_gradient=frozen, scale=0.5, key=keys[1])


def outputs(model, inputs, targets):
    return jax.vmap(quax.quaxify(model))(inputs)


FEATURES = "summed over features"
ADAPTERS = {
    "layers/0/weight/a": ("embedding", "from the rank to features"),
    "layers/0/weight/b": ("constant", "from the inputs to the rank"),
    "layers/1/weight/a": ("embedding", "from the rank to features"),
    "layers/1/weight/b": ("hidden", FEATURES + ", to the rank, which stays"),
    "layers/2/weight/a": ("constant", "from the rank to the outputs"),
    "layers/2/weight/b": ("readout", FEATURES + ", to the rank, and from there to the outputs"),
    "layers/[01]/bias": ("vector", "a bias"),
    "layers/2/bias": ("constant", "a bias"),
}
FROZEN = {f"layers/*/weight/{name}": ("not trained", "behind stop_gradient") for name in ("_w",)}

CASES = [
    Case(
        "LoRA of an MLP",
        ("quax",),
        make,
        outputs,
        squares,
        points,
        ADAPTERS | FROZEN,
        options={
            "layouts": {"*/a": ("out", "in"), "*/b": ("out", "in")},
            "roles": {"layers/1/weight/b": "hidden"},
            "frozen": ["*/_w"],
        },
    ),
]
