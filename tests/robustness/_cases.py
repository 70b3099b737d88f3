"""The inputs that `inputs.py` tries, as tables."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    """Words of a command, or a line of the shell where `"$@"` is `scalex`; what it must end with,
    and a text for each line that it must say."""

    words: tuple[str, ...] = ()
    codes: tuple[int, ...] = (2,)
    said: tuple[str, ...] = ("scalex",)
    shell: str = ""
    environment: Mapping[str, str | None] = {}


SMALL = ("--widths", "8", "16", "--head-dimension", "8", "--depth", "1", "--sequence-length", "8")
QUICK = (*SMALL, "--steps", "1", "--seeds", "0", "--recipes", "mup:sgd:full")
RECIPE = "mup:adam:full"
BEGINNINGS = {
    "transfer": ("transfer",),
    "check": ("check", RECIPE),
    "align": ("align", RECIPE),
    "plan": ("plan", RECIPE),
}
MEASURES = ("steps", "batch-size", "sequence-length", "depth", "head-dimension")
INTEGERS = {
    "transfer": ("widths", "base-width", "seeds", "at-once", *MEASURES),
    "check": ("widths", "seeds", *MEASURES),
    "align": ("widths", "seeds", *MEASURES),
    "plan": (
        "width", "base-width", "depth", "head-dimension", "vocabulary-size", "sequence-length"
    ),
    "exponents": ("depth",),
    "stress": ("width",),
}  # fmt: skip
NO_INTEGERS = (
    "-1", "1e999999", "nan", "1.5", "", "x", "\uff16\uff14", "18446744073709551616",
    "9" * 5000, "0x10", "8;9",
)  # fmt: skip
NO_RATES = (
    "0", "-1", "nan", "inf", "1e400", "1e-400", "2^", "^2", "2^1e9", "2^-1e9", "\uff12^-8",
    "-2^0.5", "0^-1", "2**-8", "x", "",
)  # fmt: skip
EXPONENTS = "embedding=0,hidden={},readout=1,vector=0"
NO_RECIPES = (
    "", ":", "::", "mup", "mup:adam", "mup:adam:full:full", "MUP:adam:full", "mup:adam:half",
    "mup: adam:full", "mup:\uff41dam:full", "mup:adam:[bold]", "mup:adam:=", "mup:adam:hidden=1",
    *(
        f"mup:adam:{EXPONENTS.format(x)}"
        for x in (
            "", "x", "1e999999", "1e99", "1/0", "inf", "nan", "\u0663", "11", "-11", "1e-99999999",
            "1=2", "1,hidden=2", "1,wieght=2", "1,", "0x1", "1/3/3", "9" * 5000, "1,a\nb=2",
        )
    ),
    *(
        f"mup:{x}:full"
        for x in (
            "adam(", "adam)", "adam()()", "adam(eps)", "adam(eps=)", "adam(eps=1e999)",
            "adam(b1=2)", "adam(eps='x')", "adam(eps=x)", "adam(eps=-1)", "adam(eps=1,eps=1)",
            "adam(b9=1)", "adam(eps=__import__('os'))", "adam(*[1])", "adam(**{})",
            "adam(eps=" + "(" * 5000, "adam(eps=" + "9" * 5000 + ")", "adam(moment_dtype='\n')",
            "adam@adam", "adam\x00(b1=1)", "lion(eps=1)", "sgd(momentum=True)", "optax", "optax.",
            ".adam", "optax.adann@adam", "optax.adam", "optax.adam@x", "optax.adam@",
            "optax.adam(1e-3)@adam", "os.getcwd@adam", "optax.adam(learning_rate=1)@adam",
            "nosuch.x@adam", "x.py:y@adam", "x.py", ".py:y@adam", "a\nb.py:y@adam",
            "optax.polyak_sgd@sgd", "optax.__name__@adam", "math.inf@adam",
        )
    ),
    *(
        f"mup:adam:full:{x}"
        for x in (
            "", "x", "hidden", "hidden=0", "hidden=-1", "hidden=1e99", "hidden=2,hidden=3", "=2",
            "nope=2", "hidden=2:hidden=2",
        )
    ),
)  # fmt: skip
NO_ALIGNMENTS = (
    "", "1", "1,2", "1,1,1,1", "1,1e400,1", "1,1e999999999,1", "1,inf,1", "nan,1,1", "1,1/0,1",
    "a,b,c", "1,,1", "11,1,1", "1,\u0663,1", "1,-1e9,1", "half", "1,0.5,1e-999999999",
)  # fmt: skip


def mistakes() -> Iterator[Case]:
    """Options that have no possible value."""
    for command, options in INTEGERS.items():
        beginning = BEGINNINGS.get(command, (command,))
        for option in options:
            zero = () if option == "seeds" else ("0",)
            for value in (*zero, *NO_INTEGERS):
                several = ("8", value) if option == "widths" else (value,)
                yield Case((*beginning, f"--{option}", *several), said=(f"--{option}",))
    for command, beginning in BEGINNINGS.items():
        option = "--learning-rates" if command == "transfer" else "--learning-rate"
        for value in NO_RATES:
            several = ("1", value, "2") if command == "transfer" else (value,)
            yield Case((*beginning, option, *several), said=(option,))
        for value in ("-1", "1", "nan", "inf", "x", "0.1", "", "1e400"):
            yield Case((*beginning, "--weight-decay", value), said=("--weight-decay",))
        for recipe in NO_RECIPES:
            words = (command, "--recipes", recipe) if command == "transfer" else (command, recipe)
            yield Case(words, said=("",))
    for text in NO_ALIGNMENTS:
        yield Case(("exponents", "--alignments", text), said=("--alignments",))
    for words in (("report", "x" * 5000), ("transfer", "--data", "x" * 5000)):
        yield Case(words, codes=(1, 2), said=("File name too long",))
    yield from _others()


def _others() -> Iterator[Case]:
    for words, said in (
        (("nonsense",), "nonsense"),
        (("transfer", "--nonsense"), "--nonsense"),
        (("transfer", "x"), "x"),
        (("transfer", "--widths", "64"), "--widths has 1 value"),
        (("transfer", "--widths", "64", "64"), "--widths has 64 more than once"),
        (("transfer", "--widths", "64", "100"), "--widths has 100"),
        (("transfer", "--learning-rates", "1", "2"), "--learning-rates has 2 values"),
        (("transfer", "--learning-rates", "1", "2", "2.0"), "more than once"),
        (("transfer", "--learning-rates", "1", "2", "2.0000000001"), "are the same"),
        (("transfer", "--recipes", RECIPE, RECIPE), "more than once"),
        (("transfer", "--recipes", "mup:adamw:full"), "--weight-decay"),
        (("transfer", "--seeds", "0", "0"), "--seeds has 0 more than once"),
        (("transfer", "--seeds", "2147483648"), "--seeds has 2147483648"),
        (("transfer", "--steps", "1", "--steps", "2"), "--steps is given twice"),
        (("transfer", "--base-width=64", "--base_width", "32"), "--base-width is given twice"),
        (("transfer", "--out="), "--out has an empty value"),
        (("transfer", "--out", ""), "--out has an empty value"),
        (("transfer", "--out", " "), "--out has an empty value"),
        (("transfer", "--out"), "--out"),
        (("transfer", "--data", ""), "--data has an empty value"),
        (("transfer", "--widths", "64", "1048576"), "out of memory"),
        (("transfer", "--widths", "64", "8192"), "--at-once"),
        (("transfer", "--depth", "2000000000"), "out of memory"),
        (("transfer", "--batch-size", "2000000000"), "out of memory"),
        (("transfer", "--sequence-length", "2000000000"), "--sequence-length"),
        (("check", RECIPE, "--widths", "64", "1048576"), "out of memory"),
        (("align", RECIPE, "--depth", "2000000000"), "out of memory"),
        (("check", RECIPE, "--batch-size", "2000000000"), "out of memory"),
        (("check", RECIPE, "--sequence-length", "2000000"), "--sequence-length"),
        (("check",), "parameterization:optimizer:rates"),
        (("check", RECIPE, "--seeds"), "--seeds"),
        (("check", RECIPE, "--picture", "folder"), "--picture folder"),
        (("check", RECIPE, "--picture", "text.txt/x.png"), "text.txt"),
        (("check", RECIPE, "--picture", "/proc/x.png"), "/proc/x.png"),
        (("align", RECIPE, "--seeds", "1"), "--seeds has 1 value"),
        (("align", RECIPE, "--picture", "x.png"), "--picture"),
        (("exponents", "--parameterizations", "sp"), "'sp'"),
        (("exponents", "--families", "adamw"), "'adamw'"),
        (("exponents", "--families"), "need a value each"),
        (("exponents", "--json", "--markdown"), "exclude each other"),
        (("exponents", "--depth", "1000000000"), "--depth is 1000000000"),
        (("stress", "--optimizer", "lamb"), "'lamb'"),
        (("stress", "--optimizer"), "no name"),
        (("stress", "--optimizer", "all", "sgd"), "'all'"),
        (("stress", "--dtype", "int4"), "int4"),
        (("stress", "--parameterization", "[red]sp"), "[red]sp"),
        (("stress", "--width", "100"), "--width is 100"),
        (("stress", "--picture", "folder"), "--picture folder"),
        (("stress", "--compare", "nowhere", "text.txt"), "nowhere"),
        (("stress", "--compare", "text.txt"), "--compare"),
        (("stress", "--compare", "text.txt", "text.txt"), "text.txt"),
        (("stress", "--compare", "fifo", "text.txt"), "fifo: it is not a file"),
        (("stress", "--compare", "/dev/zero", "text.txt"), "/dev/zero: it is not a file"),
        (("stress", "--compare", "folder", "text.txt"), "folder: it is not a file"),
        (("stress", "--compare", "loop", "text.txt"), "loop"),
        (("stress", "--compare", "binary", "text.txt"), "binary"),
        (("stress", "--compare", "deep.json", "text.txt"), "deep.json"),
        (("stress", "--compare", "list.json", "text.txt"), "list.json"),
        (("stress", "--compare", "empty.json", "text.txt"), "empty.json"),
        (("stress", "--compare", "huge", "text.txt"), "of memory are free"),
        (("explain", "nothing"), "'nothing'"),
        (("explain", "no_law"), "'no_law'"),
        (("explain", ""), "empty"),
        (("explain", "../weights"), "'../weights'"),
        (("status",), "store"),
        (("status", ""), "empty"),
        (("status", "nowhere"), "nowhere"),
        (("status", "folder"), "folder"),
        (("status", "text.txt"), "text.txt is not a results file"),
        (("status", "binary"), "binary"),
        (("status", "fifo"), "fifo"),
        (("status", "loop"), "loop"),
        (("merge",), "store"),
        (("merge", "merged"), "no files are named"),
        (("merge", "", "folder"), "empty"),
        (("merge", "merged", "nowhere"), "nowhere is no file"),
        (("merge", "merged", "fifo"), "fifo is no file"),
        (("merge", "merged", "loop"), "loop"),
        (("merge", "text.txt", "folder"), "text.txt"),
        (("report",), "store"),
        (("report", ""), "empty"),
        (("report", "nowhere"), "nowhere"),
        (("report", "folder"), "folder"),
        (("report", "text.txt"), "text.txt is not a results file"),
        (("report", "binary"), "binary"),
        (("report", "fifo"), "fifo"),
        (("report", "loop"), "loop"),
        (("report", "/dev/null"), "/dev/null"),
        (("report", "text.txt/x"), "text.txt"),
        (("report", "a\nb"), r"a\nb"),
        (("report", "\udcff"), r"\udcff"),
        (("report", "[bold]nowhere"), "[bold]nowhere"),
    ):
        yield Case(words, said=(said,))


_TEXTS = (
    ("nowhere", "nowhere"), ("empty.txt", "empty.txt"), ("one.txt", "one.txt"),
    ("binary", "binary"), ("null.txt", "null.txt"), ("latin.txt", "latin.txt"),
    ("folder", "folder"), ("fifo", "fifo"), ("loop", "loop"), ("/dev/null", "/dev/null"),
    ("/dev/zero", "/dev/zero"), ("text.txt/x", "text.txt"), ("huge", "of memory are free"),
    ("a\nb", r"a\nb"), ("[red]nowhere[/red]", "[red]nowhere[/red]"), ("\udcff", r"\udcff"),
    ("empty.bin", "empty.bin"), ("odd.bin", "odd.bin"),
    ("huge.bin", "of memory are free"), ("one.bin", "one.bin"), ("empty.npy", "empty.npy"),
    ("cut.npy", "cut.npy"), ("float.npy", "float.npy"), ("object.npy", "object.npy"),
    ("square.npy", "square.npy"), ("negative.npy", "negative.npy"), ("text.npy", "text.npy"),
    ("endless.npy", "endless.npy"), ("large.npy", "large.npy"), ("fifo.bin", "fifo.bin"),
)  # fmt: skip
DATA = [
    *(Case(("transfer", "--data", name), said=(said,)) for name, said in _TEXTS),
    *(Case(("check", RECIPE, "--data", name), said=(said,)) for name, said in _TEXTS),
    *(
        Case(("transfer", "--data", "good.npy", "--vocabulary-size", size), said=(said,))
        for size, said in (("1", "token"), ("0", "vocabulary"), (str(2**40), "vocabulary"))
    ),
    Case(("transfer", "--data", "text.txt", "--vocabulary-size", "256"), said=("leave out",)),
]
FOLDERS = [
    Case(("transfer", *QUICK, "--data", "text.txt", "--out", name), said=(said,))
    for name, said in (
        ("text.txt", "text.txt"), ("text.txt/x", "text.txt"), ("fifo", "fifo"), ("loop", "loop"),
        ("loop/x", "loop"), ("/proc/x", "/proc/x"), ("/dev/null", "/dev/null"),
        ("/sys/kernel/x", "/sys/kernel/x"), ("foreign", "foreign"),
        ("stored", "runs.sqlite"), ("pictured", "transfer.png is a folder"),
    )
]  # fmt: skip
_TRAIN = '"$@" transfer --data text.txt --out {} ' + " ".join(QUICK)
_ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
_FINE: tuple[int, ...] = (0,)
PROCESSES = [
    *(
        Case(shell=shell, environment=environment, codes=codes, said=said)
        for shell, environment, codes, said in (
            (_TRAIN.format("ascii"), _ASCII, _FINE, ()),
            (_TRAIN.format("'odd [bold] :smile: name'"), {}, _FINE, ()),
            (_TRAIN.format(r"$(printf 'not-\377-text')"), {}, _FINE, ()),
            (_TRAIN.format(r"$(printf 'a\033[31m')"), {}, _FINE, ()),
            (_TRAIN.format("narrow"), {"COLUMNS": "1"}, _FINE, ()),
            (_TRAIN.format("wide"), {"COLUMNS": "99999999999"}, _FINE, ()),
            (_TRAIN.format("colourless"), {"NO_COLOR": "1", "TERM": "dumb"}, _FINE, ()),
            (_TRAIN.format("homeless"), {"HOME": None, "XDG_CACHE_HOME": None}, _FINE, ()),
            (_TRAIN.format("closed") + " >&-", {}, _FINE, ()),
            (_TRAIN.format("silent") + " >&- 2>&- <&-", {}, _FINE, ()),
            (_TRAIN.format("full") + " >/dev/full", {}, (1,), ("No space left on device",)),
            # Its first line could not be said, so that it has trained nothing.
            ('"$@" report full', {}, (2,), ("full does not exist",)),
            (
                "mkdir -p junk; : >junk/.scalex-0123456789abcdef.partial; "
                + _TRAIN.format("junk")
                + "; test ! -e junk/.scalex-0123456789abcdef.partial",
                {},
                _FINE,
                (),
            ),
            ('cd / && "$@" plan ' + RECIPE, {}, _FINE, ()),
            ('"$@" exponents | head -n 1', {}, _FINE, ()),
            ('"$@" exponents --json --depth 200 | head -n 1', {}, _FINE, ()),
            ('"$@" exponents >/dev/full', {}, (1,), ("No space left on device",)),
            ('"$@" explain no-law >/dev/full', {}, (1,), ("No space left on device",)),
            ('"$@" exponents', {"COLUMNS": "0"}, _FINE, ()),
            ('"$@" exponents', {"COLUMNS": "\u00b2", "LINES": "-1"}, _FINE, ()),
            ('"$@" exponents', _ASCII, _FINE, ()),
            ('"$@" transfer --steps', _ASCII, (2,), ("--steps",)),
            ('"$@" --help', _ASCII, _FINE, ()),
            ('"$@" report $(printf "\\377")', {}, (2,), ("udcff",)),
            ('"$@" exponents', {"JAX_ENABLE_X64": "maybe"}, (1,), ("JAX_ENABLE_X64",)),
            ('"$@" check ' + RECIPE, {"JAX_PLATFORMS": "nonsense"}, (1,), ("nonsense",)),
            ('"$@" transfer', {"MPLBACKEND": "nonsense"}, (1,), ("nonsense",)),
        )
    ),
]


def make_files(folder: Path) -> None:
    """All files that the cases name."""
    text = "All happy families are alike; " * 200
    contents = {
        "text.txt": text.encode(), "empty.txt": b"", "one.txt": b"a", "binary": bytes(range(256)),
        "null.txt": b"a" * 9000 + b"\0", "latin.txt": b"caf\xe9 " * 100, "empty.bin": b"",
        "odd.bin": b"abc", "one.bin": b"ab", "empty.npy": b"", "text.npy": text.encode(),
        "deep.json": b"[" * 100_000, "list.json": b'{"format": 1, "tables": 3}',
        "empty.json": b"",
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    arrays = {
        "good": np.arange(1000) % 7,
        "float": np.ones(1000),
        "square": np.ones((30, 30), int),
        "negative": np.full(1000, -1),
        "large": np.full(1000, 2**40),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "object.npy", np.array([{}, 1] * 100), allow_pickle=True)
    whole = (folder / "good.npy").read_bytes()
    (folder / "cut.npy").write_bytes(whole[:-100])
    (folder / "endless.npy").write_bytes(whole.replace(b"(1000,)", b"(10**9,"))
    for name in ("huge", "huge.bin"):
        with (folder / name).open("wb") as file:
            file.truncate(2**42)  # Sparse: it takes no room.
    os.mkfifo(folder / "fifo")
    os.mkfifo(folder / "fifo.bin")
    (folder / "loop").symlink_to("loop")
    for name in ("folder", "foreign", "stored", "pictured"):
        (folder / name).mkdir()
    (folder / "folder" / ".hidden").write_text("hidden")
    (folder / "foreign" / "runs.sqlite").write_bytes(b"something else" * 100)
    (folder / "stored" / "runs.sqlite").mkdir()
    (folder / "pictured" / "transfer.png").mkdir()
    assert stat.S_ISFIFO((folder / "fifo").stat().st_mode)
