"""What is trained for the evidence, and what the papers say of it: the table, as data.

A study is one model with one schedule, in several recipes. A row is one recipe of a study, with
what its paper says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BASE, WIDTHS, SEEDS, STEPS = 32, (32, 64, 128), (0, 1, 2), 100

LINGLE = "Lingle (2024), arXiv:2404.05728"
EVERETT = "Everett et al. (2024), arXiv:2407.05872"
KALRA = "Kalra & Barkeshli (2026), arXiv:2605.21486"
HAYOU = "Hayou & Liu (2025), arXiv:2506.15025"
KOSSON = "Kosson et al. (2025), arXiv:2510.19093"


@dataclass(frozen=True)
class Study:
    """One model and schedule.

    **Arguments:**

    - `options`: of `_models.problem`.
    - `steps`, `schedule`, `warmup`: of every run.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    steps: int = STEPS
    schedule: str = "linear"
    warmup: float = 0.1


@dataclass(frozen=True)
class Row:
    """One recipe in one study.

    **Arguments:**

    - `name`: what differs, for people to read; unique.
    - `group`: the table that it stands in.
    - `study`, `recipe`: what is trained.
    - `says`: the paper's verdict on transfer, or "" where it has none on this row.
    - `source`: the paper.
    - `first`: log2 of the smallest of the first seven learning rates, an octave apart.
    - `note`: what a reader should know before comparing.
    - `exploratory`: whether this size can hardly show what the paper saw.
    """

    name: str
    group: str
    study: str
    recipe: str
    says: str
    source: str
    first: int = -9
    note: str = ""
    exploratory: bool = False


STUDIES = {
    "plain": Study(),
    "biases": Study({"biases": True}),
    "vector gains": Study({"gains": "vector"}),
    "scalar gains": Study({"gains": "scalar"}),
    "logits 1/sqrt(d)": Study({"logit_scale": "1/sqrt(d)"}),
    "zero queries": Study({"zero_queries": True}),
    "wide readout": Study({"wide_readout": True}),
    "multi-query": Study({"multi_query": True}),
    "swiglu": Study({"mlp": "swiglu"}),
    "squared relu": Study({"mlp": "squared relu"}),
    "batch 16": Study({"batch_size": 16}),
    "batch 1": Study({"batch_size": 1}),
    "cosine": Study(schedule="cosine"),
    "usual": Study({"biases": True, "gains": "vector", "logit_scale": "1/sqrt(d)"}),
    "nibbles": Study({"nibbles": True}),
    "long": Study(steps=300),
    "long, warm": Study(steps=300, warmup=0.5),
}

_OURS = "mup:adam:full"
_GLOBAL = "standard:adam:global"
_EMBEDDING = "standard:adam:embedding={},hidden={},readout={},vector={},constant={}"
# 1 / decay: so many steps until a weight is forgotten, a third of the long training.
_DECAY = "standard:adamw(decay_mode='{}',weight_decay={}{}):{}"
_TO_RATE = ",decay_schedule='rate'"


def _lingle() -> list[Row]:
    def row(name: str, study: str, says: str, recipe: str = _OURS, **more: Any) -> Row:
        return Row(name, "ablations", study, recipe, says, LINGLE, **more)

    head = "heads have 16 features at every width: a constant factor of 4, not a rule for the width"
    small = "the paper saw it between widths 512 and 2048"
    return [
        row("baseline: muP, Adam, linear schedule", "plain", "transfers"),
        row("biases", "biases", "transfers"),
        row("gains, a vector", "vector gains", "fails", exploratory=True, note=small),
        row("gains, a scalar", "scalar gains", "fails", exploratory=True, note=small),
        row("logits over the root of d", "logits 1/sqrt(d)", "fails", note=head),
        row("queries start at zero", "zero queries", "transfers"),
        row("readout with the standard spread", "wide readout", "transfers"),
        row("one key-value head, inner layer x 5", "multi-query", "transfers"),
        row("SwiGLU, inner layer x 8/3", "swiglu", "transfers"),
        row("squared ReLU", "squared relu", "transfers"),
        row("batch x 4", "batch 16", "transfers"),
        row("batch / 4", "batch 1", "transfers"),
        row("cosine schedule", "cosine", "transfers"),
        row(
            "decoupled decay, 0.5 x the layer's rate",
            "plain",
            "fails",
            "mup:adamw(decay_mode='coupled',weight_decay=0.5):full",
            note="0.1 in the paper, over 125,000 steps; 100 steps need more to feel it",
        ),
        row(
            "independent decay, 0.02 a step at the peak",
            "plain",
            "",
            "mup:adamw(decay_mode='independent',decay_schedule='rate',weight_decay=0.02):full",
            note="in the paper's scripts, without a verdict",
        ),
        row(
            "Lion",
            "plain",
            "fails",
            "mup:lion(b1=0.95,b2=0.98):full",
            first=-12,
            exploratory=True,
            note="in the first version of the paper; the last one's verdict is not known",
        ),
        row(
            "the usual model: biases, gains, root of d, one rate",
            "usual",
            "fails",
            _GLOBAL,
        ),
        row("muP's model, standard parameterization, one rate", "plain", "fails", _GLOBAL),
    ]


def _epsilon() -> list[Row]:
    rows = [
        Row(
            f"{law.replace('_', '-')}, constant epsilon {eps}",
            "epsilon",
            "plain",
            f"{law}:adam(eps={eps},eps_scaling='constant'):full",
            "",
            EVERETT,
        )
        for law in ("mean_field", "standard")
        for eps in ("1e-06", "1e-09", "1e-12", "1e-15")
    ]
    return [
        *rows,
        Row(
            "mean-field, Adam-atan2", "epsilon", "plain", "mean_field:adam_atan2:full", "", EVERETT
        ),
        Row("standard, Adam-atan2", "epsilon", "plain", "standard:adam_atan2:full", "", EVERETT),
    ]


def _embedding() -> list[Row]:
    rows = []
    for study, words in (("plain", "vocabulary 256"), ("nibbles", "vocabulary 16")):
        for name, recipe, source in (
            ("one rate", _GLOBAL, KALRA),
            ("embedding's rate x width", _EMBEDDING.format(-1, 0, 0, 0, 0), KALRA),
            ("embedding's rate x root of width", _EMBEDDING.format("-1/2", 0, 0, 0, 0), HAYOU),
            ("all by their law", "standard:adam:full", EVERETT),
            ("all, embedding's by the root", _EMBEDDING.format("1/2", 1, 1, 0, 0), HAYOU),
        ):
            rows.append(Row(f"{name}, {words}", "embedding", study, recipe, "", source))
    return rows


def _decay() -> list[Row]:
    def of(rates: str) -> list[tuple[str, str]]:
        return [
            ("no decay", f"standard:adam:{rates}"),
            ("independent decay 0.01", _DECAY.format("independent", "0.01", _TO_RATE, rates)),
            ("coupled decay 0.5", _DECAY.format("coupled", "0.5", "", rates)),
        ]

    return [
        Row(f"{decay}, {law}, {warm}", "decay", study, recipe, "", KOSSON)
        for study, warm in (("long", "warm-up 10 %"), ("long, warm", "warm-up 50 %"))
        for rates, law in (("full", "with the law"), ("global", "one rate"))
        for decay, recipe in of(rates)
        if study == "long" or "coupled" not in decay
    ]


ROWS = {row.name: row for row in (*_lingle(), *_epsilon(), *_embedding(), *_decay())}
GROUPS = ("ablations", "epsilon", "embedding", "decay")
