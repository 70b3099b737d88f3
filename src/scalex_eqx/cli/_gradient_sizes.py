import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from .._parameterize import parameterize
from .._spec import WeightSpec
from .._weight import weights_with_paths
from ..experiments import load_corpus
from ..nn import Transformer
from ..problems._text import mean_loss
from ..theory import Parameterization

BASE_WIDTH = 64
HEAD_DIMENSION = 16
_DEPTH, _LENGTH = 2, 64
_SEQUENCES = 16


def gradient_sizes(parameterization: Parameterization) -> dict[str, tuple[WeightSpec, float]]:
    """The root mean square of every weight's first gradient in the transfer run's Transformer.

    At the base width, with the mean cross-entropy of sequences from the default text.

    **Returns:** for each weight, by path, its spec and the size.
    """
    corpus = load_corpus(None)

    def make(width: int) -> Transformer:
        return Transformer(
            vocabulary_size=corpus.vocabulary_size,
            sequence_length=_LENGTH,
            width=width,
            depth=_DEPTH,
            head_dimension=HEAD_DIMENSION,
            key=jax.random.key(0),
        )

    model = parameterize(
        make, width=BASE_WIDTH, base_width=BASE_WIDTH, parameterization=parameterization
    )
    gradient = eqx.filter_jit(eqx.filter_grad(mean_loss))(model, _batch(corpus.train))
    return {
        path: (weight.spec, float(jnp.sqrt(jnp.mean(jnp.square(weight.value)))))
        for path, weight in weights_with_paths(gradient).items()
    }


def _batch(tokens: np.ndarray) -> Int[Array, "sequences length"]:
    """Sequences evenly spread over the text."""
    length = _LENGTH + 1
    starts = np.linspace(0, len(tokens) - length, _SEQUENCES, dtype=int)
    return jnp.asarray(tokens[starts[:, None] + np.arange(length)].astype(np.int32))
