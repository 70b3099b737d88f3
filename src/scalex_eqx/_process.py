"""The process of the command `scalex`: its streams, its signals and its end.

Python answers a signal by an exception in the main thread, wherever that is: in a destructor, which
swallows it, or behind a compilation of a minute. And an interpreter that shuts down while XLA's
threads compile or compute may crash. So the command is stopped by a thread of its own, at once and
without a shutdown: what has to survive is on the disk at any moment.
"""

import codecs
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NoReturn

_SAID = {
    "SIGINT": "interrupted",
    "SIGTERM": "terminated",
    "SIGHUP": "stopped, since its terminal was closed",
}
_WIDEST = 10_000
# What the commands print beyond ASCII, for terminals that have nothing else.
_ASCII = {"±": "+-", "–": "-", "—": "-", "…": "...", "×": "x", "•": "*", "│": "|", "─": "-"}
_ASCII |= dict.fromkeys("╭╮╰╯", "+")

_ending = threading.Lock()
_taken_over = False
_kept: list[str] = []
_last_acts: list[Callable[[], object]] = []


class Kept(str):
    """What `keeping` notes on an error; others note things too."""


def started_as_command() -> bool:
    """Whether this process runs `scalex` or `python -m scalex_eqx`."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # So it is called while the module is looked for.
        return any(word.removeprefix("-m") == "scalex_eqx" for word in sys.orig_argv)
    return os.path.basename(program).removesuffix(".exe") == "scalex"


def take_over() -> None:
    """Makes this process the command's; a second call does nothing."""
    global _taken_over
    if _taken_over:
        return
    _taken_over = True
    _open_streams()
    _forget_impossible_widths()
    sys.excepthook = _fail
    _watch_signals()


def leave(code: int, line: str = "") -> NoReturn:
    """Ends the process with `code`, after a last line on the error stream."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stdout is not None:
            sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.flush()
    _ending.acquire()
    if line:
        _say(line)
    os._exit(code)


@contextlib.contextmanager
def keeping(text: str) -> Iterator[None]:
    """Whatever stops the command meanwhile says `text` too: what is kept, and how to go on."""
    _kept.append(text)
    try:
        yield
    except Exception as error:
        error.add_note(Kept(text))
        raise
    finally:
        _kept.remove(text)


@contextlib.contextmanager
def if_stopped(act: Callable[[], object]) -> Iterator[None]:
    """A signal that stops the command meanwhile calls `act` first, from another thread."""
    _last_acts.append(act)
    try:
        yield
    finally:
        _last_acts.remove(act)


def described(error: BaseException) -> str:
    """An error that nothing foresaw, in one line."""
    text = " ".join(str(error).split("\n\n")[0].split())
    kind = type(error).__name__
    return f"scalex: {kind}: {text}" if text else f"scalex: {kind}"


def _open_streams() -> None:
    """A closed stream's number would go to the next file, which then gets what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error("scalex", _legible)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="scalex")  # pyright: ignore[reportAttributeAccessIssue]


def _legible(error: UnicodeError) -> tuple[str, int]:
    """Replaces what a stream's encoding lacks: a symbol by a like one, all else by its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    parts = (_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text)
    return "".join(parts), error.end


def _forget_impossible_widths() -> None:
    """At a width of 0 nothing would be printed, and at one of a billion a bar of a billion."""
    for name in ("COLUMNS", "LINES"):
        text = os.environ.get(name, "1")
        if not (text.isascii() and text.isdigit() and len(text) < 9 and 0 < int(text) <= _WIDEST):
            del os.environ[name]


def _fail(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if os.environ.get("SCALEX_TRACEBACK"):
        sys.__excepthook__(kind, error, traceback)
    leave(1, described(error))


def _watch_signals() -> None:
    wanted = {getattr(signal, name): said for name, said in _SAID.items() if hasattr(signal, name)}
    if threading.current_thread() is not threading.main_thread():
        return  # Only there can handlers be set.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in wanted:
        # A signal that is ignored, as by nohup, stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)

    def watch() -> None:
        while True:
            for number in os.read(reading, 1):
                if number in wanted:
                    _stop(number, wanted[number])

    threading.Thread(target=watch, name="scalex-signals", daemon=True).start()


def _stop(number: int, said: str) -> None:
    _ending.acquire()
    for act in reversed(_last_acts):
        with contextlib.suppress(Exception):
            act()
    _say("; ".join([f"scalex: {said}", *_kept[-1:]]))
    os._exit(128 + number)


def _say(line: str) -> None:
    """Writes to the error stream's file itself: the main thread may be inside the stream."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    with contextlib.suppress(OSError):
        # A progress bar hides the cursor, and has no end of line.
        for terminal in (1, 2):
            if os.isatty(terminal):
                os.write(terminal, b"\r\x1b[K\x1b[?25h")
        os.write(2, f"{line}\n".encode(encoding, "scalex"))


if started_as_command():
    take_over()
