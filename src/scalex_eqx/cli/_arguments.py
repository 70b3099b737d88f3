"""Mistakes that are seen in the words of a command, before they are parsed."""

from collections.abc import Sequence

from ..experiments import UsageError

# Why the runs of a command can't be divided beforehand.
_WITHOUT_PARTS = {
    "sweep": "a grid adds learning rates where the losses of other runs point",
    "tune": "a sampler learns from the runs before",
}


def check_words(words: Sequence[str]) -> None:
    """Refuses what the parser would read as something else without a word.

    **Raises:** `UsageError` for an empty value, which as a path would be the current folder; for an
    option that is given twice, of which the last would count; for digits other than 0 to 9; and
    for parts of what has none, with the reason.
    """
    seen: set[str] = set()
    last = ""
    for word in words:
        option, _, value = word.partition("=")
        if not option.startswith("--"):
            option, value = last, word
            _check_value(option or "an argument", word)
            continue
        last = option.replace("_", "-")
        if word.endswith("=") and not value:
            _check_value(option, "")
        if value:
            _check_value(option, value)
        if last in seen:
            raise UsageError(f"{last} is given twice; give it once")
        seen.add(last)
    if "--shard" in seen and words[0] in _WITHOUT_PARTS:
        raise UsageError(
            f"scalex {words[0]} has no --shard: {_WITHOUT_PARTS[words[0]]}, and so the runs can't "
            "be divided beforehand; start the same command several times, or give --engine ray"
        )


def _check_value(option: str, value: str) -> None:
    if not value.strip():
        raise UsageError(f"{option} has an empty value; give one, or leave the option out")
    if not value.isascii() and _is_number(value):
        raise UsageError(
            f"{option} has {value!r}; expected digits from 0 to 9: write {_in_ascii(value)}"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _in_ascii(text: str) -> str:
    return "".join(str(int(c)) if c.isdecimal() else c for c in text)
