"""The protein language model of esm2quinox, whose embedding is its last layer's weight."""

# pyright: reportMissingImports=false

import jax
from _case import LENGTH, Case, entropy, linear, norm
from esm2quinox import ESM2


def make(width, key):
    return ESM2(num_layers=2, embed_size=width, num_heads=width // 8, token_dropout=False, key=key)


def outputs(model, inputs, targets):
    return jax.vmap(model)(inputs).logits


def batch(key):
    """Residues 4 to 11 of the alphabet that count in steps of 1, 2 or 3, and what comes next."""
    first = jax.random.randint(key, (8, 1), 0, 8)
    counted = 4 + (first + (first % 3 + 1) * jax.numpy.arange(LENGTH + 1)[None]) % 8
    return counted[:, :-1], counted[:, 1:]


FEATURES = "stacked; each summed over features"
ARRAYS = {
    "logit_head/linear2/weight": ("tied", "looked up, and the readout itself"),
    "logit_head/linear2/bias": ("constant", "a bias"),
    **linear("logit_head/linear1", "hidden", "summed over features"),
    **norm("logit_head/layer_norm"),
    **norm("layer_norm"),
    **norm("layers/layer_norm[12]"),
    **linear("layers/attn/*_proj", "hidden", FEATURES),
    **linear("layers/linear[12]", "hidden", FEATURES),
}

CASES = [Case("ESM2", ("esm2quinox",), make, outputs, entropy, batch, ARRAYS)]
