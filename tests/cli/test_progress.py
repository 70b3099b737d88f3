"""What the progress bar says of a sweep that was begun before."""

import io

import pytest
from rich.console import Console

from scalex_eqx.cli._progress import ProgressBar


@pytest.mark.parametrize(
    ("runs", "stored", "work", "done", "said"),
    [
        (48, 12, 500.0, 60.0, "12 of 48 runs are in the store, 12 % of the work\n"),
        (3, 1, 1e15, 6.6e14, "1 of 3 runs are in the store, 66 % of the work\n"),
        (3, 3, 1e15, 1e15, "all runs are in the store\n"),
        (3, 0, 1e15, 0.0, ""),
    ],
)
def test_what_was_stored_already(runs: int, stored: int, work: float, done: float, said: str):
    console = Console(file=io.StringIO(), width=80)
    ProgressBar(console).begin(runs, stored, work, done)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == said


def test_a_search_says_what_was_stored_once_and_what_may_come_at_most():
    console = Console(file=io.StringIO(), width=80)
    bar = ProgressBar(console, at_most=True)
    for stored, work in ((12, 500.0), (20, 300.0)):
        bar.begin(30, stored, work, 60.0)
    assert isinstance(console.file, io.StringIO)
    said = "12 runs are in the store, 12 % of the most work that may come\n"
    assert console.file.getvalue() == said


def test_in_a_file_there_are_whole_lines_and_no_bar():
    console = Console(file=io.StringIO(), width=20)
    with ProgressBar(console) as bar:
        bar.begin(8, 6, 8.0, 6.0)
        bar.group("standard:adam:full width 64", 2)
        bar.advance(2.0, 2.5)
        bar.ended(2, 0.0)
    assert isinstance(console.file, io.StringIO)
    *_, training, ended = console.file.getvalue().splitlines()
    assert training == "training standard:adam:full width 64, 2 runs"
    assert ended == "8 of 8 runs are in the store, after 0:00:00"
