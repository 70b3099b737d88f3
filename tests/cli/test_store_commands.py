"""The commands about stores: `scalex status` and `scalex merge`."""

import shutil
import sys
from pathlib import Path

import pytest

from scalex_eqx.cli._commands import run
from scalex_eqx.experiments import Sweep
from scalex_eqx.experiments._files_store import RowWriter
from scalex_eqx.experiments._rows import Row
from scalex_eqx.experiments._status import status
from scalex_eqx.experiments._store import Store
from scalex_eqx.experiments._transfer import STORE

OLD = Path(__file__).parents[1] / "experiments" / "store_version_1.sqlite"


@pytest.fixture
def scalex(monkeypatch, capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scalex", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "100")
        code = run()
        return code, *capsys.readouterr()

    return call


def test_the_status_of_a_sweep(tmp_path, scalex):
    path = tmp_path / STORE
    shutil.copy(OLD, path)
    code, output, _ = scalex("status", tmp_path)
    assert code == 0 and "12 of 12 runs have finished" in output
    assert "mup:sgd:none" in output and "standard:adam:full" in output

    with Store.open(path, create=True) as store:
        saved = store.sweeps()[0].configuration
        # Two more seeds: 24 runs, of which two are stopped and five are claimed.
        sweep = Sweep.from_json({**saved, "seeds": [0, 1, 2]})
        problem = saved["problem"]
        store.add_sweep({**saved, **sweep.to_json()}, {})
        members = [one for one in sweep.members() if one.seed > 0]
        stopped = [
            Row.of(sweep.specification(one, problem), status="stopped", metrics={}, result={})
            for one in members[:2]
        ]
        store.add(stopped)
        keys = sweep.keys(problem)
        claimed = [keys[one] for one in members[-5:]]
        store.claim(claimed[:3], "process 1 on here", 60.0)
        store.claim(claimed[3:], "process 2 on there", 60.0)
        seconds = {key: row.result["seconds"] for key, row in store.rows(keys.values()).items()}
    found = status(path, print)
    # Each missing run takes as long as those of its recipe and width did on average.
    groups: dict[tuple[str, int], list[float]] = {}
    for member, key in keys.items():
        if key in seconds:
            groups.setdefault((str(member.recipe), member.size), []).append(seconds[key])
    expected = sum(6 * sum(times) / len(times) for times in groups.values()) / 2
    assert found.seconds_left == pytest.approx(expected)
    code, output, _ = scalex("status", path)
    assert code == 0
    assert "12 of 36 runs have finished; about 0:" in output and "left by 2 processes" in output
    assert "process 1 on here has claimed 3 runs, since 20" in output
    assert [line.split() for line in output.splitlines() if line.startswith("     8")] == [
        ["8", "9", "2", "1", "2", "0", "6"],
        ["8", "9", "2", "1", "0", "0", "6"],
    ]


def test_a_status_without_a_sweep(tmp_path, scalex):
    Store.open(tmp_path / STORE, create=True).close()
    code, _, errors = scalex("status", tmp_path)
    assert code == 2 and "holds no sweep" in errors


def test_merging(tmp_path, scalex):
    with RowWriter(tmp_path / "shards") as writer:
        metrics: dict[str, float | None] = {"held_out_loss": 2.5}
        writer.add([Row.of({"seed": 0}, status="ok", metrics=metrics, result={})])
    (tmp_path / "shards" / "foreign.jsonl").write_text("{}\n")
    code, output, _ = scalex("merge", tmp_path / "all", tmp_path / "shards", OLD)
    assert code == 0
    assert "foreign.jsonl is not a file of runs" in output
    assert f"{tmp_path / 'all' / STORE}: 21 runs added from 3 files; 0 were there" in output
    assert (tmp_path / "all" / STORE).is_file()
    for arguments, said in ((["nowhere"], "nowhere is no file"), ([], "no files are named")):
        code, _, errors = scalex("merge", tmp_path / "all", *arguments)
        assert code == 2 and said in errors
