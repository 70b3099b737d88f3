import json
import sys

import pytest

from scalex_eqx.cli._commands import run


def call(monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["scalex", "plan", *words])
    code = run()
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_it_prints_a_row_for_each_weight(monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "mup:adam:full", "--width", "65536", "--json")
    rows = {row["path"]: row for row in json.loads(out)["rows"]}
    assert code == 0
    # muP at r = 1024, under Adam and full alignment: hidden c = 1, readout c = a = 1/2.
    assert rows["blocks/mlp/up/weight"]["learning_rate"] == 2.0**-8 / 1024
    assert rows["readout/weight"]["learning_rate"] == 2.0**-8 / 32
    assert rows["readout/weight"]["multiplier"] == 1 / 32


def test_the_text_names_the_weights(monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "standard:adamw:none", "--weight-decay", "0.25")
    assert code == 0 and "blocks/attention/query/weight" in out and "0.25" in out


BASE, BATCH = ("--base-batch", "1"), ("--batch", "4")


def test_batch_and_training_length(monkeypatch, capsys):
    longer = ("--tokens", "16", "--base-tokens", "1", "--budget-rule", "completed_p")
    words = ("standard:adamw:full", "--weight-decay", "0.25", "--learning-rate", "2^-8")
    code, out, _ = call(monkeypatch, capsys, *words, *BASE, *BATCH, *longer, "--json")
    plan = json.loads(out)
    rows = {row["path"]: row for row in plan["rows"]}
    assert code == 0
    # r = 4: hidden c = 1; sqrt(B / D) = 1/2 and B / D = 1/4.
    hidden = rows["blocks/mlp/up/weight"]
    assert hidden["learning_rate_factor"] == 1 / 4
    assert hidden["learning_rate"] == 2.0**-8 / 4 / 2
    assert hidden["weight_decay"] == 0.25 / 4
    assert "  learning rate: batch^1/2 = 2, tokens^-1/2 = 0.25" in plan["optimizer"]


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        ("adam", "batch^1/2 = 2"),
        ("adam_atan2", "batch^1/2 = 2"),
        ("adam_parameter_scaling", "batch^1/2 = 2"),
        ("sgd", "batch^1 = 4"),
    ],
)
def test_every_optimizer_has_its_rule(monkeypatch, capsys, optimizer, said):
    code, out, _ = call(monkeypatch, capsys, f"mup:{optimizer}:full", *BASE, *BATCH)
    assert code == 0 and f"learning rate: {said}" in out


def test_a_horizon_and_a_decay_by_name(monkeypatch, capsys):
    words = (*BASE, *BATCH, "--tokens", "10", "--base-tokens", "1", "--horizon=-8/25")
    decay = ("--decay-rule", "completed_p", "--weight-decay", "0.01")
    code, out, _ = call(monkeypatch, capsys, "mup:adamw:full", *words, *decay)
    assert code == 0 and "tokens^-8/25 = 0.4786" in out
    assert "(Complete(d)P): width^0, batch^1 = 4, tokens^-1 = 0.1" in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mup:nope:full"], "unknown optimizer 'nope'"),
        (["mup:adam:full", "--width", "100"], "--width has 100, which is not a positive multiple"),
        (["mup:adam:full", "--base-width", "0"], "--base-width has 0"),
        (["mup:adam:full", "--learning-rate", "abc"], "--learning-rate has 'abc'; expected"),
        (["mup:adam:full", "--weight-decay", "0.1"], "but no recipe decays"),
        (["mup:adam:full", "--depth", "0"], "--depth is 0"),
        (["mup:adam:full", "--batch", "0"], "--batch needs --batch and --base-batch"),
        (["mup:adam:full", "--tokens", "2"], "--tokens needs --batch and --base-batch"),
        (["mup:adam:full", *BATCH, "--base-batch", "0"], "base_batch is 0.0; expected a positive"),
        (["mup:adam:full", *BASE, "--batch", "99"], "makes it -8.9"),
        (["mup:adam:full", *BASE, *BATCH, "--tokens", "2"], "tokens is 2.0 and base_tokens None"),
        (["mup:adam:full", *BASE, *BATCH, "--horizon", "a third"], "--horizon has 'a third'"),
        (["mup:adam:full", *BASE, *BATCH, "--horizon", "-0.3"], "give tokens and base_tokens"),
        (["mup:adam:full", *BASE, *BATCH, "--budget-rule", "linear"], "has 'linear'; choose from"),
        (["mup:adam:full", *BASE, *BATCH, "--decay-rule", "half"], "has 'half'; choose from"),
        (
            ["mup:adam:full:malladi", *BASE, *BATCH, "--budget-rule", "sdew"],
            "--budget-rule is sdew, and the recipe has the rule malladi; leave out one of them",
        ),
        (["mup:sgd:full", *BASE, *BATCH, "--budget-rule", "sdew"], "'sdew' is for updates of one"),
        (["mup:adafactor:none", *BASE, *BATCH], "adafactor takes no budget"),
        (["mup:lion:full", *BASE, *BATCH], "lion takes no budget"),
        (["mup:muon:full", *BASE, *BATCH], "muon takes no budget"),
    ],
)
def test_mistakes_are_told_in_a_line(monkeypatch, capsys, words, message):
    code, _, error = call(monkeypatch, capsys, *words)
    assert code == 2 and message in error and len(error.splitlines()) == 1
