"""Sweeps on a Ray cluster of this machine, with two workers, one of which is killed."""

import importlib.util
import os
from contextlib import closing

import pytest

from scalex_eqx.experiments import Setting, Sweep, UsageError, _ray, parse_recipe, transfer
from scalex_eqx.experiments._ray import OnRay
from scalex_eqx.experiments._store import Store
from scalex_eqx.experiments._transfer import STORE
from scalex_eqx.problems import load_problem

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: the extra ray"
)
SWEEP = Sweep(
    recipes=(parse_recipe("standard:adam:full"),),
    sizes=(8, 16),
    learning_rates=(0.01, 0.02, 0.04),
    seeds=(0, 1),
    setting=Setting(base_width=8, steps=60),
)

# Reads its batches on the host, and so can kill its worker in the middle of a run.
READING = """
import os, pathlib, signal
from tiny import Net, data, loss
from scalex_eqx.problems import Problem

log = pathlib.Path({folder!r})


def read(seed, step):
    if step == 20:  # The first ones are read to check the problem, too.
        (log / f"{{seed}} {{os.getpid()}} {{os.urandom(4).hex()}}").touch()
    # Whoever is the fifth to begin a run is killed in the middle of it, once.
    if step == 30 and len(list(log.iterdir())) > 4 and os.environ.get("IS_WORKER_TEST"):
        try:
            (log / "killed").touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    rows = [(17 * seed + step + i) % 64 for i in range(8)]
    return data[0][rows], data[1][rows]


problem = Problem(lambda width, key: Net(width, key), loss, read=read, held_out=data, name="read")
"""


def results(folder):
    with Store.open(folder / STORE, create=False) as store:
        found = {row.key: row for row in store.read()}
        curves = {key: store.curves(key)["training_losses"].tobytes() for key in found}
    return {key: (row.status, row.metrics, curves[key]) for key, row in found.items()}


@needs_ray
def test_a_worker_that_is_killed_in_mid_pack(tiny_file, noted, tmp_path, monkeypatch):
    log = tmp_path / "log"
    log.mkdir()
    file = tiny_file.with_name("reading.py")
    file.write_text(READING.format(folder=str(log)))
    problem = load_problem(f"{file}:problem")
    transfer(SWEEP, problem, tmp_path / "local", at_once=1)
    alone = len(list(log.iterdir()))
    assert alone == 12
    for one in log.iterdir():
        one.unlink()

    monkeypatch.setenv("IS_WORKER_TEST", "1")
    told = noted()
    half = max(1, (os.cpu_count() or 1) // 2)
    engine = OnRay(SWEEP.setting, problem, source=f"{file}:problem", cpus=half)
    with closing(engine):
        transfer(SWEEP, problem, tmp_path / "ray", told, engine=engine)
        # Everything is there: nobody is asked.
        again = noted()
        transfer(SWEEP, problem, tmp_path / "ray", again, engine=engine)
    assert (log / "killed").exists()
    assert [line for line in told.lines if "a worker was lost" in line] == told.lines != []
    assert len(told.lines) == 1
    assert results(tmp_path / "ray") == results(tmp_path / "local")
    assert told.count == [(done, 12) for done in range(13)]
    assert told.work == pytest.approx(told.all)
    assert again.groups == [] and again.count == [(12, 12)]
    # What was under way in the worker was begun twice, and nothing else.
    begun = [one.name for one in log.iterdir() if one.name != "killed"]
    assert 12 < len(begun) <= 12 + half
    assert len({name.split()[1] for name in begun}) >= 2
    assert not [name for name in os.listdir(tmp_path / "ray") if name.startswith(".trains")]


@needs_ray
def test_what_a_worker_raises_is_raised_here(tiny_file, noted, tmp_path):
    file = tiny_file.with_name("failing.py")
    file.write_text(
        "import os\nfrom tiny import problem\nfrom scalex_eqx.problems import Problem\n"
        "def loss(model, batch):\n"
        f"    if os.getpid() != {os.getpid()}: raise ZeroDivisionError('in the user\\'s code')\n"
        "    return sum(x.sum() for x in batch) * 0.0 + model(batch[0][0])[0]\n"
        "problem = Problem(problem.make, loss, data=problem.data, held_out=problem.data, "
        "batch_size=8)\n"
    )
    problem = load_problem(f"{file}:problem")
    engine = OnRay(SWEEP.setting, problem, source=f"{file}:problem")
    with closing(engine), pytest.raises(Exception, match="in the user's code"):
        transfer(SWEEP, problem, tmp_path, noted(), engine=engine)
    with Store.open(tmp_path / STORE, create=False) as store:
        assert store.claims() == []


def test_without_ray_it_is_said_what_to_install(tiny, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(_ray.importlib, "import_module", missing)
    with pytest.raises(UsageError, match=r"needs Ray: pip install 'scalex_eqx\[ray\]'"):
        OnRay(SWEEP.setting, tiny)


class Cluster:
    """As much of Ray as decides how a sweep is divided."""


def node(**resources):
    return {"Alive": resources.pop("alive", True), "Resources": resources}


@pytest.mark.parametrize(
    ("nodes", "cpus", "asked", "workers"),
    [
        ([node(CPU=2.0)], None, {"num_cpus": 2}, 1),
        ([node(CPU=4.0), node(CPU=16.0), node(CPU=16.0, alive=False)], None, {"num_cpus": 4}, 5),
        ([node(CPU=64.0)] * 2, None, {"num_cpus": 8}, 16),
        ([node(CPU=64.0)] * 2, 1, {"num_cpus": 1}, 128),
        ([node(CPU=8.0, GPU=4.0), node(CPU=8.0)], None, {"num_cpus": 1, "num_gpus": 1}, 4),
        ([node(memory=1e9)], None, {"num_cpus": 1}, 1),
    ],
)
def test_what_a_task_asks_for(nodes, cpus, asked, workers):
    assert _ray.resources(nodes, cpus) == (asked, workers)
