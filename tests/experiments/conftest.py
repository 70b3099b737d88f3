import jax
import pytest

import scalex_eqx as sx


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
