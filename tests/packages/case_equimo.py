"""Vision models of equimo: a ViT with registers, and ConvNeXt in both versions."""

# pyright: reportMissingImports=false

import functools

import jax
from _case import CLASSES, SIDE, Case, entropy, images, linear, norm
from equimo.vision.models.convnext import ConvNeXt
from equimo.vision.models.vit import VisionTransformer


def make_vit(width, key):
    return VisionTransformer(
        img_size=SIDE,
        in_channels=3,
        dim=width,
        patch_size=4,
        num_heads=width // 8,
        depths=[2],
        reg_tokens=2,
        init_values=0.1,
        num_classes=CLASSES,
        key=key,
    )


def make_convnext(width, key, *, version=1):
    return ConvNeXt(
        depths=[1, 1],
        dims=[width // 2, width],
        layer_scale_init_value=0.1 if version == 1 else None,
        use_grn=version == 2,
        num_classes=CLASSES,
        key=key,
    )


def outputs(model, inputs, labels):
    return jax.vmap(lambda x: model(x, key=jax.random.key(0), inference=True))(inputs)


FEATURES = "summed over features"
VIT = {
    "cls_token": ("added", "a token in front of the patches"),
    "reg_tokens": ("added", "tokens in front of the patches"),
    "global_pos_embed/*": ("added", "a row is added to each patch"),
    **linear("patch_embed/proj", "embedding", "summed over pixels"),
    "blocks/*/ls[12]/gamma": ("vector", "a gain"),
    **linear("blocks/*/attn/qkv", "hidden", FEATURES),
    **linear("blocks/*/attn/proj", "hidden", FEATURES),
    **linear("blocks/*/mlp/fc[12]", "hidden", FEATURES),
    **norm("blocks/*norm"),
    **norm("norm"),
    **linear("head", "readout", FEATURES),
}
CONVNEXT = {
    **linear("blocks/0/downsample/conv", "embedding", "summed over pixels"),
    **linear("blocks/1/downsample/conv", "hidden", FEATURES),
    **norm("blocks/*/norm"),
    **linear("blocks/*/dwconv", "embedding", "each channel by itself, summed over the kernel"),
    **linear("blocks/*/pwconv[12]", "hidden", FEATURES),
    **norm("norm"),
    **linear("head", "readout", FEATURES),
}
V1 = {"blocks/*/ls/gamma": ("vector", "a gain")}
V2 = norm("blocks/*/grn")
TOKENS = dict.fromkeys(("global_pos_embed/weight", "cls_token", "reg_tokens"), ("in", "out"))

CASES = [
    Case(
        "VisionTransformer",
        ("equimo",),
        make_vit,
        outputs,
        entropy,
        images,
        VIT,
        options={"layouts": TOKENS},
    ),
    Case("ConvNeXt", ("equimo",), make_convnext, outputs, entropy, images, CONVNEXT | V1),
    Case(
        "ConvNeXt V2",
        ("equimo",),
        functools.partial(make_convnext, version=2),
        outputs,
        entropy,
        images,
        CONVNEXT | V2,
    ),
]
