"""Language models of eqx-zoo: with a tied embedding, and with experts."""

# pyright: reportMissingImports=false

import functools

import jax
from _case import LENGTH, VOCABULARY, Case, entropy, tokens
from eqx_zoo import CausalLM
from eqx_zoo.models.causal_lm import Config


def make(width, key, *, tied=False, experts=0):
    return CausalLM(
        Config(
            architecture="Qwen3MoeForCausalLM" if experts else "Qwen2ForCausalLM",
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=width // 8,
            num_key_value_heads=width // 16,
            head_dim=8,
            rms_norm_eps=1e-6,
            rope_theta=10.0 * LENGTH,
            tie_word_embeddings=tied,
            attention_bias=not experts,
            qk_norm=bool(experts),
            rope_scaling=None,
            num_experts=experts,
            num_experts_per_tok=2 if experts else 0,
            moe_intermediate_size=width,
            norm_topk_prob=True,
            moe_layers=(0, 1) if experts else (),
        ),
        key=key,
    )


def outputs(model, inputs, targets):
    # A loop: the package's grouped products have no rule for vmap in this JAX.
    return jax.lax.map(lambda row: model(row)[0], inputs)


BLOCK = {
    "model/layers/*/self_attn/[qkvo]_proj/weight": ("hidden", "summed over features"),
    "model/layers/*_layernorm/weight": ("vector", "a gain"),
    "model/norm/weight": ("vector", "a gain"),
}
TIED = {
    "model/embed_tokens/weight": ("tied", "looked up, and its transpose is the readout"),
    "model/layers/*/self_attn/[qkv]_proj/bias": ("vector", "a bias"),
    "model/layers/*/mlp/*_proj/weight": ("hidden", "summed over features"),
}
EXPERTS = {
    "model/embed_tokens/weight": ("embedding", "looked up"),
    "lm_head/weight": ("readout", "summed over features"),
    "model/layers/*/self_attn/[qk]_norm/weight": ("constant", "a gain of every head's dimension"),
    "model/layers/*/mlp/gate/weight": ("hidden", "the router: summed over features, a score each"),
    "model/layers/*/mlp/experts/*/weight": ("hidden", "stacked; each summed over features"),
}
_ROUTER = {"*/mlp/gate/weight": "hidden"}

CASES = [
    Case(
        "CausalLM, tied",
        ("eqx-zoo",),
        functools.partial(make, tied=True),
        outputs,
        entropy,
        tokens,
        BLOCK | TIED,
    ),
    Case(
        "CausalLM, experts",
        ("eqx-zoo",),
        functools.partial(make, experts=4),
        outputs,
        entropy,
        tokens,
        BLOCK | EXPERTS,
        options={"roles": _ROUTER},
    ),
]
