"""Exponents in the batch size and the sign's place, in small; the commands beside it in full."""

import math

from . import example_batches, sign_placement

SMALL = example_batches.Setting(
    dimension=50, examples=2**11, batches=(4, 16), exponents=tuple(range(-9, 1)), repeats=2
)


def test_adam_grows_as_the_root_and_micro_adam_in_proportion():
    """Each is the other's control: the expectation of one has to reject the other."""
    adam, _ = example_batches.exponent("adam", SMALL)
    micro, _ = example_batches.exponent("micro_adam, square", SMALL)
    assert math.isfinite(adam) and math.isfinite(micro)
    assert example_batches.holds("adam", adam) and not example_batches.holds("adam", micro)
    for name in ("micro_adam, square", example_batches.CONTROL):
        assert example_batches.holds(name, micro) and not example_batches.holds(name, adam)


def test_heavy_tails_want_the_sign_of_each_example():
    setting = sign_placement.Setting(
        steps=300, seeds=8, measured=1024, count=3, first=(-10.0, -8.5, -6.5)
    )
    said, _ = sign_placement.predicted("laplace", setting)
    assert said.order[0] == "example" and said.is_clear
    losses = {
        placement: sign_placement.row("laplace", placement, setting)["loss"]
        for placement in ("last", "example")
    }
    assert losses["example"] < 0.8 * losses["last"]
