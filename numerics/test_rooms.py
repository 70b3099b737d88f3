"""The rooms are complete, and a report of them can be written and read."""

from pathlib import Path

import numerics
from numerics import rooms
from numerics.capabilities import Capabilities
from scalex_eqx.diagnostics import Results, record

HERE = Path(numerics.__file__).parent


def test_every_room_is_listed():
    found = {path.parent.name for path in HERE.glob("*/measure.py")}
    assert found == {*rooms.ROOMS, rooms.COMPILED}


def test_every_room_measures():
    assert all(callable(rooms.measuring(room).tables) for room in rooms.ROOMS)


def test_a_report_is_read_back(device: Capabilities):
    results = record([device.table()], "pytest -c numerics/pytest.ini numerics")
    again = Results.from_json(results.to_json())
    assert again.table("capabilities").rows == results.table("capabilities").rows
    assert again.device == device.device
