"""Adapters on a model that is trained already, as it gets wider."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp

import scalex_eqx as sx
from scalex_eqx.diagnostics import coordinate_check

from . import adapters as script

BASE, OUTPUTS = 16, 4


def test_what_an_adapter_puts_out_changes_as_much_at_every_width(monkeypatch):
    """And as the width with one rate for all.

    Of two seeds each, and short of training: over eight seeds and three widths the script found
    -0.01 and 0.98.
    """
    monkeypatch.setattr(script, "TRAINING", 50)
    found = {}
    for name, rates in script.LAWS.items():
        logs = [script.changes(width, script.RANK, 1.0, rates, 4, 2) for width in (64, 256)]
        found[name] = (logs[1] - logs[0])[1] / 2
    assert abs(found["law"]) < 0.15
    assert found["one rate"] > 0.85


def adapted(width: int, key) -> eqx.nn.MLP:
    """On two of three layers, with a `B` that lets `A` have a gradient at first."""
    keys = jax.random.split(key)
    model = eqx.nn.MLP(8, OUTPUTS, width, 2, key=key)
    first, *others = model.layers
    layers = [sx.nn.LoRA(layer, 4, key=key) for layer, key in zip(others, keys, strict=True)]
    model = eqx.tree_at(lambda model: model.layers, model, (first, *layers))
    return eqx.tree_at(
        lambda model: [layer.lora_b.value for layer in model.layers[1:]],
        model,
        replace_fn=lambda b: 0.3 * jax.random.normal(key, b.shape),
    )


def build(width: int, key, **options):
    return sx.parameterize(
        lambda width: adapted(width, key),
        width=width,
        base_width=BASE,
        parameterization=sx.mup,
        trained=adapted(width, key),
        frozen=lambda path, _: "lora" not in path,
        **options,
    )


def loss(model, x):
    y = jax.vmap(sx.resolve(model))(x)
    return jnp.mean((y - jnp.sin(x[:, :OUTPUTS])) ** 2)


def check(tx, **options):
    return coordinate_check(
        functools.partial(build, **options),
        loss,
        tx,
        batch=lambda key: (jax.random.normal(key, (32, 8)),),
        widths=(BASE, 4 * BASE),
        seeds=(0, 1),
        steps=2,
    )


def test_the_coordinate_check_passes_them():
    """That on the readout too: of all matrices that sum over the width its `A` is the last."""
    found = check(sx.adam(0.01))
    assert found.verdict == "passes", str(found)


def test_it_rejects_one_rate_for_all():
    found = check(sx.adam(0.01, sx.global_rate))
    assert found.verdict == "rejected", str(found)
    found_in = {finding.weight for finding in found.findings if finding.kind == "rate"}
    # In muP the rate of B falls as well, which its multiplier makes up for.
    assert found_in == {"layers/1/lora_a", "layers/1/lora_b", "layers/2/lora_a"}
