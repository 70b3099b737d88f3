"""Which problem a command is about: the text Transformer, or one of the user's own."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from rich.console import Console

from .._usage import shown
from ..experiments import UsageError, load_corpus
from ..experiments._config import check_positive, check_width
from ..problems import Corpus, Problem, load_problem, text, token_file
from ..problems._corpus import corpus_of_tokens
from ..problems._text_facts import NAME, UNIT_NAME
from ..problems._token_file import TokenFile, is_larger_than_memory

TEXT, UNIT_TEXT = NAME, UNIT_NAME
TEXTS = (TEXT, UNIT_TEXT)


@dataclasses.dataclass(frozen=True)
class ProblemOptions:
    """What is trained."""

    problem: str = TEXT
    """text, the Transformer that the options below describe; unit-text, the unit-scaled one, for
    recipes with u_mup; digits, an MLP on scikit-learn's digits; or FILE.py:NAME, a
    scalex_eqx.problems.Problem of your own, with its own data."""
    batch_size: int | None = None
    """Sequences in a batch of text; 4 if not given."""
    sequence_length: int | None = None
    """Tokens in a sequence of text."""
    head_dimension: int | None = None
    """Size of an attention head; their number grows with the width. 16 if not given."""
    data: Path | None = None
    """A text, a folder, tokens.bin (uint16) or tokens.npy; by default Python's own source. A token
    file of more than half of the memory is read as it is needed."""
    vocabulary_size: int | None = None
    """Of a token file; its largest token plus one by default."""

    _usual_length: ClassVar[int] = 64
    _most_tokens: ClassVar[int | None] = None

    def load(self, **widths: Sequence[int]) -> Problem:
        """The problem; `widths` are those that it will be built at, by the options that gave them.

        **Raises:** `UsageError` for an option of the text beside another problem, and what the text
        can't be trained with.
        """
        options = ("batch_size", "sequence_length", "head_dimension", "data", "vocabulary_size")
        given = [name for name in options if getattr(self, name) is not None]
        is_unit = self.problem == UNIT_TEXT
        if self.problem not in TEXTS:
            if given:
                raise UsageError(
                    f"--{given[0].replace('_', '-')} is given, which is an option of --problem "
                    f"text; leave it out: the problem {self.problem} has its own"
                )
            return load_problem(self.problem)
        check_positive(self, *(name for name in given if name not in ("data", "vocabulary_size")))
        heads = 16 if self.head_dimension is None else self.head_dimension
        for name, values in widths.items():
            for width in values:
                check_width(f"--{name.replace('_', '-')}", width, heads)
        if self.data is not None and not str(self.data).strip("."):
            raise UsageError("--data is empty or the current folder; name a file or a folder")
        settings = {
            "batch_size": 4 if self.batch_size is None else self.batch_size,
            "sequence_length": self._usual_length
            if self.sequence_length is None
            else self.sequence_length,
            "head_dimension": heads,
        }
        if self._most_tokens is None and self.data is not None and is_larger_than_memory(self.data):
            if is_unit:
                raise UsageError(
                    f"data {shown(self.data)} has more than half of this machine's memory, and "
                    "--problem unit-text reads it as a whole; give a part of it"
                )
            return token_file(self.data, vocabulary_size=self._vocabulary_size(), **settings)
        return text(self._corpus(), unit=is_unit, **settings)

    def say_data(self, problem: Problem, console: Console) -> None:
        """Prints what is trained on, if the problem says it."""
        if "data" in problem.said:
            console.print(f"data: {problem.said['data']}", soft_wrap=True)

    def _corpus(self) -> Corpus:
        most = self._most_tokens
        if most is not None and self.data is not None and is_larger_than_memory(self.data):
            file = TokenFile(self.data, self._vocabulary_size())
            tokens, name = file.windows(np.zeros(1, int), min(most, file.count))[0], self.data.name
            return corpus_of_tokens(
                tokens,
                vocabulary_size=file.vocabulary_size,
                name=f"the beginning of {shown(name)}",
            )
        corpus = load_corpus(self.data, vocabulary_size=self.vocabulary_size)
        if most is None or len(corpus.tokens) <= most:
            return corpus
        name = f"the beginning of {corpus.name}"
        return corpus_of_tokens(
            corpus.tokens[:most], vocabulary_size=corpus.vocabulary_size, name=name
        )

    def _vocabulary_size(self) -> int:
        """Of a file that is not read as a whole."""
        if self.vocabulary_size is None:
            assert self.data is not None
            raise UsageError(
                f"data {shown(self.data)} has more than half of this machine's memory, and is not "
                "read as a whole; give --vocabulary-size"
            )
        return self.vocabulary_size
