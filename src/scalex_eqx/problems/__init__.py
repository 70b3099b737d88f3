"""What sweeps train: the text Transformer, or a model and data of your own."""

from ._corpus import Corpus as Corpus, load_corpus as load_corpus
from ._digits import digits as digits
from ._load import load_problem as load_problem
from ._problem import Problem as Problem
from ._teacher import teacher as teacher
from ._text import text as text
from ._token_file import token_file as token_file
