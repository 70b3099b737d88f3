"""Mistakes that are seen in the words of a command, before they are parsed."""

from collections.abc import Sequence

from ..experiments import UsageError


def check_words(words: Sequence[str]) -> None:
    """Refuses what the parser would read as something else without a word.

    **Raises:** `UsageError` for an empty value, which as a path would be the current folder; for an
    option that is given twice, of which the last would count; and for digits other than 0 to 9.
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
