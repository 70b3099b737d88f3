"""Training over eight virtual devices, in one process for all of this file."""

import math
from typing import Any

import numpy as np
import pytest

# A loss is a mean of 128 numbers, gradients are sums over as many: 2^-24 each, in another order.
# Adam's first updates are of one size whatever the gradient, so four steps add up as many.
ROUNDING = 4 * 128 * 2.0**-24


@pytest.mark.parametrize("mesh", ["shard", "mixed"])
def test_losses_are_those_of_one_device(eight: dict[str, Any], mesh: str):
    (losses, metrics), (expected, judged) = eight[mesh], eight["one"]
    assert eight["same start"]
    np.testing.assert_allclose(losses, expected, rtol=ROUNDING)
    np.testing.assert_allclose(metrics["held_out_loss"], judged["held_out_loss"], rtol=ROUNDING)
    # What is compared moves by far more than what is allowed.
    assert np.abs(np.diff(expected)).min() > 100 * ROUNDING * max(expected)


def test_fully_sharded_a_device_has_an_eighth(eight: dict[str, Any]):
    assert eight["weights"] == eight["moments"] == 1 / 8


def gathered(collectives: dict[str, int]) -> list[list[int]]:
    """The shapes that are gathered, of what has two axes or more."""
    shapes = [name.split("[")[1] for name in collectives if name.startswith("all-gather")]
    found = [[int(size) for size in shape.rstrip("]").split(",")] for shape in shapes]
    return [shape for shape in found if len(shape) > 1]


def whole_stacks(eight: dict[str, Any], collectives: dict[str, int]) -> list[list[int]]:
    """What is gathered and as large as all blocks' matrices of a kind."""
    stacks = [math.prod(shape) for shape in eight["matrices"] if len(shape) > 2]
    embedding = math.prod(eight["matrices"][0])
    return [x for x in gathered(collectives) if math.prod(x) in stacks and math.prod(x) > embedding]


def test_blocks_are_gathered_one_at_a_time(eight: dict[str, Any]):
    """A fully sharded step needs each block's matrices whole when their turn comes, and never those
    of all blocks at once."""
    shapes = gathered(eight["collectives"])
    assert [4, 32, 64] in shapes and [2, 4, 32, 64] not in shapes
    assert whole_stacks(eight, eight["collectives"]) == []
    assert whole_stacks(eight, {"all-gather f32[2,4,32,64]": 1}) != []


def test_what_is_split_over_tensor_and_experts_is_never_whole(eight: dict[str, Any]):
    """Gathered are the other axis' parts alone: a quarter of the experts' matrices at most."""
    whole = 4 * 32 * 64
    assert max(math.prod(shape) for shape in gathered(eight["mixed collectives"])) <= whole // 4


def test_collectives_are_those_of_the_plain_twin(eight: dict[str, Any]):
    """Arrays without specs, Equinox and Optax, lying alike."""
    assert eight["collectives"] == eight["twin"]
    assert eight["collectives"] != eight["mixed collectives"]


def test_a_resumed_training_is_the_same_bit_for_bit(eight: dict[str, Any]):
    resumed = eight["resumed"]
    assert resumed["same log"] and resumed["same state"]
    assert [line["step"] for line in resumed["lines"]] == [1, 2, 2, 3, 4, 4]


def test_written_on_eight_devices_and_read_on_two(eight: dict[str, Any]):
    resumed = eight["resumed"]
    assert resumed["on two"] and resumed["devices"] == [2] and resumed["share of two"] == 1 / 2


@pytest.mark.parametrize(
    ("place", "named"),
    [
        (0, "model/token_embedding/weight: a is -1/2 in the export, 0 in the tree"),
        (1, "optimizer"),
        (2, "facts: seed is 0 in the checkpoint, 1 now"),
    ],
    ids=["law", "rule", "seed"],
)
def test_a_checkpoint_of_another_training_is_refused(eight: dict[str, Any], place: int, named: str):
    found = eight["resumed"]["refused"][place]
    assert "checkpoint 4 in " in found and named in found and "another --out" in found
