"""Models of jaxonmodels: the ViT of CLIP, and a Swin transformer."""

# pyright: reportMissingImports=false

import equinox as eqx
import jax
from _case import CLASSES, SIDE, Case, entropy, images, linear, norm
from jaxonmodels.models.swin_transformer import (
    PatchMerging,
    ShiftedWindowAttention,
    SwinTransformer,
    SwinTransformerBlock,
)
from jaxonmodels.models.vit import VisionTransformer


def make_vit(width, key):
    return VisionTransformer(
        input_resolution=SIDE,
        patch_size=4,
        width=width,
        layers=2,
        heads=width // 8,
        output_dim=CLASSES,
        key=key,
    )


def vit_outputs(model, inputs, labels):
    return jax.vmap(lambda x: model(x)[0])(inputs)


def make_swin(width, key):
    return eqx.nn.make_with_state(SwinTransformer)(
        patch_size=[2, 2],
        embed_dim=width,
        depths=[1, 1],
        num_heads=[width // 8, width // 4],
        window_size=[2, 2],
        mlp_ratio=2.0,
        dropout=0.0,
        attention_dropout=0.0,
        stochastic_depth_prob=0.0,
        num_classes=CLASSES,
        norm_layer=None,
        block=SwinTransformerBlock,
        downsample_layer=PatchMerging,
        attn_layer=ShiftedWindowAttention,
        inference=True,
        key=key,
    )


def swin_outputs(model, inputs, labels):
    network, state = model
    return jax.vmap(lambda x: network(x, state, jax.random.key(0))[0])(inputs)


FEATURES = "summed over features"
VIT = {
    "class_embedding": ("added", "a token in front of the patches"),
    "positional_embedding": ("added", "a row is added to each token"),
    "proj": ("readout", FEATURES),
    "conv1/weight": ("embedding", "summed over pixels"),
    **norm("ln_pre"),
    **norm("ln_post"),
    **norm("transformer/*/ln_[12]"),
    "transformer/*/attn/in_proj_weight": ("hidden", FEATURES),
    "transformer/*/attn/in_proj_bias": ("vector", "a bias"),
    **linear("transformer/*/attn/out_proj", "hidden", FEATURES),
    **linear("transformer/*/c_*", "hidden", FEATURES),
}
BLOCK = "0/features/layers/[13]/layers/0"
SWIN = {
    **linear("0/features/layers/0/layers/0", "embedding", "summed over pixels"),
    **norm("0/features/layers/0/layers/2"),
    **norm(f"{BLOCK}/norm[12]"),
    **linear(f"{BLOCK}/attn/qkv", "hidden", FEATURES),
    **linear(f"{BLOCK}/attn/proj", "hidden", FEATURES),
    f"{BLOCK}/attn/relative_position_bias_table": ("added", "a row is added to the heads' logits"),
    **linear(f"{BLOCK}/mlp/layers/[03]", "hidden", FEATURES),
    "0/features/layers/2/reduction/weight": ("hidden", "summed over the features of four patches"),
    **norm("0/features/layers/2/norm"),
    **norm("0/norm"),
    **linear("0/head", "readout", FEATURES),
}

CASES = [
    Case(
        "VisionTransformer",
        ("jaxonmodels", "jaxonlayers"),
        make_vit,
        vit_outputs,
        entropy,
        images,
        VIT,
        options={
            "layouts": {
                "class_embedding": ("out",),
                "positional_embedding": ("in", "out"),
                "proj": ("in", "out"),
            },
        },
    ),
    Case(
        "SwinTransformer",
        ("jaxonmodels", "jaxonlayers"),
        make_swin,
        swin_outputs,
        entropy,
        images,
        SWIN,
        options={"layouts": {"*/relative_position_bias_table": ("in", "out")}},
    ),
]
