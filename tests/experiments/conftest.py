import jax
import pytest

import scalex_eqx as sx
from scalex_eqx.problems import load_problem


@pytest.fixture(scope="module")
def model():
    def make(width: int) -> sx.nn.Transformer:
        return sx.nn.Transformer(
            vocabulary_size=8,
            sequence_length=8,
            width=width,
            depth=1,
            head_dimension=4,
            key=jax.random.key(0),
        )

    return sx.parameterize(make, width=16, base_width=4, parameterization=sx.mup)


_FILE = '''
import equinox as eqx
import jax
import numpy as np
import scalex_eqx as sx
from scalex_eqx.problems import Problem

from neighbour import squared


class Net(eqx.Module):
    """A class in a file: what pickles by value can't take to another process."""

    first: sx.nn.Linear
    readout: sx.nn.Readout

    def __init__(self, width, key):
        first, readout = jax.random.split(key)
        self.first = sx.nn.Linear(4, width, key=first)
        self.readout = sx.nn.Readout(width, 1, key=readout)

    def __call__(self, x):
        return self.readout(jax.numpy.tanh(self.first(x)))


def loss(model, batch):
    x, y = batch
    return squared(jax.vmap(model)(x)[:, 0] - y)


draws = np.random.default_rng(0)
x = draws.normal(size=(64, 4)).astype(np.float32)
data = x, x[:, 0] * x[:, 1]
problem = Problem(
    lambda width, key: Net(width, key), loss, data=data, held_out=data, batch_size=8, name="tiny"
)
'''
_NEIGHBOUR = "def squared(x):\n    return (x * x).mean()\n"


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory):
    """A file with a problem whose programs compile in a fraction of a second."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.py").write_text(_FILE)
    (folder / "neighbour.py").write_text(_NEIGHBOUR)
    return folder / "tiny.py"


@pytest.fixture(scope="session")
def tiny(tiny_file):
    return load_problem(f"{tiny_file}:problem")


class Noted:
    """A reporter that notes what it is told."""

    def __init__(self):
        self.groups, self.count, self.lines, self.work = [], [], [], 0.0

    def begin(self, runs, stored, work, done):
        self.count += [(stored, runs)]
        self.all, self.work = work, done

    def group(self, name, runs):
        self.groups.append((name, runs))

    def advance(self, work, loss):
        self.work += work

    def ended(self, runs, work):
        stored, every = self.count[-1]
        self.count.append((stored + runs, every))
        self.work += work

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def noted():
    """Makes reporters."""
    return Noted
