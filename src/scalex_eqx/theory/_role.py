from enum import StrEnum


class Role(StrEnum):
    """How a weight's axes grow with the model's width.

    | role | fan-in | fan-out | examples |
    |---|---|---|---|
    | `embedding` | fixed | grows | token and position embeddings, input projections |
    | `hidden` | grows | grows | attention and MLP matrices |
    | `readout` | grows | fixed | the matrix that produces the logits |
    | `vector` | none | grows | biases and norm gains of the trunk |
    | `constant` | none or fixed | fixed | the readout's bias, a gain over a fixed head dimension |
    | `buffer` | any | any | an array that is not trained; it has no law and is left alone |

    A gain that is shared by a growing number of heads has the shape of a `constant`, but its
    gradient sums over the heads: the exponents of `constant`, all zero, are not right for it.
    """

    embedding = "embedding"
    hidden = "hidden"
    readout = "readout"
    vector = "vector"
    constant = "constant"
    buffer = "buffer"

    @property
    def is_matrix(self) -> bool:
        """Whether it has a fan-in: weight decay and matrix rules are for those."""
        return self in (Role.embedding, Role.hidden, Role.readout)

    @property
    def sums_over_width(self) -> bool:
        """Whether its fan-in grows with the width."""
        return self in (Role.hidden, Role.readout)

    @property
    def is_trained(self) -> bool:
        """Whether update rules move it."""
        return self is not Role.buffer


TRAINED = tuple(role for role in Role if role.is_trained)
