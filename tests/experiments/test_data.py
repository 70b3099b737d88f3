import os
import re
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from scalex_eqx._usage import UsageError
from scalex_eqx.problems import _corpus as _data
from scalex_eqx.problems._corpus import (
    Corpus,
    check_parts,
    corpus_of_tokens,
    held_out_windows,
    load_corpus,
)


def expect_error(*parts: str):
    """One line that holds all the parts, in this order."""
    return pytest.raises(UsageError, match="^[^\n]*" + "[^\n]*".join(map(re.escape, parts)))


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def save(path: Path, values: object, dtype: str) -> Path:
    np.save(path, np.asarray(values, dtype))
    return path


def counting(size: int) -> Corpus:
    return corpus_of_tokens(np.arange(size), vocabulary_size=size, name="numbers")


@pytest.fixture(scope="module")
def library() -> Corpus:
    return load_corpus(None)


# The standard library


def test_standard_library_is_large_and_named(library: Corpus):
    assert library.vocabulary_size == 256
    assert library.tokens.dtype == np.uint8
    assert len(library.tokens) > 5_000_000
    version = sysconfig.get_python_version()
    assert re.fullmatch(rf"Python {version} standard library, \d+ files", library.name)


def test_standard_library_is_read_quickly_and_again_the_same(library: Corpus):
    # Of this process alone, which takes 0.03 s; how long it waits is up to the machine.
    start = time.process_time()
    again = load_corpus(None)
    assert time.process_time() - start < 1
    assert again.digest == library.digest
    np.testing.assert_array_equal(again.tokens, library.tokens)


def test_standard_library_leaves_out_tests_packages_and_build_files(tmp_path, monkeypatch):
    left_out = [
        *("test/a.py", "ctypes/tests/a.py", "idlelib/idle_test/a.py", "__pycache__/a.py"),
        *("site-packages/a.py", "dist-packages/a.py", "config-3.11-x86_64/python-config.py"),
        *("_sysconfigdata__linux.py", "sitecustomize.py", "LICENSE.txt"),
    ]
    for name in left_out:
        write(tmp_path / name, "left out")
    write(tmp_path / "contest.py", "kept 1")
    write(tmp_path / "unittest/case.py", "kept 2")
    write(tmp_path / "empty.py", "")
    monkeypatch.setattr(_data.sysconfig, "get_path", lambda name: str(tmp_path))
    corpus = load_corpus(None)
    assert sorted(corpus.tokens.tobytes().split(b"\n")) == [b"kept 1", b"kept 2"]
    assert corpus.name.endswith("standard library, 2 files")


def test_standard_library_without_source(tmp_path, monkeypatch):
    monkeypatch.setattr(_data.sysconfig, "get_path", lambda name: str(tmp_path))
    with expect_error("no source", str(tmp_path), "--data"):
        load_corpus(None)


