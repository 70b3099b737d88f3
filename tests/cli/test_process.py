"""How the command ends when it is stopped, and what it leaves; more in `tests/robustness`."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import scalex_eqx
from scalex_eqx import _memory, _process, experiments
from scalex_eqx.cli import _arguments, _failure
from scalex_eqx.experiments import UsageError
from scalex_eqx.experiments._lock import reporting
from scalex_eqx.experiments._numbers import parse_exponent
from scalex_eqx.experiments._write import written_whole

# The package is entered without its `__init__`, which would import JAX in every process. What is
# ignored where the tests run, behind `nohup` or as a shell's background job, is not to be here.
PROGRAM = f"""
import signal, sys, types
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
package = types.ModuleType("scalex_eqx")
package.__path__ = {list(scalex_eqx.__path__)!r}
sys.modules["scalex_eqx"] = package
from scalex_eqx import _process
"""


def python(program: str, **more) -> subprocess.Popen:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", PROGRAM + program]
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, **more)


WAIT = """
import time
_process.take_over()
with _process.keeping("runs are kept"), _process.if_stopped(lambda: print("folded", flush=True)):
    print("ready", flush=True)
    time.sleep(600)  # As in a compilation: the main thread does not answer.
"""


@pytest.mark.parametrize(
    ("name", "said"), [("SIGINT", "interrupted"), ("SIGTERM", "terminated"), ("SIGHUP", "stopped")]
)
def test_a_signal_ends_it_at_once_though_the_main_thread_is_busy(name: str, said: str):
    with python(WAIT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        number = getattr(signal, name)
        process.send_signal(number)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert output == "folded\n"
    assert errors.startswith(f"scalex: {said}") and errors.endswith("; runs are kept\n")
    assert len(errors.splitlines()) == 1


def test_an_ignored_signal_stays_ignored():
    program = """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
_process.take_over()
os.kill(os.getpid(), signal.SIGHUP)
_process.leave(7, "scalex: went on")
"""
    with python(program) as process:
        assert process.communicate(timeout=60) == ("", "scalex: went on\n")
    assert process.returncode == 7


def test_an_error_that_nothing_foresaw_is_one_line():
    with python("_process.take_over()\nraise RuntimeError('a\\nb')") as process:
        assert process.communicate(timeout=60) == ("", "scalex: RuntimeError: a b\n")
    assert process.returncode == 1


def test_symbols_and_names_are_legible_in_ascii():
    program = "_process.take_over()\nprint('1 ± 2 \\udcff é', flush=True)"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with python(program, env=environment) as process:
        assert process.communicate(timeout=60) == ("1 +- 2 \\udcff \\xe9\n", "")


def test_a_folder_is_held_by_one_process(tmp_path: Path):
    with reporting(tmp_path / "out", seconds=0.0):
        holder = f"process {os.getpid()} on "
        said = pytest.raises(UsageError, match=f"out is in use by {holder}.*--out")
        with said, reporting(tmp_path / "out", seconds=0.0):
            pass
    with reporting(tmp_path / "out", seconds=0.0):  # It was given back.
        pass


def test_a_dead_process_holds_nothing(tmp_path: Path):
    program = f"""
