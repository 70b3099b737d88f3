"""A sweep in shards: who trains what, and that the parts make the whole."""

import pytest

from scalex_eqx.experiments import Setting, Sweep, UsageError, parse_recipe, transfer
from scalex_eqx.experiments._engines import Local
from scalex_eqx.experiments._merge import merge
from scalex_eqx.experiments._shards import Shard, dealt, parse_shard, train_shard
from scalex_eqx.experiments._store import Store
from scalex_eqx.experiments._train import packs
from scalex_eqx.experiments._transfer import STORE

SWEEP = Sweep(
    recipes=tuple(map(parse_recipe, ("standard:adam:full", "mup:adam:full"))),
    sizes=(8, 16),
    learning_rates=(0.01, 0.02, 0.04),
    seeds=(0,),
    setting=Setting(base_width=8, steps=2),
)


def results(folder):
    with Store.open(folder / STORE, create=False) as store:
        return {row.key: (row.status, row.metrics, *_curves(store, row)) for row in store.read()}


def _curves(store, row):
    return (store.curves(row.key)["training_losses"].tobytes(),)


def test_shards_make_the_whole(tiny, noted, tmp_path):
    transfer(SWEEP, tiny, tmp_path / "whole", at_once=1)
    counts = []
    for index in (1, 2, 3):
        told = noted()
        shard = Shard(index, 3)
        counts.append(train_shard(SWEEP, tiny, shard, tmp_path / "shards", told, engine=Local(1)))
        assert told.count[0] == (0, counts[-1]) and told.count[-1] == (counts[-1], counts[-1])
        assert told.work == pytest.approx(told.all)
    # At the base width two recipes are the same training, and stay together.
    assert sum(counts) == 12 and max(counts) - min(counts) <= 2
    merge(tmp_path / "merged" / STORE, [tmp_path / "shards"], pytest.fail)
    found = results(tmp_path / "merged")
    assert found == results(tmp_path / "whole") and len(found) == 12

    # Nothing is trained again, nor is a file begun.
    files = sorted((tmp_path / "shards").iterdir())
    again = noted()
    train_shard(SWEEP, tiny, Shard(2, 3), tmp_path / "shards", again, engine=Local(1))
    assert again.groups == [] and again.count == [(counts[1], counts[1])]
    assert sorted((tmp_path / "shards").iterdir()) == files
    # But for what is lost: here the end of a shard's file, with a line that is torn.
    content = files[0].read_bytes()
    lines = content.splitlines(keepends=True)
    files[0].write_bytes(b"".join(lines[:-2]) + lines[-2][:50])
    resumed = noted()
    for index in (1, 2, 3):
        train_shard(SWEEP, tiny, Shard(index, 3), tmp_path / "shards", resumed, engine=Local(1))
    assert sum(runs for _, runs in resumed.groups) == 2
    assert len(resumed.lines) == 3 and "its last line is torn" in resumed.lines[0]
    merge(tmp_path / "again" / STORE, [tmp_path / "shards"], lambda line: None)
    assert results(tmp_path / "again") == found


def test_shards_are_balanced_by_work(tiny):
    setting = Setting(base_width=8, steps=2)
    members = Sweep(SWEEP.recipes, (8, 16, 32, 64), (0.01, 0.02, 0.04, 0.08), (0, 1, 2), setting)
    found = packs(tiny, setting, members.members())
    work = {one: pack.work for pack in found for one in pack.members}
    groups = {}
    for pack in found:
        for group in pack.same:
            groups |= dict.fromkeys((pack.members[i] for i in group), pack.members[group[0]])
    for count in (1, 3, 7, 16):
        shards = dealt(found, count)
        assert shards == dealt(packs(tiny, setting, members.members()), count)
        every = [one for shard in shards for one in shard]
        assert len(every) == len(set(every)) == len(work)
        # Of runs with equal numbers one is trained.
        trained = [{groups[one] for one in shard} for shard in shards]
        assert sum(map(len, trained)) == len(set(groups.values()))
        loads = [sum(work[one] for one in shard) for shard in trained]
        assert max(loads) - min(loads) <= max(work.values())


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "-1/3", "a/b", "1/2/3", "٣/٤"])
def test_what_is_no_shard(text):
    with pytest.raises(UsageError, match=r"--shard is .* as 3/16"):
        parse_shard(text)
