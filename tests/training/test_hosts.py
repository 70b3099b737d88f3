"""Two processes that train together over loopback, and what is refused before they do."""

from pathlib import Path

import jax
import numpy as np
import pytest

from scalex_eqx._usage import UsageError
from scalex_eqx.training import Trainer, check_agreement, connect, parse_mesh, read_log

from ._two import STEPS, regression, training


def test_two_processes_train_as_one(pair, tmp_path: Path):
    for process, found in enumerate(pair(tmp_path)):
        assert (found["devices"], found["processes"]) == (2, 2)
        assert found["shard"] == [16, 2]
        # The second call finds the last checkpoint, which both have written.
        assert found["again"] == STEPS
        assert found["disagreement"].startswith("the hosts don't agree on data (process 1)")
        assert "command" not in found["disagreement"].split(";")[0]
        # What fails on one host is said on all, at once.
        assert found["failure"] == ("no data here" if process else "process 1: no data here")
        assert found["in use"].startswith("process 0: " if process else str(tmp_path))
    trainer = Trainer(training(), regression(), parse_mesh("data", jax.devices()[:1]))
    state, expected = trainer.start(), []
    for index in range(STEPS):
        state, loss = trainer.step(state, trainer.batch(index))
        expected.append(float(loss))
    found = [line["loss"] for line in read_log(tmp_path / "log.jsonl") if "loss" in line]
    # Sums of 16 numbers at most, in another order, and four updates.
    np.testing.assert_allclose(found, expected, rtol=4 * 16 * 2.0**-24)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("10.0.0.1",), "needs a port"),
        (("10.0.0.1:7777", 2), "needs a port, --processes and --process"),
        (("10.0.0.1:7777", 2, 2), "--process is 2 of --processes 2"),
        (("auto", 2), "go together"),
    ],
)
def test_what_names_no_place_is_refused(arguments, named: str):
    with pytest.raises(UsageError, match=named):
        connect(*arguments)


def test_one_process_agrees_with_itself():
    check_agreement({"data": 1})
