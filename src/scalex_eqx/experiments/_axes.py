"""The sizes that a sweep runs over: whatever says the name of one has it from here."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Axis:
    """A size over which the best learning rate may drift.

    **Arguments:**

    - `noun`, `plural`: in words.
    - `symbol`: in a formula.
    - `own_option`: of the command, where it isn't called as the plural.
    """

    noun: str
    plural: str
    symbol: str
    own_option: str | None = None

    @property
    def name(self) -> str:
        """In Python and JSON."""
        return self.noun.replace(" ", "_")

    @property
    def names(self) -> str:
        """Of several, in Python and JSON."""
        return self.plural.replace(" ", "_")

    @property
    def option(self) -> str:
        """Of the command that sweeps over it."""
        return self.own_option or f"--{self.plural.replace(' ', '-')}"


WIDTH = Axis("width", "widths", "width")
DEPTH = Axis("depth", "depths", "depth")
BATCH_SIZE = Axis("batch size", "batch sizes", "(batch size)")
# Sizes are whole numbers: of n entries one is kept.
INVERSE_DENSITY = Axis(
    "inverse density", "inverse densities", "(inverse density)", own_option="--densities"
)

AXES = {axis.name: axis for axis in (WIDTH, DEPTH, BATCH_SIZE, INVERSE_DENSITY)}
"""Every one, by its name. What else one more takes: what a model of such a size is, in
`Setting`."""