import time
from pathlib import Path
from scalex_eqx.experiments._lock import reporting
with reporting(Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(600)
"""
    # Only the lock: the package's own `__init__` would take seconds.
    program = (
        'package = types.ModuleType("scalex_eqx.experiments")\n'
        f"package.__path__ = {list(experiments.__path__)!r}\n"
        'sys.modules["scalex_eqx.experiments"] = package\n'
    ) + program
    with python(program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        said = pytest.raises(UsageError, match=f"in use by process {process.pid}")
        with said, reporting(tmp_path, seconds=0.0):
            pass
        process.kill()
        process.wait()
    with reporting(tmp_path, seconds=0.0):
        pass


def test_files_of_killed_reports_are_removed_and_those_of_living_ones_kept(tmp_path: Path):
    dying = "import os, sys, pathlib\nfrom scalex_eqx.experiments._write import written_whole\n" + (
        "with written_whole(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", dying, str(tmp_path / "a.html")], check=False)
    [dead] = tmp_path.iterdir()
    other = tmp_path / ".b.html.notes"
    other.write_text("somebody's")
    with written_whole(tmp_path / "b.html") as living:
        with written_whole(tmp_path / "a.html") as unfinished:
            unfinished.write_text("whole")
        assert set(tmp_path.iterdir()) == {tmp_path / "a.html", other, living}
        assert dead != living


class Cpu:
    platform = "cpu"


@pytest.mark.parametrize(
    ("needed", "runs", "said"),
    [
        (4e9, 24, "24 runs of width 512 at once need at least 4 GB, and 1 GB are free; give "
         "--at-once 6, or smaller"),
        (1e13, 24, "give --at-once 1 and smaller widths"),
        (4e9, 1, "a run of width 512 needs at least 4 GB, and 1 GB are free; give smaller widths"),
        (1e9, 24, None),
    ],
)  # fmt: skip
def test_what_does_not_fit_names_what_would(monkeypatch, needed: float, runs: int, said: str):
    monkeypatch.setattr(_memory, "available", lambda: 10**9)
    if said is None:
        _memory.check_runs(needed, runs, [Cpu(), Cpu()], width=512)
        return
    with pytest.raises(UsageError, match=said):
        _memory.check_runs(needed, runs, [Cpu(), Cpu()], width=512)


def test_memory_that_is_not_known_refuses_nothing(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(_memory, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr(_memory, "_LIMITS", ((str(tmp_path / "none"),) * 3,))
    assert _memory.available() is None
    _memory.check_runs(1e30, 1, [Cpu()], width=8)


def test_a_container_has_its_own_limit(monkeypatch, tmp_path: Path):
    for name, text in (("max", "1000"), ("current", "700"), ("stat", "anon 1\ninactive_file 50")):
        (tmp_path / name).write_text(text)
    paths = tuple(str(tmp_path / name) for name in ("max", "current", "stat"))
    monkeypatch.setattr(_memory, "_LIMITS", (paths,))
    assert _memory.available() == 350
    (tmp_path / "max").write_text("max")
    assert _memory.available() != 350


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["transfer", "--out", ""], "--out has an empty value"),
        (["transfer", "--out="], "--out has an empty value"),
        (["report", " "], "an argument has an empty value"),
        (["transfer", "--base-width=8", "--base_width", "8"], "--base-width is given twice"),
        (["transfer", "--steps", "\uff16\uff14"], "--steps has '\uff16\uff14'.*write 64"),
    ],
)
def test_words_that_would_be_read_as_something_else(words: list[str], said: str):
    with pytest.raises(UsageError, match=said):
        _arguments.check_words(words)


def test_words_that_are_meant_are_let_through():
    _arguments.check_words(["transfer", "--widths", "8", "8", "--out", "caf\xe9", "--seeds=0"])


def test_exponents_are_read_exactly_and_in_bounds():
    assert [str(parse_exponent(x)) for x in ("0.9", "9/10", "-1", "1e-1", ".5", " 1 ")] == (
        ["9/10", "9/10", "-1", "1/10", "1/2", "1"]
    )
    began = time.monotonic()
    for text in ("1e999999999", "11", "1/0", "\u0663", "", "nan", "1_0", "9" * 5000):
        with pytest.raises(ValueError):
            parse_exponent(text)
    assert time.monotonic() - began < 5


def test_failures_are_explained_in_a_line():
    assert _failure.explained(UsageError("no"))[0] == 2
    code, line = _failure.explained(OSError(28, "No space left on device", "a\nb"))
    assert (code, line) == (1, "scalex: 'a\\nb': No space left on device")
    code, line = _failure.explained(RuntimeError("RESOURCE_EXHAUSTED: Out of memory: 5 bytes."))
    assert code == 1 and "out of memory" in line and "--at-once" in line
    error = ZeroDivisionError("x")
    error.add_note("somebody else's note")
    with pytest.raises(ZeroDivisionError), _process.keeping("runs are kept"):
        raise error
    code, line = _failure.explained(error)
    assert code == 1 and line.startswith("scalex: ZeroDivisionError: x; this should not happen")
    assert line.endswith("; runs are kept") and "somebody" not in line