def test_subjects_are_mixed_between_the_parts(library: Corpus):
    """Alphabetically the held-out part would be xml to zipfile, and the training part not."""
    root = Path(sysconfig.get_path("stdlib"))
    held_out, train = library.held_out.tobytes(), library.train.tobytes()
    sources = [path.read_bytes() for path in sorted(root.glob("*.py"))]
    sources = [source for source in sources if len(source) > 1000]
    first, last = sources[: len(sources) // 2], sources[len(sources) // 2 :]
    for half in (first, last):
        assert any(source in held_out for source in half)
        assert any(source in train for source in half)


# Text


def test_text_file_is_its_bytes(tmp_path):
    text = "añb\r\n∑\n" * 3
    corpus = load_corpus(write(tmp_path / "input.txt", text))
    assert corpus.tokens.tobytes() == text.encode()
    assert (corpus.vocabulary_size, corpus.name) == (256, "input.txt")
    assert corpus.tokens.ndim == 1


def test_folder_is_its_text_files_in_a_fixed_mixed_order(tmp_path):
    texts = [f"text {number:02}" for number in range(30)]
    for place in ("one", "two"):
        # Written in different orders, since folders are listed as they were filled.
        for text in texts if place == "one" else reversed(texts):
            write(tmp_path / place / text[-1] / f"{text}.md", text)
    one, two = load_corpus(tmp_path / "one"), load_corpus(str(tmp_path / "two"))
    read = one.tokens.tobytes().decode().split("\n")
    assert sorted(read) == texts
    assert read != texts
    assert one.digest == two.digest
    assert one.name == "one, 30 files"


def test_folder_leaves_out_hidden_files_and_what_is_not_text(tmp_path):
    write(tmp_path / "kept.txt", "kept")
    write(tmp_path / ".hidden.txt", "hidden")
    write(tmp_path / ".git/config", "hidden")
    write(tmp_path / "latin.txt", b"\xe9t\xe9")
    write(tmp_path / "tokens.bin", b"\1\0\2\0")
    write(tmp_path / "late.txt", b"a" * 10_000 + b"\0")
    write(tmp_path / "empty.txt", b"")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    corpus = load_corpus(tmp_path)
    assert corpus.tokens.tobytes() == b"kept"
    assert corpus.name == f"{tmp_path.name}, 1 file (3 not text, left out)"


def test_current_folder_has_a_name(tmp_path, monkeypatch):
    write(tmp_path / "a.txt", "a")
    monkeypatch.chdir(tmp_path)
    assert load_corpus(".").name == f"{tmp_path.name}, 1 file"


# Tokens


def test_bin_is_little_endian_uint16(tmp_path):
    path = write(tmp_path / "train.bin", np.array([1, 2, 50256], "<u2").tobytes())
    corpus = load_corpus(path, vocabulary_size=50304)
    assert corpus.tokens.tolist() == [1, 2, 50256]
    assert corpus.tokens.dtype == np.uint16
    assert (corpus.vocabulary_size, corpus.name) == (50304, "train.bin")


def test_vocabulary_size_is_one_more_than_the_largest_token_unless_given(tmp_path):
    corpus = load_corpus(save(tmp_path / "a.npy", [3, 1, 7], "int64"))
    assert corpus.vocabulary_size == 8
    assert "vocabulary size 8" in corpus.name
    assert "largest token" in corpus.name


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", ">i4", "uint64"])
@pytest.mark.parametrize(
    ("size", "narrowest"), [(100, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "int32")]
)
def test_npy_of_any_integers(tmp_path, dtype, size, narrowest):
    corpus = load_corpus(save(tmp_path / "a.npy", [0, 99, 5], dtype), vocabulary_size=size)
    assert corpus.tokens.tolist() == [0, 99, 5]
    assert corpus.tokens.dtype == narrowest


def test_tokens_cannot_be_changed(tmp_path, library):
    for corpus in (library, counting(20), load_corpus(save(tmp_path / "a.npy", [1], "int64"))):
        with pytest.raises(ValueError, match="read-only"):
            corpus.tokens[0] = 0


# The digest


def test_digest_does_not_depend_on_the_path_or_the_kind_of_file(tmp_path):
    text = write(tmp_path / "a.txt", "\1\2\3")
    moved = write(tmp_path / "b/c.txt", "\1\2\3")
    array = save(tmp_path / "a.npy", [1, 2, 3], "int64")
    binary = write(tmp_path / "a.bin", np.array([1, 2, 3], "<u2").tobytes())
    digests = {load_corpus(text).digest, load_corpus(moved).digest}
    digests |= {load_corpus(path, vocabulary_size=256).digest for path in (array, binary)}
    assert len(digests) == 1
    assert re.fullmatch("[0-9a-f]{64}", digests.pop())


def test_digest_depends_on_every_byte_and_the_vocabulary_size(tmp_path):
    text = b"some text"
    changed = [text[:i] + b"#" + text[i + 1 :] for i in range(len(text))]
    texts = [text, text + b" ", text[:-1], *changed]
    digests = {load_corpus(write(tmp_path / "a.txt", content)).digest for content in texts}
    assert len(digests) == len(texts)
    sizes = [load_corpus(save(tmp_path / "a.npy", [1], "int8"), vocabulary_size=n) for n in (2, 3)]
    assert sizes[0].digest != sizes[1].digest


# The parts and the windows


@given(size=st.integers(1, 500))
def test_parts_divide_the_tokens(size):
    corpus = counting(size)
    assert [*corpus.train, *corpus.held_out] == list(range(size))
    assert 0 <= 10 * len(corpus.held_out) - size < 10


@given(size=st.integers(20, 3000), count=st.integers(1, 40), length=st.integers(1, 100))
def test_windows_are_runs_of_the_held_out_part_without_overlap(size, count, length):
    corpus = counting(size)
    fitting = len(corpus.held_out) // (length + 1)
    if not fitting:
        with expect_error("held-out part"):
            held_out_windows(corpus, count=count, length=length)
        return
    windows = held_out_windows(corpus, count=count, length=length)
    assert windows.shape == (min(count, fitting), length + 1)
    assert windows.dtype == np.int32
    assert (np.diff(windows, axis=1) == 1).all()
    # The tokens are their own positions.
    assert windows.min() > corpus.train.max()
    assert len(np.unique(windows)) == windows.size
    gaps = np.diff(windows[:, 0])
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1
    # Spread over the whole part: after the last window there is at most one gap.
    assert windows[-1, 0] + -(-len(corpus.held_out) // len(windows)) >= size


def test_the_check_of_overlap_finds_a_training_window():
    corpus = counting(1000)
    leaked = corpus.tokens[895 : 895 + 11]
    assert leaked.min() <= corpus.train.max() < leaked.max()


def test_windows_are_the_same_each_time(library: Corpus):
    first = held_out_windows(library, count=64, length=128)
    second = held_out_windows(load_corpus(None), count=64, length=128)
    np.testing.assert_array_equal(first, second)
    assert first.shape == (64, 129)


def test_too_little_text_for_a_window():
    corpus = counting(100)
    need = "give more text or a smaller --sequence-length"
    with expect_error("numbers", "held-out part has 10 tokens", "needs 11", need):
        held_out_windows(corpus, count=1, length=10)
    held_out_windows(corpus, count=1, length=9)
    with expect_error("numbers", "training part has 90 tokens", "needs 91", need):
        check_parts(corpus, length=90)
    with expect_error("numbers", "held-out part has 10 tokens", "needs 90", need):
        check_parts(corpus, length=89)
    check_parts(corpus, length=9)
    with expect_error("0 held-out windows", "at least 1"):
        held_out_windows(corpus, count=0, length=1)
    with expect_error("sequence length 0", "at least 1", "--sequence-length"):
        check_parts(corpus, length=0)
