"""Files of tokens that are read as they are needed: the same windows as in memory, and no crash."""

import os
from typing import Any

import numpy as np
import pytest

from scalex_eqx.cli._check import Measuring
from scalex_eqx.cli._problem import ProblemOptions
from scalex_eqx.experiments import Member, Setting, UsageError, load_corpus, parse_recipe
from scalex_eqx.experiments._train import packs, train_pack
from scalex_eqx.problems import _token_file, text, token_file
from scalex_eqx.problems._token_file import drawn_starts

TOKENS = np.random.default_rng(0).integers(0, 300, 5000)
SIZES: dict[str, Any] = {
    "sequence_length": 8,
    "batch_size": 2,
    "head_dimension": 4,
    "held_out_windows": 5,
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "tokens.bin"
    TOKENS.astype("<u2").tofile(path)
    return path


def opened(path, vocabulary_size=300):
    return token_file(path, vocabulary_size=vocabulary_size, **SIZES)


def test_trains_on_the_windows_that_the_route_in_memory_draws(path):
    in_memory = text(load_corpus(path, vocabulary_size=300), **SIZES)
    members = [Member(parse_recipe("standard:adam:full"), 8, 0.01, seed) for seed in (0, 3)]
    found = []
    for problem in (in_memory, opened(path)):
        (pack,) = packs(problem, Setting(base_width=4, steps=3, depth=1), members)
        found.append([run for _, run in train_pack(pack, at_once=None, progress=lambda *_: None)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one.training_losses, other.training_losses, rtol=1e-6)
        assert one.metrics == pytest.approx(other.metrics, rel=1e-6)
    # Another seed is other windows.
    assert abs(found[0][0].training_losses[0] - found[0][1].training_losses[0]) > 1e-4


@pytest.mark.parametrize("dtype", ["<i4", ">i8", "uint16"])
def test_arrays_of_any_integers_are_read(tmp_path, path, dtype):
    array = tmp_path / "tokens.npy"
    np.save(array, TOKENS.astype(dtype))
    one, other = opened(path), opened(array)
    assert one.read is not None and other.read is not None
    np.testing.assert_array_equal(one.read(1, 2), other.read(1, 2))
    np.testing.assert_array_equal(one.held_out, other.held_out)


def test_the_identity_is_of_content_and_size(tmp_path, path, monkeypatch):
    monkeypatch.setattr(_token_file, "_BLOCK", 64)
    monkeypatch.setattr(_token_file, "_BLOCKS", 10)
    first = opened(path).facts
    assert first["data"].startswith("sampled:") and first["kind"] == "text"
    copy = tmp_path / "copy.bin"

    def facts_of(tokens, vocabulary_size=300):
        np.asarray(tokens, "<u2").tofile(copy)
        return opened(copy, vocabulary_size).facts

    def changed(place):
        tokens = TOKENS.copy()
        tokens[place] = (tokens[place] + 1) % 300
        return tokens

    assert facts_of(TOKENS) == first
    assert first not in [
        facts_of(changed(0)),
        facts_of(changed(-1)),
        facts_of(np.append(TOKENS, 1)),
        facts_of(TOKENS[:-1]),
        facts_of(TOKENS, 301),
    ]
    # A block has 32 tokens, and the second begins at (5000 - 32) / 9: what is between isn't seen.
    assert facts_of(changed(100)) == first != facts_of(changed(552))


def test_a_file_that_changes_is_noticed(path):
    problem = opened(path)
    assert problem.read is not None
    problem.read(0, 0)
    os.utime(path, ns=(0, 0))
    with pytest.raises(UsageError, match=r"tokens\.bin was written to while it was trained on"):
        problem.read(0, 1)
    problem = opened(path)
    assert problem.read is not None
    os.truncate(path, 100)
    with pytest.raises(UsageError, match="was written to"):
        problem.read(0, 0)
    file = _token_file.TokenFile(path, 300)
    os.truncate(path, 10)
    with pytest.raises(UsageError, match="became shorter while it was read"):
        file._read(0, 20)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.bin", b"123", "odd number of bytes, 3"),
        ("a.bin", b"12" * 20, "held-out part has 2 tokens"),
        ("a.txt", b"text", "is no file of tokens; expected a .bin file"),
        ("a.npy", b"text", "not a readable .npy file"),
        (None, b"", "cannot be read: No such file"),
    ],
)
def test_what_is_no_file_of_tokens_is_refused(tmp_path, name, content, said):
    path = tmp_path / (name or "missing.bin")
    if name:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        opened(path, 65536)


def test_tokens_beyond_the_vocabulary_are_refused_where_they_are_read(path):
    tokens = TOKENS.copy()
    tokens[4500:] = 400
    tokens.astype("<u2").tofile(path)
    with pytest.raises(UsageError, match="token 400 at position 4500 lies outside 0 to 299"):
        opened(path)
    for size in (0, 2**31):
        with pytest.raises(UsageError, match="expected 1 to 2147483647: --vocabulary-size"):
            opened(path, size)


def test_windows_of_huge_files_are_drawn_evenly():
    """Thirds of 2^40 choices; five standard deviations of 3000 draws are 0.043."""
    starts = np.concatenate([drawn_starts(0, step, 300, 2**40) for step in range(10)])
    assert starts.dtype == np.int64 and len(set(starts)) == 3000
    shares = np.histogram(starts, bins=3, range=(0, 2**40))[0] / 3000
    np.testing.assert_allclose(shares, 1 / 3, atol=0.043)


def test_commands_take_the_file_that_memory_does_not_hold(path, monkeypatch):
    def options(kind=ProblemOptions, **given):
        return kind(data=path, head_dimension=4, sequence_length=8, **given)

    assert options(vocabulary_size=300).load().read is None
    monkeypatch.setattr("scalex_eqx.problems._token_file.total", lambda: 19_999)
    streamed = options(vocabulary_size=300).load()
    assert streamed.read is not None and streamed.facts["data"].startswith("sampled:")
    with pytest.raises(UsageError, match=r"more than half of this machine's memory.*--vocab"):
        options().load()
    # Checks, which train for a few steps, take its beginning.
    monkeypatch.setattr(Measuring, "_most_tokens", 2000)
    beginning = options(Measuring, vocabulary_size=300, recipe="standard:adam:full").load()
    np.testing.assert_array_equal(beginning.data, TOKENS[:1800])
    assert beginning.said["data"].startswith("the beginning of tokens.bin, 2,000 tokens")
